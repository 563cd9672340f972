"""Ended tasks go once they are old enough and the export has their records; before, nothing does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import NotFound
from broker.issuance.looks import LookBudget
from broker.issuance.refusals import RefusalBudget
from broker.ports.tasks import Task
from broker.upkeep import Upkeep
from tests.issuance.world import TENANT, World

DAY = timedelta(days=1)


class Sink:
    """An audit export that can be down."""

    def __init__(self) -> None:
        self.down = False

    async def write(self, records: Sequence[bytes]) -> None:
        if self.down:
            raise OSError("down")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


def upkeep(world: World, sink: Sink | None, keep: timedelta | None) -> Upkeep:
    budget = RefusalBudget()
    parts = (world.store, world.revoker, lambda: ["fake"], world.gate, budget, LookBudget(), sink, world.clock, TENANT)
    return Upkeep(*parts, keep_ended=keep)


async def completed(world: World, name: str = "t1") -> Task:
    task = await world.task(name=name)
    await world.tasks.complete(world.caller(), task.id, timedelta())
    return task


async def kept(world: World, task: Task) -> bool:
    try:
        await world.store.get_task(TENANT, task.id)
    except NotFound:
        return False
    return True


async def test_what_is_old_enough_goes_and_its_request_id_is_free(world: World) -> None:
    old = await completed(world)
    world.later(DAY)
    young, ticks = await completed(world, "t2"), upkeep(world, None, DAY)
    await ticks.delete_ended()
    assert await kept(world, old)  # a day, and not longer
    world.later(timedelta(milliseconds=1))
    await ticks.delete_ended()
    assert (await kept(world, old), await kept(world, young)) == (False, True)
    assert (await world.task(name="t1")).id != old.id


async def test_without_a_retention_nothing_goes(world: World) -> None:
    task = await completed(world)
    world.clock.advance(1_000 * DAY)
    await upkeep(world, None, None).delete_ended()
    assert await kept(world, task)


async def test_nothing_goes_while_the_export_does_not_have_it(world: World) -> None:
    task, sink = await completed(world), Sink()
    sink.down, ticks = True, upkeep(world, sink, DAY)
    world.clock.advance(2 * DAY)
    await ticks.export()
    await ticks.delete_ended()
    assert await kept(world, task)
    sink.down = False
    await ticks.export()
    await ticks.delete_ended()
    assert not await kept(world, task)
