"""Access keys of IAM users, made by the AWS engine of Vault or OpenBao (kind ``vault-aws-user``).

The engine makes an IAM user for each lease, with one access key, and deletes both at the lease's end. A key has no end
of its own: where nothing deletes it, it is good for ever. So everything rests on the engine's being alive, and on what
IAM takes to spread a deletion, of which AWS states no figure.

The engine can also hand out sessions of STS (``credential_type`` other than ``iam_user``), whose leases end nothing.
Such an answer is refused, and nothing is said to have ended it before its own time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from broker.connectors.aws_use import list_bucket
from broker.connectors.vault_answers import integer_in, object_in, text_in
from broker.connectors.vault_calls import AttemptToken, BrokerToken
from broker.connectors.vault_engine import Made, VaultEngine
from broker.connectors.vault_examine import Rights
from broker.connectors.vault_http import Known, VaultFailure
from broker.lease.credential import AwsAccessKey, Binding, Contract, ContractClass, Credential
from broker.ports.clock import Clock
from broker.ports.connectors import Handle, Use
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.secret import Secret

# A user's long-term key; one that begins with ASIA is a session's (IAM User Guide, "IAM identifiers", unique ids).
_KEY_OF_USER = re.compile(r"AKIA[A-Z0-9]{12,124}\Z", re.ASCII)
# IAM is eventually consistent, and AWS states no bound. "A few minutes" is its word for policies.
_PROPAGATION = timedelta(minutes=5)

CONTRACT = Contract(
    cls=ContractClass.IMMEDIATE,
    binding=Binding.NONE,
    ttl_floor=timedelta(seconds=1),
    ttl_ceiling=timedelta(hours=1),
    on_expiry=_PROPAGATION,
    on_revoke=_PROPAGATION,
    broker_dead="OpenBao deletes key and user when the attempt's token expires, by the TTL.",
    upstream_dead="Nothing ends the key: it has no end of its own. OpenBao deletes it once it is back.",
    on_broker_dead=_PROPAGATION,
    on_upstream_dead=None,
    gives=AwsAccessKey,
)


@dataclass(frozen=True, slots=True)
class VaultAwsUserSettings:
    """What the operator says about one such upstream. Times in seconds."""

    address: str
    region: str  # told to agents
    mount: str = "aws"
    token_role: str = "jit-attempt"  # noqa: S105 - a name, not a token
    policy_prefix: str = "jit-attempt-"
    ca_file: str | None = None
    namespace: str = ""
    canary_bucket: str | None = None  # what a canary lists; None: nothing can be tried
    canary_endpoint_url: str | None = None  # of S3, for a double or a private endpoint
    timeout: float = 5.0
    threads: int = 8


class VaultAwsUser(VaultEngine):
    """The connector."""

    what = "access key"

    def __init__(self, name: str, settings: VaultAwsUserSettings, token: BrokerToken, clock: Clock) -> None:
        super().__init__(name, settings, token, clock)
        self._settings = settings

    @property
    def contract(self) -> Contract:
        """IMMEDIATE: key and user are deleted when asked; IAM takes a while to spread it."""
        return CONTRACT

    def make(self, handle: Handle, scope: Scope, token: AttemptToken, ttl: int) -> Made:
        """Have a user made, and a key of it. Its lease is as long as the engine says, and ends with the token."""
        answer = self._calls.read(f"{handle['mount']}/creds/{handle['role']}", token.token)
        data = object_in(answer, "data")
        credential = AwsAccessKey(
            access_key_id=text_in(data, "access_key"),
            secret_access_key=Secret(text_in(data, "secret_key")),
            region=self._settings.region,
        )
        key_id, lease_id = credential.access_key_id, text_in(answer, "lease_id")
        if _KEY_OF_USER.match(key_id) and not _session_token(data):
            return Made(lease_id, credential, {"access_key_id": key_id}, {"access_key": key_id})
        ends = self._clock.now() + timedelta(seconds=max(0, integer_in(answer, "lease_duration")))
        return Made(lease_id, credential, {"access_key_id": key_id}, {"session_ends": ends.isoformat()})

    def refuse_foreign(self, made: Made, handle: Handle, scope: Scope) -> None:
        """It is a user's own key: a session would not end with its lease."""
        if "session_ends" in made.noted:
            raise self.mismatch(
                "the engine gave a session, which its lease does not end",
                hint="Operators: the engine's role must have credential_type=iam_user, and no other.",
            )

    def proof(self, handle: Handle, now: datetime) -> Mapping[str, JsonValue]:
        """A user goes with its lease, or the lease does not go; of a session only time is the end."""
        ends = handle.get("session_ends")
        if ends is not None and now < datetime.fromisoformat(str(ends)):
            raise VaultFailure(Known.UNKNOWN, "its lease is gone, but it is a session, and only time ends those")
        return {}

    def rights(self) -> Rights:
        """As for every engine, and to see or change neither the engine's root key nor its leases' length."""
        common, mount = super().rights(), self._upstream.mount
        forbidden = {
            **common.forbidden,
            f"{mount}/config/root": "lead the engine to another account",
            f"{mount}/config/rotate-root": "rotate the engine's root key",
            f"{mount}/config/lease": "change how long the engine's keys live",
        }
        return Rights(needed=common.needed, forbidden=forbidden, closed=common.closed)

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """List the bucket that operators named for it. Raises UpstreamFailed, too, where they named none."""
        settings = self._settings
        list_one = partial(
            list_bucket,
            self._name,
            credential,
            settings.canary_bucket,
            endpoint_url=settings.canary_endpoint_url,
            timeout=settings.timeout,
        )
        with self._closing.call():
            return await self._using.run(list_one)


def _session_token(data: Mapping[str, object]) -> bool:
    """By the name that older and newer engines have for it."""
    return bool(data.get("security_token") or data.get("session_token"))
