"""One timer for all the tries of a task, on a loop whose time passes only when nothing else can happen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.revocation.patience import Patience
from tests.simulation.virtual import VirtualLoop

SECONDS = 20.0


def run(story: Callable[[], Awaitable[Any]]) -> tuple[Any, VirtualLoop]:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(story()), loop
    finally:
        loop.close()


async def hang() -> None:
    await asyncio.Event().wait()


def test_a_try_that_hangs_is_given_up_in_time_and_the_next_has_all_of_its_own() -> None:
    async def story() -> list[float]:
        loop, patience, over = asyncio.get_running_loop(), Patience(SECONDS), []
        await asyncio.sleep(5)
        for _ in range(3):
            with pytest.raises(TimeoutError), patience:
                await hang()
            over.append(loop.time())
            with patience:
                await asyncio.sleep(19)
        patience.close()
        return over

    assert run(story)[0] == [25, 64, 103]  # 5 + 20, + 19 + 20, + 19 + 20


def test_a_try_is_given_up_in_its_own_time_and_not_in_that_of_the_one_before() -> None:
    async def story() -> float:
        patience = Patience(SECONDS)
        with patience:
            await asyncio.sleep(15)
        with pytest.raises(TimeoutError), patience:
            await hang()
        patience.close()
        return asyncio.get_running_loop().time()

    assert run(story)[0] == 35  # 15 + 20, although the timer went off at 20, and looked


def test_many_tries_that_are_answered_at_once_take_one_timer() -> None:
    async def story() -> int:
        loop, patience = asyncio.get_running_loop(), Patience(SECONDS)
        assert isinstance(loop, VirtualLoop)
        before = loop.steps
        for _ in range(1000):
            with patience:
                pass
        patience.close()
        return loop.steps - before

    assert run(story)[0] == 1


def test_whoever_else_cancels_is_heard() -> None:
    async def tries() -> None:
        patience = Patience(SECONDS)
        try:
            with patience:
                await hang()
        finally:
            patience.close()

    async def story() -> tuple[bool, float]:
        task = asyncio.create_task(tries())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled(), asyncio.get_running_loop().time()

    assert run(story)[0] == (True, 1)


def test_cancelled_by_both_at_once_it_ends() -> None:
    async def tries() -> None:
        with Patience(SECONDS):
            await hang()

    async def story() -> bool:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(tries())
        await asyncio.sleep(0)
        loop.call_at(SECONDS, task.cancel)  # after the timer, in the same turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert run(story)[0] is True


def test_what_is_raised_in_a_try_is_what_comes_out() -> None:
    async def story() -> None:
        patience = Patience(SECONDS)
        with pytest.raises(ValueError, match="of the upstream"), patience:
            raise ValueError("of the upstream")
        patience.close()
        await asyncio.sleep(100)  # the timer was taken back: nobody is cancelled

    run(story)


def test_patience_is_a_tasks() -> None:
    loop = VirtualLoop()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError):
        Patience(SECONDS)
    loop.close()
