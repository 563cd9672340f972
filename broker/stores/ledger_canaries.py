"""What canaries measured, in the ledger. The contract is :class:`broker.ports.canaries.CanaryStore`."""

from __future__ import annotations

from collections.abc import Sequence

from broker.canary.measurement import Measurement
from broker.stores import canary_ops
from broker.stores.group_commit import GroupCommit
from broker.stores.reading import Reading


class LedgerCanaries:
    """What :class:`broker.stores.ledger.LedgerStore` does for canaries."""

    _writer: GroupCommit
    _readers: Reading

    async def record_measurement(self, measurement: Measurement) -> None:
        """See CanaryStore.record_measurement."""
        await self._writer.submit(lambda tx: canary_ops.record(tx, measurement))

    async def measurements(self, tenant: str, connector: str, limit: int) -> Sequence[Measurement]:
        """See CanaryStore.measurements."""
        return await self._readers.scan(lambda view: canary_ops.newest(view, tenant, connector, limit))
