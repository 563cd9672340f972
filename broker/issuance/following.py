"""Following what happens to one holder, by sequence number; with heartbeats where nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

from broker.errors import NotReady, Reason
from broker.ports.lease_store import LeaseStore

# A stream with nothing to tell says so this often, so that its reader knows it is alive.
HEARTBEAT = timedelta(seconds=10)
PAGE = 100
FROM_NOW = -1
_LOOKS = 2


class Numbered(Protocol):
    """One entry of a stream."""

    @property
    def sequence(self) -> int:
        """Its position; they rise, with gaps."""
        ...


E = TypeVar("E", bound=Numbered)


async def follow(
    store: LeaseStore, page: Callable[[int, int], Awaitable[Sequence[E]]], after: int
) -> AsyncIterator[E | int]:
    """The events above ``after``, for ever; an int is a heartbeat with the position. ``page`` takes (after, limit).

    The first item is a heartbeat: it tells from where the stream goes on. Raises :class:`NotReady` (STREAM_TOO_OLD)
    where the ledger ends before ``after``, and goes on ending there while it is looked at.
    """
    head = await store.changed(-1)
    if after == FROM_NOW:
        after = head
    yield after
    ahead, looks = after > head, 0
    while True:
        events = await page(after, PAGE)
        for event in events:
            after, ahead = event.sequence, False
            yield event
        if len(events) == PAGE:
            continue
        try:
            async with asyncio.timeout(HEARTBEAT.total_seconds()):
                head = await store.changed(head)
        except TimeoutError:
            looks = _LOOKS
            if not ahead:
                yield after
        # Another replica may have told of an event that this one has not seen yet: it will have, after a look or two.
        looks += 1
        ahead = ahead and after > head
        if ahead and looks > _LOOKS:
            # Whoever tells this one of the others' commits may hang: the ledger itself says where it ends.
            if not await store.audit_since(after - 1, 1):
                raise _put_back(after, head)
            ahead = False


def _put_back(after: int, head: int) -> NotReady:
    """Whoever goes on waiting for what comes after ``after`` would miss all that happens until there."""
    return NotReady(
        Reason.STREAM_TOO_OLD,
        f"The ledger ends at {head}, before {after}: it was put back to an older state, or is another one.",
        hint="List them to see how they are, then watch from now on.",
        metadata={"lastSequence": str(after), "sequence": str(head)},
    )
