"""The connectors of Vault or OpenBao, from their settings."""

from __future__ import annotations

from typing import TypedDict

from broker.connectors.settings import Settings
from broker.connectors.vault_aws_user import VaultAwsUser, VaultAwsUserSettings
from broker.connectors.vault_calls import BrokerToken
from broker.connectors.vault_database import VaultDatabase, VaultDatabaseSettings
from broker.connectors.vault_kubernetes import VaultKubernetes, VaultKubernetesSettings
from broker.connectors.vault_kv import VaultKv, VaultKvSettings
from broker.connectors.vault_login import JwtLogin, JwtRole
from broker.connectors.vault_pki import VaultPki, VaultPkiSettings
from broker.connectors.vault_ssh import VaultSsh, VaultSshSettings
from broker.ports.clock import Clock
from broker.ports.connectors import Connector


class _Server(TypedDict):
    """What every connector of Vault or OpenBao is told of the server."""

    address: str
    ca_file: str | None
    namespace: str


class _Attempts(_Server):
    """And of the tokens that attempts get, where it gives them some."""

    token_role: str
    policy_prefix: str


def _server(settings: Settings) -> _Server:
    return {
        "address": settings.text("address"),
        "ca_file": settings.maybe_text("ca_file"),
        "namespace": settings.text("namespace", ""),
    }


def _attempts(settings: Settings) -> _Attempts:
    return {
        **_server(settings),
        "token_role": settings.text("token_role", "jit-attempt"),
        "policy_prefix": settings.text("policy_prefix", "jit-attempt-"),
    }


def _vault_database(settings: Settings, clock: Clock) -> Connector:
    login = settings.inner("login")
    return VaultDatabase(
        settings.connector,
        VaultDatabaseSettings(
            **_attempts(settings),
            mount=settings.text("mount", "database"),
            engine=login.text("engine"),
            host=login.text("host"),
            port=login.port("port"),
            database=login.text("database"),
        ),
        _vault_token(settings, clock),
        clock,
    )


def _vault_pki(settings: Settings, clock: Clock) -> Connector:
    return VaultPki(
        settings.connector,
        VaultPkiSettings(
            **_attempts(settings),
            mount=settings.text("mount", "pki"),
            list_read_within=settings.maybe_span("list_read_within"),
        ),
        _vault_token(settings, clock),
        clock,
    )


def _vault_kubernetes(settings: Settings, clock: Clock) -> Connector:
    return VaultKubernetes(
        settings.connector,
        VaultKubernetesSettings(
            **_attempts(settings),
            server=settings.text("server"),
            cluster_ca=settings.text("cluster_ca"),
            mount=settings.text("mount", "kubernetes"),
        ),
        _vault_token(settings, clock),
        clock,
    )


def _vault_aws_user(settings: Settings, clock: Clock) -> Connector:
    return VaultAwsUser(
        settings.connector,
        VaultAwsUserSettings(
            **_attempts(settings),
            region=settings.text("region"),
            mount=settings.text("mount", "aws"),
            canary_bucket=settings.maybe_text("canary_bucket"),
            canary_endpoint_url=settings.maybe_text("canary_endpoint_url"),
        ),
        _vault_token(settings, clock),
        clock,
    )


def _vault_ssh(settings: Settings, clock: Clock) -> Connector:
    return VaultSsh(
        settings.connector,
        VaultSshSettings(
            **_server(settings),
            mount=settings.text("mount", "ssh"),
            trusted_ca=settings.text("trusted_ca", ""),
        ),
        _vault_token(settings, clock),
        clock,
    )


def _vault_kv(settings: Settings, clock: Clock) -> Connector:
    return VaultKv(
        settings.connector,
        VaultKvSettings(
            **_server(settings),
            mount=settings.text("mount", "kv"),
        ),
        _vault_token(settings, clock),
        clock,
    )


def _vault_token(settings: Settings, clock: Clock) -> BrokerToken:
    """How the broker has its own token: a login with its JWT-SVID, or from where it is kept."""
    if not settings.has("jwt"):
        return settings.secret("token")
    jwt = settings.inner("jwt")
    return JwtLogin(JwtRole(jwt.text("mount", "jwt"), jwt.text("role"), jwt.text("audience")), settings.own, clock)


KINDS = {
    "vault-database": _vault_database,
    "vault-pki": _vault_pki,
    "vault-ssh": _vault_ssh,
    "vault-kv": _vault_kv,
    "vault-kubernetes": _vault_kubernetes,
    "vault-aws-user": _vault_aws_user,
}
