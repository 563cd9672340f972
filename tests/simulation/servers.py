"""What goes wrong with the server that a shared ledger is on: its clock, and what becomes of that at a promotion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.timekeeping import SETTLE_MS, TOLERANCE_MS
from tests.simulation.nemesis import FAR, HOUR, set_wrong
from tests.simulation.server import Server
from tests.simulation.world import World

_WRONG = ("set by a second", "set by seconds", "fast", "stands still", FAR, FAR, FAR)
# In seconds: some replicas read it meanwhile, and some do not.
_LASTS = (0.3, 6.0)
# In which those that are heard come to one time again.
_UNTIL_ALL_KNOW = 25.0
# So long that what lives is over by the truth, and that it is told.
_FOR_LONG = 180.0


async def server_clocks(world: World, going: Callable[[], bool]) -> None:
    """The server's clock is set, runs fast, stands still; or a standby has another one. It is put right in the end."""
    server, chance = world.disk.server, world.chance
    while going() and server is not None:
        await world.later(8, 28)
        if not going():
            return
        what = chance.one_of(*_WRONG)
        chance.told["server's clock wrong"] += 1
        world.tell("server", what)
        if chance.often(0.3):
            await _promote(world, server, what)
        else:
            chance.told[f"server's clock {what}"] += 1
            set_wrong(world, server.wall, what)
        lasts = chance.between(*_LASTS)
        if server.wall.ahead() < -HOUR / 2 and chance.often(0.3):
            chance.told["server's clock set back for long"] += 1
            lasts = _FOR_LONG
            world.quiet_until = world.loop.time() + lasts
        await asyncio.sleep(lasts)
        server.wall.put_right()
        await _until_believed(world)


async def _promote(world: World, server: Server, what: str) -> None:
    """Of what was committed nothing is lost; its clock is off by what ``what`` says."""
    world.chance.told["standby promoted"] += 1
    server.away = True
    await asyncio.sleep(world.chance.between(0.1, 2))
    before = server.wall.ahead()
    set_wrong(world, server.wall, what)
    world.chance.told["standby with another time promoted"] += abs(server.wall.ahead() - before) > TOLERANCE_MS / 1000
    server.promote()
    server.away = False


async def _until_believed(world: World) -> None:
    """What people do about it: see ``nemesis.py``. To start a broker again is to have it believe the clock again."""
    chance = world.chance
    fast = _fast(world)
    if fast and max(fast) - min(fast) > TOLERANCE_MS / 1000:
        chance.told["one has read what another one has not"] += 1
        await asyncio.sleep(_UNTIL_ALL_KNOW)
    fast, now = _fast(world), world.loop.time()
    seen = (world.checks.ledger.latest - world.clock.now()).total_seconds()
    doubting = [each for each in world.replicas if each.doubt() is not None]
    if HOUR / 2 < (ahead := max(*fast, seen, 0)) < 2 * HOUR and chance.often(0.8):
        chance.told["off until the server's clock had caught up"] += 1
        world.quiet_until = world.off_until = now + ahead + 1
        world.kill()
        await world.start()
    elif doubting and chance.often(0.15):
        world.quiet_until = now + SETTLE_MS / 1000 + 10
        await world.later(0, 0)
        chance.told["waited until the server's clock was believed"] += any(each.doubt() is None for each in doubting)
    elif doubting and chance.often(0.7):
        chance.told["started again to believe the server's clock"] += 1
        world.kill()
        await world.start()


def _fast(world: World) -> list[float]:
    return [each.fast_by() for each in world.replicas if each.broker is not None]
