"""The one ordering of what grants can reach: is this no more than that, in every dimension?

Reflexive, transitive and, on canonical values, antisymmetric; ``tests/scope/test_containment.py`` holds it to
that. There is no union: what reaches further than each of two grants in any dimension is contained in neither, however
the two might be laid together, because nothing here takes more than one outer reach.

Belongs here: comparing. Not here: where a reach comes from (a plan's action, a live lease), and what a
reason for a refusal is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.scope.model import Scope
from broker.scope.narrowing import Narrowings


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything that a grant can reach, or that a request would.

    ``ttl`` and ``ends_at`` bound it in time; None: not bounded in this way. ``further`` is how often it may be
    handed on.
    """

    template: str
    template_digest: str
    connector: str
    account: str
    environment: str
    resource: str
    access: str
    actions: frozenset[str]
    parameters: Mapping[str, str]
    ttl: timedelta | None = None
    ends_at: datetime | None = None
    further: int = 0


@dataclass(frozen=True, slots=True)
class Excess:
    """One dimension in which more is asked than is there, with both values as texts."""

    dimension: str
    there: str
    asked: str

    def __str__(self) -> str:
        return f"{self.dimension} {self.asked or 'without a bound'} is not within {self.there or 'nothing'}"


def reach_of(
    scope: Scope,
    *,
    without: Iterable[str] = (),
    ttl: timedelta | None = None,
    ends_at: datetime | None = None,
    further: int = 0,
) -> Reach:
    """What ``scope`` reaches; the parameters ``without`` are left out."""
    left_out = frozenset(without)
    return Reach(
        template=scope.template,
        template_digest=scope.template_digest,
        connector=scope.connector,
        account=scope.account,
        environment=scope.environment,
        resource=scope.resource,
        access=scope.access.value,
        actions=frozenset(scope.actions),
        parameters={name: value for name, value in scope.parameters.items() if name not in left_out},
        ttl=ttl,
        ends_at=ends_at,
        further=further,
    )


def contains(outer: Reach, inner: Reach, compared: Narrowings) -> bool:
    """Whether ``inner`` is ``outer`` or narrower, in every dimension. ``compared`` is of the outer's template."""
    return next(_excesses(outer, inner, compared), None) is None


def excesses(outer: Reach, inner: Reach, compared: Narrowings) -> tuple[Excess, ...]:
    """The dimensions in which ``inner`` goes beyond ``outer``; none: it is contained."""
    return tuple(_excesses(outer, inner, compared))


_EQUAL = ("template", "template_digest", "connector", "account", "environment", "access")


def _excesses(outer: Reach, inner: Reach, compared: Narrowings) -> Iterator[Excess]:
    for name in _EQUAL:
        there, asked = getattr(outer, name), getattr(inner, name)
        if there != asked:
            yield Excess(name, there, asked)
    if not compared.resource.holds(outer.resource, inner.resource):
        yield Excess("resource", outer.resource, inner.resource)
    if not inner.actions <= outer.actions:
        yield Excess("actions", ",".join(sorted(outer.actions)), ",".join(sorted(inner.actions)))
    yield from _parameters(outer.parameters, inner.parameters, compared)
    if outer.ttl is not None and (inner.ttl is None or inner.ttl > outer.ttl):
        yield Excess("ttl", _seconds(outer.ttl), "" if inner.ttl is None else _seconds(inner.ttl))
    if outer.ends_at is not None and (inner.ends_at is None or inner.ends_at > outer.ends_at):
        yield Excess("end", outer.ends_at.isoformat(), "" if inner.ends_at is None else inner.ends_at.isoformat())
    if inner.further > outer.further:
        yield Excess("delegation depth", str(outer.further), str(inner.further))


def _parameters(outer: Mapping[str, str], inner: Mapping[str, str], compared: Narrowings) -> Iterator[Excess]:
    """A parameter restricts: one that the inner lacks would leave it open, one that the outer lacks is not of it."""
    for name in sorted(outer.keys() | inner.keys()):
        there, asked = outer.get(name), inner.get(name)
        how = compared.parameters.get(name)
        narrower = (
            there is not None
            and asked is not None
            and (there == asked or (how is not None and how.holds(there, asked)))
        )
        if not narrower:
            yield Excess(f"parameter {name}", there or "", asked or "")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g}s"
