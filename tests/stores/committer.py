"""Run as a process by test_crash.py: opens leases for ever and prints each one's id after its COMMIT."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from broker.stores.sqlite import SqliteStore
from tests.stores.make import Keys, at, intent, new_task


async def main(path: Path) -> None:
    store = await SqliteStore.open(path, Keys(), "victim")
    await store.start_task(new_task())

    async def caller(number: int) -> None:
        for turn in range(1_000_000):
            name = f"{number}-{turn}"
            opened = await store.open_intent(intent(name, max_live_leases=10**9))
            print(f"opened {opened.lease_id}", flush=True)
            await store.activate("default", opened.attempt.id, 1, opened.attempt.expires_at, at(32), {}, at(2))
            print(f"active {opened.lease_id}", flush=True)

    await asyncio.gather(*(caller(number) for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
