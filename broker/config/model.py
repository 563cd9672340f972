"""The shape of brokerd's configuration, section by section. Durations are written 30s, 15m, 1h."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from broker.config.fields import (
    Address,
    Audience,
    Ballast,
    ClaimName,
    Count,
    DestinationName,
    Endpoint,
    EventPattern,
    FilePath,
    Groups,
    KeyName,
    KeyReference,
    OwnId,
    PersonIssuer,
    PersonKey,
    PublicKeyPem,
    SecureUrl,
    TrustDomain,
    Word,
)
from broker.config.witnesses import Checkpoints
from broker.files import Document, Duration, Model, Problem
from broker.identity.operator import Role
from broker.ports.tasks import TaskLimits


class Listen(Model):
    """The doors."""

    agents: Address = Field(description="mTLS gRPC, for agents.")
    proxies: Address | None = Field(None, description="mTLS gRPC, for proxies that end agents' TLS; with `proxies`.")
    admin: Address | None = Field(None, description="TLS gRPC, for people; with `people`.")
    automation: Address | None = Field(None, description="mTLS gRPC, for operators' automation (people.yaml).")
    operations: Address = Field(description="/metrics, /livez, /readyz, without authentication.")
    allow_remote_operations: bool = Field(False, description="Lets operations listen beyond loopback.")


class Identity(Model):
    """brokerd's own X.509-SVID, and whose SVIDs it accepts: from the SPIFFE Workload API, or from PEM files.

    Both follow rotation. A bundle that is a file is taken from there, whatever the Workload API says.
    """

    workload_api: Endpoint | None = Field(None, description="The SPIFFE agent's socket. Or else the next two:")
    certificate: FilePath | None = Field(None, description="The SVID and its intermediates.")
    private_key: FilePath | None = None
    spiffe_id: OwnId | None = Field(None, description="Which SVID of the Workload API's; default: the first.")
    bundles: dict[TrustDomain, FilePath] = Field(default_factory=dict, description="Trust bundle per trust domain.")
    federates_with: tuple[TrustDomain, ...] = Field(
        (), strict=False, description="Whose SVIDs are accepted beside the own trust domain's. Nobody else's are."
    )

    @property
    def files(self) -> tuple[Path, Path] | None:
        """Certificate and key; None where the Workload API has them."""
        return (self.certificate, self.private_key) if self.certificate and self.private_key else None


class Proxies(Model):
    """Who may bring calls of agents that prove themselves by a JWT-SVID, and what such a token must be for."""

    allow: tuple[OwnId, ...] = Field(min_length=1, strict=False, description="SPIFFE IDs of the proxies.")
    audience: Annotated[str, Field(pattern=r"^[!-~]{1,2048}$", description="The one aud of a token, exactly.")]
    jwt_bundles: dict[TrustDomain, FilePath] = Field(
        default_factory=dict,
        description="JWT bundle (SPIFFE bundle, JSON) per trust domain; the others' from identity.workload_api.",
    )


class PeopleIssuer(Model):
    """One OpenID provider whose ID tokens say who a person is. Its URL is exactly the claim ``iss``."""

    audience: Audience = Field(description="The client id that the broker is there: the one aud of people's tokens.")
    on_behalf_of_audience: Audience | None = Field(
        None, description="The aud of tokens by which a person lets an agent act for them; absent: none are taken."
    )
    groups_claim: ClaimName | None = Field(
        None,
        description="The claim with a person's groups: only what it lists counts of people.yaml's. Absent: all.",
    )
    acr: tuple[Word, ...] = Field((), strict=False, description="A fresh login has one of these; none: any.")
    amr: tuple[Word, ...] = Field((), strict=False, description="A fresh login has all of these; none: any.")
    jwks_uri: SecureUrl | None = Field(None, description="Where its keys are; absent: where its discovery says.")
    ca_file: FilePath | None = Field(None, description="CA certificates (PEM) to believe instead of the system's.")
    known_as: PersonIssuer | None = Field(
        None, description="How people.yaml names this issuer, where that is not its URL (it has moved)."
    )


class People(Model):
    """Where people log in."""

    issuers: dict[SecureUrl, PeopleIssuer] = Field(min_length=1, description="OpenID providers, by their URL.")


class DeployKey(Model):
    """A public key (Ed25519) that signs deploy sets, and the one person who has its private key."""

    person: PersonKey = Field(description="Several keys of one person count once.")
    file: FilePath | None = Field(None, description="The public key in PEM; not in the deploy directory. Or else:")
    pem: PublicKeyPem | None = Field(None, description="The public key itself.")


class Deploy(Model):
    """What operators deploy, and whose signatures that needs."""

    directory: FilePath
    # Absent is "no signatures"; empty is a mistake, and refused.
    deploy_keys: dict[KeyName, DeployKey] = Field(
        default_factory=dict, min_length=1, description="With these, a set loads only if it is signed."
    )
    deploy_signatures_required: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None, description="How many of these people must sign; two at least, so never its author alone."
    )
    follow_within: Duration = Field(
        timedelta(seconds=30),
        description="Of several replicas, one that has not the newest set by then grants nothing.",
    )


class State(Model):
    """What brokerd writes: ledger, pid file, outcome of the last reload."""

    directory: FilePath
    ballast: Ballast = Field(
        64 * 1024 * 1024,
        description="Disk space kept for revocations, beside the ledger, for when the disk is full; or none.",
        json_schema_extra={"default": "64MiB"},
    )


class Ledger(Model):
    """A PostgreSQL server that has the ledger, for any number of brokerd; without it, a file of the state directory."""

    dsn: KeyReference = Field(description="Reference to a libpq connection string; it may hold a password.")
    allow_unverified: bool = Field(False, description="Lets a server elsewhere be one that proves nothing by TLS.")


class Keys(Model):
    """References to keys; the first is current, the others are still accepted."""

    ledger: tuple[KeyReference, ...] = Field(min_length=1, strict=False, description="Row MAC and audit chain.")


class Audit(Model):
    """The audit trail's way out. Grants stop when its backlog passes a bound; revocation never does."""

    export_file: FilePath | None = None
    max_backlog_records: Count = 100_000
    max_backlog_age: Duration = timedelta(minutes=5)
    checkpoints: Checkpoints | None = Field(None, description="Signed, and sent to witnesses.")
    keep_texts: bool = Field(True, description="Prompts, tool calls and plans in whole, encrypted; else digests only.")
    keep_texts_for: Duration = Field(timedelta(days=30), description="After it a task's texts are erased.")


class Limits(Model):
    """Bounds on work in progress."""

    max_concurrent_rpcs: Count = 1_000
    max_concurrent_admin_rpcs: Count = Field(64, description="Of people; agents take nothing of it.")
    max_task_duration: Duration = timedelta(hours=8)
    default_task_duration: Duration = timedelta(hours=1)
    issue_timeout: Duration = Field(timedelta(seconds=20), description="Of one upstream issue, all calls together.")
    confirm_within: Duration = Field(timedelta(seconds=30), description="Delivery not confirmed by then: revoked.")
    denied_cool_down: Duration = Field(
        timedelta(minutes=15), description="For so long a request that people denied is not asked again."
    )
    drain_timeout: Duration = Field(timedelta(seconds=30), description="After SIGTERM.")
    workers_per_connector: Annotated[int, Field(ge=1, le=256)] = 16
    sweep_at_most: Count = Field(50, description="Of what is upstream and unknown: more, and a person has to say so.")
    sweep_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="And more than this share of what is ours there; both have to be passed."
    )
    max_attempts_per_lease: Count = Field(10, description="How often one request is retried under its id.")
    max_leases_per_task: Count = Field(1_000, description="In all: ended ones count. So do the next three.")
    max_plans_per_task: Count = 20
    max_delegations_per_task: Count = 100
    max_delegations_per_lease: Count = 10
    max_delegation_depth: Annotated[int, Field(ge=0, le=16)] = Field(1, description="Hand-overs in a row; 0: none.")
    default_plan_duration: Duration = Field(timedelta(hours=1), description="After it a plan lapses.")

    @property
    def of_tasks(self) -> TaskLimits:
        """What of them bounds a task and its leases."""
        return TaskLimits(
            attempts_per_lease=self.max_attempts_per_lease,
            leases_per_task=self.max_leases_per_task,
            plans_per_task=self.max_plans_per_task,
            delegations_per_task=self.max_delegations_per_task,
            delegations_per_lease=self.max_delegations_per_lease,
            delegation_depth=self.max_delegation_depth,
        )


class Retention(Model):
    """For how long what is over stays in the ledger. The audit trail stays."""

    leases: Annotated[Duration, Field(ge=timedelta(days=1))] = Field(
        description="After it an ended task goes, with its leases, plans and access requests; a day at least."
    )


class AccessReviews(Model):
    """How often people look at what agents could get."""

    every: Duration = Field(description="After the last sign-off, or without one at once, a review is due.")


class Revocation(Model):
    """The revoker's beat."""

    tick: Duration = timedelta(milliseconds=500)


class Webhook(Model):
    """One destination of signed webhooks: audit events as CloudEvents."""

    url: SecureUrl = Field(description="https, or http on loopback.")
    secrets: tuple[KeyReference, ...] = Field(
        min_length=1, max_length=4, strict=False, description="Signing secrets (whsec_...); each signs."
    )
    events: tuple[EventPattern, ...] = Field(
        min_length=1, strict=False, description="Types of audit events; * at the end stands for any ending."
    )
    timeout: Duration = Field(timedelta(seconds=10), description="Of one try.")
    ca_file: FilePath | None = Field(None, description="CA certificates (PEM) to believe instead of the system's.")


class Log(Model):
    """Diagnostics, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Config(Model):
    """Everything brokerd is told at start. Paths are absolute once loaded."""

    tenant: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    trust_domain: TrustDomain
    listen: Listen
    identity: Identity
    proxies: Proxies | None = None
    people: People | None = None
    roles: dict[Annotated[Role, Field(strict=False)], Groups] = Field(
        default_factory=dict, description="Which groups of people.yaml give which role."
    )
    deploy: Deploy
    state: State
    ledger: Ledger | None = Field(None, description="On a PostgreSQL server; absent: in state.directory.")
    keys: Keys
    audit: Audit = Audit()
    limits: Limits = Limits()
    revocation: Revocation = Revocation()
    retention: Retention | None = Field(None, description="Without it nothing that is over is ever deleted.")
    access_reviews: AccessReviews | None = Field(None, description="A schedule; without it none is ever overdue.")
    notify: dict[DestinationName, Webhook] = Field(default_factory=dict, description="Webhooks, by destination.")
    log: Log = Log()
    _document: Document = PrivateAttr()

    def problem(self, at: tuple[str | int, ...], message: str, hint: str) -> Problem:
        """What is wrong with what stands at ``at``, or is missing there, with its line."""
        return Problem(self._document.file, self._document.line(at), ".".join(map(str, at)), message, hint)
