"""From what the operator wrote to a running adapter: the one table of connector kinds.

``settings`` have been checked by ``broker/deployfiles/kinds.py``. Addresses may be ``env:NAME`` and are
resolved once, here; secrets stay references and are resolved at every use, so that rotation works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from broker.connectors.aws_client import AwsKeys
from broker.connectors.aws_sts import AwsSts, AwsStsSettings
from broker.connectors.own_identity import NoOwnToken, OwnIdentity
from broker.connectors.vault_calls import BrokerToken
from broker.connectors.vault_database import VaultDatabase, VaultDatabaseSettings
from broker.connectors.vault_login import JwtLogin, JwtRole
from broker.errors import InvalidInput, Reason
from broker.ports import Clock, Connector, ConnectorSpec
from broker.scope.canonical import JsonValue
from broker.secret import Secret

# Resolves ``file:PATH`` or ``env:NAME``. Raises BrokerError; called from worker threads too.
Resolve = Callable[[str], Secret]


def build(spec: ConnectorSpec, resolve: Resolve, clock: Clock, own: OwnIdentity | None = None) -> Connector:
    """The connector of ``spec``; nothing is connected yet. Raises InvalidInput (CONFIG_INVALID), BrokerError.

    ``own``: the broker's own JWT-SVIDs, for settings that log in with them.
    """
    made = _KINDS.get(spec.kind)
    if made is None:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"connector {spec.name} is of an unknown kind {spec.kind!a}.",
            hint=f"Kinds are: {', '.join(sorted(_KINDS))}.",
            metadata={"connector": spec.name, "kind": ascii(spec.kind)},
        )
    return made(_Reader(spec.name, spec.settings, resolve, own or NoOwnToken()), clock)


class _Reader:
    """One object of the settings; says what is wrong by connector and name."""

    def __init__(self, connector: str, settings: Mapping[str, JsonValue], resolve: Resolve, own: OwnIdentity) -> None:
        self.connector = connector
        self.own = own
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

    def inner(self, name: str) -> _Reader:
        """An object inside this one."""
        value = self._settings.get(name)
        if not isinstance(value, Mapping):
            raise self._wrong(name)
        return _Reader(self.connector, value, self._resolve, self.own)

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


def _vault_database(settings: _Reader, clock: Clock) -> Connector:
    login = settings.inner("login")
    return VaultDatabase(
        settings.connector,
        VaultDatabaseSettings(
            address=settings.text("address"),
            mount=settings.text("mount", "database"),
            token_role=settings.text("token_role", "jit-attempt"),
            policy_prefix=settings.text("policy_prefix", "jit-attempt-"),
            ca_file=settings.maybe_text("ca_file"),
            namespace=settings.text("namespace", ""),
            engine=login.text("engine"),
            host=login.text("host"),
            port=login.port("port"),
            database=login.text("database"),
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
    keys = None
    if settings.has("access_key_id") or settings.has("secret_access_key"):
        keys = AwsKeys(settings.secret("access_key_id"), settings.secret("secret_access_key"))
    return AwsSts(
        settings.connector,
        AwsStsSettings(
            region=settings.text("region"),
            partition=settings.text("partition", "aws"),
            endpoint_url=settings.maybe_text("endpoint_url"),
            external_id=settings.maybe_text("external_id"),
            canary_bucket=settings.maybe_text("canary_bucket"),
            canary_endpoint_url=settings.maybe_text("canary_endpoint_url"),
        ),
        keys,
        clock,
    )


_KINDS: Mapping[str, Callable[[_Reader, Clock], Connector]] = {
    "vault-database": _vault_database,
    "aws-sts": _aws_sts,
}
