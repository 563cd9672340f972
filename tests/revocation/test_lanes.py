"""The revoker's lanes: large portions where the upstream is fast, no more than its workers where it is slow, nobody
held up by somebody else's upstream, and nothing ever given up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bench.filled import fill
from broker.audit.record import decode
from broker.errors import NotReady, Reason
from broker.lease.backoff import STUCK_AFTER
from broker.lease.breaker import FAILURES, Breakers
from broker.lease.machine import Event
from broker.lease.root import Work
from broker.ports.leases import Attempt, Tried
from broker.revocation.lane import MOST_HELD
from broker.revocation.revoker import Revoker
from broker.stores.sqlite import SqliteStore
from tests.clock import START, CountingRng, ManualClock
from tests.issuance.world import StaticKeys
from tests.patience import PATIENCE, becomes_true
from tests.revocation.upstreams import Upstream

WORKERS = 4
DUE = START + timedelta(minutes=10)


class Lanes:
    """A ledger of due leases, a revoker, and upstreams by name."""

    def __init__(self, store: SqliteStore, *names: str, gives_up: timedelta = timedelta(seconds=1)) -> None:
        self.store = store
        self.clock = ManualClock()
        self.breakers = Breakers()
        self.upstreams = {name: Upstream(name) for name in names or ("bao",)}
        self.revoker = Revoker(
            store,
            self.upstreams.get,
            self.clock,
            CountingRng(),
            workers=WORKERS,
            try_timeout=gives_up,  # closing waits for what hangs
            breakers=self.breakers,
        )

    @property
    def bao(self) -> Upstream:
        return self.upstreams["bao"]

    async def fill(self, count: int, due: Sequence[datetime] = (DUE,)) -> None:
        await fill(self.store, list(self.upstreams), count, START, due)
        self.clock.advance(max(due) - START)

    def kick(self) -> None:
        for name in self.upstreams:
            self.revoker.kick(name)

    def revoked(self, *names: str) -> int:
        tallies = self.revoker.tallies()
        return sum(tallies[name].revoked for name in names or self.upstreams)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "ledger.sqlite3", StaticKeys(), writer="w1")
    yield made
    await made.close()


async def events(store: SqliteStore) -> Counter[tuple[str, str]]:
    records = [decode(body) for body in await store.audit_since(0, 100_000)]
    return Counter((each.type, each.attempt_id) for each in records if each.type.startswith("lease."))


async def test_each_is_ended_once_and_told_once_per_transition(store: SqliteStore) -> None:
    lanes = Lanes(store)
    await lanes.fill(MOST_HELD + 50)
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() == MOST_HELD + 50)
    await lanes.revoker.close()
    assert Counter(lanes.bao.asked).most_common(1)[0][1] == 1
    told = await events(store)
    kinds = ("lease.revoking", "lease.revoked")
    assert told == Counter({(kind, attempt): 1 for kind in kinds for attempt in lanes.bao.asked})
    assert not await store.connectors_in_use()


async def test_one_upstream_that_hangs_holds_up_no_other(store: SqliteStore) -> None:
    """F29: what the others have is ended while it hangs, and it has no more of the broker than its workers."""
    lanes = Lanes(store, "a", "b", "c", "bao")
    lanes.bao.hangs = True
    await lanes.fill(400)
    lanes.kick()
    await becomes_true(lambda: lanes.revoked("a", "b", "c") == 300)
    assert lanes.bao.most_under_way == WORKERS
    assert lanes.revoker._lanes["bao"].held <= WORKERS
    await lanes.revoker.close()


async def test_a_slow_upstream_has_no_more_claimed_than_its_workers_try(store: SqliteStore) -> None:
    lanes = Lanes(store, gives_up=timedelta(seconds=PATIENCE))
    lanes.bao.gate = asyncio.Event()
    await lanes.fill(50)
    lanes.kick()
    await becomes_true(lambda: lanes.bao.under_way == WORKERS)
    assert len(await store.claim_due("bao", lanes.clock.now(), 100, timedelta(seconds=30))) == 50 - WORKERS
    lanes.bao.gate.set()
    await lanes.revoker.close()


async def test_a_fast_upstream_is_claimed_ahead_of_up_to_the_bound(store: SqliteStore) -> None:
    lanes = Lanes(store)
    held: list[int] = []
    lanes.bao.seen = lambda: held.append(lanes.revoker._lanes["bao"].held)
    await lanes.fill(2 * MOST_HELD)
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() == 2 * MOST_HELD)
    assert WORKERS < max(held) <= MOST_HELD
    await lanes.revoker.close()


async def test_what_ends_soonest_by_itself_is_ended_first(store: SqliteStore) -> None:
    """F11: all due at one moment, because an operator ends their holders' leases; they would last differently long."""
    lanes = Lanes(store)
    ends = [DUE + timedelta(minutes=minutes) for minutes in (5, 1, 9, 3, 7, 2, 8, 4, 6)]
    await fill(store, ["bao"], len(ends), START, ends)
    await store.end_unregistered("bench", lambda holder: False, START)
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() == len(ends))
    number = {f"jb-bench-{place:020d}": end for place, end in enumerate(ends)}
    order = [number[attempt] for attempt in lanes.bao.asked]
    assert all(max(order[: len(order) - WORKERS]) <= later for later in sorted(order)[-WORKERS:])
    assert order[:WORKERS] == sorted(ends)[:WORKERS]
    await lanes.revoker.close()


async def test_an_upstream_that_is_down_is_not_run_against_and_never_given_up(store: SqliteStore) -> None:
    """F10: when its circuit is open nothing is tried; then one at a time; when it is back, everything ends."""
    lanes = Lanes(store)
    lanes.bao.down = True
    await lanes.fill(60)
    lanes.kick()
    await becomes_true(lambda: lanes.breakers.open and not lanes.revoker._lanes["bao"].held)
    asked = len(lanes.bao.asked)
    assert FAILURES <= asked <= FAILURES + 2 * WORKERS
    lanes.kick()
    assert lanes.breakers.allowance("bao", Work.REVOKE, 1, lanes.clock.now()) == 0
    for tries in range(1, 4):
        lanes.clock.advance(timedelta(minutes=2))
        lanes.kick()
        await becomes_true(lambda tries=tries: len(lanes.bao.asked) == asked + tries)
        await becomes_true(lambda: not lanes.revoker._lanes["bao"].held)
    lanes.bao.down = False
    lanes.clock.advance(timedelta(minutes=2))
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() == 60)
    assert not lanes.breakers.open
    await lanes.revoker.close()


async def test_what_was_made_elsewhere_stays_and_holds_no_other_up(store: SqliteStore) -> None:
    """A connector that was pointed at another upstream ends what it makes there; what it made before is an alarm."""
    lanes = Lanes(store)
    lanes.bao.elsewhere = lambda attempt: int(attempt.rpartition("-")[2]) < 30
    await lanes.fill(60)
    for tries in range(1, STUCK_AFTER + 1):
        lanes.kick()
        await becomes_true(lambda tries=tries: lanes.revoker.tallies()["bao"].failed == 30 * tries)
        lanes.clock.advance(timedelta(minutes=2))
    assert lanes.revoked() == 30
    assert not lanes.breakers.open
    told = await events(store)
    assert sum(kind == "lease.stuck" for kind, _ in told) == 30
    await lanes.revoker.close()


async def test_closing_finishes_what_was_begun_and_claims_no_more(store: SqliteStore) -> None:
    """F23."""
    lanes = Lanes(store)
    await lanes.fill(2 * MOST_HELD)
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() > 0)
    await lanes.revoker.close()
    assert not lanes.revoker._lanes["bao"].held
    assert lanes.revoked() == len(lanes.bao.asked)
    left = await store.claim_due("bao", lanes.clock.now(), 10_000, timedelta(seconds=30))
    assert len(left) == 2 * MOST_HELD - len(lanes.bao.asked)


async def test_a_result_that_cannot_be_written_holds_up_no_other(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where many cannot be recorded together, each is by itself; who cannot is tried again when its claim ends."""
    lanes = Lanes(store)
    await lanes.fill(20)
    written = store.record_revocations
    bad = f"jb-bench-{7:020d}"

    async def record(tried: Sequence[Tried]) -> Sequence[bool]:
        if any(each.attempt.id == bad for each in tried) and lanes.bao.asked.count(bad) == 1:
            raise NotReady(Reason.STORE_UNAVAILABLE, "the disk is full")
        return await written(tried)

    monkeypatch.setattr(store, "record_revocations", record)
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() == 19)
    lanes.clock.advance(timedelta(seconds=31))
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() == 20)
    await lanes.revoker.close()


async def test_a_lane_looks_by_itself_at_what_comes_due_before_a_tick_does(store: SqliteStore) -> None:
    lanes = Lanes(store)
    soon = DUE + timedelta(milliseconds=1_500)
    await fill(store, ["bao"], 2, START, [DUE, soon])
    lanes.clock.advance(DUE - START)
    lanes.kick()
    lane = lanes.revoker._lanes["bao"]
    await becomes_true(lambda: lanes.revoked() == 1 and lane.timer is not None)
    lanes.clock.advance(timedelta(milliseconds=1_500))  # and no kick: the timer's
    await becomes_true(lambda: lanes.revoked() == 2)
    await lanes.revoker.close()


async def test_stale_claims_among_many_change_nothing(store: SqliteStore) -> None:
    """F17: each result is under its own claim's epoch, also among many and where the writer remembers the rows."""
    lanes = Lanes(store)
    await lanes.fill(6)
    stale = await store.claim_due("bao", lanes.clock.now(), 3, timedelta(seconds=30))
    later = lanes.clock.advance(timedelta(seconds=31))
    fresh = await store.claim_due("bao", later, 10, timedelta(seconds=30))
    before = await events(store)
    tried = [Tried(each, Event.REVOKE_CONFIRMED, later, later) for each in (*stale, *fresh)]
    assert list(await store.record_revocations(tried)) == [False] * 3 + [True] * 6
    assert list(await store.record_revocations(tried)) == [False] * 9
    assert sum((await events(store) - before).values()) == 6


async def test_who_finds_nothing_due_writes_nothing_and_has_come_round(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F49: a look costs the other writers nothing, and is told as one."""
    lanes = Lanes(store)
    await fill(store, ["bao"], 1, START, [DUE])

    async def write(operation: object) -> None:
        raise AssertionError("a transaction was opened only to look")

    monkeypatch.setattr(store._writer, "submit", write)
    lanes.revoker.liveness.asked("bao", START)
    lanes.kick()
    await becomes_true(lambda: not lanes.revoker.liveness._asked)
    lanes.revoker.liveness.asked("bao", START + timedelta(seconds=1))
    assert lanes.revoker.liveness.silent() == ()
    assert lanes.revoked() == 0
    monkeypatch.undo()
    lanes.clock.advance(DUE - START)
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() == 1)
    await lanes.revoker.close()


async def test_what_no_reader_can_say_a_claim_finds_out(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """F36, F47: revocation does not wait for the ledger's reading half."""
    lanes = Lanes(store)
    await lanes.fill(3)

    async def unreadable(connector: str) -> datetime | None:
        raise NotReady(Reason.STORE_UNAVAILABLE, "the readers are gone.")

    monkeypatch.setattr(store, "next_due", unreadable)
    lanes.kick()
    await becomes_true(lambda: lanes.revoked() == 3)
    await lanes.revoker.close()


async def test_a_ledger_that_can_be_read_and_not_written_is_asked_at_each_tick_and_no_more(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader says at once that something is due: who believed it would try, and log, twenty times a second."""
    asked, real = Counter[str](), store.claim_due

    async def refuses(connector: str, *_: object) -> Sequence[Attempt]:
        asked[connector] += 1
        raise NotReady(Reason.STORE_UNAVAILABLE, "the disk is read-only.")

    lanes = Lanes(store)
    await lanes.fill(3)
    monkeypatch.setattr(store, "claim_due", refuses)
    lanes.kick()
    await becomes_true(lambda: bool(asked["bao"]))
    await asyncio.sleep(0)
    assert lanes.revoker._lanes["bao"].timer is None
    monkeypatch.setattr(store, "claim_due", real)
    lanes.kick()  # as the next tick does
    await becomes_true(lambda: lanes.revoked() == 3)
    assert asked["bao"] == 1
    await lanes.revoker.close()
