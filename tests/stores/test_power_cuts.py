"""The power is cut anywhere while the ledger is written to: what was answered is there, and nothing is half there. F37.

``POWER_CUTS`` in the environment says how many cuts the long one tries, ``POWER_CUTS_SEED`` which.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.ports.leases import EndCause, Selector
from broker.ports.tasks import TaskState
from broker.stores.audit_reader import AuditReader
from broker.stores.invariants import LedgerChecks
from broker.stores.ledger_file import CHECKPOINT_PAGES
from broker.stores.sqlite import SqliteStore
from tests.stores.make import ALICE, TENANT, Keys, at, intent, new_task
from tests.stores.recorded_disk import Disk, put, recorded

_LEDGER = "ledger.sqlite3"
_FILES = (_LEDGER, f"{_LEDGER}-wal")
_TASKS = 12
_SEED = int(os.environ.get("POWER_CUTS_SEED", "37"))
_CUTS = int(os.environ.get("POWER_CUTS", "2000"))


def contents(path: Path) -> bytes:
    """A digest of every row."""
    digest = hashlib.sha256()
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for (table,) in tables:
            digest.update(table.encode())
            for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY 1, 2').fetchall():
                digest.update(repr(row).encode())
    return digest.digest()


async def told(directory: Path, *pragmas: str) -> tuple[Disk, list[bytes]]:
    """What a ledger's disk was asked for, with a mark after each answer; what the ledger had at each of them."""
    path = directory / _LEDGER
    await (await SqliteStore.open(path, Keys(), "before")).close()
    states: list[bytes] = []
    with recorded(directory, _FILES) as disk:

        def answered() -> None:
            disk.mark()
            states.append(contents(path))

        answered()
        store = await SqliteStore.open(path, Keys(), "w1")
        for pragma in pragmas:
            store._connection.execute(f"PRAGMA {pragma}")
        for number in range(_TASKS):
            task, lease = f"task-{number}", f"lease-{number}"
            await store.start_task(new_task(task))
            answered()
            await store.open_intent(intent(str(number), task=task))
            answered()
            await store.end_leases(Selector(TENANT, lease_id=lease), EndCause.RELEASED, ALICE, at(2))
            answered()
            await store.end_task(TENANT, task, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(3))
            answered()
        await store.close()
    return disk, states


async def lost(directory: Path, disk: Disk, states: list[bytes], cuts: int) -> list[str]:
    """What is not as it was answered, of so many cuts."""
    place, wrong = directory / "after", []
    place.mkdir(mode=0o700)
    whole: set[bytes] = set()
    for number, (answered, files) in enumerate(disk.cuts(cuts, seed=_SEED)):
        put(files, place)
        found = contents(place / _LEDGER)
        # What was under way may be there, whole.
        if found not in states[answered - 1 : answered + 1]:
            wrong.append(f"cut {number}, after {answered} answers: {'older' if found in states else 'none of them'}")
            continue
        if found in whole:  # the same rows
            continue
        whole.add(found)
        await (await SqliteStore.open(place / _LEDGER, Keys(), "after")).close()
        with LedgerChecks(place / _LEDGER) as checks:
            wrong += [f"cut {number}: {each}" for each in checks.violations(Keys())]
        with AuditReader(place / _LEDGER) as audit:
            wrong += [f"cut {number}: {each}" for each in audit.verify(Keys().find)]
    return wrong


_EITHER = pytest.mark.parametrize("pages", [CHECKPOINT_PAGES, 16], ids=["in the log", "moved into the file"])


async def cut_and_looked_at(directory: Path, pages: int, cuts: int) -> None:
    directory.chmod(0o700)
    disk, states = await told(directory, f"wal_autocheckpoint = {pages}")
    written = {name for name, what in disk.log if what is not None}
    assert written == {*_FILES} if pages < CHECKPOINT_PAGES else {_FILES[1]}
    assert len(set(states)) == len(states) == 1 + 4 * _TASKS
    assert await lost(directory, disk, states, cuts) == []


@_EITHER
async def test_what_was_answered_is_there_and_nothing_is_half_there(tmp_path: Path, pages: int) -> None:
    await cut_and_looked_at(tmp_path, pages, 50)


@pytest.mark.slow
@_EITHER
async def test_wherever_it_is_cut(tmp_path: Path, pages: int) -> None:
    await cut_and_looked_at(tmp_path, pages, _CUTS)


async def test_a_ledger_that_does_not_wait_for_its_disk_is_found_out(tmp_path: Path) -> None:
    """What the test is worth: the same with answers that are given before the log is synced."""
    tmp_path.chmod(0o700)
    disk, states = await told(tmp_path, "synchronous = NORMAL")
    assert any("older" in each for each in await lost(tmp_path, disk, states, 40))
