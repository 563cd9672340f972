"""What the kinds of connectors to Vault or OpenBao are told: how to reach it and log in, and each engine's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from broker.deployfiles.kinds_canary import ConnectorModel
from broker.deployfiles.kinds_fields import (
    Host,
    NameOrParameter,
    ParameterSegment,
    PathPart,
    Port,
    SecretReference,
    Text,
    Url,
    name_or_parameter,
)
from broker.files import Duration, Model

MountPath = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,7}$")]


class JwtLogin(Model):
    """The broker logs in with its own JWT-SVID; its identity comes from a SPIFFE Workload API then."""

    mount: PathPart = Field("jwt", description="Where the auth method `jwt` is mounted.")
    role: PathPart
    audience: Annotated[str, Field(pattern=r"^[!-~]{1,256}$", description="The one aud of the broker's token.")]


class VaultReached(Model):
    """Where Vault or OpenBao is, and how the broker has its own token there: exactly one of `token` and `jwt`."""

    address: Url
    namespace: MountPath | None = Field(None, description="The namespace that every path is in; default: the root.")
    token: SecretReference | None = Field(None, description="The broker's own token, kept somewhere. Or:")
    jwt: JwtLogin | None = Field(None, description="A login with the broker's own JWT-SVID.")
    ca_file: Text | None = None

    @model_validator(mode="after")
    def _one_way_in(self) -> VaultReached:
        if (self.token is None) == (self.jwt is None):
            raise ValueError("needs exactly one of token and jwt")
        return self


class VaultUpstream(VaultReached):
    """And how an engine with leases makes the tokens of attempts."""

    token_role: PathPart = Field("jit-attempt", description="The token role that makes one orphan token per attempt.")
    policy_prefix: PathPart = Field("jit-attempt-", description="Before the role's name: the policy of that token.")


# --------------------------------------------------------------------------- vault-database


class Login(Model):
    """What an agent needs to know, besides its login, to reach the database."""

    engine: Literal["postgresql"]
    host: Host = Field(description="A name, an address, the directory of a unix socket, or env:NAME.")
    port: Port
    database: Text


class VaultDatabaseSettings(VaultUpstream):
    """A database secrets engine of Vault or OpenBao."""

    mount: PathPart = "database"
    login: Login


class VaultDatabaseGrant(Model):
    """Which role of the engine makes the login: always one, or the one that a parameter names."""

    role: NameOrParameter


class VaultDatabaseConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["vault-database"]
    settings: VaultDatabaseSettings


# --------------------------------------------------------------------------- vault-kubernetes


class VaultKubernetesSettings(VaultUpstream):
    """A Kubernetes secrets engine of Vault or OpenBao, which makes a service account for each lease."""

    mount: PathPart = "kubernetes"
    server: Annotated[str, Field(pattern=r"^https://[!-~]{1,500}$", description="The Kubernetes API, for agents.")]
    cluster_ca: Annotated[str, Field(pattern="^-----BEGIN CERTIFICATE-----", description="Whom they believe, PEM.")]


KubernetesNamespace = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class VaultKubernetesGrant(Model):
    """Which role of the engine is bound to the service account, and in which namespace that is."""

    role: NameOrParameter
    kubernetes_namespace: Annotated[
        Annotated[KubernetesNamespace, Tag("name")] | Annotated[ParameterSegment, Tag("parameter")],
        Discriminator(name_or_parameter),
    ]


class VaultKubernetesConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["vault-kubernetes"]
    settings: VaultKubernetesSettings


# --------------------------------------------------------------------------- vault-pki


class VaultPkiSettings(VaultUpstream):
    """A PKI secrets engine of Vault or OpenBao, which signs the agents' own keys."""

    mount: PathPart = "pki"
    list_read_within: Duration | None = Field(
        None, description="How soon every relying party reads a new revocation list; absent: only time ends one."
    )


DnsName = Annotated[str, Field(pattern=r"^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,62}$")]


class VaultPkiGrant(Model):
    """Which role signs, and for which names: never those of the agent's request, which may hold none."""

    role: NameOrParameter
    common_name: Annotated[
        Annotated[DnsName, Tag("name")] | Annotated[ParameterSegment, Tag("parameter")],
        Discriminator(name_or_parameter),
    ]
    dns_names: list[DnsName] = Field(default_factory=list, max_length=16, description="More names, beside that one.")


class VaultPkiConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["vault-pki"]
    settings: VaultPkiSettings


# --------------------------------------------------------------------------- vault-ssh


class VaultSshSettings(VaultReached):
    """An SSH secrets engine of Vault or OpenBao in CA mode, which signs the agents' own keys."""

    mount: PathPart = "ssh"
    trusted_ca: Annotated[str, Field(pattern=r"^[a-z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?$", max_length=4096)] | None = Field(
        None, description="What the servers' TrustedUserCAKeys says: canaries look at their certificates as those do."
    )


SshExtension = Literal[
    "permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"
]


class VaultSshGrant(Model):
    """Which role signs, for which logins, and what a session may do: nothing that is not said here."""

    role: NameOrParameter
    principals: list[Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.-]{0,63}$")]] = Field(min_length=1, max_length=16)
    extensions: list[SshExtension] = Field(default_factory=list, max_length=5)
    critical_options: dict[Literal["force-command", "source-address"], Text] = Field(default_factory=dict)


class VaultSshConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["vault-ssh"]
    settings: VaultSshSettings


# --------------------------------------------------------------------------- vault-kv


class VaultKvSettings(VaultReached):
    """A KV store of Vault or OpenBao, version 2."""

    mount: PathPart = "kv"


KvPath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,15}$", max_length=512)
]


class VaultKvGrant(Model):
    """One version of one secret, and which of its fields agents are told. Only rotation ends it."""

    static_accepted: Literal[True] = Field(description="That nothing but rotation ends what is given out here.")
    path: Annotated[
        Annotated[KvPath, Tag("name")] | Annotated[ParameterSegment, Tag("parameter")],
        Discriminator(name_or_parameter),
    ]
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    fields: list[Annotated[str, Field(pattern=r"^[!-~]{1,64}$")]] = Field(min_length=1, max_length=32)


class VaultKvConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["vault-kv"]
    settings: VaultKvSettings
