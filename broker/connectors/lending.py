"""The ledger, for the connectors that lend accounts of an upstream: it says whose each of them is."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import Defect, Reason
from broker.ports.allocations import AllocationStore


@dataclass(slots=True)
class Lending:
    """The ledger of one tenant, to lend from. Whoever opens the ledger sets ``store``, before connectors are made."""

    tenant: str
    store: AllocationStore | None = None

    def ledger(self, connector: str) -> AllocationStore:
        """For one connector. Raises Defect where there is none."""
        if self.store is None:
            raise Defect(Reason.INTERNAL, f"connector {connector} lends accounts, and there is no ledger to say whose.")
        return self.store
