"""Break-glass's part of the ledger. The contract is :class:`broker.ports.break_glass.BreakGlassStore`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from broker.breakglass.codes import Batch, KeptCode
from broker.breakglass.reviews import Use
from broker.ports.break_glass import NewBatch, NewOverride, OverrideGiven, Tended
from broker.ports.leases import Lease
from broker.ports.proofs import ProofRecord
from broker.ports.reviews import NewFindings
from broker.stores import break_glass_codes as codes_ops
from broker.stores import break_glass_reviews as reviews
from broker.stores import replica_ops
from broker.stores.group_commit import GroupCommit
from broker.stores.reading import Reading
from broker.stores.view import View


class LedgerBreakGlass:
    """What :class:`broker.stores.ledger.LedgerStore` does for break-glass."""

    _writer: GroupCommit
    _readers: Reading

    async def get_use(self, tenant: str, lease_id: str) -> tuple[Use, Lease]:
        """See BreakGlassStore.get_use."""
        return await self._readers.scan(lambda view: reviews.get(view, tenant, lease_id))

    async def uses(self, tenant: str, unsettled: bool, after: str, limit: int) -> Sequence[tuple[Use, Lease]]:
        """See BreakGlassStore.uses."""
        return await self._readers.scan(lambda view: reviews.page(view, tenant, unsettled, after, limit))

    async def blocked(self, tenant: str, groups: frozenset[str], now: datetime) -> Mapping[str, str]:
        """See BreakGlassStore.blocked."""
        return await self._readers.scan(lambda view: reviews.blocked(view, tenant, groups, now))

    async def review_use(self, new: NewFindings) -> Use:
        """See BreakGlassStore.review_use."""
        return await self._writer.submit(lambda tx: reviews.review(tx, new))

    async def override(self, new: NewOverride) -> OverrideGiven:
        """See BreakGlassStore.override."""
        return await self._writer.submit(lambda tx: reviews.override(tx, new))

    async def tend_uses(self, tenant: str, enabled: Callable[[str], bool], now: datetime, by: str = "") -> Tended:
        """See BreakGlassStore.tend_uses."""

        def there(view: View) -> Callable[[str], bool]:
            return lambda person: enabled(person) or replica_ops.replaced(view, tenant, by)

        if not await self._readers.scan(lambda view: reviews.needs_tending(view, tenant, there(view), now)):
            return Tended()
        return await self._writer.submit(lambda tx: reviews.tend(tx, tenant, there(tx), now))

    async def request_codes(self, new: NewBatch) -> Batch:
        """See BreakGlassStore.request_codes."""
        return await self._writer.submit(lambda tx: codes_ops.request(tx, new))

    async def make_codes(
        self,
        tenant: str,
        batch_id: str,
        by: str,
        by_name: str,
        proof: ProofRecord,
        codes: Sequence[KeptCode],
        now: datetime,
    ) -> Batch:
        """See BreakGlassStore.make_codes."""
        return await self._writer.submit(
            lambda tx: codes_ops.make(tx, tenant, batch_id, by, by_name, proof, codes, now)
        )

    async def get_batch(self, tenant: str, batch_id: str) -> Batch:
        """See BreakGlassStore.get_batch."""
        return await self._readers.scan(lambda view: codes_ops.get_batch(view, tenant, batch_id))

    async def get_code(self, tenant: str, code_id: str) -> KeptCode:
        """See BreakGlassStore.get_code."""
        return await self._readers.scan(lambda view: codes_ops.get_code(view, tenant, code_id))

    async def codes(self, tenant: str) -> tuple[Sequence[Batch], Sequence[KeptCode]]:
        """See BreakGlassStore.codes."""
        return await self._readers.scan(lambda view: codes_ops.all_of(view, tenant))

    async def code_failed(self, tenant: str, code_id: str, now: datetime) -> None:
        """See BreakGlassStore.code_failed."""
        await self._writer.submit(lambda tx: codes_ops.failed(tx, tenant, code_id, now))

    async def revoke_codes(self, tenant: str, named: str, by: str, now: datetime) -> int:
        """See BreakGlassStore.revoke_codes."""
        return await self._writer.submit(lambda tx: codes_ops.revoke(tx, tenant, named, by, now))
