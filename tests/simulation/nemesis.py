"""What goes wrong as a whole: brokers that die or hang, disks that fill up, upstreams that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.revocation.revoker import CLAIM_FOR
from tests.simulation.replica import Replica
from tests.simulation.world import World

# The revoker's claims run out after 30 s: some stops outlast them.
_LONGEST_STOP = 90.0
_LONGEST_CUT = 30.0


async def kills(world: World, replica: Replica, going: Callable[[], bool]) -> None:
    """``kill -9`` at any moment, and a start some seconds later."""
    while going():
        await asyncio.sleep(world.chance.between(1, 120))
        if not going() or not world.chance.sometimes("killed", 0.9):
            continue
        replica.kill()
        await asyncio.sleep(world.chance.between(0.1, 20))
        await replica.start()


async def stops(world: World, replica: Replica, going: Callable[[], bool]) -> None:
    """SIGSTOP, and SIGCONT when it has forgotten what time it is."""
    while going():
        await asyncio.sleep(world.chance.between(5, 100))
        process = replica.process
        if process is None or not going() or not world.chance.sometimes("stopped", 0.8):
            continue
        world.tell("stop", process.name)
        if world.chance.often(0.5):
            process.stops_when_it_writes = True
            await asyncio.sleep(2)  # the ticks write now and then, and agents do
        process.stops_when_it_writes = False
        process.stop()
        lasts = world.chance.between(0.5, _LONGEST_STOP)
        world.chance.told["stopped for longer than a claim"] += lasts > CLAIM_FOR.total_seconds()
        await asyncio.sleep(lasts)
        process.go_on()
        world.tell("go on", process.name)


async def cuts(world: World, replica: Replica, going: Callable[[], bool]) -> None:
    """One replica's line to the store, or to the upstreams, is cut for a while."""
    while going():
        await asyncio.sleep(world.chance.between(5, 60))
        process = replica.process
        if process is None or not going():
            continue
        if world.chance.often(0.5):
            process.cut_from_store = world.chance.sometimes("cut off from the store", 0.8)
        else:
            process.cut_from_upstream = world.chance.sometimes("cut off from the upstreams", 0.8)
        await asyncio.sleep(world.chance.between(0.5, _LONGEST_CUT))
        process.cut_from_store = process.cut_from_upstream = False


async def outages(world: World, going: Callable[[], bool]) -> None:
    """An upstream is away for a while, in one of the ways in which they are."""
    upstream = world.connectors["fake"]
    while going():
        await asyncio.sleep(world.chance.between(5, 100))
        if world.chance.sometimes("outage", 0.8):
            upstream.down = world.chance.one_of("hangs", "broken", "forbidden", "limits")
            await asyncio.sleep(world.chance.between(1, 60))
            upstream.down = ""


async def bad_disks(world: World, going: Callable[[], bool]) -> None:
    """No write succeeds for a while."""
    while going():
        await asyncio.sleep(world.chance.between(5, 120))
        if world.chance.sometimes("disk full", 0.8):
            world.disk.failing = True
            await asyncio.sleep(world.chance.between(0.1, 10))
            world.disk.failing = False


TO_ALL = (outages, bad_disks)
TO_EACH = (kills, stops, cuts)
