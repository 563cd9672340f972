"""The half of the ledger that reviews living leases. The contract is :class:`broker.ports.reviews.ReviewStore`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.ports.leases import Granted, Tightened
from broker.stores import review_ops
from broker.stores.group_commit import GroupCommit
from broker.stores.reading import Reading


class LedgerReviews:
    """What :class:`broker.stores.ledger.LedgerStore` does for reviews."""

    _writer: GroupCommit
    _readers: Reading
    _living: review_ops.LivingWalk

    async def living_grants(self, tenant: str, after: str, limit: int) -> Sequence[Granted]:
        """See ReviewStore.living_grants."""
        return await self._readers.walk(lambda view: self._living.page(view, tenant, after, limit))

    async def record_review(
        self,
        tenant: str,
        lease_id: str,
        attempt_id: str,
        tightened: Tightened | None,
        end: bool,
        actor: str,
        now: datetime,
        by: str = "",
    ) -> bool:
        """See ReviewStore.record_review."""
        return await self._writer.submit(
            lambda tx: review_ops.record_review(tx, tenant, lease_id, attempt_id, tightened, end, actor, now, by)
        )
