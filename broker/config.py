"""brokerd's own file: where it listens, who it is, where things lie, and its limits.

Belongs here: the shape of ``--config FILE`` and every contradiction that can be seen without
touching what it names. Does not belong here: what operators deploy (``broker/deployfiles``), and
reading keys or certificates, which happens when the daemon is wired.

Relative paths are relative to the file they stand in. Durations are written 30s, 15m, 1h.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, WithJsonSchema

from broker.audit.event import EventType
from broker.errors import Unauthenticated
from broker.files import Document, Duration, Model, Problem, Problems, Reference, parse_yaml, read_text, validated
from broker.files.public_keys import ed25519_public_key
from broker.identity.operator import Role
from broker.identity.spiffe_id import SpiffeId, is_trust_domain
from broker.ports import TaskLimits

_HOST = re.compile(r"(?!-)[A-Za-z0-9.-]{1,253}\Z", re.ASCII)
_PLAIN_URL = re.compile(r"https?://[!-~]+\Z", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z", re.ASCII)


class HostPort(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _host_port(value: object) -> HostPort:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    known = bool(_HOST.match(bare)) if bare == host else _is_ipv6(bare)
    if not colon or not known or not _PORT.match(port) or int(port) > 65535:
        raise ValueError("must be host:port like 127.0.0.1:8443 or [::1]:8443, with a port from 1 to 65535")
    return HostPort(bare, int(port))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a path")
    return Path(_base(info), value)


def _reference(value: str, info: ValidationInfo) -> str:
    kind, _, rest = value.partition(":")
    return f"file:{Path(_base(info), rest)}" if kind == "file" else value


def _base(info: ValidationInfo) -> Path:
    base: Path = (info.context or {})["base"]
    return base


def _trust_domain(value: str) -> str:
    if not is_trust_domain(value):
        raise ValueError("must be a trust domain: a-z 0-9 . _ -, without spiffe://")
    return value


def _endpoint(value: str) -> str:
    # SPIFFE_Workload_Endpoint.md, section 4, less tcp: anybody on the machine could come before the agent there.
    if not value.startswith("unix:///") or value.endswith("/") or set(value) & set("?#%\0"):
        raise ValueError("must be the path of a socket: unix:///run/spire/agent.sock")
    return value


def _own_id(value: str) -> str:
    try:
        SpiffeId.parse(value)
    except Unauthenticated as error:
        raise ValueError(error.message.rstrip(".")) from None
    return value


def _public_key(value: str) -> str:
    ed25519_public_key(value)
    return value


def _webhook_url(value: str) -> str:
    parts = urlsplit(value)
    port = parts.port  # raises ValueError where it is none
    host = parts.hostname or ""
    if not _PLAIN_URL.match(value) or not host or port == 0:
        raise ValueError("must be a URL like https://hooks.example.org/jit-broker, without spaces")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("has a user, a password or a fragment: the signature is what proves who sends")
    loopback = HostPort(host, port or 80).loopback
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("must be https; http only to loopback")
    return value


def _event_pattern(value: str) -> str:
    known = [each.value for each in EventType]
    if not any(each == value or (value.endswith("*") and each.startswith(value[:-1])) for each in known):
        raise ValueError(f"means no audit event; there is: {', '.join(known)}")
    return value


Address = Annotated[
    HostPort,
    BeforeValidator(_host_port),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8443", "[::1]:8443"]}),
]
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})]
KeyReference = Annotated[Reference, AfterValidator(_reference)]
TrustDomain = Annotated[
    str,
    AfterValidator(_trust_domain),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9._-]{1,255}$", "examples": ["prod.example.org"]}),
]
Endpoint = Annotated[
    str,
    AfterValidator(_endpoint),
    WithJsonSchema({"type": "string", "pattern": "^unix:///.+", "examples": ["unix:///run/spire/agent.sock"]}),
]
WebhookUrl = Annotated[
    str, Field(max_length=2048), AfterValidator(_webhook_url), WithJsonSchema({"type": "string", "format": "uri"})
]
EventPattern = Annotated[
    str,
    AfterValidator(_event_pattern),
    WithJsonSchema({"type": "string", "pattern": "^[a-z_.]*[*]?$", "examples": ["escalation.*", "lease.issued"]}),
]
DestinationName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
OwnId = Annotated[str, AfterValidator(_own_id), WithJsonSchema({"type": "string", "pattern": "^spiffe://[^/]+/.+"})]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
PersonKey = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", examples=["dana"])]
Groups = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(strict=False)]
# Of a key that signs, and of an author: in lower case, so that Dana and dana are not two.
PERSON_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
KeyName = Annotated[str, Field(pattern=PERSON_NAME)]


class Listen(Model):
    """The doors."""

    agents: Address = Field(description="mTLS gRPC, for agents.")
    proxies: Address | None = Field(None, description="mTLS gRPC, for proxies that end agents' TLS; with `proxies`.")
    admin: Address | None = Field(
        None, description="TLS gRPC, for people; with `operators`. Loopback, until people log in with OpenID Connect."
    )
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


class DeployKey(Model):
    """A public key (Ed25519) that signs deploy sets, and the one person who has its private key."""

    person: PersonKey = Field(description="Several keys of one person count once.")
    file: FilePath | None = Field(None, description="The public key in PEM; not in the deploy directory. Or else:")
    pem: Annotated[str, AfterValidator(_public_key)] | None = Field(None, description="The public key itself.")


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


class State(Model):
    """What brokerd writes: ledger, pid file, outcome of the last reload."""

    directory: FilePath


class Keys(Model):
    """References to keys; the first is current, the others are still accepted."""

    ledger: tuple[KeyReference, ...] = Field(min_length=1, strict=False, description="Row MAC and audit chain.")


class Audit(Model):
    """The audit trail's way out. Grants stop when its backlog passes a bound; revocation never does."""

    export_file: FilePath | None = None
    max_backlog_records: Count = 100_000
    max_backlog_age: Duration = timedelta(minutes=5)


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


class Revocation(Model):
    """The revoker's beat."""

    tick: Duration = timedelta(milliseconds=500)


class Webhook(Model):
    """One destination of signed webhooks: audit events as CloudEvents."""

    url: WebhookUrl = Field(description="https, or http on loopback.")
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
    operators: dict[PersonKey, KeyReference] = Field(
        default_factory=dict, description="Of each person of people.yaml who operates the broker, the credential."
    )
    roles: dict[Annotated[Role, Field(strict=False)], Groups] = Field(
        default_factory=dict, description="Which groups of people.yaml give which role."
    )
    deploy: Deploy
    state: State
    keys: Keys
    audit: Audit = Audit()
    limits: Limits = Limits()
    revocation: Revocation = Revocation()
    notify: dict[DestinationName, Webhook] = Field(default_factory=dict, description="Webhooks, by destination.")
    log: Log = Log()
    _document: Document = PrivateAttr()

    def problem(self, at: tuple[str | int, ...], message: str, hint: str) -> Problem:
        """What is wrong with what stands at ``at``, or is missing there, with its line."""
        return Problem(self._document.file, self._document.line(at), ".".join(map(str, at)), message, hint)


def load_config(path: Path) -> Config:
    """The configuration in ``path``. Raises :class:`~broker.files.Problems` with all that is wrong."""
    shown = str(path)
    document = parse_yaml(shown, read_text(path, shown))
    config = validated(Config, document, context={"base": path.parent.absolute()})
    config._document = document
    if problems := list(_contradictions(config, document)):
        raise Problems(problems)
    return config


def _contradictions(config: Config, document: Document) -> Iterator[Problem]:
    """What each field allows and all together do not, with the inequality in the message."""

    problem = config.problem
    yield from _identity_problems(config, problem)
    yield from _proxies_problems(config, problem)
    yield from _admin_problems(config, problem)
    yield from _deploy_problems(config.deploy, problem)
    listen, limits = config.listen, config.limits
    if not listen.operations.loopback and not listen.allow_remote_operations:
        hint = "It has no authentication. Listen on 127.0.0.1, or set listen.allow_remote_operations: true."
        yield problem(("listen", "operations"), f"{listen.operations} is not loopback", hint)
    if listen.operations == listen.agents:
        yield problem(("listen", "operations"), "is the agents' address too", "Give it a port of its own.")
    for short, long in (
        ("default_task_duration", "max_task_duration"),
        ("issue_timeout", "drain_timeout"),
        ("confirm_within", "max_task_duration"),
    ):
        low, high = getattr(limits, short), getattr(limits, long)
        if low > high:
            at = ("limits", short) if ("limits", short) in document.places else ("limits", long)
            yield problem(at, f"{short} <= {long} must hold: {_told(low)} > {_told(high)}", "")
    yield from _misplaced_keys(config, problem)


def _identity_problems(config: Config, problem: Any) -> Iterator[Problem]:
    identity, own = config.identity, config.trust_domain
    if identity.workload_api is not None:
        for name in ("certificate", "private_key"):
            if getattr(identity, name) is not None:
                yield problem(("identity", name), "is a second identity beside workload_api", "Keep one of the two.")
    else:
        for name in ("certificate", "private_key"):
            if getattr(identity, name) is None:
                hint = "Name the two files, or set identity.workload_api to the SPIFFE agent's socket."
                yield problem(("identity", name), "is missing", hint)
        for name in (own, *identity.federates_with):
            if name not in identity.bundles:
                yield problem(("identity", "bundles"), f"has no bundle for {name}", "Its agents could not call.")
        if identity.spiffe_id is not None:
            yield problem(("identity", "spiffe_id"), "chooses among the SVIDs of workload_api, which is not set", "")
    if identity.spiffe_id is not None and SpiffeId.parse(identity.spiffe_id).trust_domain != own:
        yield problem(("identity", "spiffe_id"), f"is not of the broker's own trust domain, {own}", "")
    for name in identity.bundles:
        if name not in (own, *identity.federates_with):
            hint = "List it in identity.federates_with, if its agents shall call."
            yield problem(("identity", "bundles", name), "is a trust domain that is not accepted", hint)
    for index, name in enumerate(identity.federates_with):
        if name == own:
            hint = "A federated trust domain never stands for the own one."
            yield problem(("identity", "federates_with", index), "is the broker's own trust domain", hint)
        elif name in identity.federates_with[:index]:
            yield problem(("identity", "federates_with", index), "is listed twice", "")


def _proxies_problems(config: Config, problem: Any) -> Iterator[Problem]:
    address, proxies, own = config.listen.proxies, config.proxies, config.trust_domain
    if address is not None and address in (config.listen.agents, config.listen.operations):
        yield problem(("listen", "proxies"), f"{address} is listened on for something else", "Give it a port.")
    if proxies is None:
        if address is not None:
            yield problem(("listen", "proxies"), "needs the section proxies", "Say which proxies are allowed there.")
        return
    if address is None:
        yield problem(("proxies",), "needs listen.proxies", "Say where proxies connect, or leave the section out.")
    accepted = (own, *config.identity.federates_with)
    for index, text in enumerate(proxies.allow):
        at = ("proxies", "allow", index)
        if text in proxies.allow[:index]:
            yield problem(at, "is listed twice", "")
        if SpiffeId.parse(text).trust_domain not in accepted:
            yield problem(at, "is of a trust domain that is not accepted", "List that in identity.federates_with.")
    if not proxies.jwt_bundles and config.identity.workload_api is None:
        yield problem(("proxies", "jwt_bundles"), "is missing", "Without a Workload API, name at least one file.")
    for name in proxies.jwt_bundles:
        if name not in accepted:
            hint = "List it in identity.federates_with, if its agents shall call."
            yield problem(("proxies", "jwt_bundles", name), "is a trust domain that is not accepted", hint)


def _admin_problems(config: Config, problem: Any) -> Iterator[Problem]:
    address, operators, listen = config.listen.admin, config.operators, config.listen
    if address is None:
        if operators:
            yield problem(("operators",), "needs listen.admin", "Say where people connect, or leave the section out.")
    else:
        if not operators:
            hint = "Name at least one person of people.yaml, and the file of a credential."
            yield problem(("listen", "admin"), "needs the section operators", hint)
        if not address.loopback:
            # A bearer credential in a file proves that somebody has the file. It stays on the machine it was made for.
            hint = "Operators' credentials are for this machine alone; until people log in with OpenID Connect, "
            hint += "listen on 127.0.0.1 and come by way of ssh."
            yield problem(("listen", "admin"), f"{address} is not loopback", hint)
        if address in (listen.agents, listen.proxies, listen.operations):
            yield problem(("listen", "admin"), f"{address} is listened on for something else", "Give it a port.")
    seen: dict[str, str] = {}
    for key, reference in operators.items():
        if (other := seen.setdefault(reference, key)) != key:
            hint = "Each person has a credential of their own: broker operator new-credential FILE"
            yield problem(("operators", key), f"is the credential of {other} too", hint)
    for role, groups in config.roles.items():
        for index, group in enumerate(groups):
            if group in groups[:index]:
                yield problem(("roles", role.value, index), "is listed twice", "")


def _deploy_problems(deploy: Deploy, problem: Any) -> Iterator[Problem]:
    keys, required = deploy.deploy_keys, deploy.deploy_signatures_required
    number = ("deploy", "deploy_signatures_required")
    if not keys and required is not None:
        yield problem(number, "needs deploy_keys", "Name the keys of those who sign.")
    if keys and required is None:
        yield problem(number, "is missing", "Say how many of the people in deploy_keys must sign; two at least.")
    people = len({entry.person for entry in keys.values()})
    if keys and required is not None and required > people:
        hint = "Several keys of one person count once."
        yield problem(number, f"deploy_signatures_required <= people must hold: {required} > {people}", hint)
    directory = deploy.directory.resolve()
    for name, entry in keys.items():
        at = ("deploy", "deploy_keys", name)
        if (entry.file is None) == (entry.pem is None):
            yield problem(at, "needs one of file and pem", "Name the file of the public key, or write it here.")
        elif entry.file is not None and entry.file.resolve().is_relative_to(directory):
            hint = "Whoever writes the set would choose who signs it."
            yield problem((*at, "file"), "lies in the deploy directory", hint)


def _misplaced_keys(config: Config, problem: Any) -> Iterator[Problem]:
    # Whoever steals the database must not find the key to its MACs beside it.
    state = config.state.directory.resolve()
    keys = [(("keys", "ledger", index), ref) for index, ref in enumerate(config.keys.ledger)]
    files = [(at, Path(ref.removeprefix("file:"))) for at, ref in keys if ref.startswith("file:")]
    own_key = [(("identity", "private_key"), config.identity.private_key)] if config.identity.private_key else []
    for at, file in [*files, *own_key]:
        if file.resolve().is_relative_to(state):
            yield problem(at, "lies in the state directory", "Keep keys away from the database.")
    for at, ref in keys:
        if ref in config.keys.ledger[: at[2]]:
            yield problem(at, "is listed twice", "")


def _told(duration: timedelta) -> str:
    return f"{duration.total_seconds():g}s"
