"""``policies/*.test.yaml``: requests, and what the policies beside them are expected to say to each.

Belongs here: the shape of these files and what of it can be wrong without trying a request. They are part of a
deploy set, so that a rule and its proof are reviewed, signed and rolled out together; no decision reads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from broker.deployfiles.models import ParameterName, Slug, Word, Words, unique
from broker.deployfiles.read import Read
from broker.errors import BrokerError, Reason
from broker.files import Duration, Model, Problem
from broker.files.document import Path
from broker.identity.agent import Delivery, Registry, Tier
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import Binding, ContractClass
from broker.policy.cedar import PolicySet
from broker.policy.decision import Effect
from broker.policy.facts import Situation, with_groups
from broker.policy.trial import Outcome, Supposed, Trial, found
from broker.scope.model import AccessClass, BlastRadius, Reversibility, Sensitivity
from broker.scope.request import AccessRequest

# A Monday at noon. A test whose outcome hangs on the time says one.
DEFAULT_TIME = datetime(2026, 1, 5, 12, tzinfo=UTC)
_FIRST_YEAR, _LAST_YEAR = 2000, 2999
REQUIRED = ("agent", "template", "account", "environment", "resource", "ttl")
# The texts that policies can only see the presence of, and the key that is only looked at for being there.
_GIVEN = "given"
_KEY = b"\x01" * 32
_RISK = frozenset({"sensitivity", "blast_radius", "reversibility", "change_type"})
# What may be supposed of the contract, and the field of it that is meant.
_CONTRACT: Mapping[str, str] = {
    "contract_class": "cls",
    "binding": "binding",
    "bound_on_expiry": "on_expiry",
    "bound_on_revoke": "on_revoke",
    "bound_on_broker_dead": "on_broker_dead",
    "bound_on_upstream_dead": "on_upstream_dead",
}
_CLAIMS = ("reason", "prompt", "tool_call", "plan")

Text = Annotated[str, Field(max_length=1024)]


def parse_time(value: str) -> str:
    """Refuses, with :class:`ValueError`, what is no RFC 3339 time with its offset."""
    moment: datetime | None = None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(value)
    # Far from where years end, so that no time zone and no week leads out of the calendar.
    if moment is None or moment.tzinfo is None or "T" not in value or not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError('must be a time with its offset, in quotes, like "2026-12-24T18:00:00Z"')
    return value


def _agent(value: str) -> str:
    if "://" in value:
        try:
            SpiffeId.parse(value)
        except BrokerError as error:
            raise ValueError(error.message.rstrip(".")) from None
    return value


Time = Annotated[str, AfterValidator(parse_time), WithJsonSchema({"type": "string", "format": "date-time"})]


class SupposeEntry(Model):
    """What is taken to be otherwise than in the set: for rules about what the set does not hold yet."""

    contract_class: Annotated[ContractClass, Field(strict=False)] = Field(
        ContractClass.IMMEDIATE, description="How the connector's credentials can be ended."
    )
    binding: Annotated[Binding, Field(strict=False)] = Field(
        Binding.NONE, description="What, besides knowing one, is needed to use it."
    )
    bound_on_expiry: Duration = Field(timedelta(), description="How long one may still work after its deadline.")
    bound_on_revoke: Duration | None = Field(None, description="After a revocation; null: until it expires.")
    bound_on_broker_dead: Duration | None = Field(None, description="Past its end, broker dead; null: no bound.")
    bound_on_upstream_dead: Duration | None = Field(None, description="The same, upstream dead.")
    template_environments: Words = Field(default_factory=list, description="Where the template can be asked for.")
    agent_environments: Words = Field(default_factory=list, description="Where the agent is registered for.")
    access: Annotated[AccessClass, Field(strict=False)] = Field(AccessClass.READ, description="Of the template.")
    sensitivity: Annotated[Sensitivity, Field(strict=False)] = Sensitivity.RESTRICTED
    blast_radius: Annotated[BlastRadius, Field(strict=False)] = BlastRadius.ORGANIZATION
    reversibility: Annotated[Reversibility, Field(strict=False)] = Reversibility.IRREVERSIBLE
    change_type: Slug = ""
    template_promoted: bool = False
    agent_promoted: bool = False
    tier: Annotated[Tier, Field(strict=False)] = Field(Tier.ADVISORY, description="Of the agent.")
    task_type: Slug = Field("", description="Of the task that is asked under.")
    approvals: Annotated[list[Slug], AfterValidator(unique)] = Field(
        default_factory=list, description="The approvals held for this request."
    )
    plan: Literal["", "registered", "confirmed"] = Field("", description="The state of the plan it is a step of.")
    delegators: Annotated[list[Slug], AfterValidator(unique)] = Field(
        default_factory=list, description="Entries of agents/ over which the right was handed on."
    )
    on_behalf_of: Slug = Field("", description="The person the task acts for: a key of people.yaml.")
    tool: Annotated[str, Field(max_length=128)] = Field(
        "", description="The tool that the tool call names. Not said: one that the agent may call."
    )
    active_grants: Words = Field(
        default_factory=list, description="What the agent holds alive: TEMPLATE, or ACCESS:ENVIRONMENT, of each."
    )
    active_count: Annotated[int, Field(ge=0, le=10_000)] = 0
    pending_count: Annotated[int, Field(ge=0, le=10_000)] = 0

    def supposed(self) -> Supposed:
        """For the trial: only what was said."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        risk = {name: said[name] for name in _RISK & said.keys()}
        if "template_promoted" in said:
            risk["promoted"] = self.template_promoted
        agent: dict[str, object] = {"tier": self.tier} if "tier" in said else {}
        if "agent_promoted" in said:
            agent["promoted"] = self.agent_promoted
        return Supposed(
            contract={field: said[name] for name, field in _CONTRACT.items() if name in said},
            template_environments=frozenset(self.template_environments),
            agent_environments=frozenset(self.agent_environments),
            access=self.access if "access" in said else None,
            risk=risk,
            agent=agent,
            situation=Situation(
                task_type=self.task_type,
                approvals=frozenset(self.approvals),
                plan=self.plan,
                delegators=tuple(self.delegators),
                active_grants=with_groups(self.active_grants),
                active_count=self.active_count,
                pending_count=self.pending_count,
            ),
            on_behalf_of=self.on_behalf_of,
            tool=self.tool,
        )


class RequestEntry(Model):
    """A request as somebody might make it. Texts are empty, and flags false, where nothing is said."""

    agent: Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_agent)] = Field(
        "", description="A file of agents/ (without .yaml), or the SPIFFE ID of a registered agent."
    )
    template: Slug = ""
    parameters: dict[ParameterName, Text] = Field(default_factory=dict)
    account: Word = ""
    environment: Word = ""
    resource: Text = ""
    ttl: Duration = Field(default_factory=timedelta)
    time: Time = Field(DEFAULT_TIME.isoformat(), description="The moment of asking. Not said: a Monday at noon, UTC.")
    step: Text = ""
    intent: Text = ""
    ticket: Text = ""
    reason: bool = Field(False, description="Whether a reason is given; so, too, prompt, tool_call and plan.")
    prompt: bool = False
    tool_call: bool = False
    plan: bool = False
    delivery: Annotated[Delivery, Field(strict=False)] = Delivery.DIRECT
    sealed: bool = False
    suppose: SupposeEntry = Field(default_factory=SupposeEntry)

    def trial(self) -> Trial:
        """The request to be tried."""
        given: dict[str, Any] = {name: _GIVEN for name in _CLAIMS if getattr(self, name)}
        return Trial(
            agent=self.agent,
            request=AccessRequest(
                request_id="policy-test",
                template=self.template,
                task_id="policy-test",
                account=self.account,
                environment=self.environment,
                resource=self.resource,
                ttl=self.ttl,
                parameters=self.parameters,
                step=self.step,
                intent=self.intent,
                ticket=self.ticket,
                recipient_public_key=_KEY if self.sealed else b"",
                **given,
            ),
            now=datetime.fromisoformat(self.time),
            delivery=self.delivery,
            supposed=self.suppose.supposed(),
        )


class ExpectEntry(Model):
    """What must be decided. What is not said is not looked at."""

    effect: Literal["allow", "deny", "needs_approval"]
    policies: Annotated[list[str], Field(max_length=64)] = Field(
        default_factory=list, description="The @id of each policy that decides, all of them; [] for the default deny."
    )
    reason: Annotated[Reason, Field(strict=False)] = Field(
        Reason.POLICY_DENIED, description="The reason of the refusal: POLICY_DENIED where policy refuses."
    )

    approvals: list[Slug] = Field(
        default_factory=list, description="With needs_approval: the approvals that are missing, all of them."
    )

    def unmet(self, outcome: Outcome) -> tuple[str, ...]:
        """What of it ``outcome`` is not: names of fields."""
        wrong = [] if outcome.effect is Effect(self.effect.upper()) else ["effect"]
        if "policies" in self.model_fields_set and sorted(self.policies) != sorted(outcome.policies):
            wrong.append("policies")
        if "reason" in self.model_fields_set and self.reason is not outcome.reason:
            wrong.append("reason")
        if "approvals" in self.model_fields_set and sorted(self.approvals) != sorted(outcome.approvals):
            wrong.append("approvals")
        return tuple(wrong)


class CaseEntry(Model):
    """One request, and what is expected."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="What rule it is an example of.")
    request: RequestEntry
    expect: ExpectEntry


class PolicyTestsFile(Model):
    """policies/*.test.yaml."""

    given: RequestEntry = Field(
        default_factory=RequestEntry, description="What every request says, unless it says otherwise."
    )
    tests: list[CaseEntry] = Field(min_length=1, max_length=1000)


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One test and its place; ``line`` counts from 1."""

    file: str
    line: int
    name: str
    trial: Trial
    expect: ExpectEntry


def tests_of(files: Iterable[Read[PolicyTestsFile]]) -> list[PolicyTest]:
    """Every test of files in which nothing is wrong."""
    return [
        PolicyTest(
            file.document.file,
            file.document.line(("tests", index)),
            entry.name,
            together(file.content.given, entry.request).trial(),
            entry.expect,
        )
        for file in files
        for index, entry in enumerate(file.content.tests)
    ]


def together(given: RequestEntry, request: RequestEntry) -> RequestEntry:
    """``request``, and of ``given`` what it does not say. Mappings are taken whole."""
    said: dict[str, Any] = {name: getattr(given, name) for name in given.model_fields_set}
    said |= {name: getattr(request, name) for name in request.model_fields_set}
    return RequestEntry.model_construct(_fields_set=set(said), **{**_defaults(), **said})


def incomplete(file: Read[PolicyTestsFile]) -> Iterator[Problem]:
    """Tests that leave out what every request names, that come twice, or that cannot be met."""
    first: dict[str, int] = {}
    for index, entry in enumerate(file.content.tests):
        at: Path = ("tests", index)
        line = file.document.line(at)
        if first.setdefault(entry.name, line) != line:
            yield file.problem((*at, "name"), "comes twice", f"It is already in line {first[entry.name]}.")
        said = file.content.given.model_fields_set | entry.request.model_fields_set
        for name in REQUIRED:
            if name not in said:
                hint = "Say it here, or for all in given."
                yield Problem(file.document.file, line, f"tests.{index}.request.{name}", "is missing", hint)
        expect = entry.expect
        if expect.effect != "deny" and "reason" in expect.model_fields_set:
            yield file.problem((*at, "expect", "reason"), f"is of refusals, and {expect.effect} is expected")
        if expect.effect != "needs_approval" and expect.approvals:
            yield file.problem((*at, "expect", "approvals"), f"are missing, and {expect.effect} is expected")


def unknown_names(
    file: Read[PolicyTestsFile],
    registry: Registry,
    policies: PolicySet | None,
    approvals: Collection[str] | None,
    people: Collection[str],
) -> Iterator[Problem]:
    """What is named and is not there: entries, policies, approvals, persons.

    An unregistered SPIFFE ID may be what is tested. ``approvals`` is None where they are not known.
    """
    places: list[tuple[Path, RequestEntry]] = [(("given",), file.content.given)]
    places += [(("tests", index, "request"), entry.request) for index, entry in enumerate(file.content.tests)]
    for at, request in places:
        if request.agent and "://" not in request.agent:
            try:
                found(request.agent, registry)
            except BrokerError as error:
                yield file.problem((*at, "agent"), error.message.rstrip("."), error.hint)
        suppose = request.suppose
        if suppose.on_behalf_of and suppose.on_behalf_of not in people:
            yield file.problem((*at, "suppose", "on_behalf_of"), f"{suppose.on_behalf_of} is not in people.yaml")
        yield from _unknown_approvals(file, (*at, "suppose", "approvals"), suppose.approvals, approvals)
    for index, entry in enumerate(file.content.tests):
        yield from _unknown_approvals(file, ("tests", index, "expect", "approvals"), entry.expect.approvals, approvals)
        for number, name in enumerate(entry.expect.policies):
            if policies is not None and name not in policies.statements:
                at = ("tests", index, "expect", "policies", number)
                yield file.problem(at, f"{name!a} is no policy of this set", "Policies are named by their @id.")


def _unknown_approvals(
    file: Read[PolicyTestsFile], at: Path, named: Iterable[str], approvals: Collection[str] | None
) -> Iterator[Problem]:
    for number, name in enumerate(named):
        if approvals is not None and name not in approvals:
            known = ", ".join(sorted(approvals)) or "none"
            yield file.problem((*at, number), f"{name} is no rule of approvals.yaml", f"There is: {known}.")


def _defaults() -> Mapping[str, Any]:
    empty = RequestEntry()
    return {name: getattr(empty, name) for name in RequestEntry.model_fields}
