"""Following what happens to one holder, by sequence number; with heartbeats where nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

from broker.ports.lease_store import LeaseStore

# A stream with nothing to tell says so this often, so that its reader knows it is alive.
HEARTBEAT = timedelta(seconds=10)
PAGE = 100
FROM_NOW = -1


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

    The first item is a heartbeat: it tells from where the stream goes on.
    """
    head = await store.changed(-1)
    if after == FROM_NOW:
        after = head
    yield after
    while True:
        events = await page(after, PAGE)
        for event in events:
            after = event.sequence
            yield event
        if len(events) == PAGE:
            continue
        try:
            async with asyncio.timeout(HEARTBEAT.total_seconds()):
                head = await store.changed(head)
        except TimeoutError:
            yield after
