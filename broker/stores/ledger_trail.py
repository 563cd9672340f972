"""Checkpoints, witnesses and recovery. The contract is :class:`broker.ports.trail.TrailStore`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.ports.suspensions import Lifting
from broker.ports.trail import Evidence, HighWater, NewCheckpoint, OutgoingCheckpoint, Recovery, TrailEnd, WitnessLag
from broker.stores import checkpoint_ops, high_water_ops, recovery_ops
from broker.stores.group_commit import GroupCommit
from broker.stores.reading import Reading
from broker.stores.times import to_ms


class LedgerTrail:
    """What :class:`broker.stores.ledger.LedgerStore` does for whoever checks the trail."""

    _writer: GroupCommit
    _readers: Reading

    async def trail_end(self, tenant: str) -> TrailEnd | None:
        """See TrailStore.trail_end."""
        return await self._readers.scan(lambda view: checkpoint_ops.trail_end(view, tenant))

    async def add_checkpoint(self, tenant: str, new: NewCheckpoint, now: datetime) -> bool:
        """See TrailStore.add_checkpoint."""
        return await self._writer.submit(lambda tx: checkpoint_ops.add(tx, tenant, new, now))

    async def checkpoints_since(self, after: int, limit: int) -> Sequence[OutgoingCheckpoint]:
        """See TrailStore.checkpoints_since."""
        return await self._readers.scan(lambda view: checkpoint_ops.since(view, after, limit))

    async def witness_position(self, tenant: str, witness: str) -> int:
        """See TrailStore.witness_position."""
        return await self._readers.scan(lambda view: checkpoint_ops.position(view, tenant, witness))

    async def witnessed(self, tenant: str, witness: str, upto: int) -> None:
        """See TrailStore.witnessed."""
        row = {"tenant": tenant, "witness": witness, "upto": upto}
        await self._writer.submit(lambda tx: tx.run("witnessed", row))

    async def witness_lag(self, upto: int, now: datetime) -> WitnessLag:
        """See TrailStore.witness_lag."""
        return await self._readers.scan(lambda view: checkpoint_ops.lag(view, upto, now))

    async def recovery(self, tenant: str) -> Recovery | None:
        """See TrailStore.recovery."""
        return await self._readers.scan(lambda view: recovery_ops.read(view, tenant))

    async def enter_recovery(self, tenant: str, recovery_id: str, evidence: Evidence, now: datetime) -> Recovery:
        """See TrailStore.enter_recovery."""
        return await self._writer.submit(lambda tx: recovery_ops.enter(tx, tenant, recovery_id, evidence, now))

    async def burn_open(self, tenant: str, now: datetime) -> int:
        """See TrailStore.burn_open. Portion by portion, so that others commit in between."""
        total = 0
        while portion := await self._writer.submit(lambda tx: recovery_ops.burn(tx, tenant, now)):
            total += portion
        return total

    async def release_recovery(self, lifting: Lifting) -> Recovery:
        """See TrailStore.release_recovery."""
        return await self._writer.submit(lambda tx: recovery_ops.release(tx, lifting))

    async def high_water(self) -> HighWater:
        """See TrailStore.high_water."""
        return await self._readers.scan(high_water_ops.read)

    async def keep_time(self, now: datetime) -> None:
        """See TrailStore.keep_time."""
        await self._writer.submit(lambda tx: high_water_ops.keep(tx, to_ms(now)))
