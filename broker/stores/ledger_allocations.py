"""The part of the ledger that lends accounts. The contract is :class:`broker.ports.allocations.AllocationStore`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.ports.allocations import Allocation, Taken, TakenUp
from broker.stores import allocation_ops as ops
from broker.stores.group_commit import GroupCommit
from broker.stores.reading import Reading


class LedgerAllocations:
    """What :class:`broker.stores.ledger.LedgerStore` does for pools of accounts."""

    _writer: GroupCommit
    _readers: Reading

    async def take_account(
        self, tenant: str, connector: str, attempt_id: str, among: Sequence[str], ends_at: datetime, now: datetime
    ) -> Taken | TakenUp:
        """See AllocationStore.take_account."""
        return await self._writer.submit(lambda tx: ops.take(tx, tenant, connector, attempt_id, among, ends_at, now))

    async def give_account_back(self, tenant: str, attempt_id: str, account: str, now: datetime) -> None:
        """See AllocationStore.give_account_back."""
        await self._writer.submit(lambda tx: ops.give_back(tx, tenant, attempt_id, account, now))

    async def rest_account(
        self, tenant: str, connector: str, attempt_id: str | None, account: str, free_at: datetime, now: datetime
    ) -> None:
        """See AllocationStore.rest_account."""
        await self._writer.submit(lambda tx: ops.rest(tx, tenant, connector, attempt_id, account, free_at, now))

    async def account_ready(self, tenant: str, account: str, now: datetime) -> None:
        """See AllocationStore.account_ready."""
        await self._writer.submit(lambda tx: ops.ready(tx, tenant, account, now))

    async def forget_account(self, tenant: str, account: str, now: datetime) -> None:
        """See AllocationStore.forget_account."""
        await self._writer.submit(lambda tx: ops.forget(tx, tenant, account, now))

    async def account_allocation(self, account: str) -> Allocation | None:
        """See AllocationStore.account_allocation."""
        return await self._readers.point(lambda view: ops.of_account(view, account))

    async def attempt_allocation(self, tenant: str, attempt_id: str) -> Allocation | None:
        """See AllocationStore.attempt_allocation."""
        return await self._readers.point(lambda view: ops.of_attempt(view, tenant, attempt_id))

    async def allocations(self, tenant: str, connector: str, accounts: Sequence[str]) -> Sequence[Allocation]:
        """See AllocationStore.allocations."""
        return await self._readers.scan(lambda view: ops.of_connector(view, tenant, connector, accounts))
