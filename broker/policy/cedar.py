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
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import cedarpy

from broker.errors import InvalidInput, Reason
from broker.lease.credential import ContractClass
from broker.policy.decision import Decision, Effect
from broker.policy.engine import Engine, Holding
from broker.policy.facts import RequestFacts
from broker.policy.gates import gate_problem, opening, through_gates
from broker.policy.mentions import Mention, compared_texts, mentions
from broker.policy.nesting import HINT as DEPTH_HINT
from broker.policy.nesting import too_deep, tree
from broker.policy.question import CIRCUMSTANCES, Parties, Told, parties, told_set
from broker.policy.reads import attributes_read, policies_about, reads_by_access
from broker.policy.statements import Statement, named_line, statements, syntax_line
from broker.policy.static import PERMITS, permits_problem, permits_static
from broker.scope.blank import blank
from broker.scope.model import AccessClass

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
# Questions whose answer is kept, about a kilobyte each.
_ANSWERS = 2048
# Sets kept parsed: what is in force, and what is looked at beside it. A reload rarely changes policies.
_SETS = 4
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
        self._engine = Engine(policies, schema)
        self._digest = digest
        self._reasons = {
            name: policy["annotations"]["reason"] for name, policy in policies.items() if _annotation(policy, "reason")
        }
        # By id of the gate: the approval that opens it.
        self._gates = {name: approval for name, policy in policies.items() if (approval := opening(policy))}
        self._forbids = frozenset(name for name, policy in policies.items() if policy["effect"] == "forbid")
        self._for_static = frozenset(name for name, policy in policies.items() if permits_static(policy))
        self._size = len(policies)
        # By access class: every approval that some gate about it names.
        self.approvals_about = {
            access.value: frozenset(filter(None, map(opening, policies_about(policies, access).values())))
            for access in AccessClass
        }
        self._answer = lru_cache(maxsize=_ANSWERS)(self._ask)

    @classmethod
    def parse(cls, files: Mapping[str, str], schema: str) -> PolicySet:
        """The set written in ``files`` (name to text), validated against ``schema`` (Cedar syntax).

        Raises :class:`PolicyProblems` with every problem of every file, and :class:`ValueError` for a
        schema that is none, which is a defect of the broker and not of the operator. The same texts give the same
        object, as long as it is one of the last few.
        """
        return _validated(tuple(sorted(files.items())), schema)

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
        answered = self._answer(who, told)
        first = answered.decision
        if first.allowed or not self._gates:
            return first
        held = facts.situation.approvals
        decision = through_gates(
            first, held, self._gates, lambda approvals: self._ask_again(answered, who, told, told_set(approvals))
        )
        return decision if decision is first else replace(decision, explanations=self._explain(decision.policies))

    def _ask(self, who: Parties, circumstances: tuple[Told, ...]) -> _Answered:
        """One evaluation: ALLOW or DENY."""
        try:
            holding = self._engine.holding(who, dict(zip(self._names, circumstances, strict=True)))
        except ValueError as error:  # texts that are none, or entities that are not of the schema
            holding = Holding(frozenset(), frozenset((str(error),)))
        return _Answered(self._decided(who, holding), holding, {})

    def _ask_again(self, answered: _Answered, who: Parties, circumstances: tuple[Told, ...], held: Told) -> Decision:
        """The same as was just asked, with other approvals."""
        decision = answered.with_approvals.get(held)
        if decision is None:
            told = dict(zip(self._names, circumstances, strict=True))
            decision = self._decided(who, self._engine.holding_with(held, who, told, answered.holding))
            answered.with_approvals[held] = decision
        return decision

    def _decided(self, who: Parties, holding: Holding) -> Decision:
        """What is decided where these policies hold: a forbid of any, else an error, else a permit of any, else a deny.

        Of what only rotation ends, a permit counts that says so (:mod:`broker.policy.static`).
        """
        errors = tuple(sorted(holding.errors))
        if not holding.decided:
            return self._denied((), errors or ("the engine gave no decision",))
        forbids = tuple(sorted(holding.policies & self._forbids))
        permits = tuple(sorted(holding.policies - self._forbids))
        if forbids or errors or not permits:
            return self._denied(forbids, errors)
        if who.contract.cls is ContractClass.STATIC and not self._for_static.intersection(permits):
            return Decision(Effect.DENY, (), (_STATIC_DENY,), (), self._digest)
        return Decision(Effect.ALLOW, permits, self._explain(permits), (), self._digest)

    def _denied(self, policies: tuple[str, ...], errors: tuple[str, ...]) -> Decision:
        explanations = self._explain(policies)
        if not policies and not errors:
            explanations = (_DEFAULT_DENY,)
        return Decision(Effect.DENY, policies, explanations, errors, self._digest)

    def _explain(self, policies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._reasons[policy] for policy in policies if policy in self._reasons)


class _Answered(NamedTuple):
    """One decision, what it was made from, and what was found since to be decided with other approvals."""

    decision: Decision
    holding: Holding
    with_approvals: dict[Told, Decision]


@lru_cache(maxsize=_SETS)
def _validated(files: tuple[tuple[str, str], ...], schema: str) -> PolicySet:
    reader = _Reader(cedarpy.Schema.from_str(schema))
    for file, text in files:
        for statement in statements(file, text):
            reader.read(statement)
    if reader.problems:
        raise PolicyProblems(tuple(reader.problems))
    return PolicySet(reader.policies, schema, _digest(dict(files), schema), tuple(reader.mentions), reader.places)


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
        if deep := too_deep(statement.text):
            self._problem(statement, "", deep, DEPTH_HINT)
            return
        if message := _syntax_error(statement.text):
            line = syntax_line(statement, message, _syntax_error)
            self.problems.append(PolicyProblem(statement.file, line, "", f"is not Cedar: {message}"))
            return
        parsed = tree(cedarpy.policies_to_json_str(statement.text))
        if parsed is None:
            self._problem(statement, "", "is a chain or a nest of too many operators", DEPTH_HINT)
            return
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
    said = str(policy.get("annotations", {}).get(name) or "")
    return "" if blank(said) else said.strip()


def _digest(files: Mapping[str, str], schema: str) -> str:
    digest = hashlib.sha256()
    for part in [schema, *(text for name in sorted(files) for text in (name, files[name]))]:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
