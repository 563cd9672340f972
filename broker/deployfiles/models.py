"""The YAML shapes of a deploy set, one model per kind of file. The JSON Schemas are made from these."""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from broker.deployfiles.instants import Instant
from broker.deployfiles.kinds import ConnectorEntry
from broker.errors import Unauthenticated
from broker.files import Duration, Model
from broker.identity.agent import Tier
from broker.identity.operator import Role
from broker.identity.pattern import MAX_LISTED, IdPattern, Matching, OneOf
from broker.identity.spiffe_id import SpiffeId
from broker.scope.model import (
    MANDATORY_FIELDS,
    AccessClass,
    BlastRadius,
    OnPolicyChange,
    Reversibility,
    Sensitivity,
)
from broker.scope.parameters import (
    MAX_INTEGER,
    MAX_PATTERN,
    MAX_VALUE,
    CidrParameter,
    EnumParameter,
    IntegerParameter,
    IpNetwork,
    Parameter,
    PrefixParameter,
    RegexParameter,
    compile_pattern,
)


def _spiffe_id(value: str) -> str:
    try:
        SpiffeId.parse(value)
    except Unauthenticated as error:
        raise ValueError(error.message.rstrip(".")) from None
    return value


def _spiffe_id_pattern(value: str) -> str:
    IdPattern.parse(value)
    return value


def _pattern(value: str) -> str:
    compile_pattern(value)
    return value


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=True)
    return value


def _mandatory(value: str) -> str:
    if value not in MANDATORY_FIELDS:
        raise ValueError(f"must be one of {', '.join(sorted(MANDATORY_FIELDS))}")
    return value


def _between(shortest: timedelta, longest: timedelta) -> Callable[[timedelta], timedelta]:
    def check(value: timedelta) -> timedelta:
        if not shortest <= value <= longest:
            raise ValueError(f"must be between {_span(shortest)} and {_span(longest)}")
        return value

    return check


def _span(value: timedelta) -> str:
    for unit, size in (("d", timedelta(days=1)), ("h", timedelta(hours=1))):
        if value >= size and not value % size:
            return f"{value // size}{unit}"
    return f"{value // timedelta(minutes=1)}m"


def unique(values: list[str]) -> list[str]:
    """``values`` themselves. Raises :class:`ValueError` for one that is listed twice."""
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"lists {', '.join(twice)} twice")
    return values


Slug = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
# Accounts, environments, roles, actions: names, without anything that could be read as a pattern.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Words = Annotated[list[Word], AfterValidator(unique)]
# A tool as its own server names it: printable, without a space.
Tool = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Tools = Annotated[list[Tool], Field(min_length=1, max_length=1000), AfterValidator(unique)]
# What an identity provider writes into acr and amr: printable, without a space.
Claim = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Sentence = Annotated[str, Field(min_length=1, max_length=500)]
Network = Annotated[str, AfterValidator(_network)]
MandatoryField = Annotated[
    str, AfterValidator(_mandatory), WithJsonSchema({"type": "string", "enum": sorted(MANDATORY_FIELDS)})
]


# --------------------------------------------------------------------------- agents and people


class QuotasEntry(Model):
    """How much the agent may hold at a time."""

    live_leases: Annotated[int, Field(ge=1, le=10_000)] = 20
    open_tasks: Annotated[int, Field(ge=1, le=10_000)] = 10
    pending_requests: Annotated[int, Field(ge=1, le=1_000, description="Access requests that wait for people.")] = 5


class SegmentEntry(Model):
    """What a named segment of a pattern may be: one of these values, or what an RE2 pattern (^...$) matches."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["enum"]}, {"required": ["regex"]}]})

    enum: list[str] = Field(default_factory=list, max_length=MAX_LISTED)
    regex: Annotated[str, Field(max_length=MAX_PATTERN), AfterValidator(_pattern)] = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> SegmentEntry:
        if len(self.model_fields_set) != 1:
            raise ValueError("says enum or regex, one of the two")
        self.build()
        return self

    def build(self) -> OneOf | Matching:
        """The restriction. Raises :class:`ValueError` for values that no SPIFFE ID could have."""
        if not self.regex:
            return OneOf(frozenset(unique(self.enum)))
        compiled = compile_pattern(self.regex)
        return Matching(self.regex, lambda value: compiled.fullmatch(value) is not None)


class AgentFile(Model):
    """agents/*.yaml: one registered workload, or all whose SPIFFE ID has one form."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["spiffe_id"]}, {"required": ["spiffe_id_pattern"]}]}
    )

    spiffe_id: Annotated[str, AfterValidator(_spiffe_id)] = Field("", description="Of one workload.")
    spiffe_id_pattern: Annotated[str, AfterValidator(_spiffe_id_pattern)] = Field(
        "", description="Of many workloads: a SPIFFE ID in which whole segments of the path are named, like {job}."
    )
    segments: dict[ParameterName, SegmentEntry] = Field(
        default_factory=dict, description="What the pattern's named segments may be. Not listed: anything."
    )
    overrides: Slug = Field(
        "", description="The file (without .yaml) of a pattern that would match this spiffe_id, if there is one."
    )
    description: Sentence
    owner: Slug = Field(description="The person who answers for it: a key of people.yaml.")
    tier: Annotated[Tier, Field(strict=False)]
    environments: Words = Field(min_length=1)
    roles: Words = Field(default_factory=list)
    quotas: QuotasEntry = QuotasEntry()
    promoted: bool = Field(False, description="Whether it has been promoted into production. Policies decide on it.")
    tools: Tools | None = Field(
        None, description="The only tools whose calls it may ask for; each request then names one. Left out: any."
    )


class MayEntry(Model):
    """What agents may do on a person's behalf; the agent itself must be allowed it, too."""

    access: list[Annotated[AccessClass, Field(strict=False)]] = Field(min_length=1)
    environments: Words = Field(min_length=1)
    templates: list[Slug] = Field(default_factory=list, description="Left out: whichever.")


class PersonEntry(Model):
    """One human, named by (issuer, subject) as their identity provider does."""

    issuer: Annotated[str, Field(pattern=r"^https://[^\s#?]+$", max_length=512)]
    subject: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]
    display_name: Annotated[str, Field(min_length=1, max_length=128)]
    email: Annotated[str, Field(max_length=254)] = ""
    groups: Words = Field(
        default_factory=list, description="That this person may hold; the provider may be asked which of them it does."
    )
    disabled: bool = False
    until: Instant | None = Field(None, description="From then on as if disabled.")
    may: MayEntry | None = Field(None, description="What agents may do on their behalf. Left out: nothing.")


class AutomationEntry(Model):
    """One workload of operators' own, by its X.509-SVID: it looks and stops, and never decides."""

    spiffe_id: Annotated[str, AfterValidator(_spiffe_id)]
    owner: Slug = Field(description="Who answers for it: a key of people.")
    roles: Annotated[list[Annotated[Role, Field(strict=False)]], Field(min_length=1)]
    description: Annotated[str, Field(max_length=128)] = ""
    until: Instant | None = Field(None, description="From then on as if it were not there.")


class PeopleFile(Model):
    """people.yaml."""

    people: dict[Slug, PersonEntry] = Field(min_length=1)
    automation: dict[Slug, AutomationEntry] = Field(
        default_factory=dict, description="Workloads that operate the broker, with listen.automation."
    )


# --------------------------------------------------------------------------- parameters


class _Spec(Model, ABC):
    from_identity: ParameterName = Field(
        "", description="Of a parameter: the named segment of the agent's SPIFFE ID that gives its value."
    )

    @abstractmethod
    def build(self, name: str) -> Parameter:
        """The parameter called ``name``. Raises :class:`ValueError` where the parts do not fit."""

    @model_validator(mode="after")
    def _fits(self) -> _Spec:
        self.build("parameter")
        return self


class EnumSpec(_Spec):
    """One of these values."""

    type: Literal["enum"]
    values: list[str] = Field(min_length=1, max_length=256)

    def build(self, name: str) -> Parameter:
        """See the base."""
        return EnumParameter(name, tuple(self.values))


class RegexSpec(_Spec):
    """Text that fully matches an RE2 pattern, written ^...$."""

    type: Literal["regex"]
    pattern: Annotated[str, Field(max_length=MAX_PATTERN), AfterValidator(_pattern)]
    max_length: Annotated[int, Field(ge=1, le=MAX_VALUE)]

    def build(self, name: str) -> Parameter:
        """See the base."""
        return RegexParameter(name, self.pattern, self.max_length)


class PrefixSpec(_Spec):
    """Text below a fixed beginning."""

    type: Literal["prefix"]
    prefix: Annotated[str, Field(min_length=1, max_length=MAX_VALUE)]
    max_length: Annotated[int, Field(ge=1, le=MAX_VALUE)] = 256

    def build(self, name: str) -> Parameter:
        """See the base."""
        return PrefixParameter(name, self.prefix, self.max_length)


class IntegerSpec(_Spec):
    """A whole number in a range."""

    type: Literal["integer"]
    minimum: Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
    maximum: Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]

    def build(self, name: str) -> Parameter:
        """See the base."""
        return IntegerParameter(name, self.minimum, self.maximum)


class CidrSpec(_Spec):
    """A network inside others."""

    type: Literal["cidr"]
    within: list[Network] = Field(min_length=1, max_length=64)
    min_prefix_length: Annotated[int, Field(ge=0, le=128)]

    def build(self, name: str) -> Parameter:
        """See the base."""
        within: tuple[IpNetwork, ...] = tuple(ipaddress.ip_network(network) for network in self.within)
        return CidrParameter(name, within, self.min_prefix_length)


ParameterSpec = Annotated[EnumSpec | RegexSpec | PrefixSpec | IntegerSpec | CidrSpec, Field(discriminator="type")]


# --------------------------------------------------------------------------- templates and connectors


class RateEntry(Model):
    """How often a group may break glass."""

    uses: Annotated[int, Field(ge=1, le=100)] = 3
    per: Annotated[Duration, AfterValidator(_between(timedelta(hours=1), timedelta(days=31)))] = timedelta(hours=24)


class StrongEntry(Model):
    """How well who breaks glass must have logged in, in the words of the identity provider (OpenID Connect Core, 2)."""

    acr: list[Claim] = Field(default_factory=list, max_length=16, description="One of these.")
    amr: list[Claim] = Field(default_factory=list, max_length=16, description="All of these (RFC 8176): mfa, hwk, ...")

    @model_validator(mode="after")
    def _says_something(self) -> StrongEntry:
        if not self.acr and not self.amr:
            raise ValueError("says neither acr nor amr")
        return self


class BreakGlassEntry(Model):
    """Who may pass over approvals in an emergency. A template without this section is for nobody's emergency."""

    groups: Words = Field(min_length=1, max_length=16, description="Groups of people.yaml that are pre-authorised.")
    max_ttl: Annotated[Duration, AfterValidator(_between(timedelta(minutes=1), timedelta(hours=12)))] = Field(
        description="The longest that an emergency's credential lives; 1m to 12h. It may exceed the template's max_ttl."
    )
    review_within: Annotated[Duration, AfterValidator(_between(timedelta(hours=1), timedelta(days=7)))] = Field(
        timedelta(hours=24), description="How soon somebody else must have reviewed it; 1h to 7d. Default: 24h."
    )
    rate: RateEntry = Field(RateEntry(), description="Of each of its groups. Default: 3 in 24h.")
    strong: StrongEntry | None = Field(None, description="Default: any fresh login.")


class TemplateFile(Model):
    """templates/*.yaml: one named, typed, bounded way to ask."""

    name: Slug
    description: Sentence
    connector: Slug
    accounts: Words = Field(min_length=1)
    environments: Words = Field(min_length=1)
    resource: ParameterSpec
    access: Annotated[AccessClass, Field(strict=False)]
    actions: Words = Field(min_length=1)
    max_ttl: Duration
    sensitivity: Annotated[Sensitivity, Field(strict=False)] = Field(
        Sensitivity.RESTRICTED,
        description="Of the data that can be reached. Not said: the worst, as in the next three.",
    )
    blast_radius: Annotated[BlastRadius, Field(strict=False)] = Field(
        BlastRadius.ORGANIZATION, description="How far the worst use reaches."
    )
    reversibility: Annotated[Reversibility, Field(strict=False)] = Field(
        Reversibility.IRREVERSIBLE, description="How what is done with it can be undone."
    )
    change_type: Slug = Field(
        "undeclared", description="What is changed: none, data, schema, config, code, infrastructure, ..."
    )
    promoted: bool = Field(False, description="Whether it has been promoted into production. Policies decide on it.")
    on_policy_change: Annotated[OnPolicyChange, Field(strict=False)] = Field(
        OnPolicyChange.REPORT,
        description="What becomes of live leases that a new deploy set would not grant any more: reported, or revoked.",
    )
    max_delegation_depth: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None, description="How often in a row its leases are handed on, 0: never; at most what brokerd's limits say."
    )
    wrapping: Literal["allowed", "refused"] = Field(
        "refused",
        description="Whether agents may ask for it wrapped: kept by the server for one reader, who unwraps it.",
    )
    requires: list[MandatoryField] = Field(default_factory=list, description="Fields agents must fill in.")
    parameters: dict[ParameterName, ParameterSpec] = Field(default_factory=dict)
    break_glass: BreakGlassEntry | None = Field(
        None, description="Who may pass over approvals in an emergency. Default: nobody."
    )
    grant: dict[str, object] = Field(description="What the connector's kind needs to know.")


class ConnectorsFile(Model):
    """connectors.yaml."""

    connectors: dict[Slug, ConnectorEntry] = Field(min_length=1)
