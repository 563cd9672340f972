"""Run as a process by test_access_crash.py: has requests approved and redeems them, and says what was answered."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from broker.stores.sqlite import SqliteStore
from tests.stores.make import TENANT, Keys, filing, new_task, redeeming, vote


async def main(path: Path) -> None:
    store = await SqliteStore.open(path, Keys(), "victim")
    await store.start_task(new_task())

    async def caller(number: int) -> None:
        for turn in range(1_000_000):
            asked = filing(f"{number}-{turn}", max_pending=10**6)
            await store.open_access_request(asked)
            print(f"filed {asked.id}", flush=True)
            await store.vote(TENANT, asked.id, asked.digest, vote(), lambda filed: True)
            print(f"approved {asked.id}", flush=True)
            await store.open_intent(redeeming(asked, f"{number}-{turn}", max_live_leases=10**9))
            print(f"redeemed {asked.id}", flush=True)

    await asyncio.gather(*(caller(number) for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
