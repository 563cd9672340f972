"""Following a ledger by sequence numbers, and what it says to somebody who has seen more than there is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest

from broker.errors import NotReady, Reason
from broker.issuance import following
from broker.issuance.following import follow
from broker.ports.lease_store import LeaseStore


@dataclass(frozen=True)
class Event:
    sequence: int


class Ledger:
    """As much of a ledger as is followed: where it ends, and how that moves while somebody waits."""

    def __init__(self, head: int, *moves: int, written: int = 0) -> None:
        """``written``: where it ends, if that was not heard of yet."""
        self.head, self._moves, self._written = head, list(moves), written

    async def changed(self, since: int) -> int:
        if since >= self.head:
            if not self._moves:
                await asyncio.Event().wait()
            self.head = self._moves.pop(0)
        return self.head

    @property
    def end(self) -> int:
        return max(self.head, self._written)

    async def page(self, after: int, limit: int) -> Sequence[Event]:
        return [Event(sequence) for sequence in range(after + 1, self.end + 1)][:limit]

    async def audit_since(self, after: int, limit: int) -> Sequence[bytes]:
        return [b"%d" % sequence for sequence in range(after + 1, self.end + 1)][:limit]


async def heard(ledger: Ledger, after: int, count: int) -> list[Any]:
    found: list[Any] = []
    async for each in follow(cast("LeaseStore", ledger), ledger.page, after):
        found.append(each)
        if len(found) == count:
            break
    return found


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "HEARTBEAT", timedelta(milliseconds=10))


async def test_events_come_once_in_order_and_silence_is_a_heartbeat() -> None:
    assert await heard(Ledger(2, 3), 0, 5) == [0, Event(1), Event(2), Event(3), 3]
    assert await heard(Ledger(2, 3), following.FROM_NOW, 3) == [2, Event(3), 3]


@pytest.mark.parametrize("moves", [(), (6, 7, 8, 9)], ids=["silent", "busy"])
async def test_who_has_seen_more_than_there_is_is_told_so(moves: tuple[int, ...]) -> None:
    # A ledger that was put back: until it gets to 100 again, everything would be missed without a word.
    with pytest.raises(NotReady, match=r"ends at \d, before 100") as refused:
        await heard(Ledger(5, *moves), 100, 99)
    assert refused.value.reason is Reason.STREAM_TOO_OLD


async def test_a_replica_that_is_a_moment_behind_catches_up() -> None:
    assert await heard(Ledger(5, 6, 9), 7, 3) == [7, Event(8), Event(9)]


async def test_a_replica_that_has_not_heard_for_long_what_others_wrote_looks_before_it_says_so() -> None:
    """F48: a word was lost, and the session that looks hangs, as while a database fails over."""
    assert await heard(Ledger(5, written=7), 7, 3) == [7, 7, 7]
    assert await heard(Ledger(5, 6, 6, 6, written=7), 7, 2) == [7, 7]
