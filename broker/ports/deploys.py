"""What operators deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from broker.approval.rules import ApprovalRule
from broker.breakglass.rules import BreakGlassRule
from broker.canary.canary import Canary
from broker.escalation.rules import Rule
from broker.identity.agent import Person, Registry
from broker.identity.automation import Automation
from broker.identity.denied import DenyList
from broker.identity.spiffe_id import SpiffeId
from broker.policy.cedar import PolicySet
from broker.policy.quotas import Quota
from broker.policy.shadow import ShadowPolicies
from broker.scope.canonical import JsonValue
from broker.scope.model import ScopeTemplate


@dataclass(frozen=True, slots=True)
class ConnectorSpec:
    """One connector as the operator wrote it; its kind's adapter has checked ``settings``.

    References to secrets (``file:``, ``env:``) are still references here.
    """

    name: str
    kind: str  # "vault-database", "aws-sts"
    settings: Mapping[str, JsonValue]
    digest: str


@dataclass(frozen=True, slots=True)
class Signed:
    """Who stands for a deploy set whose signatures were needed, and hold."""

    author: str  # a person's name, as the signers say
    serial: int  # above that of every signed set before it
    signers: tuple[str, ...]  # people, sorted; two at least
    keys: tuple[str, ...]  # the names of the keys they signed with, sorted


class AcceptedDeploy(NamedTuple):
    """The newest signed set that ever came into force."""

    serial: int
    digest: str


@dataclass(frozen=True, slots=True)
class DeploySet:
    """One consistent set of everything operators own; replaced as a whole, never edited."""

    digest: str  # over every file of the set
    registry: Registry
    people: Mapping[str, Person]  # by the key other files use
    templates: Mapping[str, ScopeTemplate]
    policies: PolicySet
    connectors: Mapping[str, ConnectorSpec]
    denied: DenyList = field(default_factory=DenyList)
    automation: Mapping[SpiffeId, Automation] = field(default_factory=dict)  # operators' own workloads
    approvals: Mapping[str, ApprovalRule] = field(default_factory=dict)  # by name, as gates name them
    signed: Signed | None = None  # where signatures are needed
    shadow: ShadowPolicies | None = None  # what is tried out beside the policies, and decides nothing
    quotas: tuple[Quota, ...] = ()
    escalation: tuple[Rule, ...] = ()
    break_glass: Mapping[str, BreakGlassRule] = field(default_factory=dict)  # by template; absent: nobody's
    canaries: Mapping[str, Canary] = field(default_factory=dict)  # by connector; absent: nothing is measured of it


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of taking in what is on disk. ``accepted`` False: the last good set stays, for these problems."""

    accepted: bool
    digest: str  # of the set in force
    problems: tuple[str, ...] = ()


class DeploySource(Protocol):
    """Where the set in force comes from."""

    @property
    def current(self) -> DeploySet:
        """The set in force. A bad one never gets here: the last good stays."""
        ...
