"""What is upstream and not in the ledger. The contract is :class:`broker.ports.orphans.OrphanStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from broker.lease.machine import State
from broker.ports.connectors import Carried
from broker.ports.orphans import HeldUpstream, Orphan, OrphanEnd, OrphanFigures
from broker.stores import orphan_ops, orphan_reads
from broker.stores.group_commit import GroupCommit
from broker.stores.reading import Reading
from broker.stores.times import to_ms


class LedgerOrphans:
    """What :class:`broker.stores.ledger.LedgerStore` does for the reconciler."""

    _writer: GroupCommit
    _readers: Reading

    async def mark(self, tenant: str, candidate: str, now: datetime) -> str:
        """See OrphanStore.mark."""
        return await self._writer.submit(lambda tx: orphan_ops.mark(tx, tenant, candidate, now))

    async def held(self, tenant: str, carried: Sequence[Carried]) -> Mapping[str, State]:
        """See OrphanStore.held."""
        return await self._readers.scan(lambda view: orphan_reads.held(view, tenant, carried))

    async def active_attempts(self, connector: str, now: datetime) -> Sequence[HeldUpstream]:
        """See OrphanStore.active_attempts."""
        return await self._readers.walk(lambda view: orphan_reads.active(view, connector, now))

    async def add_orphans(self, found: Sequence[Orphan]) -> Sequence[Orphan]:
        """See OrphanStore.add_orphans."""
        return await self._writer.submit(lambda tx: orphan_ops.add(tx, found))

    async def orphan_connectors(self, now: datetime) -> frozenset[str]:
        """See OrphanStore.orphan_connectors."""
        rows = await self._readers.scan(lambda view: view.all("orphan_connectors_due", {"now": to_ms(now)}))
        return frozenset(row[0] for row in rows)

    async def claim_orphans(self, connector: str, now: datetime, limit: int, claim_for: timedelta) -> Sequence[Orphan]:
        """See OrphanStore.claim_orphans."""
        return await self._writer.submit(lambda tx: orphan_ops.claim(tx, connector, now, limit, claim_for))

    async def record_orphan(
        self, orphan: Orphan, outcome: OrphanEnd | None, now: datetime, next_due: datetime, error: str, stuck: bool
    ) -> bool:
        """See OrphanStore.record_orphan."""
        return await self._writer.submit(lambda tx: orphan_ops.record(tx, orphan, outcome, now, next_due, error, stuck))

    async def orphans(self, tenant: str, after: str, limit: int, *, living_only: bool) -> Sequence[Orphan]:
        """See OrphanStore.orphans."""
        return await self._readers.scan(
            lambda view: orphan_reads.listed(view, tenant, after, limit, living_only=living_only)
        )

    async def orphan_figures(self) -> Mapping[str, OrphanFigures]:
        """See OrphanStore.orphan_figures."""
        rows = await self._readers.scan(lambda view: view.all("orphan_figures", {}))
        return {connector: OrphanFigures(living, stuck) for connector, living, stuck in rows}
