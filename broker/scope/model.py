"""Scope templates, and the typed scope that one admitted request is bound to.

A template is the operator's named, typed, bounded way to ask. A :class:`Scope` is what is left when
an :class:`~broker.scope.request.AccessRequest` has been checked against its template: every value
in it has passed a typed parameter, and the connector builds upstream policy from it as data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from broker.scope.canonical import JsonValue
from broker.scope.parameters import Parameter


class AccessClass(StrEnum):
    """What a template lets its holder do, coarsely; policy decides on it (R4, R5)."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    IDENTITY = "identity"
    NETWORK = "network"
    SECRETS = "secrets"


class Sensitivity(StrEnum):
    """Of the data that can be reached."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


class BlastRadius(StrEnum):
    """How far the worst use reaches."""

    RESOURCE = "resource"
    SERVICE = "service"
    ACCOUNT = "account"
    ORGANIZATION = "organization"


class Reversibility(StrEnum):
    """How what was done can be undone."""

    REVERSIBLE = "reversible"
    HARD = "hard"  # by people, with effort or loss
    IRREVERSIBLE = "irreversible"


@dataclass(frozen=True, slots=True)
class Risk:
    """What operators declare of a template for policy to decide on. What they do not declare is taken at its worst."""

    sensitivity: Sensitivity = Sensitivity.RESTRICTED
    blast_radius: BlastRadius = BlastRadius.ORGANIZATION
    reversibility: Reversibility = Reversibility.IRREVERSIBLE
    change_type: str = "undeclared"  # what is changed, in the operator's words: none, data, schema, config, ...
    promoted: bool = False  # whether it has been promoted into production


class OnPolicyChange(StrEnum):
    """What becomes of a live lease that would not be granted any more, once rules have changed."""

    REPORT = "report"
    REVOKE = "revoke"


# Fields of a request that a template may make mandatory.
MANDATORY_FIELDS = frozenset({"step", "intent", "reason", "ticket", "prompt", "tool_call", "plan"})


@dataclass(frozen=True, slots=True)
class FromIdentity:
    """A parameter that no agent fills in: its value is a named segment of the caller's SPIFFE ID.

    The value passes ``parameter`` like one that was sent; that it was proven makes it no safer to paste.
    """

    parameter: Parameter
    segment: str


@dataclass(frozen=True, slots=True)
class ScopeTemplate:
    """One named way to ask. ``grant`` is the connector kind's own, already validated, part."""

    name: str
    description: str
    connector: str
    accounts: frozenset[str]
    environments: frozenset[str]
    resource: Parameter
    access: AccessClass
    actions: tuple[str, ...]
    max_ttl: timedelta
    mandatory: frozenset[str]
    parameters: Mapping[str, Parameter]  # what requests fill in, all of it
    grant: Mapping[str, JsonValue]
    digest: str  # SHA-256 (hex) of the template's canonical form
    from_identity: Mapping[str, FromIdentity] = field(default_factory=dict)  # the other parameters
    risk: Risk = Risk()
    on_policy_change: OnPolicyChange = OnPolicyChange.REPORT
    max_delegation_depth: int | None = None  # hand-overs in a row, of its leases; None: what holds for all
    wrapping: bool = False  # whether its credentials may be asked for wrapped


@dataclass(frozen=True, slots=True)
class Scope:
    """Exactly what one request may get."""

    template: str
    template_digest: str
    connector: str
    account: str
    environment: str
    resource: str
    access: AccessClass
    actions: tuple[str, ...]
    parameters: Mapping[str, str]  # canonical texts; integers in decimal, CIDRs normalised
    ttl: timedelta
    grant: Mapping[str, JsonValue]
    risk: Risk = Risk()
    subject_public_key: str = ""  # as the agent sent it: what a connector that certifies keys reads, and checks
    wrap: timedelta | None = None  # for how long it is kept for one reader, at most ``ttl``; None: not wrapped
