"""Which policies of a set hold for a request: the one place where Cedar is asked.

Of a deny, Cedar names the forbids and says nothing of the permits. So every policy is handed over as a ``permit``:
whether one holds does not depend on its effect, and then *each* that holds is named. What they come to is said once
for all (:mod:`broker.policy.cedar`), however many parts a set was cut into.

Telling the engine one fact costs more than evaluating a policy, and being asked again about approvals would tell all of
them again. So what is told is what the policies about this kind of request read, and asked again are those alone
that read approvals: the others have answered.

Belongs here: parsing, what is told, asking. Does not belong here: what follows from the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import cedarpy

from broker.policy.question import CIRCUMSTANCES, Form, Parties, Told, entities, form, question, telling
from broker.policy.reads import attributes_read, of_any_action, policies_about, with_attributes, without_circumstances
from broker.policy.slicing import Kind, Policies, cut
from broker.scope.model import AccessClass

# Who-asks-for-what pairs kept ready parsed, a few kilobytes each.
_KEPT = 2048


class Holding(NamedTuple):
    """What was found of one request: the ids of the policies that hold, and every evaluation error."""

    policies: frozenset[str]
    errors: frozenset[str]
    decided: bool = True  # False: the engine refused the question itself


class Engine:
    """A set of policies, parsed, and asked. Immutable to whoever asks; safe from any thread."""

    def __init__(self, policies: Policies, schema: str) -> None:
        """``schema``: what the policies were validated against (Cedar syntax)."""
        schemas = lru_cache(maxsize=None)(partial(_schema, schema))  # no more than there are kinds of request
        # By access class, so that a read pays nothing for the policies about changes.
        self._classes = {access.value: _Class(policies_about(policies, access), schemas) for access in AccessClass}
        self._asked = lru_cache(maxsize=_KEPT)(self._prepared)

    def holding(self, who: Parties, told: Mapping[str, Told]) -> Holding:
        """What holds. Raises ValueError for texts that are none, and for entities that are not of the schema."""
        kind, slices, known = self._asked(who)
        # Told every circumstance, so that one look at the schema is enough for the slices, too.
        circumstances = {name: value for name, value in told.items() if name in kind.reads}
        shape = form(circumstances)
        found = kind.part.ask(who, circumstances, known, None if shape in kind.conforming else kind.schema)
        if found.decided:
            kind.conforming.add(shape)
        for part in slices:
            found = _both(found, part.ask(who, told, known))
        return found

    def holding_with(self, approvals: Told, who: Parties, told: Mapping[str, Told], found: Holding) -> Holding:
        """The same with other approvals, where ``found`` was the answer. Raises as :meth:`holding` does."""
        kind, slices, known = self._asked(who)
        others = {**told, "approvals": approvals}
        for part in (kind.part, *slices):
            if (again := part.again) is not None:
                found = found._replace(policies=found.policies - again.names)
                found = _both(found, again.ask(who, others, known))
        return found

    def _prepared(self, who: Parties) -> _Prepared:
        kind, slices = self._classes[who.access].about(who)
        text, shape = entities(who, kind.reads)
        known = cedarpy.Entities.from_json_str(text, None if shape in kind.conforming else kind.schema)
        if kind.of_any_action:
            kind.conforming.add(shape)
        return _Prepared(kind, slices, known)


class _Class:
    """The policies about one class of access, cut (:mod:`broker.policy.slicing`), each part parsed once."""

    def __init__(self, policies: Policies, schema: Callable[[frozenset[str]], cedarpy.Schema]) -> None:
        self._cut = cut(policies)
        self._schema = schema
        self._slices = tuple(
            (telling(what), {literal: _Part(found) for literal, found in by.items()})
            for what, by in self._cut.by.items()
        )
        self._telling = tuple((telling(what), literals) for what, literals in self._cut.kinds.items())
        # Whatever a slice reads is told to all kinds alike, so that there are no more schemas than kinds.
        self._reads_in_slices = frozenset[str]().union(*(part.reads for _, by in self._slices for part in by.values()))
        self._slices_of_any_action = all(part.of_any_action for _, by in self._slices for part in by.values())
        self._kinds: dict[Kind, _OfKind] = {}

    def about(self, who: Parties) -> tuple[_OfKind, tuple[_Part, ...]]:
        """The policies that can have a say in what ``who`` asks: by the kind of the request, and in slices."""
        kind = tuple(text if (text := tell(who)) in literals else None for tell, literals in self._telling)
        slices = tuple(part for tell, by in self._slices if (part := by.get(tell(who))) is not None)
        # Two threads may both parse it; one is kept.
        return self._kinds.get(kind) or self._kinds.setdefault(kind, self._of_kind(kind)), slices

    def _of_kind(self, kind: Kind) -> _OfKind:
        part = _Part(self._cut.of_kind(kind))
        reads = part.reads | self._reads_in_slices
        return _OfKind(part, reads, self._schema(reads), part.of_any_action and self._slices_of_any_action, set())


class _OfKind(NamedTuple):
    """What one kind of request is decided by, beside the slices.

    ``reads``: every attribute that a policy names that can have a say, slices included; and ``schema`` has no other.
    ``conforming``: the forms of entities and of circumstances that were held against it, and conform. Where a policy
    looks at the action, entities always are: actions are in the schema alone.
    """

    part: _Part
    reads: frozenset[str]
    schema: cedarpy.Schema
    of_any_action: bool
    conforming: set[Form]


class _Prepared(NamedTuple):
    """Who asks for what, ready to be asked about."""

    kind: _OfKind
    slices: tuple[_Part, ...]
    known: cedarpy.Entities


class _Part:
    """Policies that are asked together, parsed."""

    def __init__(self, policies: Policies) -> None:
        self.names = frozenset(policies)
        self.reads = attributes_read(policies, CIRCUMSTANCES)
        self._policies = policies
        shorter = of_any_action(policies)
        self.of_any_action = shorter is not None
        self._parsed = _parsed(policies if shorter is None else shorter)

    @cached_property
    def again(self) -> _Part | None:
        """Those that look at the approvals held; None where there are none."""
        reading = {
            name: policy
            for name, policy in self._policies.items()
            if "approvals" in attributes_read({name: policy}, CIRCUMSTANCES)
        }
        return _Part(reading) if reading else None

    def ask(
        self, who: Parties, told: Mapping[str, Told], known: cedarpy.Entities, schema: cedarpy.Schema | None = None
    ) -> Holding:
        """What holds of these. With a ``schema`` all of ``told`` is told, else what they read."""
        if schema is None:
            told = {name: value for name, value in told.items() if name in self.reads}
        answer = cedarpy.is_authorized(question(who, told), self._parsed, known, schema=schema)
        diagnostics = answer.diagnostics
        decided = answer.decision in (cedarpy.Decision.Allow, cedarpy.Decision.Deny)
        return Holding(frozenset(diagnostics.reasons), frozenset(diagnostics.errors), decided)


def _schema(whole: str, read: frozenset[str]) -> cedarpy.Schema:
    shorter = without_circumstances(with_attributes(whole, read), CIRCUMSTANCES.keys() - read)
    return cedarpy.Schema.from_str(shorter)


def _both(one: Holding, other: Holding) -> Holding:
    return Holding(one.policies | other.policies, one.errors | other.errors, one.decided and other.decided)


def _parsed(policies: Policies) -> cedarpy.PolicySet:
    # Annotations say nothing to the engine, and parsing them takes it as long as all the rest.
    permits: dict[str, Mapping[str, Any]] = {
        name: {"effect": "permit", **{key: policy[key] for key in ("principal", "action", "resource", "conditions")}}
        for name, policy in policies.items()
    }
    return cedarpy.PolicySet.from_json_str(
        json.dumps({"templates": {}, "staticPolicies": permits, "templateLinks": []})
    )
