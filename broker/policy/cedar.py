"""The Cedar policy set: parsed and validated once, asked once per request.

Three rules keep the answer safe, and all three live here. Nothing is allowed that no policy permits.
A policy that fails to evaluate is *skipped* by Cedar, so a ``forbid`` with a bug would open the door:
any evaluation error makes the answer a deny, also one that shows only when the engine is asked again with the
approvals that a gate misses (:mod:`broker.policy.gates`). Each policy has an ``@id`` of its own, so that
decisions name what operators wrote and not a position in a file.

Does not belong here: where policies are kept, and what is done about a deny.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import cedarpy

from broker.errors import InvalidInput, Reason
from broker.lease.credential import ContractClass
from broker.policy.decision import Decision, Effect
from broker.policy.facts import RequestFacts
from broker.policy.gates import gate_problem, opening, through_gates
from broker.policy.mentions import Mention, compared_texts, mentions
from broker.policy.question import CIRCUMSTANCES, Parties, Told, compared, entities, parties, question, told_set
from broker.policy.reads import attributes_read, policies_about, reads_by_access, with_attributes, without_circumstances
from broker.policy.slicing import cut
from broker.policy.statements import Statement, named_line, statements, syntax_line
from broker.policy.static import PERMITS, permits_problem, permits_static
from broker.scope.model import AccessClass

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
# Who-asks-for-what pairs kept ready parsed, a few kilobytes each.
_KEPT = 2048
# Questions whose answer is kept, about a kilobyte each.
_ANSWERS = 2048
_DEFAULT_DENY = "No policy permits this request."
_STATIC_DENY = (
    "Only rotation would end this credential (STATIC), and no policy permits that by name: it takes a permit with the"
    f' annotation @{PERMITS}("{ContractClass.STATIC}").'
)


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """One thing wrong with one policy. ``line`` counts from 1; ``policy`` is empty where unknown."""

    file: str
    line: int
    policy: str
    message: str
    hint: str = ""


class PolicyProblems(InvalidInput):
    """A policy set that cannot be used, with everything that is wrong in it."""

    def __init__(self, problems: tuple[PolicyProblem, ...]) -> None:
        told = "; ".join(f"{p.file}:{p.line}: {p.message}" for p in problems)
        super().__init__(
            Reason.CONFIG_INVALID,
            f"The policy set has {len(problems)} problem(s): {told}.",
            hint="Run broker check on the deploy directory.",
            metadata={"problems": str(len(problems))},
        )
        self.problems = problems


class PolicySet:
    """A validated set of Cedar policies. Immutable; safe to ask from any thread."""

    def __init__(
        self,
        policies: Mapping[str, Mapping[str, Any]],
        schema: str,
        digest: str,
        named: tuple[Mention, ...],
        written: Mapping[str, Statement],
    ) -> None:
        """Use :meth:`parse`."""
        self.statements = written  # by id: each policy as somebody wrote it, and where
        self.mentions = named  # what the policies call by name, for whoever knows whether it is there
        read = attributes_read(policies, CIRCUMSTANCES)
        self.attributes = read  # every attribute that a policy names, of whatever
        self.compared = compared_texts(policies.values())  # and the texts that it is compared with
        self._told = tuple((name, tell) for name, tell in CIRCUMSTANCES.items() if name in read)
        self._names = tuple(name for name, _ in self._told)
        # The circumstances that a policy looks at, by access class: nobody needs to find out about the others.
        self.reads = reads_by_access(policies, CIRCUMSTANCES)
        self._tells_parameters = "parameters" in read
        self._tells_behind = "on_behalf_of" in read
        # Telling a fact costs about as much as evaluating a policy: what none of them reads is not told.
        shorter = without_circumstances(with_attributes(schema, read), CIRCUMSTANCES.keys() - read)
        self._schema = cedarpy.Schema.from_str(shorter)
        self._digest = digest
        self._reasons = {
            name: policy["annotations"]["reason"] for name, policy in policies.items() if _annotation(policy, "reason")
        }
        # By id of the gate: the approval that opens it.
        self._gates = {name: approval for name, policy in policies.items() if (approval := opening(policy))}
        self._for_static = frozenset(name for name, policy in policies.items() if permits_static(policy))
        self._size = len(policies)
        # By access class: every approval that some gate about it names.
        self.approvals_about = {
            access.value: frozenset(filter(None, map(opening, policies_about(policies, access).values())))
            for access in AccessClass
        }
        # By access class, so that a read pays nothing for the policies about changes.
        self._policies = {access.value: _Sliced(policies_about(policies, access)) for access in AccessClass}
        self._entities = lru_cache(maxsize=_KEPT)(self._parse_entities)
        self._answer = lru_cache(maxsize=_ANSWERS)(self._ask)
        self._with_approvals = lru_cache(maxsize=_ANSWERS)(self._ask_again)

    @classmethod
    def parse(cls, files: Mapping[str, str], schema: str) -> PolicySet:
        """The set written in ``files`` (name to text), validated against ``schema`` (Cedar syntax).

        Raises :class:`PolicyProblems` with every problem of every file, and :class:`ValueError` for a
        schema that is none, which is a defect of the broker and not of the operator.
        """
        reader = _Reader(cedarpy.Schema.from_str(schema))
        for file in sorted(files):
            for statement in statements(file, files[file]):
                reader.read(statement)
        if reader.problems:
            raise PolicyProblems(tuple(reader.problems))
        return cls(reader.policies, schema, _digest(files, schema), tuple(reader.mentions), reader.places)

    def __len__(self) -> int:
        return self._size

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the schema and every file's name and text."""
        return self._digest

    def decide(self, facts: RequestFacts) -> Decision:
        """Allow, deny or needs approval, with what made it so. Default deny; an evaluation error is a deny.

        Cedar is a pure function of policies, entities and request, and this set never changes. So the same
        question has the same answer, and a question that was asked before is answered from memory. Nothing
        ages there: whatever may differ from call to call, the hour included, is part of the question as
        soon as a policy reads it.
        """
        # Parameters that no policy reads would only keep two equal questions from being seen as one.
        who = parties(facts, with_parameters=self._tells_parameters, with_behind=self._tells_behind)
        told = tuple(tell(facts) for _, tell in self._told)
        first = self._answer(who, told).decision
        if first.allowed or not self._gates:
            return first
        held = facts.situation.approvals
        decision = through_gates(
            first, held, self._gates, lambda approvals: self._with_approvals(who, told, told_set(approvals))
        )
        return decision if decision is first else replace(decision, explanations=self._explain(decision.policies))

    def _ask(self, who: Parties, circumstances: tuple[Told, ...]) -> _Answered:
        """One evaluation: ALLOW or DENY."""
        answers: list[tuple[cedarpy.AuthzResult, bool]] = []
        try:
            asked = question(who, dict(zip(self._names, circumstances, strict=True)))
            entities = self._entities(who)
            for policies, reads_approvals in self._policies[who.access].about(who):
                # Held against the schema once: it is the same for the others.
                schema = None if answers else self._schema
                answers.append((cedarpy.is_authorized(asked, policies, entities, schema=schema), reads_approvals))
        except ValueError as error:  # texts that are none, or entities that are not of the schema
            return _Answered(self._denied((), (str(error),)), ())
        static = who.contract.cls is ContractClass.STATIC
        indifferent = tuple(answer for answer, reads_approvals in answers if not reads_approvals)
        return _Answered(self._decided([answer for answer, _ in answers], static=static), indifferent)

    def _ask_again(self, who: Parties, circumstances: tuple[Told, ...], approvals: Told) -> Decision:
        """The same as was just asked, with other approvals: what does not read them has answered already."""
        others = [
            approvals if name == "approvals" else told for name, told in zip(self._names, circumstances, strict=True)
        ]
        asked = question(who, dict(zip(self._names, others, strict=True)))
        entities = self._entities(who)
        answers = [*self._answer(who, circumstances).indifferent]
        for policies, reads_approvals in self._policies[who.access].about(who):
            if reads_approvals:
                answers.append(cedarpy.is_authorized(asked, policies, entities))
        return self._decided(answers, static=who.contract.cls is ContractClass.STATIC)

    def _decided(self, answers: Sequence[cedarpy.AuthzResult], *, static: bool) -> Decision:
        """One decision on one request of what its slices say: a forbid of any, else a permit of any, else a deny.

        ``static``: of what only rotation ends, and then a permit counts that says so (:mod:`broker.policy.static`).
        """
        errors = tuple(sorted({error for each in answers for error in each.diagnostics.errors}))
        if any(each.decision not in (cedarpy.Decision.Allow, cedarpy.Decision.Deny) for each in answers):
            return self._denied((), errors or ("the engine gave no decision",))
        forbids, permits = (
            tuple(sorted(name for each in answers if each.decision is said for name in each.diagnostics.reasons))
            for said in (cedarpy.Decision.Deny, cedarpy.Decision.Allow)
        )
        if forbids or not permits:
            return self._denied(forbids, errors)
        if errors:
            return self._denied((), errors)
        if static and not self._for_static.intersection(permits):
            return Decision(Effect.DENY, (), (_STATIC_DENY,), (), self._digest)
        return Decision(Effect.ALLOW, permits, self._explain(permits), (), self._digest)

    def _denied(self, policies: tuple[str, ...], errors: tuple[str, ...]) -> Decision:
        explanations = self._explain(policies)
        if not policies and not errors:
            explanations = (_DEFAULT_DENY,)
        return Decision(Effect.DENY, policies, explanations, errors, self._digest)

    def _explain(self, policies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._reasons[policy] for policy in policies if policy in self._reasons)

    def _parse_entities(self, who: Parties) -> cedarpy.Entities:
        return cedarpy.Entities.from_json_str(entities(who, self.attributes), self._schema)


class _Answered(NamedTuple):
    """One decision, and of what it was made from the answers in which no policy looked at approvals."""

    decision: Decision
    indifferent: tuple[cedarpy.AuthzResult, ...]


class _Sliced:
    """The policies about one class of access, cut (:mod:`broker.policy.slicing`), each part parsed."""

    def __init__(self, policies: Mapping[str, Mapping[str, Any]]) -> None:
        slices = cut(policies)
        self._always = _slice(slices.always)
        self._by = tuple(
            (what, {literal: _slice(found) for literal, found in by.items()}) for what, by in slices.by.items()
        )

    def about(self, who: Parties) -> Iterator[tuple[cedarpy.PolicySet, bool]]:
        """Those that can have a say in what ``who`` asks, in parts, and whether the approvals held matter to each."""
        yield self._always
        for what, by in self._by:
            if (found := by.get(compared(who, what))) is not None:
                yield found


class _Reader:
    """Collects policies and problems, statement by statement."""

    def __init__(self, schema: cedarpy.Schema) -> None:
        self.schema = schema
        self.policies: dict[str, Mapping[str, Any]] = {}
        self.problems: list[PolicyProblem] = []
        self.mentions: list[Mention] = []
        self.places: dict[str, Statement] = {}

    def read(self, statement: Statement) -> None:
        """Takes one statement in, or says what is wrong with it."""
        if message := _syntax_error(statement.text):
            line = syntax_line(statement, message, _syntax_error)
            self.problems.append(PolicyProblem(statement.file, line, "", f"is not Cedar: {message}"))
            return
        parsed = json.loads(cedarpy.policies_to_json_str(statement.text))
        if not parsed["staticPolicies"]:
            self._problem(statement, "", "is a Cedar template (?principal, ?resource)", "Write a policy without slots.")
            return
        (policy,) = parsed["staticPolicies"].values()
        name = _annotation(policy, "id")
        self._check_annotations(statement, name, policy)
        for error in cedarpy.validate_policies(statement.text, self.schema).errors:
            message = error.error.replace(f"for policy `{error.policy_id}`, ", "")
            line = named_line(statement, message)
            hint = "Names and types are in deploy/schemas/broker.cedarschema."
            self.problems.append(PolicyProblem(statement.file, line, name, message, hint))
        self.policies[name] = policy
        self.mentions.extend(mentions(statement, name, policy))
        self.places.setdefault(name, statement)

    def _check_annotations(self, statement: Statement, name: str, policy: Mapping[str, Any]) -> None:
        if not name:
            self._problem(statement, "", "has no @id", 'Start the policy with @id("a-name-of-its-own").')
        elif not _ID.match(name):
            self._problem(statement, name, f"has the @id {name!a}", "Use letters, digits and . _ - (at most 64).")
        elif name in self.places:
            first = self.places[name]
            self._problem(statement, name, f"has the @id {name} again", f"It is taken at {first.file}:{first.line}.")
        if policy["effect"] == "forbid" and not _annotation(policy, "reason"):
            self._problem(statement, name, "forbids without a @reason", "Say what the agent shall read when refused.")
        for wrong in filter(None, (gate_problem(policy), permits_problem(policy))):
            self._problem(statement, name, *wrong)

    def _problem(self, statement: Statement, policy: str, message: str, hint: str) -> None:
        self.problems.append(PolicyProblem(statement.file, statement.line, policy, message, hint))


def _syntax_error(text: str) -> str | None:
    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        return str(error)
    return None


def _annotation(policy: Mapping[str, Any], name: str) -> str:
    # A bare @name is @name(""), which the JSON format writes as null.
    return str(policy.get("annotations", {}).get(name) or "").strip()


def _parsed(policies: Mapping[str, Mapping[str, Any]]) -> cedarpy.PolicySet:
    written = {"templates": {}, "staticPolicies": dict(policies), "templateLinks": []}
    return cedarpy.PolicySet.from_json_str(json.dumps(written))


def _slice(policies: Mapping[str, Mapping[str, Any]]) -> tuple[cedarpy.PolicySet, bool]:
    return _parsed(policies), "approvals" in attributes_read(policies, CIRCUMSTANCES)


def _digest(files: Mapping[str, str], schema: str) -> str:
    digest = hashlib.sha256()
    for part in [schema, *(text for name in sorted(files) for text in (name, files[name]))]:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
