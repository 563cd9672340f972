"""Hearing of what other daemons commit: woken where the database tells, and by looking where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.errors import NotReady, Reason
from broker.stores.others_commits import EVERY, OthersCommits


class World:
    """A head that others move, and time that passes when it is told to."""

    def __init__(self) -> None:
        self.head = 1
        self.gone = False
        self.told: list[int] = []
        self.sleeping: dict[float, asyncio.Future[None]] = {}
        self.others = OthersCommits(self.read, self.told.append, self.sleep)

    async def read(self) -> int:
        if self.gone:
            raise NotReady(Reason.STORE_UNAVAILABLE, "the database is not there.")
        return self.head

    async def sleep(self, seconds: float) -> None:
        if seconds < EVERY:
            return
        waking = self.sleeping[seconds] = asyncio.get_running_loop().create_future()
        await waking

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def pass_time(self) -> None:
        """``EVERY`` passes."""
        await self.settle()
        self.sleeping.pop(EVERY).set_result(None)
        await self.settle()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    running = asyncio.create_task(made.others.run())
    await made.settle()
    yield made
    running.cancel()
    await asyncio.wait([running])


async def test_woken_it_looks_at_once(world: World) -> None:
    assert world.told == []
    world.head = 5
    world.others.wake()
    await world.settle()
    assert world.told == [5]


async def test_what_nobody_told_is_found_by_looking(world: World) -> None:
    """F48: a word of the database that is lost costs a second."""
    world.head = 7
    await world.settle()
    assert world.told == []
    await world.pass_time()
    assert world.told == [7]
    await world.pass_time()
    assert world.told == [7, 7]


async def test_many_words_are_one_look(world: World) -> None:
    for _ in range(100):
        world.others.wake()
    await world.settle()
    assert world.told == [1]


async def test_a_database_that_is_not_there_is_asked_again(world: World) -> None:
    world.gone = True
    await world.pass_time()
    assert world.told == []
    world.gone = False
    await world.pass_time()
    assert world.told == [1]
