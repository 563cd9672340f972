"""What makes one value of a template narrower than another: the template's own text decides.

A value is narrower where whatever the upstream lets through for it, it would also let through for the
other one. That is not a matter of the value's type alone: ``reports/may`` lies within ``reports`` only where
the template continues the value with ``/*``, so that the upstream reads a folder; where it stands alone it is
another object. So each place where the grant uses a parameter is looked at, and the strictest reading
counts. Whatever is not recognised is compared by equality.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import zip_longest

from broker.scope.canonical import JsonValue
from broker.scope.model import ScopeTemplate
from broker.scope.parameters import CidrParameter, Parameter, PrefixParameter


class Narrowing(IntEnum):
    """How two values of a parameter compare, the strictest first."""

    EXACT = 0  # only the same value
    NETWORK = 1  # the same network, or one inside it
    FOLDER = 2  # the same text, or one that goes on after it with a slash
    BEGINNING = 3  # the same text, or one that goes on after it

    def holds(self, outer: str, inner: str) -> bool:
        """Whether ``inner`` is ``outer`` or narrower. Both are canonical texts."""
        if outer == inner:
            return True
        match self:
            case Narrowing.NETWORK:
                return _within(outer, inner)
            case Narrowing.FOLDER:
                return inner.startswith(f"{outer}/")
            case Narrowing.BEGINNING:
                return inner.startswith(outer)
            case _:
                return False


@dataclass(frozen=True, slots=True)
class Narrowings:
    """How the values of one template compare. A parameter that is not named here is compared by equality."""

    resource: Narrowing
    parameters: Mapping[str, Narrowing]


def narrowings(template: ScopeTemplate) -> Narrowings:
    """How the resource and the parameters of ``template`` compare."""
    uses = list(_uses(template.grant))
    declared = {**template.parameters, **{name: each.parameter for name, each in template.from_identity.items()}}
    return Narrowings(
        resource=_strictest(template.resource, [how for name, how in uses if name is None]),
        parameters={
            name: _strictest(each, [how for used, how in uses if used == name]) for name, each in declared.items()
        },
    )


def _strictest(parameter: Parameter, uses: Sequence[Narrowing]) -> Narrowing:
    match parameter:
        case CidrParameter():
            # Where the upstream never sees it, only policy does, and reads it as what it is.
            return min(uses, default=Narrowing.NETWORK) if set(uses) <= {Narrowing.NETWORK} else Narrowing.EXACT
        case PrefixParameter():
            return Narrowing.EXACT if Narrowing.NETWORK in uses else min(uses, default=Narrowing.FOLDER)
        case _:
            return Narrowing.EXACT


def _uses(grant: JsonValue, at: tuple[str, ...] = ()) -> Iterator[tuple[str | None, Narrowing]]:
    """(parameter, how it is used there) for each place in ``grant``; None is the resource."""
    if isinstance(grant, Mapping):
        if _is_reference(grant):
            yield _named(grant), _alone(at)
        else:
            for key, value in grant.items():
                yield from _uses(value, (*at, key))
    elif isinstance(grant, Sequence) and not isinstance(grant, str):
        for segment, after in zip_longest(grant, grant[1:]):
            if isinstance(segment, Mapping) and _is_reference(segment):
                yield _named(segment), _alone(at) if len(grant) == 1 else _followed(after, at)
            else:
                yield from _uses(segment, at)


def _is_reference(segment: Mapping[str, JsonValue]) -> bool:
    """Whether it stands for a value of the request: ``{"parameter": NAME}`` or ``{"resource": true}``."""
    if segment.keys() == {"parameter"}:
        return isinstance(segment["parameter"], str)
    return segment.keys() == {"resource"} and segment["resource"] is True


def _named(segment: Mapping[str, JsonValue]) -> str | None:
    """The parameter; None for the resource."""
    return str(segment["parameter"]) if "parameter" in segment else None


def _alone(at: tuple[str, ...]) -> Narrowing:
    """A whole value: a network where IAM compares it as one (IAM User Guide, IP address condition operators)."""
    return Narrowing.NETWORK if "IpAddress" in at else Narrowing.EXACT


def _followed(after: JsonValue, at: tuple[str, ...]) -> Narrowing:
    """A value inside a longer text: what matters is whether a wildcard comes next, and whether it is one there.

    In a condition it is one for StringLike and ArnLike alone; and where an operator is negated, a longer value lets
    more through, not less.
    """
    if "conditions" in at and _LIKE.isdisjoint(at):
        return Narrowing.EXACT
    text = after.get("text") if isinstance(after, Mapping) else after
    if not isinstance(text, str):
        return Narrowing.EXACT
    if text.startswith("*"):
        return Narrowing.BEGINNING
    return Narrowing.FOLDER if text.startswith("/*") else Narrowing.EXACT


_LIKE = frozenset({"StringLike", "ArnLike"})


def _within(outer: str, inner: str) -> bool:
    try:
        wide, narrow = ipaddress.ip_network(outer), ipaddress.ip_network(inner)
    except ValueError:
        return False
    if isinstance(wide, ipaddress.IPv4Network):
        return isinstance(narrow, ipaddress.IPv4Network) and narrow.subnet_of(wide)
    return isinstance(narrow, ipaddress.IPv6Network) and narrow.subnet_of(wide)
