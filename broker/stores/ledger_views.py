"""The half of the ledger that people look at. The contract is :class:`broker.ports.views.ViewStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.ports.leases import Lease
from broker.ports.tasks import Task
from broker.ports.views import Alive, LeaseSearch, TaskSearch
from broker.stores import views
from broker.stores.reading import Reading


class LedgerViews:
    """What :class:`broker.stores.ledger.LedgerStore` does for people who look."""

    _readers: Reading

    async def lease(self, tenant: str, lease_id: str) -> Lease:
        """See ViewStore.lease."""
        return await self._readers.point(lambda view: views.lease(view, tenant, lease_id))

    async def search_leases(self, search: LeaseSearch, after: str, limit: int) -> Sequence[Lease]:
        """See ViewStore.search_leases."""
        return await self._readers.scan(lambda view: views.search_leases(view, search, after, limit))

    async def search_tasks(self, search: TaskSearch, after: str, limit: int) -> Sequence[Task]:
        """See ViewStore.search_tasks."""
        return await self._readers.scan(lambda view: views.search_tasks(view, search, after, limit))

    async def alive(self, tenant: str) -> Mapping[str, Alive]:
        """See ViewStore.alive."""
        return await self._readers.scan(lambda view: views.alive(view, tenant))
