"""A daemon that opens a ledger on which others are at work."""

from __future__ import annotations

import asyncio

from tests.stores.conftest import LedgerDatabase
from tests.stores.make import new_task

OPENINGS = 10


async def test_who_opens_a_ledger_reads_its_end_while_nobody_writes(ledger_database: LedgerDatabase) -> None:
    """F42: between two looks at the end of the trail others may have moved it, and that is no sign of tampering."""
    busy = await ledger_database.open("busy")
    done = asyncio.Event()

    async def work() -> None:
        number = 0
        while not done.is_set():
            number += 1
            await busy.start_task(new_task(f"task-{number}", max_open=1_000_000))

    working = [asyncio.ensure_future(work())]
    try:
        for number in range(OPENINGS):
            store = await ledger_database.open(f"opened-{number}")
            await store.append([], new_task().created_at)
            await store.close()
    finally:
        done.set()
        await asyncio.gather(*working)
        await busy.close()
