"""Lanes that do not answer keep the heartbeat back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from broker.errors import Reason
from broker.revocation.liveness import Liveness
from tests.clock import START
from tests.issuance.world import World

SECOND = timedelta(seconds=1)


def test_where_nobody_is_silent_it_beats_now() -> None:
    liveness = Liveness()
    assert liveness.heartbeat(START) == START
    liveness.asked("a", START)
    assert liveness.heartbeat(START + SECOND) == START + SECOND  # it has until it is told again


def test_the_slowest_lane_counts_from_when_it_was_told_in_vain() -> None:
    """F49: told again and again, it is silent since the second time."""
    liveness = Liveness()
    for second in range(4):
        liveness.asked("a", START + second * SECOND)
        liveness.asked("b", START + second * SECOND)
        liveness.came_round("b")
    assert liveness.heartbeat(START + 9 * SECOND) == START + SECOND
    assert liveness.silent() == ("a",)
    liveness.came_round("a")
    assert (liveness.heartbeat(START + 9 * SECOND), liveness.silent()) == (START + 9 * SECOND, ())


async def test_a_lane_that_hangs_in_the_ledger_closes_the_gate(tmp_path: Path) -> None:
    """F49: ticks go on and look well; the lane's own look never returns. It comes back with the ledger."""
    world = await World.open(tmp_path)
    look, hang = world.store.next_due, asyncio.Event()

    async def hanging(*arguments: Any) -> Any:
        await hang.wait()
        return await look(*arguments)

    world.store.next_due = hanging  # type: ignore[method-assign]
    for _ in range(8):
        await world.pass_time(SECOND)
    closed = world.gate.why_closed(world.clock.now())
    assert closed is not None and closed.reason is Reason.REVOKER_STALLED
    assert closed.metadata == {"connectors": "fake"}
    hang.set()

    async def open_again() -> bool:
        await world.upkeep.tick()
        return world.gate.why_closed(world.clock.now()) is None

    await world.settle(open_again)
    await world.close()
