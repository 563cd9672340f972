"""F40: whose clocks differ share one: the server's."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest
from structlog.testing import capture_logs

from broker.clock import SystemClock
from broker.config import Config
from broker.daemon.ledger import clock_of, open_ledger
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_clock import ServerClock
from tests.stores.conftest import LedgerDatabase
from tests.stores.make import Keys, new_task

HERE = datetime(2026, 1, 1, tzinfo=UTC)
THERE_MS = 1_800_000_000_000


class Wall:
    def now(self) -> datetime:
        return HERE


class Running:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def clock() -> tuple[ServerClock, Running]:
    running = Running()
    return ServerClock(Wall(), running), running


def read(clock: ServerClock, running: Running, server_ms: int, took: float) -> None:
    sent = running.seconds
    running.seconds += took
    clock.observe(sent, server_ms)


def test_before_the_first_reading_it_is_this_machines_time() -> None:
    made, _ = clock()
    assert made.now() == HERE and made.skew == timedelta()


def test_between_readings_it_goes_on_by_the_monotonic_clock() -> None:
    made, running = clock()
    read(made, running, THERE_MS, 0.001)
    running.seconds += 2.5
    assert made.milliseconds() == THERE_MS + 2500
    assert made.skew > timedelta(days=300)


def test_a_reading_that_waited_does_not_displace_a_sharp_one_until_that_may_be_off_as_far() -> None:
    made, running = clock()
    read(made, running, THERE_MS, 0.001)
    read(made, running, THERE_MS + 99_000, 3.0)
    assert made.milliseconds() == THERE_MS + 3000
    running.seconds += 20_000
    read(made, running, THERE_MS + 30_000_000, 3.0)
    assert made.milliseconds() == THERE_MS + 30_000_000


def test_a_sharp_reading_is_believed_whatever_it_says() -> None:
    made, running = clock()
    read(made, running, THERE_MS, 0.001)
    read(made, running, THERE_MS - 60_000, 0.001)
    assert made.milliseconds() == THERE_MS - 60_000


def test_a_machine_that_slept_is_not_behind_and_is_not_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    """F41: time passed at the server; by a clock that stands meanwhile, it would seem to have been set back."""
    real, asleep = time.clock_gettime_ns, 0

    def with_sleep(which: int) -> int:
        return real(which) + (asleep if which == time.CLOCK_BOOTTIME else 0)

    monkeypatch.setattr(time, "clock_gettime_ns", with_sleep)
    kept = clock_of(cast(Config, SimpleNamespace(ledger=SimpleNamespace(dsn="env:LEDGER_DSN"))))
    source = kept.source
    assert isinstance(source, ServerClock)
    source.observe(source.running(), THERE_MS)
    kept.look()
    asleep = 3600 * 10**9
    assert source.milliseconds() - THERE_MS >= 3_600_000
    assert kept.now().timestamp() * 1000 - THERE_MS >= 3_600_000
    assert kept.keeper.doubt is None


@pytest.mark.parametrize("batches", [0, 1])
async def test_the_start_and_each_batch_read_it(ledger_database: LedgerDatabase, batches: int) -> None:
    followed = ServerClock(Wall())
    store = await PostgresStore.open(ledger_database.address, Keys(), "writer-1", followed)
    for _ in range(batches):
        await store.start_task(new_task())
    with ledger_database.session() as session:
        before, told, after = _server_ms(session), followed.milliseconds(), _server_ms(session)
    # Behind by as long as the reading took, at most, and never ahead.
    assert before - 2000 < told <= after
    await store.close()


def _server_ms(session: psycopg.Connection[tuple[object, ...]]) -> int:
    row = session.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetchone()
    assert row is not None
    return int(str(row[0]))


class Ahead(ServerClock):
    """By how many milliseconds each reading was ahead of the clock that this machine shares with the server."""

    def __init__(self) -> None:
        super().__init__(Wall())
        self.by: list[int] = []

    def observe(self, sent: float, server_ms: int) -> None:
        self.by.append(server_ms - time.time_ns() // 1_000_000)
        super().observe(sent, server_ms)


async def test_no_reading_is_ahead_of_the_server(ledger_database: LedgerDatabase) -> None:
    """F40: not by the rounding of a millisecond either, or what is due ends before its time."""
    followed = Ahead()
    store = await PostgresStore.open(ledger_database.address, Keys(), "writer-1", followed)
    for number in range(60):
        await store.start_task(new_task(f"task-{number}", request_id=f"r-{number}"))
    await store.close()
    assert len(followed.by) > 60
    assert max(followed.by) <= 0


@pytest.mark.parametrize("differs", [True, False])
async def test_a_machine_whose_clock_differs_is_told_of_and_goes_by_the_servers(
    ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch, differs: bool
) -> None:
    """F40: it does not matter to what is decided; that something is wrong there does, to whoever keeps the machines."""
    monkeypatch.setenv("LEDGER_DSN", ledger_database.address.dsn.reveal())
    ledger = SimpleNamespace(dsn="env:LEDGER_DSN", allow_unverified=False)
    config = cast(Config, SimpleNamespace(ledger=ledger, audit=SimpleNamespace(keep_texts=True)))
    followed = ServerClock(Wall() if differs else SystemClock())
    with capture_logs() as told:
        store = await open_ledger(config, Keys(), "writer-1", followed)
    await store.close()
    assert [line["log_level"] for line in told if "another time" in line["event"]] == ["warning"] * differs
    assert abs(followed.now() - SystemClock().now()) < timedelta(seconds=2)
