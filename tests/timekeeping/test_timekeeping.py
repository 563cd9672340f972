"""Broker time: never back, never standing, and doubted while the clocks disagree. Milliseconds throughout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.timekeeping import AGREEMENT_MS, SETTLE_MS, TOLERANCE_MS, Jump, Timekeeper

WALL = 1_767_225_600_000  # 2026-01-01
SECOND = 1_000
HOUR = 3_600_000
YEARS = 10 * 365 * 24 * HOUR


class Machine:
    """Its two clocks, and a keeper that looks at them every second."""

    def __init__(self, keeper: Timekeeper | None = None, wall: int = WALL, running: int = 77_000) -> None:
        self.wall, self.running = wall, running
        self.keeper = keeper or Timekeeper()
        self.keeper.look(wall, running)

    def step(self, by: int) -> int:
        """Somebody sets the wall clock."""
        self.wall += by
        return self.now()

    def passes(self, ms: int, *, wall_percent: int = 100) -> int:
        """Time goes by; the wall clock may run wrong."""
        for _ in range(ms // SECOND):
            self.running += SECOND
            self.wall += SECOND * wall_percent // 100
            self.keeper.look(self.wall, self.running)
        return self.keeper.now

    def now(self) -> int:
        told = self.keeper.at(self.wall)
        return self.keeper.look(self.wall, self.running) if told is None else told


def test_time_is_the_wall_clocks_while_nothing_is_wrong() -> None:
    machine = Machine()
    assert machine.passes(2 * HOUR) == WALL + 2 * HOUR
    assert machine.keeper.doubt is None


@pytest.mark.parametrize("by", [TOLERANCE_MS + 1, HOUR, YEARS])
def test_a_jump_forwards_counts_at_once_and_is_doubted_until_it_has_stood(by: int) -> None:
    """F38: what the jump makes due is due at the very first question; grants wait for five minutes of agreement."""
    machine = Machine()
    assert machine.step(by) == WALL + by
    doubt = machine.keeper.doubt
    assert doubt is not None and (doubt.why, doubt.by_ms) == (Jump.FORWARDS, by)
    machine.passes(SETTLE_MS - SECOND)
    assert machine.keeper.doubt is doubt
    machine.passes(SECOND)
    assert machine.keeper.doubt is None


@pytest.mark.parametrize("by", [SECOND, -SECOND, TOLERANCE_MS, -TOLERANCE_MS])
def test_small_steps_are_the_clocks_own_affair(by: int) -> None:
    """F38, F39: up to the tolerance nothing is doubted; time still does not go back."""
    machine = Machine()
    before = machine.now()
    assert machine.step(by) == max(before, WALL + by)
    machine.passes(HOUR)
    assert machine.keeper.doubt is None
    assert machine.keeper.now == machine.wall


@pytest.mark.parametrize("by", [TOLERANCE_MS + 1, HOUR, YEARS])
def test_set_back_time_goes_on_a_little_slower_and_grants_wait(by: int) -> None:
    """F39: max(wall, mark), and credentials still end: ten minutes take at most a tenth longer."""
    machine = Machine()
    assert machine.step(-by) == WALL
    doubt = machine.keeper.doubt
    assert doubt is not None and (doubt.why, doubt.by_ms) == (Jump.BACKWARDS, by)
    # 600 s at nine tenths are 540 s; a lag of 30 s is caught up after 300 s, and from there it is the wall clock's.
    assert machine.passes(600 * SECOND) == max(WALL + 540 * SECOND, machine.wall)


def test_the_wall_clock_catches_up_and_is_believed_again() -> None:
    """F39: 60 s behind are caught up in 600 s; nobody has to do anything."""
    machine = Machine()
    machine.step(-60 * SECOND)
    machine.passes(589 * SECOND)
    assert machine.keeper.doubt is not None
    machine.passes(11 * SECOND)
    assert machine.keeper.doubt is None
    assert machine.keeper.now == machine.wall


def test_set_right_again_it_is_believed_after_a_while() -> None:
    """F39: the way out of a clock that somebody set back by mistake is to set it right."""
    machine = Machine()
    machine.step(-HOUR)
    machine.passes(100 * SECOND)
    machine.step(HOUR)
    machine.passes(SETTLE_MS - SECOND)
    assert machine.keeper.doubt is not None
    machine.passes(SECOND)
    assert machine.keeper.doubt is None
    assert machine.keeper.now == machine.wall


def test_a_clock_that_keeps_jumping_is_not_believed() -> None:
    """F38: agreement begins anew with every step of more than a second."""
    machine = Machine()
    machine.step(HOUR)
    for _ in range(5):
        machine.passes(SETTLE_MS - SECOND)
        machine.step(AGREEMENT_MS + 1)
    assert machine.keeper.doubt is not None


@pytest.mark.parametrize("percent", [0, 50, 90, 110, 200])
def test_a_wall_clock_that_stands_or_runs_wrong_is_doubted_and_stays_so(percent: int) -> None:
    """CLOCK: frozen, and 10 % drift either way; time goes on at nine tenths at the least."""
    machine = Machine()
    machine.passes(HOUR, wall_percent=percent)
    assert machine.keeper.doubt is not None
    assert machine.keeper.now >= WALL + HOUR * 9 // 10
    machine.passes(HOUR, wall_percent=percent)
    assert machine.keeper.doubt is not None


def test_a_machine_that_slept_is_not_doubted() -> None:
    """F41: the running clock goes on in suspend, so the clocks agree at wake, and what came due meanwhile is due."""
    machine = Machine()
    machine.running += HOUR
    assert machine.step(HOUR) == WALL + HOUR
    assert machine.keeper.doubt is None


def test_a_machine_that_stood_still_and_did_not_notice_is_doubted() -> None:
    """F41: a virtual machine restored from a snapshot; its clock is then set, and what came due meanwhile is due."""
    machine = Machine()
    assert machine.step(HOUR) == WALL + HOUR
    assert machine.keeper.doubt is not None


@pytest.mark.parametrize("lag", [TOLERANCE_MS + 1, HOUR, YEARS])
def test_over_a_restart_time_begins_at_the_ledgers_mark(lag: int) -> None:
    """F39, I8: the clock was set back while the broker was down."""
    keeper = Timekeeper()
    keeper.resume(WALL + lag)
    machine = Machine(keeper)
    assert machine.now() == WALL + lag
    assert keeper.doubt is not None and (keeper.doubt.why, keeper.doubt.by_ms) == (Jump.BEHIND, lag)


@pytest.mark.parametrize("lag", [TOLERANCE_MS, TOLERANCE_MS + 1, HOUR])
def test_what_others_were_told_meanwhile_is_not_earlier_than_now(lag: int) -> None:
    """F40: they have read of the clock that all go by what this one has missed. From there on time goes on."""
    machine = Machine()
    machine.keeper.not_before(WALL + lag, machine.running)
    assert machine.now() == WALL + lag
    doubt = machine.keeper.doubt
    assert (doubt is not None) == (lag > TOLERANCE_MS)
    assert doubt is None or (doubt.why, doubt.by_ms) == (Jump.BEHIND, lag)
    assert machine.passes(10 * SECOND) == WALL + lag + 9 * SECOND


def test_that_others_are_behind_changes_nothing_and_no_doubt_ends_by_what_they_say() -> None:
    machine = Machine()
    machine.step(HOUR)
    doubt = machine.keeper.doubt
    for earlier in (WALL, WALL + HOUR):
        machine.keeper.not_before(earlier, machine.running)
        assert machine.now() == WALL + HOUR
    machine.keeper.not_before(WALL + HOUR + SECOND, machine.running)
    assert machine.now() == WALL + HOUR + SECOND
    assert machine.keeper.doubt is doubt is not None


def test_the_mark_may_come_after_the_first_readings() -> None:
    """F39: certificates are read before the ledger is open."""
    machine = Machine()
    machine.keeper.resume(WALL + HOUR)
    assert machine.now() == WALL + HOUR
    assert machine.keeper.doubt is not None


def test_a_long_downtime_is_no_jump() -> None:
    keeper = Timekeeper()
    keeper.resume(WALL - YEARS)
    assert Machine(keeper).now() == WALL
    assert keeper.doubt is None


def test_asked_often_while_behind_time_still_passes() -> None:
    """F39: many questions within a millisecond must not round its progress away."""
    machine = Machine()
    machine.step(-HOUR)
    for _ in range(10_000):
        machine.running += 1
        machine.now()
    assert machine.keeper.now == WALL + 9_000


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(-YEARS, YEARS) | st.integers(-40_000, 40_000))))
def test_time_never_goes_back_and_never_stands(events: list[tuple[int, int]]) -> None:
    """I8: whatever is done to the wall clock, and however irregularly it is looked at."""
    keeper = Timekeeper()
    wall, running = WALL, 0
    last = began = keeper.look(wall, running)
    for passed, set_by in events:
        wall, running = max(0, wall + passed + set_by), running + passed
        for now in (keeper.at(wall) or wall, keeper.look(wall, running)):
            assert now >= wall
        assert now >= last
        last = now
    assert last >= began + running * 9 // 10 - len(events)


def test_what_was_told_before_the_ledger_was_known_binds_nobody() -> None:
    """F40: this machine was an hour ahead of the server whose clock all go by from the first batch on."""
    keeper = Timekeeper()
    keeper.look(WALL + HOUR, 0)
    keeper.resume(WALL - SECOND)
    assert keeper.at(WALL) is None
    assert keeper.look(WALL, 5) == WALL
    assert keeper.doubt is None
