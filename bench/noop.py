"""The connector of the grants measurement: answers at once, from memory, with a credential like a real one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import Binding, Contract, ContractClass, Credential, DatabaseLogin
from broker.ports.connectors import Checkpoint, Doubt, Handle, Issued, RevokeContext, Revoked, RevokeOutcome, Use
from broker.ports.deploys import ConnectorSpec
from broker.scope.model import Scope
from broker.secret import Secret

CONTRACT = Contract(
    cls=ContractClass.IMMEDIATE,
    binding=Binding.NONE,
    ttl_floor=timedelta(seconds=1),
    ttl_ceiling=timedelta(hours=1),
    on_expiry=timedelta(0),
    on_revoke=timedelta(0),
    broker_dead="There is no upstream.",
    upstream_dead="There is no upstream.",
    on_broker_dead=timedelta(0),
    on_upstream_dead=timedelta(0),
)


class Noop:
    """No upstream: nothing is made and nothing needs ending, so all the time spent is the broker's own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.contract = CONTRACT

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """As many names as a real one keeps."""
        return {"attempt": attempt_id, "mount": "none", "role": str(scope.grant["role"]), "holder": holder}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A login of nowhere."""
        attempt = str(handle["attempt"])
        login = DatabaseLogin("postgresql", "127.0.0.1", 5432, "none", attempt, Secret(secrets.token_urlsafe(24)))
        return Issued(login, expires_at, {"username": attempt})

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Nothing is left, for nothing was made."""
        return Revoked()

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """There is nothing to use it on."""
        raise UpstreamFailed(Reason.CREDENTIAL_USE_UNKNOWN, "there is no upstream.")

    async def inventory(self) -> None:
        """None: nothing was made."""

    async def tend(self) -> None:
        """Nothing to keep alive."""

    async def examine(self) -> Sequence[Doubt]:
        """Nothing that could be wrong."""
        return ()

    async def close(self) -> None:
        """Nothing is held."""


def build(spec: ConnectorSpec) -> Noop:
    """A no-op connector, whatever ``spec`` asks for."""
    return Noop(spec.name)
