"""Disk space kept for ends: given up when a commit finds no room, made again when there is some."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import NotReady, Reason
from broker.lease.machine import State
from broker.ports.leases import EndCause, Selector
from broker.ports.tasks import TaskState
from broker.stores.audit_reader import AuditReader
from broker.stores.ballast import Ballast
from broker.stores.sqlite import SqliteStore
from tests.stores.contract import grant, revoke_all
from tests.stores.make import ALICE, TASK, TENANT, Keys, at, intent, new_task
from tests.stores.test_full_disk import limit

SIZE = 256 * 1024
# A file system so small that a test can fill it.
SMALL = 12 * 1024 * 1024


class Pages(Ballast):
    """Room in pages of the database (SQLITE_FULL by ``max_page_count``), not of a disk."""

    store: SqliteStore

    def make_room(self, error: Exception) -> bool:
        made = super().make_room(error)
        if made:
            limit(self.store, 1_000)
        return made


async def opened(path: Path, ballast: Ballast) -> SqliteStore:
    return await SqliteStore.open(path, Keys(), "w", ballast=ballast)


def taken(path: Path) -> int:
    return path.stat().st_blocks * 512


async def test_it_is_really_taken_and_nobody_elses_to_read(tmp_path: Path) -> None:
    """F36: not a hole in a file."""
    ballast = Ballast(tmp_path / "l", SIZE)
    store = await opened(tmp_path / "l", ballast)
    assert ballast.held
    assert (ballast.path.name, ballast.path.stat().st_mode & 0o777) == ("l.ballast", 0o600)
    assert taken(ballast.path) >= SIZE
    await store.close()


@pytest.mark.parametrize("pages", range(0, 12, 2))
async def test_a_whole_story_goes_on_when_the_database_is_full_at_every_place(tmp_path: Path, pages: int) -> None:
    """F36: SQLITE_FULL met by each of the commits of a life in turn; with the ballast given up, none of them fails."""
    ballast = Pages(tmp_path / "l", SIZE)
    store = ballast.store = await opened(tmp_path / "l", ballast)
    limit(store, pages)
    await store.start_task(new_task())
    number = 0
    while ballast.held:  # one of these commits is the one that finds no room
        await grant(store, f"{number}", max_live_leases=1000)
        number += 1
    await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(9))
    while await revoke_all(store, now=10):
        pass
    leases = await store.task_leases(TENANT, TASK)
    assert len(leases) == number
    assert {lease.state for lease in leases} == {State.REVOKED}
    assert taken(ballast.path) == 0
    await store.close()
    with AuditReader(tmp_path / "l") as audit:
        assert list(audit.verify(Keys().find)) == []


async def test_it_helps_once_and_then_operations_fail_whole(tmp_path: Path) -> None:
    """F36: there is no second ballast; what fails then has changed nothing."""
    ballast = Ballast(tmp_path / "l", SIZE)  # whose giving up makes no pages
    store = await opened(tmp_path / "l", ballast)
    await store.start_task(new_task())
    limit(store, 0)
    calls = [store.open_intent(intent(f"{n}", max_live_leases=1000)) for n in range(100)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert not ballast.held
    failures = [each for each in outcomes if isinstance(each, NotReady)]
    assert failures and {each.reason for each in failures} == {Reason.STORE_UNAVAILABLE}
    assert len(await store.task_leases(TENANT, TASK)) == len(outcomes) - len(failures)
    await store.close()


async def test_without_room_for_it_the_ledger_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F36: the start after a full disk; it is made once there is room for it and for as much again."""
    ballast = Ballast(tmp_path / "l", SIZE)
    monkeypatch.setattr(Ballast, "free", lambda self: 2 * SIZE - 1)
    store = await opened(tmp_path / "l", ballast)
    assert not ballast.held and taken(ballast.path) == 0
    monkeypatch.setattr(Ballast, "free", lambda self: 2 * SIZE)
    assert ballast.restore() and ballast.held
    await store.close()


async def test_one_of_an_earlier_run_is_taken_over_in_the_size_of_now(tmp_path: Path) -> None:
    for size in (SIZE, SIZE // 2, SIZE * 2):
        ballast = Ballast(tmp_path / "l", size)
        await (await opened(tmp_path / "l", ballast)).close()
        assert ballast.held and ballast.path.stat().st_size == size


@pytest.mark.parametrize(
    ("code", "free", "given_up"),
    [
        (sqlite3.SQLITE_FULL, SMALL, True),
        (sqlite3.SQLITE_IOERR_WRITE, 0, True),  # a quota, or the index of the log: not every want has its name
        (sqlite3.SQLITE_IOERR_WRITE, SMALL, False),
        (sqlite3.SQLITE_READONLY, 0, False),
        (sqlite3.SQLITE_BUSY, 0, False),
    ],
)
def test_only_a_want_of_space_is_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, free: int, given_up: bool
) -> None:
    ballast = Ballast(tmp_path / "l", SIZE)
    assert ballast.restore()
    monkeypatch.setattr(Ballast, "free", lambda self: free)
    error = sqlite3.OperationalError()
    error.sqlite_errorcode = code
    assert ballast.make_room(error) is given_up
    assert ballast.held is not given_up


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=700", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a file system here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> None:
    with contextlib.suppress(OSError), (place / "filler").open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


async def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    """F36: ENOSPC itself. Without ballast no revocation commits; with it all do, and it comes back with the room."""
    ballast = Ballast(small_disk / "l", 8 * SIZE)
    store = await opened(small_disk / "l", ballast)
    await store.start_task(new_task())
    for number in range(40):
        await grant(store, f"{number}", max_live_leases=1000)
    fill(small_disk)
    ended = 0
    while ballast.held:  # the log has some room of its own
        ended += await store.end_leases(Selector(TENANT, lease_id=f"lease-{ended}"), EndCause.RELEASED, ALICE, at(5))
    await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(9))
    while await revoke_all(store, now=10):
        pass
    assert {lease.state for lease in await store.task_leases(TENANT, TASK)} == {State.REVOKED}
    assert not ballast.restore()
    (tight,) = store._connection.execute("PRAGMA wal_autocheckpoint").fetchone()
    (small_disk / "filler").unlink()
    assert ballast.restore()
    await store.recover(at(11))
    (as_ever,) = store._connection.execute("PRAGMA wal_autocheckpoint").fetchone()
    assert (tight, as_ever) == (256, 8 * 1024)
    await store.close()


async def test_a_ledger_opens_on_a_full_disk(small_disk: Path) -> None:
    """F36: the start after a crash needs room for its log; the ballast gives it, and what was left is recovered."""
    store = await opened(small_disk / "l", Ballast(small_disk / "l", SIZE))
    await store.start_task(new_task())
    await store.open_intent(intent("1"))
    await store.close()
    fill(small_disk)
    ballast = Ballast(small_disk / "l", SIZE)
    again = await opened(small_disk / "l", ballast)
    assert await again.recover(at(50)) == 1
    assert not ballast.held
    await again.close()


async def test_a_disk_that_turns_read_only_fails_whole_and_comes_back(small_disk: Path) -> None:
    """F36: EROFS is no want of space: nothing is given up, nothing commits, and it all works again when it can."""
    ballast = Ballast(small_disk / "l", SIZE)
    store = await opened(small_disk / "l", ballast)
    await store.start_task(new_task())
    connection: sqlite3.Connection = store._connection
    connection.execute("PRAGMA query_only = ON")  # what is open cannot be made read-only on every machine
    with pytest.raises(NotReady) as refused:
        await store.open_intent(intent("1"))
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert ballast.held and await store.task_leases(TENANT, TASK) == []
    connection.execute("PRAGMA query_only = OFF")
    assert (await store.open_intent(intent("1"))).lease_id == "lease-1"
    await store.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises((NotReady, OSError)):
        await opened(small_disk / "l", ballast)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    again = await opened(small_disk / "l", ballast)
    assert len(await again.claim_due("bao", at(1000), 10, timedelta(seconds=1))) == 1
    assert ballast.path.exists()
    await again.close()
