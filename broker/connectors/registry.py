"""From what the operator wrote to a running adapter: the one table of connector kinds.

``settings`` have been checked by ``broker/deployfiles/kinds.py``. Addresses may be ``env:NAME`` and are
resolved once, here; secrets stay references and are resolved at every use, so that rotation works.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TypedDict

from pydantic import TypeAdapter, ValidationError

from broker.connectors.aws_client import AwsKeys, Base, WebIdentity
from broker.connectors.aws_session_policy import Network
from broker.connectors.aws_sts import AwsSts, AwsStsSettings, Revocation
from broker.connectors.gcp_base import Federation
from broker.connectors.gcp_lending import Lending
from broker.connectors.gcp_pool import GcpPool, Pool
from broker.connectors.gcp_token import GcpTokens
from broker.connectors.gcp_upstream import GcpSettings
from broker.connectors.minio_sts import MinioSts, MinioStsSettings
from broker.connectors.own_identity import NoOwnToken, OwnIdentity
from broker.connectors.postgresql import Postgresql
from broker.connectors.postgresql_session import PostgresqlSettings
from broker.connectors.vault_aws_user import VaultAwsUser, VaultAwsUserSettings
from broker.connectors.vault_calls import BrokerToken
from broker.connectors.vault_database import VaultDatabase, VaultDatabaseSettings
from broker.connectors.vault_kubernetes import VaultKubernetes, VaultKubernetesSettings
from broker.connectors.vault_kv import VaultKv, VaultKvSettings
from broker.connectors.vault_login import JwtLogin, JwtRole
from broker.connectors.vault_pki import VaultPki, VaultPkiSettings
from broker.connectors.vault_ssh import VaultSsh, VaultSshSettings
from broker.errors import InvalidInput, Reason
from broker.ports import Clock, Connector, ConnectorSpec
from broker.scope.canonical import JsonValue
from broker.secret import Secret

_SPAN = TypeAdapter(timedelta)

# Resolves ``file:PATH`` or ``env:NAME``. Raises BrokerError; called from worker threads too.
Resolve = Callable[[str], Secret]


def build(
    spec: ConnectorSpec,
    resolve: Resolve,
    clock: Clock,
    own: OwnIdentity | None = None,
    lending: Lending | None = None,
) -> Connector:
    """The connector of ``spec``; nothing is connected yet. Raises InvalidInput (CONFIG_INVALID), BrokerError.

    ``own``: the broker's own JWT-SVIDs, for settings that log in with them. ``lending``: the ledger, for kinds that
    lend accounts.
    """
    made = _KINDS.get(spec.kind)
    if made is None:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"connector {spec.name} is of an unknown kind {spec.kind!a}.",
            hint=f"Kinds are: {', '.join(sorted(_KINDS))}.",
            metadata={"connector": spec.name, "kind": ascii(spec.kind)},
        )
    return made(_Reader(spec.name, spec.settings, resolve, own or NoOwnToken(), lending or Lending("")), clock)


class _Reader:
    """One object of the settings; says what is wrong by connector and name."""

    def __init__(
        self,
        connector: str,
        settings: Mapping[str, JsonValue],
        resolve: Resolve,
        own: OwnIdentity,
        lending: Lending,
    ) -> None:
        self.connector = connector
        self.own = own
        self.lending = lending
        self._settings = settings
        self._resolve = resolve

    def text(self, name: str, default: str | None = None) -> str:
        """A text, or the value of ``env:NAME``."""
        value = self.maybe_text(name)
        if value is None:
            value = default
        if value is None:
            raise self._wrong(name)
        return value

    def maybe_text(self, name: str) -> str | None:
        value = self._settings.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise self._wrong(name)
        return self._resolve(value).reveal() if value.startswith("env:") else value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, each perhaps the value of ``env:NAME``; empty if it is not there."""
        value = self._settings.get(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
            raise self._wrong(name)
        texts = [str(each) for each in value]
        return tuple(self._resolve(each).reveal() if each.startswith("env:") else each for each in texts)

    def port(self, name: str) -> int:
        """A TCP port, or the value of ``env:NAME``."""
        value = self._settings.get(name)
        if isinstance(value, str):
            text = self.text(name)
            value = int(text) if text.isascii() and text.isdigit() else None
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
            raise self._wrong(name)
        return value

    def secret(self, name: str) -> Callable[[], Secret]:
        """What a reference refers to, whenever it is asked."""
        value = self._settings.get(name)
        if not isinstance(value, str) or not value.startswith(("file:", "env:")):
            raise self._wrong(name)
        return partial(self._resolve, value)

    def maybe_span(self, name: str) -> timedelta | None:
        """A span, as the files' checks leave it: ISO 8601."""
        value = self._settings.get(name)
        if value is None:
            return None
        try:
            return _SPAN.validate_python(value)
        except ValueError:
            raise self._wrong(name) from None

    def inner(self, name: str) -> _Reader:
        """An object inside this one."""
        value = self._settings.get(name)
        if not isinstance(value, Mapping):
            raise self._wrong(name)
        return _Reader(self.connector, value, self._resolve, self.own, self.lending)

    def number(self, name: str) -> int:
        """A positive whole number."""
        value = self._settings.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(name)
        return value

    def names(self) -> tuple[str, ...]:
        """The names of what is in it."""
        return tuple(self._settings)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value."""
        value = self._settings.get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name)
        return value

    def duration(self, name: str, default: timedelta) -> timedelta:
        """A length of time, as the deploy files' own writer dumps it (ISO 8601)."""
        value = self._settings.get(name)
        if value is None:
            return default
        try:
            return TypeAdapter(timedelta).validate_python(value)
        except ValidationError:
            raise self._wrong(name) from None

    def has(self, name: str) -> bool:
        return self._settings.get(name) is not None

    def _wrong(self, name: str) -> InvalidInput:
        # The value is not told: somebody may have written a secret there.
        return InvalidInput(
            Reason.CONFIG_INVALID,
            f"connector {self.connector}: {name} is missing or not what it must be.",
            hint="`broker check` tells file and line.",
            metadata={"connector": self.connector, "field": name},
        )


class _Server(TypedDict):
    """What every connector of Vault or OpenBao is told of the server."""

    address: str
    ca_file: str | None
    namespace: str


class _Attempts(_Server):
    """And of the tokens that attempts get, where it gives them some."""

    token_role: str
    policy_prefix: str


def _server(settings: _Reader) -> _Server:
    return {
        "address": settings.text("address"),
        "ca_file": settings.maybe_text("ca_file"),
        "namespace": settings.text("namespace", ""),
    }


def _attempts(settings: _Reader) -> _Attempts:
    return {
        **_server(settings),
        "token_role": settings.text("token_role", "jit-attempt"),
        "policy_prefix": settings.text("policy_prefix", "jit-attempt-"),
    }


def _vault_database(settings: _Reader, clock: Clock) -> Connector:
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


def _vault_pki(settings: _Reader, clock: Clock) -> Connector:
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


def _vault_kubernetes(settings: _Reader, clock: Clock) -> Connector:
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


def _vault_aws_user(settings: _Reader, clock: Clock) -> Connector:
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


def _vault_ssh(settings: _Reader, clock: Clock) -> Connector:
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


def _vault_kv(settings: _Reader, clock: Clock) -> Connector:
    return VaultKv(
        settings.connector,
        VaultKvSettings(
            **_server(settings),
            mount=settings.text("mount", "kv"),
        ),
        _vault_token(settings, clock),
        clock,
    )


def _vault_token(settings: _Reader, clock: Clock) -> BrokerToken:
    """How the broker has its own token: a login with its JWT-SVID, or from where it is kept."""
    if not settings.has("jwt"):
        return settings.secret("token")
    jwt = settings.inner("jwt")
    return JwtLogin(JwtRole(jwt.text("mount", "jwt"), jwt.text("role"), jwt.text("audience")), settings.own, clock.now)


def _aws_sts(settings: _Reader, clock: Clock) -> Connector:
    return AwsSts(
        settings.connector,
        AwsStsSettings(
            region=settings.text("region"),
            partition=settings.text("partition", "aws"),
            endpoint_url=settings.maybe_text("endpoint_url"),
            external_id=settings.maybe_text("external_id"),
            canary_bucket=settings.maybe_text("canary_bucket"),
            canary_endpoint_url=settings.maybe_text("canary_endpoint_url"),
            revocation=_revocation(settings.inner("revocation"), clock) if settings.has("revocation") else None,
            network=_network(settings.inner("network")) if settings.has("network") else None,
            proves_identity=settings.flag("proves_identity"),
            examined_roles=settings.texts("examined_roles"),
        ),
        _base(settings),
        clock,
    )


def _postgresql(settings: _Reader, clock: Clock) -> Connector:
    login = settings.inner("login")
    return Postgresql(
        settings.connector,
        PostgresqlSettings(
            host=login.text("host"),
            port=login.port("port"),
            database=login.text("database"),
            username=settings.text("username"),
            tls=settings.flag("tls", default=True),
            ca_file=settings.maybe_text("ca_file"),
            login_prefix=settings.text("login_prefix", "") if settings.has("login_prefix") else "",
        ),
        settings.secret("password"),
        clock,
    )


def _minio_sts(settings: _Reader, clock: Clock) -> Connector:
    return MinioSts(
        settings.connector,
        MinioStsSettings(
            endpoint_url=settings.text("endpoint_url"),
            nodes=settings.texts("nodes"),
            user=settings.text("user"),
            buckets=settings.texts("buckets"),
            canary_bucket=settings.maybe_text("canary_bucket"),
            region=settings.text("region", "us-east-1"),
            ca_file=settings.maybe_text("ca_file"),
        ),
        settings.secret("secret_key"),
        clock,
    )


def _base(settings: _Reader) -> Base:
    """Whose credentials the broker asks STS with."""
    if settings.has("web_identity"):
        inner = settings.inner("web_identity")
        audience = inner.text("audience", "sts.amazonaws.com")
        return WebIdentity(inner.text("role_arn"), audience, "jit-broker", settings.own)
    if settings.has("access_key_id") or settings.has("secret_access_key"):
        return AwsKeys(settings.secret("access_key_id"), settings.secret("secret_access_key"))
    return None


def _revocation(settings: _Reader, clock: Clock) -> Revocation:
    # A writer's own for ever: the time for people, the rest so that no two are the same.
    epoch = f"{clock.now():%Y%m%dT%H%M%SZ}{secrets.token_hex(6)}"
    return Revocation(
        epoch,
        propagation=settings.duration("propagation", timedelta(minutes=5)),
        role_name=settings.maybe_text("role_name"),
        endpoint_url=settings.maybe_text("endpoint_url"),
    )


def _network(settings: _Reader) -> Network:
    return Network(settings.texts("source_ips"), settings.texts("source_vpces"))


def _gcp_token(settings: _Reader, clock: Clock) -> Connector:
    accounts = frozenset(settings.texts("service_accounts"))
    return GcpTokens(settings.connector, _gcp(settings), accounts, settings.own, clock)


def _gcp_pool(settings: _Reader, clock: Clock) -> Connector:
    project, stated = settings.text("project"), settings.inner("pools")
    pools = {name: _pool(stated.inner(name), project) for name in stated.names()}
    return GcpPool(settings.connector, _gcp(settings), pools, settings.lending, settings.own, clock)


def _pool(stated: _Reader, project: str) -> Pool:
    return Pool(stated.text("prefix"), stated.number("size"), project, stated.texts("buckets"))


def _gcp(settings: _Reader) -> GcpSettings:
    credentials = settings.inner("credentials")
    source: Federation | Callable[[], Secret]
    if credentials.has("federation"):
        federation = credentials.inner("federation")
        source = Federation(federation.text("audience"), federation.maybe_text("token_audience"))
    else:
        source = credentials.secret("key")
    return GcpSettings(source, settings.maybe_text("endpoint_url"), settings.maybe_text("canary_bucket"))


_KINDS: Mapping[str, Callable[[_Reader, Clock], Connector]] = {
    "vault-database": _vault_database,
    "vault-pki": _vault_pki,
    "vault-ssh": _vault_ssh,
    "vault-kv": _vault_kv,
    "vault-kubernetes": _vault_kubernetes,
    "vault-aws-user": _vault_aws_user,
    "aws-sts": _aws_sts,
    "postgresql": _postgresql,
    "gcp-token": _gcp_token,
    "gcp-pool": _gcp_pool,
    "minio-sts": _minio_sts,
}
