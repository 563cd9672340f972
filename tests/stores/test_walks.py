"""What goes through all that lives: it holds nobody up, and costs what there is of it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path

from broker.stores import review_ops
from broker.stores.sqlite import SqliteStore
from broker.stores.view import Parameters, Raw, View
from tests.stores.contract import grant
from tests.stores.make import ALICE, BOB, TENANT, Keys, new_task


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
    """Counts its queries."""

    def __init__(self, view: View) -> None:
        super().__init__(view.connection, view.dialect, view.seal)
        self.asked = Counter[str]()

    def all(self, query: str, parameters: Parameters) -> list[Raw]:
        self.asked[query] += 1
        return super().all(query, parameters)


async def test_a_page_of_a_review_reads_what_a_holder_has_alive_once(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.start_task(new_task())
    for number in range(20):
        await grant(store, f"a{number}")
        await grant(store, f"b{number}", holder=BOB)

    def page(view: View) -> tuple[Counter[str], list[object]]:
        counted = Counted(view)
        found = review_ops.living_grants(counted, TENANT, "", 100)
        return counted.asked, [each.present["active_count"] for each in found]

    asked, counts = await store._readers.walk(page)
    assert asked["holdings"] == len({ALICE, BOB})
    assert counts == [19] * 40
    await store.close()
