"""The audit trail for people who take it elsewhere: the records as they are, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from broker.issuance.caller import OperatorCaller
from broker.ports.lease_store import LeaseStore

# A record has at most what one message of an agent has, so a page stays far below what gRPC carries.
_MOST_BYTES = 1024 * 1024


class TrailPage(NamedTuple):
    """Records in order, and whether there are more by now."""

    records: Sequence[bytes]
    more: bool


class TrailDesk:
    """Where it is read."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store

    async def read(self, caller: OperatorCaller, after: int, limit: int) -> TrailPage:
        """Up to ``limit`` records with a sequence above ``after``; fewer where they are long, but one if there is one.

        A broker has one tenant, and its trail is one chain: all of it, or a page would not be one.
        """
        found = await self._store.audit_since(after, limit + 1)
        taken, size = 0, 0
        for record in found[:limit]:
            size += len(record)
            if taken and size > _MOST_BYTES:
                break
            taken += 1
        return TrailPage(found[:taken], taken < len(found))
