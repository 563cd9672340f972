"""What the kinds of connectors to Vault or OpenBao are told: how to reach it and log in, and each engine's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker.deployfiles.kinds_fields import NameOrParameter, PathPart, Port, SecretReference, Text, Url
from broker.files import Model

MountPath = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,7}$")]


class JwtLogin(Model):
    """The broker logs in with its own JWT-SVID; its identity comes from a SPIFFE Workload API then."""

    mount: PathPart = Field("jwt", description="Where the auth method `jwt` is mounted.")
    role: PathPart
    audience: Annotated[str, Field(pattern=r"^[!-~]{1,256}$", description="The one aud of the broker's token.")]


class VaultUpstream(Model):
    """Where Vault or OpenBao is, and how the broker has its own token there: exactly one of `token` and `jwt`."""

    address: Url
    namespace: MountPath | None = Field(None, description="The namespace that every path is in; default: the root.")
    token: SecretReference | None = Field(None, description="The broker's own token, kept somewhere. Or:")
    jwt: JwtLogin | None = Field(None, description="A login with the broker's own JWT-SVID.")
    token_role: PathPart = Field("jit-attempt", description="The token role that makes one orphan token per attempt.")
    policy_prefix: PathPart = Field("jit-attempt-", description="Before the role's name: the policy of that token.")
    ca_file: Text | None = None

    @model_validator(mode="after")
    def _one_way_in(self) -> VaultUpstream:
        if (self.token is None) == (self.jwt is None):
            raise ValueError("needs exactly one of token and jwt")
        return self


# --------------------------------------------------------------------------- vault-database


class Login(Model):
    """What an agent needs to know, besides its login, to reach the database."""

    engine: Literal["postgresql"]
    host: Text = Field(description="A name, an address, the directory of a unix socket, or env:NAME.")
    port: Port
    database: Text


class VaultDatabaseSettings(VaultUpstream):
    """A database secrets engine of Vault or OpenBao."""

    mount: PathPart = "database"
    login: Login


class VaultDatabaseGrant(Model):
    """Which role of the engine makes the login: always one, or the one that a parameter names."""

    role: NameOrParameter


class VaultDatabaseConnector(Model):
    """One entry of connectors.yaml."""

    kind: Literal["vault-database"]
    settings: VaultDatabaseSettings
