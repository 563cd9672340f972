"""What a connector hands out: one type per kind of credential, and what can be promised about it.

A new kind of credential is a dataclass here, a message in ``protos/broker/api/v1/credential.proto``
and a line in ``broker/api/convert.py``. Fields that open a door are :class:`Secret`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from broker.secret import Secret


class ContractClass(StrEnum):
    """How a connector's credentials can be ended before their time."""

    IMMEDIATE = "IMMEDIATE"  # the upstream ends one credential when asked, and says so
    BY_POLICY = "BY_POLICY"  # a deny is attached; it takes effect within a stated bound
    EXPIRY_ONLY = "EXPIRY_ONLY"  # only time ends it
    STATIC = "STATIC"  # only rotation ends it; denied by default


class Binding(StrEnum):
    """What, besides knowing it, is needed to use the credential."""

    NONE = "NONE"
    NETWORK = "NETWORK"
    KEY = "KEY"


@dataclass(frozen=True, slots=True)
class Contract:
    """What a connector promises about ending what it issues (R15). Bounds are upper bounds, in time."""

    cls: ContractClass
    binding: Binding
    ttl_floor: timedelta
    ttl_ceiling: timedelta
    # How long after its deadline, and after a revocation, it may still work; None: not before expiry.
    on_expiry: timedelta
    on_revoke: timedelta | None
    # In words, for people: what ends it if the broker, or the upstream's control plane, is dead.
    broker_dead: str
    upstream_dead: str
    # The same as times: how long after its deadline it may still work then. None: nothing bounds it.
    on_broker_dead: timedelta | None = None
    on_upstream_dead: timedelta | None = None
    wraps: bool = False  # whether the upstream keeps what was made for one reader, who unwraps it there
    gives: type | None = None  # the kind of credential, one of KINDS; None: not known before one is made
    # Where it works, with Binding.NETWORK: of every one of these, one place (CIDR, VPC endpoint) is enough.
    networks: tuple[tuple[str, ...], ...] = ()

    def of_grant(self, grant: Mapping[str, object]) -> Contract:
        """What is promised of a template with this ``grant``: a network of its own narrows the connector's."""
        network = grant.get("network")
        if not isinstance(network, Mapping):
            return self
        places = tuple(str(place) for each in network.values() if isinstance(each, Sequence) for place in each)
        return replace(self, binding=Binding.NETWORK, networks=(*self.networks, places)) if places else self


@dataclass(frozen=True, slots=True)
class DatabaseLogin:
    """A login of a SQL database."""

    engine: str  # "postgresql"
    host: str  # a name, an address, or the directory of a unix socket (libpq's convention)
    port: int
    database: str
    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class AwsSession:
    """An AWS STS session (SigV4 credentials)."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret
    region: str
    assumed_role_arn: str
    # The session policy really sent, as JSON: what the upstream enforces. Not secret.
    session_policy: str
    endpoint_url: str = ""  # where it is good, if not at AWS itself


@dataclass(frozen=True, slots=True)
class AwsAccessKey:
    """The access key of an IAM user that is there for one lease. It has no end of its own."""

    access_key_id: str
    secret_access_key: Secret
    region: str


@dataclass(frozen=True, slots=True)
class GcpToken:
    """An OAuth 2.0 access token of a Google Cloud service account."""

    access_token: Secret
    expires_at: datetime  # when Google ends it
    project: str
    service_account: str  # its email
    scopes: tuple[str, ...]
    # The Credential Access Boundary really sent, as JSON: what Cloud Storage enforces. Empty: none. Not secret.
    access_boundary: str = ""


@dataclass(frozen=True, slots=True)
class X509Certificate:
    """An X.509 certificate for the agent's own key. It holds no secret: the private key never left the agent."""

    certificate: str  # PEM
    ca_chain: str  # PEM; the issuing CA first
    serial_number: str  # hexadecimal with colons, as the CA lists it


@dataclass(frozen=True, slots=True)
class SshCertificate:
    """An OpenSSH certificate for the agent's own key. It holds no secret: the private key never left the agent."""

    certificate: str  # one line
    serial_number: str  # hexadecimal
    principals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KubernetesToken:
    """A bearer token of a Kubernetes service account that is there for one lease."""

    token: Secret
    expires_at: datetime  # by itself; it ends with its service account, which is sooner
    service_account: str
    namespace: str
    server: str  # the API server, as a URL
    cluster_ca: str  # whom to believe there, PEM


@dataclass(frozen=True, slots=True)
class StaticSecret:
    """A secret that was there before and stays: only rotation ends it."""

    path: str
    version: int
    values: Mapping[str, Secret]  # by field


@dataclass(frozen=True, slots=True)
class WrappedSecret:
    """Another credential, kept by the server for whoever shows the token there first. Nobody can do so twice."""

    wrapping_token: Secret
    wrapping_accessor: str  # names the token, and opens nothing
    expires_at: datetime  # when the server ends the token
    address: str  # of the server
    namespace: str  # where on it; empty: the root
    kind: str  # of what is inside, as credential.proto names it


Credential = (
    DatabaseLogin
    | AwsSession
    | AwsAccessKey
    | GcpToken
    | X509Certificate
    | SshCertificate
    | KubernetesToken
    | StaticSecret
    | WrappedSecret
)

# The kinds, as credential.proto names them.
KINDS: Mapping[type, str] = {
    DatabaseLogin: "database_login",
    AwsSession: "aws_session",
    AwsAccessKey: "aws_access_key",
    GcpToken: "gcp_token",
    X509Certificate: "x509_certificate",
    SshCertificate: "ssh_certificate",
    KubernetesToken: "kubernetes_token",
    StaticSecret: "static_secret",
    WrappedSecret: "wrapped_secret",
}
