"""People forget a lease that cannot be ended: one proposes it, another confirms; the ledger says whether it may be."""

from __future__ import annotations

from broker.approval.intent_digest import FORGET_LEASE
from broker.issuance.caller import OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import Forgetting, Forgotten
from broker.scope.blank import refuse_blank


class ForgettingDesk:
    """Where that is said."""

    def __init__(self, store: LeaseStore, fresh: FreshLogins) -> None:
        self._store = store
        self._fresh = fresh

    async def forget(self, caller: OperatorCaller, lease_id: str, reason: str, *, fresh_id_token: str) -> Forgotten:
        """See LeaseStore.forget_lease, with the caller as the person, by a login for exactly this."""
        refuse_blank("reason", reason)
        fields = {"lease_id": lease_id, "reason": reason}
        proof = self._fresh.demand(caller, fresh_id_token, FORGET_LEASE, fields, about=lease_id)
        return await self._store.forget_lease(Forgetting(caller.tenant, lease_id, caller.id, reason, caller.now, proof))
