"""Tokens of Kubernetes service accounts, made by the Kubernetes engine of Vault or OpenBao (kind ``vault-kubernetes``).

The engine makes a service account of the attempt's own and binds the role to it; the end of the lease deletes both, and
Kubernetes takes no token of a service account that is gone. That is what ends the token: its own time is ten minutes at
least, because Kubernetes makes none that is shorter.

So a role that lends a service account which was there before is refused: its tokens outlive their leases, and until
their own time is over nothing is said to have ended them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from broker.connectors.kubernetes_use import ask_who_i_am
from broker.connectors.vault_answers import object_in, text_in
from broker.connectors.vault_calls import AttemptToken, BrokerToken
from broker.connectors.vault_engine import Made, VaultEngine
from broker.connectors.vault_examine import Rights
from broker.connectors.vault_http import Known, VaultFailure
from broker.errors import InvalidInput, Reason
from broker.identity.strict_json import NotStrictJson, parse_object
from broker.lease.credential import Binding, Contract, ContractClass, Credential, KubernetesToken
from broker.ports.clock import Clock
from broker.ports.connectors import Handle, Use
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.secret import Secret

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)
# The shortest that Kubernetes makes (TokenRequestSpec.expirationSeconds).
_SHORTEST = timedelta(minutes=10)
_ROUNDING = timedelta(seconds=5)
# An API server remembers for 10 s that a token was good.
_REMEMBERED = timedelta(seconds=15)

CONTRACT = Contract(
    cls=ContractClass.IMMEDIATE,
    binding=Binding.NONE,
    ttl_floor=timedelta(seconds=1),
    ttl_ceiling=timedelta(hours=1),
    on_expiry=_REMEMBERED,
    on_revoke=_REMEMBERED,
    broker_dead="OpenBao deletes the service account when the attempt's token expires, by the TTL.",
    upstream_dead="The token ends by itself, ten minutes after it was made at the earliest; nothing deletes its service"
    " account until OpenBao is back.",
    on_broker_dead=_REMEMBERED,
    on_upstream_dead=_SHORTEST,
    gives=KubernetesToken,
)


@dataclass(frozen=True, slots=True)
class VaultKubernetesSettings:
    """What the operator says about one such upstream. Times in seconds."""

    address: str
    server: str  # the Kubernetes API, as agents reach it
    cluster_ca: str  # whom they believe there, PEM
    mount: str = "kubernetes"
    token_role: str = "jit-attempt"  # noqa: S105 - a name, not a token
    policy_prefix: str = "jit-attempt-"
    ca_file: str | None = None
    namespace: str = ""
    timeout: float = 5.0
    threads: int = 8


class VaultKubernetes(VaultEngine):
    """The connector."""

    what = "service account's token"

    def __init__(self, name: str, settings: VaultKubernetesSettings, token: BrokerToken, clock: Clock) -> None:
        super().__init__(name, settings, token, clock)
        self._settings = settings

    @property
    def contract(self) -> Contract:
        """IMMEDIATE: the service account is deleted when asked, and its tokens with it."""
        return CONTRACT

    def check(self, scope: Scope) -> None:
        """The template's namespace is one. Raises InvalidInput."""
        _namespace(scope)

    def make(self, handle: Handle, scope: Scope, token: AttemptToken, ttl: int) -> Made:
        """Have a service account made, and a token of it that outlives the lease only where it must."""
        asked = max(ttl, int(_SHORTEST.total_seconds()))
        body = {"kubernetes_namespace": _namespace(scope), "ttl": f"{asked}s"}
        answer = self._calls.write(f"{handle['mount']}/creds/{handle['role']}", body, token.token)
        data = object_in(answer, "data")
        account, bearer = text_in(data, "service_account_name"), Secret(text_in(data, "service_account_token"))
        ends = _end_of(bearer)
        credential = KubernetesToken(
            token=bearer,
            expires_at=ends,
            service_account=account,
            namespace=text_in(data, "service_account_namespace"),
            server=self._settings.server,
            cluster_ca=self._settings.cluster_ca,
        )
        return Made(
            text_in(answer, "lease_id"),
            credential,
            {"service_account": account, "kubernetes_namespace": credential.namespace, "token_ends": ends.isoformat()},
            {"service_account": account, "token_ends": ends.isoformat()},
            named=account,
        )

    def refuse_foreign(self, made: Made, handle: Handle, scope: Scope) -> None:
        """The service account is the attempt's own, in the template's namespace, and its token is not for longer."""
        credential = made.credential
        assert isinstance(credential, KubernetesToken)  # noqa: S101 - make() made it
        if str(handle["attempt"]) not in credential.service_account:
            raise self.mismatch(
                "the service account is not the attempt's own",
                hint="Operators: a role with kubernetes_role_name, and {{.DisplayName}} in full in its name_template.",
            )
        if credential.namespace != _namespace(scope):
            raise self.mismatch("the service account is in another namespace than was asked for")
        if credential.expires_at > self._clock.now() + max(scope.ttl, _SHORTEST) + _ROUNDING:
            raise self.mismatch("the token's own time is longer than was asked for")

    def proof(self, handle: Handle, now: datetime) -> Mapping[str, JsonValue]:
        """The attempt's own service account went with the lease; of one that was lent only time ends the token."""
        account = handle.get("service_account")
        if account is None:
            return {}  # found by its lease alone
        over = now >= datetime.fromisoformat(str(handle["token_ends"]))
        if str(handle["attempt"]) not in str(account) and not over:
            raise VaultFailure(Known.UNKNOWN, "its lease is gone, but its service account was there before and stays")
        return {"service_account": str(account)}

    def rights(self) -> Rights:
        """As for every engine, and not to lead it to another cluster."""
        common = super().rights()
        forbidden = {**common.forbidden, f"{self._upstream.mount}/config": "lead the engine to another cluster"}
        return Rights(needed=common.needed, forbidden=forbidden, closed=common.closed)

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Ask Kubernetes whose token it is. Raises UpstreamFailed."""
        with self._closing.call():
            return await self._using.run(partial(ask_who_i_am, self.name, credential, self._settings.timeout))


def _namespace(scope: Scope) -> str:
    value = scope.grant.get("kubernetes_namespace")
    if isinstance(value, str) and _NAMESPACE.match(value):
        return value
    raise InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} names no namespace of Kubernetes.",
        hint="Operators: grant.kubernetes_namespace is a name of at most 63 small letters, digits and hyphens.",
        metadata={"template": scope.template},
    )


def _end_of(token: Secret) -> datetime:
    """What the token itself says of its end. Kubernetes made it; nobody here has the keys, or needs them."""
    parts = token.reveal().split(".")
    try:
        claims = parse_object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        ends = claims.get("exp")
    except (IndexError, binascii.Error, ValueError, NotStrictJson):
        ends = None
    if not isinstance(ends, int) or isinstance(ends, bool) or not 0 < ends < 2**36:
        raise VaultFailure(Known.UNKNOWN, "the answer says success but the end of its token cannot be read")
    return datetime.fromtimestamp(ends, UTC)
