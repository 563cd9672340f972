"""``policies/*.test.yaml``: requests, and what the policies beside them are expected to say to each.

Belongs here: the shape of these files and what of it can be wrong without trying a request. They are part of a
deploy set, so that a rule and its proof are reviewed, signed and rolled out together; no decision reads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from broker.deployfiles.models import ParameterName, Slug, Word, Words
from broker.deployfiles.read import Read
from broker.errors import BrokerError, Reason
from broker.files import Duration, Model, Problem
from broker.files.document import Path
from broker.identity.agent import Delivery, Registry
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import ContractClass
from broker.policy.cedar import PolicySet
from broker.policy.decision import Effect
from broker.policy.trial import Outcome, Supposed, Trial, found
from broker.scope.request import AccessRequest

# A Monday at noon. A test whose outcome hangs on the time says one.
DEFAULT_TIME = datetime(2026, 1, 5, 12, tzinfo=UTC)
_FIRST_YEAR, _LAST_YEAR = 2000, 2999
REQUIRED = ("agent", "template", "account", "environment", "resource", "ttl")
# The texts that policies can only see the presence of, and the key that is only looked at for being there.
_GIVEN = "given"
_KEY = b"\x01" * 32
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
    template_environments: Words = Field(default_factory=list, description="Where the template can be asked for.")
    agent_environments: Words = Field(default_factory=list, description="Where the agent is registered for.")


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
        supposed = self.suppose
        known = supposed.model_fields_set
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
                **{name: _GIVEN for name in _CLAIMS if getattr(self, name)},
            ),
            now=datetime.fromisoformat(self.time),
            delivery=self.delivery,
            supposed=Supposed(
                contract_class=supposed.contract_class.value if "contract_class" in known else "",
                template_environments=frozenset(supposed.template_environments),
                agent_environments=frozenset(supposed.agent_environments),
            ),
        )


class ExpectEntry(Model):
    """What must be decided. What is not said is not looked at."""

    effect: Literal["allow", "deny"]
    policies: Annotated[list[str], Field(max_length=64)] = Field(
        default_factory=list, description="The @id of each policy that decides, all of them; [] for the default deny."
    )
    reason: Annotated[Reason, Field(strict=False)] = Field(
        Reason.POLICY_DENIED, description="The reason of the refusal: POLICY_DENIED where policy refuses."
    )

    def unmet(self, outcome: Outcome) -> tuple[str, ...]:
        """What of it ``outcome`` is not: names of fields."""
        wrong = [] if outcome.effect is Effect(self.effect.upper()) else ["effect"]
        if "policies" in self.model_fields_set and sorted(self.policies) != sorted(outcome.policies):
            wrong.append("policies")
        if "reason" in self.model_fields_set and self.reason is not outcome.reason:
            wrong.append("reason")
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
        if entry.expect.effect == "allow" and "reason" in entry.expect.model_fields_set:
            yield file.problem((*at, "expect", "reason"), "is of refusals, and allow is expected")


def unknown_names(file: Read[PolicyTestsFile], registry: Registry, policies: PolicySet | None) -> Iterator[Problem]:
    """Entries and policies that are named and are not there. An unregistered SPIFFE ID may be what is tested."""
    places: list[tuple[Path, RequestEntry]] = [(("given",), file.content.given)]
    places += [(("tests", index, "request"), entry.request) for index, entry in enumerate(file.content.tests)]
    for at, request in places:
        if request.agent and "://" not in request.agent:
            try:
                found(request.agent, registry)
            except BrokerError as error:
                yield file.problem((*at, "agent"), error.message.rstrip("."), error.hint)
    for index, entry in enumerate(file.content.tests):
        for number, name in enumerate(entry.expect.policies):
            if policies is not None and name not in policies.statements:
                at = ("tests", index, "expect", "policies", number)
                yield file.problem(at, f"{name!a} is no policy of this set", "Policies are named by their @id.")


def _defaults() -> Mapping[str, Any]:
    empty = RequestEntry()
    return {name: getattr(empty, name) for name in RequestEntry.model_fields}
