"""Jobs of one replica at a time, as one replica sees them."""

from __future__ import annotations

import asyncio

import pytest

from broker.daemon.turns import Turns
from broker.errors import NotReady, Reason
from broker.ports.replicas import REPLICA_DEAD_AFTER

NAMES = frozenset({"a", "b"})
NOBODYS: frozenset[str] = frozenset()
LASTS = REPLICA_DEAD_AFTER.total_seconds()


class Ticking:
    """A monotonic clock that is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Something that has no end of its own."""

    def __init__(self) -> None:
        self.begun = self.running = 0

    async def __call__(self) -> None:
        self.begun += 1
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1


@pytest.fixture
def ticking() -> Ticking:
    return Ticking()


@pytest.fixture
def turns(ticking: Ticking) -> Turns:
    return Turns(NAMES, ticking, shared=True)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_before_it_was_heard_nothing_is_its_own(turns: Turns) -> None:
    assert not turns.mine("a")


async def test_a_turn_ends_by_itself(turns: Turns, ticking: Ticking) -> None:
    """F18: told by when it asked, not by when it was answered: the ledger may have been slow."""
    asked = ticking.now
    ticking.now += 3
    await turns.heard(frozenset({"a"}), asked)
    assert (turns.mine("a"), turns.mine("b")) == (True, False)
    ticking.now = asked + LASTS - 0.001
    assert turns.mine("a")
    ticking.now = asked + LASTS
    assert not turns.mine("a")


async def test_a_job_is_done_by_whose_it_is(turns: Turns, ticking: Ticking) -> None:
    done: list[str] = []

    async def job() -> None:
        done.append("done")

    run = turns.when_mine("a", job)
    await run()
    assert done == []
    await turns.heard(frozenset({"a"}), ticking.now)
    await run()
    assert done == ["done"]


async def test_what_begins_with_a_turn_begins_with_each(turns: Turns, ticking: Ticking) -> None:
    begun: list[str] = []

    async def begin() -> None:
        begun.append("begun")

    await turns.at_begin("a", begin)
    assert begun == []
    for held in (frozenset({"a"}), frozenset({"a", "b"}), NOBODYS, frozenset({"a"})):
        await turns.heard(held, ticking.now)
    assert begun == ["begun", "begun"]


async def test_a_turn_that_ended_by_itself_begins_anew(turns: Turns, ticking: Ticking) -> None:
    begun: list[str] = []

    async def begin() -> None:
        begun.append("begun")

    await turns.at_begin("a", begin)
    await turns.heard(frozenset({"a"}), ticking.now)
    ticking.now += LASTS
    await turns.heard(frozenset({"a"}), ticking.now)
    assert begun == ["begun", "begun"]


async def test_work_runs_for_as_long_as_the_turn_lasts(turns: Turns, ticking: Ticking) -> None:
    work = Work()
    turns.beside("a", work)
    await settled()
    assert work.begun == 0
    for _ in range(2):
        await turns.heard(frozenset({"a"}), ticking.now)
        await settled()
    assert (work.begun, work.running) == (1, 1)
    await turns.heard(NOBODYS, ticking.now)
    assert work.running == 0
    await turns.heard(frozenset({"a"}), ticking.now)
    await settled()
    ticking.now += LASTS
    await turns.lapse()
    assert (work.begun, work.running) == (2, 0)


async def test_the_last_things_are_still_its_turn(turns: Turns, ticking: Ticking) -> None:
    work = Work()
    turns.beside("a", work)
    await turns.heard(NAMES, ticking.now)
    await settled()
    await turns.close()
    assert (work.running, turns.mine("a")) == (0, True)


async def test_a_beginning_that_fails_does_not_keep_the_others_from_theirs(turns: Turns, ticking: Ticking) -> None:
    work = Work()

    async def begin() -> None:
        raise NotReady(Reason.STORE_UNAVAILABLE, "the ledger is not there.")

    await turns.at_begin("a", begin)
    turns.beside("b", work)
    await turns.heard(NAMES, ticking.now)
    await settled()
    assert work.running == 1
    await turns.close()


async def test_where_nobody_shares_the_ledger_every_turn_is_its_own(ticking: Ticking) -> None:
    turns = Turns(NAMES, ticking, shared=False)
    ticking.now += 10 * LASTS
    assert turns.mine("a")
    work = Work()
    turns.beside("b", work)
    await settled()
    assert work.running == 1
    await turns.close()
