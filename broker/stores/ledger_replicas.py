"""Several daemons on one ledger. The contract is :class:`broker.ports.replicas.ReplicaStore`."""

from __future__ import annotations

from datetime import datetime

from broker.ports.replicas import DeployInForce, Heartbeat, Pulse
from broker.stores import inherit_ops, replica_ops
from broker.stores.group_commit import GroupCommit


class LedgerReplicas:
    """What :class:`broker.stores.ledger.LedgerStore` does for replicas; it has none where its database is its own."""

    _writer: GroupCommit
    shared = False

    async def beat(self, said: Heartbeat, now: datetime) -> Pulse:
        """See ReplicaStore.beat."""
        return await self._writer.submit(lambda tx: replica_ops.beat(tx, said, now))

    async def put_in_force(self, said: Heartbeat, now: datetime, *, deliberate: bool) -> DeployInForce:
        """See ReplicaStore.put_in_force."""
        return await self._writer.submit(lambda tx: replica_ops.put_in_force(tx, said, now, deliberate=deliberate))

    async def inherit(self, writer: str, now: datetime) -> int:
        """See ReplicaStore.inherit. In portions, as after a start."""
        total = 0
        while portion := await self._writer.submit(lambda tx: inherit_ops.inherit(tx, writer, now)):
            total += portion
        return total

    async def leave(self, writer: str, now: datetime) -> None:
        """See ReplicaStore.leave."""
        while await self._writer.submit(lambda tx: inherit_ops.let_go(tx, [writer], now)):
            continue
        await self._writer.submit(lambda tx: replica_ops.leave(tx, writer, now))
