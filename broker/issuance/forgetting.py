"""People forget a lease that cannot be ended: one proposes it, another confirms; the ledger says whether it may be."""

from __future__ import annotations

from broker.issuance.caller import OperatorCaller
from broker.ports import Forgetting, Forgotten, LeaseStore


class ForgettingDesk:
    """Where that is said."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store

    async def forget(self, caller: OperatorCaller, lease_id: str, reason: str) -> Forgotten:
        """See LeaseStore.forget_lease, with the caller as the person."""
        return await self._store.forget_lease(Forgetting(caller.tenant, lease_id, caller.id, reason, caller.now))
