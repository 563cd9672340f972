"""What a daemon of several hears with each beat: two of them, on one real ledger, with time as an argument."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from broker.clock import KeptClock
from broker.daemon.replica import LOOK_AGAIN, Replica
from broker.daemon.timekeeping import TimeWatch
from broker.errors import NotReady, Reason
from broker.issuance.among import Among
from broker.issuance.gate import Gate
from broker.ports.clock import Clock
from broker.ports.replicas import REPLICA_DEAD_AFTER, Heartbeat, Pulse
from broker.ports.suspensions import Lifting
from broker.ports.trail import Evidence
from broker.stores.sqlite import SqliteStore
from tests.clock import START, ManualClock
from tests.stores.make import Keys

TENANT = "default"
SECOND = timedelta(seconds=1)


class SharedLedger(SqliteStore):
    """A ledger of which daemons are told that others may have it, too."""

    shared = True
    gone = False
    timeline = ""

    async def beat(self, said: Heartbeat, now: datetime) -> Pulse:
        if self.gone:
            raise NotReady(Reason.STORE_UNAVAILABLE, "the database is not there.")
        return (await super().beat(said, now))._replace(timeline=self.timeline)


class One:
    """One daemon's part of it."""

    def __init__(self, store: SqliteStore, clock: Clock, name: str, digest: str = "one") -> None:
        self.clock = clock
        self.monotonic = 0.0
        self.among = Among(timedelta(seconds=30), mine=digest)
        self.gate = Gate(timedelta(hours=1), 100, timedelta(hours=1), heartbeat=START, among=self.among)
        self.replica = Replica(store, self.clock, self.gate, TENANT, name, lambda: self.monotonic)
        self.followed: list[str] = []
        self.recovered: list[str] = []
        self.replica.follow = self._follow
        self.replica.recover = self._recover

    async def _follow(self, digest: str) -> None:
        self.followed.append(digest)

    async def _recover(self) -> None:
        self.recovered.append(self.gate.recovery)
        self.gate.recovery = "rec-1"

    async def beat(self) -> None:
        await self.replica.beat()

    def later(self, by: timedelta) -> None:
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(by)
        self.monotonic += by.total_seconds()


def closed_by(each: One) -> Reason | None:
    why = each.gate.why_closed(each.clock.now())
    return None if why is None else why.reason


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SharedLedger]:
    store = await SharedLedger.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
    yield store
    await store.close()


@pytest.fixture
def a(store: SharedLedger) -> One:
    return One(store, ManualClock(), "replica-a")


@pytest.fixture
def b(store: SharedLedger) -> One:
    return One(store, ManualClock(), "replica-b")


async def test_one_does_the_jobs_until_it_dies(a: One, b: One) -> None:
    """F18: the other has them as soon as it must be dead, and the one that was only stopped knows it by then."""
    await a.beat()
    await b.beat()
    assert (a.replica.others, b.replica.others) == (0, 1)
    assert (a.replica.turns.mine("export"), b.replica.turns.mine("export")) == (True, False)
    for each in (a, b):
        each.later(REPLICA_DEAD_AFTER)
    assert not a.replica.turns.mine("export")
    assert a.gate.why_closed(a.clock.now()) is None
    await b.beat()
    assert b.replica.turns.mine("export")
    a.later(SECOND)
    closed = a.gate.why_closed(a.clock.now())
    assert closed is not None
    assert closed.reason is Reason.REPLICA_UNHEARD
    await a.beat()
    assert not a.replica.turns.mine("export")
    assert a.gate.why_closed(a.clock.now()) is None


async def test_one_that_leaves_leaves_its_jobs_at_once(a: One, b: One) -> None:
    await a.beat()
    await a.replica.leave()
    await b.beat()
    assert (b.replica.others, b.replica.turns.mine("export")) == (0, True)


async def test_a_set_in_force_elsewhere_is_followed_at_once_and_then_now_and_then(store: SharedLedger, a: One) -> None:
    """F28: no replica goes on for long by a set that was replaced."""
    await store.put_in_force(Heartbeat("replica-b", TENANT, "two"), START, deliberate=False)
    await a.beat()
    assert a.followed == ["two"]
    a.later(SECOND)
    await a.beat()
    assert a.followed == ["two"]
    a.later(timedelta(seconds=LOOK_AGAIN))
    await a.beat()
    assert a.followed == ["two", "two"]
    a.among.mine = "two"
    a.later(timedelta(seconds=LOOK_AGAIN))
    await a.beat()
    assert a.followed == ["two", "two"]


async def together(*replicas: One, seconds: int) -> None:
    """Each is heard each second."""
    for _ in range(seconds):
        for each in replicas:
            each.later(SECOND)
            await each.beat()


@pytest.mark.parametrize(("by", "of_the_set"), [(25, "a"), (50, "b")])
async def test_what_is_done_by_the_set_is_done_by_who_has_the_one_in_force(
    store: SharedLedger, a: One, by: int, of_the_set: str
) -> None:
    """F28: one that stays behind measures no canary, and lists no upstream that only the newer set names."""
    b = One(store, ManualClock(), "replica-b", digest="two")
    await a.beat()
    await store.put_in_force(Heartbeat("replica-b", TENANT, "two"), START, deliberate=False)
    await together(a, b, seconds=by)
    for job, whose in (("canaries", of_the_set), ("reconcile", of_the_set), ("export", "a")):
        assert (a.replica.turns.mine(job), b.replica.turns.mine(job)) == (whose == "a", whose == "b")


async def test_where_nobody_has_the_set_in_force_any_more_who_is_left_does_it(store: SharedLedger, a: One) -> None:
    await a.beat()
    await store.put_in_force(Heartbeat("replica-b", TENANT, "two"), START, deliberate=False)
    b = One(store, ManualClock(), "replica-b", digest="two")
    await together(a, b, seconds=50)
    assert not a.replica.turns.mine("reconcile")
    await together(a, seconds=25)
    assert a.replica.turns.mine("reconcile")


async def test_before_a_replica_has_a_set_it_follows_none(store: SharedLedger) -> None:
    await store.put_in_force(Heartbeat("replica-b", TENANT, "two"), START, deliberate=False)
    starting = One(store, ManualClock(), "replica-a", digest="")
    await starting.beat()
    assert starting.followed == []


def word(by: str, at: datetime) -> Lifting:
    return Lifting(TENANT, "rec-1", f"request-{by}", by, by, "looked at", at)


async def test_a_recovery_that_another_entered_closes_the_gate_until_people_release_it_there(
    store: SharedLedger, a: One
) -> None:
    """F35: recovery is the ledger's, not one daemon's."""
    await a.beat()
    assert a.recovered == []
    await store.enter_recovery(TENANT, "rec-1", Evidence("witness", "it has seen more", "note", 7, 1), START)
    await a.beat()
    assert (a.recovered, a.gate.recovery) == ([""], "rec-1")
    await a.beat()
    assert len(a.recovered) == 1
    for by in ("i#1", "i#2"):
        assert a.gate.recovery
        await store.release_recovery(word(by, START))
        await a.beat()
    assert a.gate.recovery == ""


async def test_a_recovery_that_is_being_entered_here_is_not_taken_back(a: One) -> None:
    """The ledger does not know of it yet: what was asked before is older."""
    beat = a.replica._store.beat

    async def meanwhile(*arguments: object) -> object:
        pulse = await beat(*arguments)  # type: ignore[arg-type]
        a.gate.recovery = "begins"
        return pulse

    a.replica._store.beat = meanwhile  # type: ignore[method-assign, assignment]
    await a.beat()
    assert a.gate.recovery == "begins"


async def test_a_beat_that_fails_says_so_and_ends_what_is_over(store: SharedLedger, a: One) -> None:
    await a.beat()
    store.gone = True
    a.later(REPLICA_DEAD_AFTER + SECOND)
    with pytest.raises(NotReady):
        await a.beat()
    assert not a.replica.turns.mine("export")
    closed = a.gate.why_closed(a.clock.now())
    assert closed is not None
    assert closed.reason is Reason.REPLICA_UNHEARD


async def test_after_a_failover_inventories_are_compared(store: SharedLedger, a: One) -> None:
    """F21: what the upstreams hold is held against the ledger that goes on."""
    compared: list[str] = []
    a.replica.reconcile = lambda: compared.append("soon")
    for timeline, times in (("00000001", 0), ("00000001", 0), ("00000002", 1), ("00000002", 1)):
        store.timeline = timeline
        await a.beat()
        assert len(compared) == times


async def test_what_one_has_read_of_the_time_the_others_go_on_from(store: SharedLedger) -> None:
    """F40, I1: the server's clock was an hour fast for a moment, and one of two has read it then.

    What that one has granted would else be an hour too long for the other, and nobody would hear that the other lives.
    """
    there = [int(START.timestamp() * 1000)] * 2
    running = [0]
    clocks = [KeptClock(lambda who=who: there[who], lambda: running[0]) for who in (0, 1)]
    one, other = (One(store, clock, f"replica-{n}") for n, clock in enumerate(clocks))
    watches = [TimeWatch(clock, each.gate, TENANT) for clock, each in zip(clocks, (one, other), strict=True)]
    for watch, each in zip(watches, (one, other), strict=True):
        await watch.resume(store)
        each.replica.hear_time = watch.hear
        await each.beat()
    there[0] += 3_600_000
    await watches[0].keep()
    there[0] -= 3_600_000
    await other.beat()
    assert clocks[1].now() >= clocks[0].now() - SECOND > START + timedelta(minutes=59)
    assert closed_by(other) == closed_by(one) == Reason.CLOCK_DOUBTED
    # And on from there, as everybody.
    running[0] += 10_000
    there[:] = [each + 10_000 for each in there]
    assert abs(clocks[1].now() - clocks[0].now()) <= SECOND


async def test_where_nobody_shares_the_ledger_nothing_is_told(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "own.sqlite3", Keys(), "writer-1")
    try:
        alone = One(store, ManualClock(), "replica-a")
        await alone.beat()
        alone.later(timedelta(days=1))
        assert alone.replica.turns.mine("export")
        assert alone.among.heard_at is None
        await alone.replica.leave()
        # Nothing of it is in the ledger.
        assert (await store.beat(Heartbeat("replica-b", TENANT), START)).others == 0
    finally:
        await store.close()
