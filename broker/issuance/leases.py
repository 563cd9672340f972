"""What holders do with their leases: read, follow, confirm, give back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from broker.issuance.caller import Caller
from broker.issuance.ending import Ending
from broker.issuance.following import follow
from broker.issuance.stopped import check_suspended
from broker.lease.machine import TERMINAL
from broker.ports.clock import Clock
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause, Lease, LeaseEvent, LeaseFilter, Selector


class LeaseDesk:
    """Everything agents do with leases they hold, or handed on a part of. Somebody else's lease is not found."""

    def __init__(self, store: LeaseStore, kick: Callable[[str], None], clock: Clock) -> None:
        self._store = store
        self._ending = Ending(store, kick, clock)
        self._clock = clock

    async def get(self, caller: Caller, lease_id: str) -> Lease:
        """One lease of the caller's, or a part of one that it handed on."""
        return await self._store.get_lease(caller.tenant, lease_id, caller.id)

    async def list(
        self, caller: Caller, *, task_id: str, living_only: bool, after: str, limit: int
    ) -> tuple[Sequence[Lease], str]:
        """A page of the caller's leases, newest first, and the id to continue after (empty: the end)."""
        filter_ = LeaseFilter(caller.tenant, caller.id, task_id, living_only)
        leases = await self._store.list_leases(filter_, after, limit + 1)
        more = len(leases) > limit
        page = leases[:limit]
        return page, page[-1].id if more else ""

    async def confirm(self, caller: Caller, lease_id: str, attempt_id: str) -> Lease:
        """The caller has received the credential of this attempt."""
        return await self._store.confirm_delivery(caller.tenant, lease_id, caller.id, attempt_id, self._clock.now())

    async def revoke(self, caller: Caller, lease_id: str, wait: timedelta) -> Lease:
        """End one lease; its state after at most ``wait``. Repeating it is harmless."""
        lease = await self.get(caller, lease_id)
        if lease.state in TERMINAL:
            return lease
        # Whoever may see it may end it: its holder, and who handed on what it is a part of.
        selector = Selector(caller.tenant, lease_id=lease_id, holder=lease.holder)
        cause = EndCause.RELEASED if lease.holder == caller.id else EndCause.DELEGATION_REVOKED
        return await self._ending.lease(selector, cause, caller.id, wait, lambda: self.get(caller, lease_id))

    async def watch(self, caller: Caller, after: int) -> AsyncIterator[LeaseEvent | int]:
        """The caller's lease events above ``after``, for ever; see :func:`broker.issuance.following.follow`."""

        async def page(position: int, limit: int) -> Sequence[LeaseEvent]:
            await check_suspended(self._store, replace(caller, now=self._clock.now()))
            return await self._store.lease_events(caller.tenant, caller.id, position, limit)

        await check_suspended(self._store, caller)  # follow() speaks before it reads
        async for event in follow(self._store, page, after):
            yield event
