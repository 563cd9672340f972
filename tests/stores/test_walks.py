"""What goes through all that lives: it holds nobody up, and costs what there is of it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from broker.ports.leases import EndCause, Granted, Selector
from broker.stores.review_ops import LivingWalk
from broker.stores.sqlite import SqliteStore
from broker.stores.view import Parameters, Raw, View
from tests.stores.contract import grant, revoke_all
from tests.stores.make import ALICE, BOB, TENANT, Keys, at, new_task

T = TypeVar("T")


async def opened(tmp_path: Path) -> SqliteStore:
    return await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")


async def test_who_scans_does_not_wait_for_walks(tmp_path: Path) -> None:
    """F49: the ticks scan, and a broker whose ticks wait for a review grants nothing."""
    store = await opened(tmp_path)
    over = threading.Event()
    walks = [asyncio.create_task(store._readers.walk(lambda view: over.wait(60))) for _ in range(8)]
    try:
        assert await store.connectors_in_use() == frozenset()
    finally:
        over.set()
    assert await asyncio.gather(*walks) == [True] * 8
    await store.close()


class Counted(View):
    """Counts the rows that it is given, by query."""

    def __init__(self, view: View) -> None:
        super().__init__(view.connection, view.dialect, view.seal)
        self.rows = Counter[str]()

    def all(self, query: str, parameters: Parameters) -> list[Raw]:
        rows = super().all(query, parameters)
        self.rows[query] += len(rows)
        return rows

    def made(self, query: str, parameters: Parameters, make: Callable[[Raw], T]) -> list[T]:
        made = super().made(query, parameters, make)
        self.rows[query] += len(made)
        return made


async def test_a_review_reads_what_a_holder_has_once_however_many_pages_it_fills(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.start_task(new_task())
    leases = [await grant(store, f"a{number}") for number in range(30)]
    leases += [await grant(store, f"b{number}", holder=BOB) for number in range(30)]
    walk, rows, found, after = LivingWalk(), Counter[str](), list[Granted](), ""

    def page(view: View) -> list[Granted]:
        counted = Counted(view)
        found = walk.page(counted, TENANT, after, 4)
        rows.update(counted.rows)
        return found

    while more := await store._readers.walk(page):
        found, after = [*found, *more], more[-1].lease.id
        if len(found) == 12:  # in the midst of the first holder's
            await store.end_leases(Selector(TENANT, lease_id=leases[0].id), EndCause.RELEASED, ALICE, at(4))
            await revoke_all(store, now=5)
    assert len(found) == 60
    assert [each.present["active_count"] for each in found] == [29] * 12 + [28] * 18 + [29] * 30
    # Its rows and its trail (an intent and an issue each) once; then, what has come of one.
    assert rows == {"living_page": 60, "holdings": 60, "holder_trail": 120, "holder_news": 2}
    await store.close()


async def test_a_walk_remembers_of_one_holder_alone_and_at_its_end_of_nobody(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.start_task(new_task())
    for number in range(5):
        await grant(store, f"a{number}")
        await grant(store, f"b{number}", holder=BOB)
    found = await store.living_grants(TENANT, "", 7)
    assert store._living._at is not None
    assert store._living._at._kinds.keys() == {f"lease-b{number}" for number in range(5)}
    while found:
        found = await store.living_grants(TENANT, found[-1].lease.id, 7)
    assert store._living._at is None
    await store.close()


async def test_a_row_that_fails_its_mac_leaves_untold_what_its_holder_has(tmp_path: Path) -> None:
    """Until it is no more; what each was granted on is told all the while."""
    store = await opened(tmp_path)
    await store.start_task(new_task())
    for number in range(4):
        await grant(store, f"a{number}")
    first = await store.living_grants(TENANT, "", 1)
    raw = sqlite3.connect(tmp_path / "ledger.sqlite3")
    raw.execute("UPDATE leases SET account = 'another' WHERE id = 'lease-a3'")
    raw.commit()
    raw.close()
    # An event of it: what was remembered is looked at again.
    await store.end_leases(Selector(TENANT, lease_id="lease-a3"), EndCause.RELEASED, ALICE, at(4))
    second = await store.living_grants(TENANT, "lease-a0", 1)
    assert [each.present.get("active_count") for each in (*first, *second)] == [3, None]
    assert all(each.facts is not None for each in (*first, *second))
    await store.close()
