"""What /metrics asks the ledger: within a bound, because a page without it says more than none.

That the ledger cannot be asked is what the operator has to see, with everything that is known without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from broker.errors import BrokerError
from broker.issuance.access_reviews import AccessReviewDesk
from broker.ports.clock import Clock
from broker.ports.figures import LedgerFigures
from broker.ports.ledger import Ledger
from broker.ports.orphans import OrphanFigures

# Whoever scrapes waits for ten seconds, mostly. The largest ledger's figures take a few.
PATIENCE = 8.0


class Asked(NamedTuple):
    """Of one moment."""

    figures: LedgerFigures
    orphans: Mapping[str, OrphanFigures]
    review_overdue: bool


class LedgersFigures:
    """Asked anew at each scrape, unless the last question is not answered yet."""

    def __init__(self, store: Ledger, reviews: AccessReviewDesk, clock: Clock, tenant: str) -> None:
        self._store = store
        self._reviews = reviews
        self._clock = clock
        self._tenant = tenant
        self._asking: asyncio.Task[Asked | None] | None = None
        self.head = 0  # of the trail, when it was known last

    async def ask(self) -> Asked | None:
        """What the ledger says; None where it does not, or not in time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        done, _ = await asyncio.wait({self._asking}, timeout=PATIENCE)
        return self._asking.result() if done else None

    async def _ask(self) -> Asked | None:
        now = self._clock.now()
        try:
            figures = await self._store.figures(now)
            orphans = await self._store.orphan_figures()
            overdue = await self._reviews.overdue(self._tenant, now)
        except BrokerError:
            return None
        self.head = figures.audit_head
        return Asked(figures, orphans, overdue)
