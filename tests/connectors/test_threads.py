"""Blocking calls: bounded, dropped or taken back when nobody waits, and finished before closing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from broker.connectors.threads import Closing, Threads
from tests.patience import PATIENCE


async def test_no_more_calls_than_threads_run_at_a_time() -> None:
    threads, lock, most, running = Threads("t", 2), threading.Lock(), 0, 0
    barrier = threading.Barrier(2)

    def call() -> None:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(PATIENCE)
        with lock:
            running -= 1
        barrier.wait(PATIENCE)

    await asyncio.gather(*(threads.run(call) for _ in range(6)))
    await threads.close()
    assert most == 2


async def test_what_a_call_raises_is_raised() -> None:
    threads = Threads("t", 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    await threads.close()


@pytest.mark.parametrize("closed_first", [False, True])
async def test_a_result_that_nobody_waits_for_is_taken_back(closed_first: bool) -> None:
    threads, begun, go_on = Threads("t", 1), threading.Event(), threading.Event()
    undone: list[str] = []

    def make() -> str:
        begun.set()
        go_on.wait(PATIENCE)
        return "made"

    work = asyncio.ensure_future(threads.run(make, undo=undone.append))
    await asyncio.to_thread(begun.wait, PATIENCE)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert undone == []
    if closed_first:
        closing = asyncio.ensure_future(threads.close())
        await asyncio.sleep(0)
        go_on.set()
        await closing
    else:
        go_on.set()
        await threads.run(lambda: None)  # behind it, in the only thread
        await threads.close()
    assert undone == ["made"]


async def test_a_call_that_has_not_begun_is_dropped() -> None:
    threads, go_on = Threads("t", 1), threading.Event()
    made: list[str] = []
    undone: list[None] = []
    first = asyncio.ensure_future(threads.run(lambda: go_on.wait(PATIENCE)))
    second = asyncio.ensure_future(threads.run(lambda: made.append("second"), undo=undone.append))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go_on.set()
    assert await first
    await threads.close()
    assert made == []
    assert undone == []


async def test_closing_waits_for_calls_under_way() -> None:
    closing, go_on = Closing(), asyncio.Event()
    order: list[str] = []

    async def call() -> None:
        with closing.call():
            await go_on.wait()
            order.append("finished")

    async def close() -> None:
        await closing.close()
        order.append("closed")

    works = [asyncio.ensure_future(each) for each in (call(), close())]
    await asyncio.sleep(0)
    assert closing.closed
    go_on.set()
    await asyncio.gather(*works)
    assert order == ["finished", "closed"]
