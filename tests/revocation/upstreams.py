"""Many leases, and upstreams that answer at once, fail, or never answer, with what was asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench.noop import Noop
from broker.ports.connectors import Handle, NotYet, RevokeContext, Revoked, RevokeOutcome


class Upstream(Noop):
    """Ends what it is asked to end. ``down``: it fails; ``hangs``: it never answers; ``gate``: not before it is set.

    ``elsewhere``: whether an attempt's credential was made at another, which is that attempt's trouble alone.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.down = False
        self.hangs = False
        self.gate: asyncio.Event | None = None
        self.elsewhere: Callable[[str], bool] = lambda attempt: False
        self.asked: list[str] = []  # attempts, in order
        self.under_way = 0
        self.most_under_way = 0
        self.seen: Callable[[], None] = lambda: None  # called at each try

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        self.asked.append(str(handle["attempt"]))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.seen()
        try:
            if self.hangs:
                await asyncio.Event().wait()
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.elsewhere(self.asked[-1]):
            return NotYet("it was made elsewhere", alone=True)
        return NotYet("no answer") if self.down else Revoked()
