"""An agent that never stops asking: calls side by side, grants one after the other, one stream for all of it.

``load.py ROTATIONS``: it goes on until its standard input ends and its SVID was renewed that often at least, or never
is, and then tells what came of it. Nothing is forgiven here: each call that raised is told, and each try that the SDK
had to repeat is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from google.protobuf.message import Message

from broker.client import AsyncClient, Task, connect
from broker.client.channel import Generation
from tests.patience import PATIENCE

CALLERS = 4


class Tally:
    """What came of the load."""

    def __init__(self) -> None:
        self.calls = self.tries = self.grants = self.events = 0
        self.failures: list[str] = []
        self.own: set[str] = set()
        self.stop = asyncio.Event()
        self._in_a_call = ContextVar("in a call", default=False)

    async def again_and_again(self, one: Callable[[], Awaitable[object]]) -> None:
        while not self.stop.is_set():
            try:
                await one()
            except Exception as error:  # noqa: BLE001 - told, whatever it is
                self.failures.append(f"{type(error).__name__}: {error}")

    def count(self, client: AsyncClient) -> None:
        """Have each call of ``client`` noted, each try of it, and the SVID it was made as."""
        unary, use = client.calls.unary, client.connection.use

        async def counted(rpc: str, request: Message, seconds: float) -> Any:
            self.calls += 1
            self._in_a_call.set(True)
            try:
                return await unary(rpc, request, seconds)
            finally:
                self._in_a_call.set(False)

        @contextlib.asynccontextmanager
        async def noted() -> AsyncIterator[Generation]:
            async with use() as generation:
                self.tries += self._in_a_call.get()
                self.own.add(generation.material.digest.hex())
                yield generation

        client.calls.unary = counted  # type: ignore[method-assign]
        client.connection.use = noted  # type: ignore[method-assign]

    def told(self) -> dict[str, Any]:
        return {
            "calls": self.calls, "tries": self.tries, "grants": self.grants, "events": self.events,
            "failures": self.failures, "svids": len(self.own),
        }  # fmt: skip


async def grant_and_revoke(task: Task, client: AsyncClient, tally: Tally) -> None:
    login = await task.request(
        "orders-readonly", account="shop", environment="production", resource="orders", ttl="5m", confirm=False
    )
    lease = await client.revoke(login.lease.id)
    assert lease.state == "REVOKED", lease
    tally.grants += 1


async def _within_reason(condition: Callable[[], bool]) -> None:
    """Wait for it, and no longer than for what never comes; whoever reads what is told sees which it was."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.05)


async def main(rotations: int) -> None:
    tally = Tally()
    async with connect() as client:
        await client.whoami()
        print("under load", flush=True)
        async with client.task("continuous load") as task, asyncio.TaskGroup() as group:
            tally.count(client)
            for _ in range(CALLERS):
                group.create_task(tally.again_and_again(client.whoami))
            granting = group.create_task(tally.again_and_again(lambda: grant_and_revoke(task, client, tally)))
            watching = group.create_task(_watch(client, tally))
            await asyncio.to_thread(sys.stdin.read)
            await _within_reason(lambda: len(tally.own) > rotations)
            tally.stop.set()
            await granting
            await _within_reason(lambda: tally.events >= 2 * tally.grants)  # the last ones are on their way
            watching.cancel()  # waits for the next event for ever
    print(json.dumps(tally.told()))


async def _watch(client: AsyncClient, tally: Tally) -> None:
    stream = client.watch()
    async with contextlib.aclosing(stream):
        try:
            async for _ in stream:
                tally.events += 1
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            tally.failures.append(f"watch: {type(error).__name__}: {error}")


asyncio.run(main(int(sys.argv[1])))
