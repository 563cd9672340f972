"""What goes wrong as a whole: brokers that die or hang, disks that fill up, upstreams that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.revocation.revoker import CLAIM_FOR
from broker.timekeeping import SETTLE_MS
from tests.simulation.backups import Backup
from tests.simulation.clocks import WallClock
from tests.simulation.replica import Replica
from tests.simulation.world import World

# The revoker's claims run out after 30 s: most stops outlast them.
_LONGEST_STOP = 35.0
FAR = "set by an hour or years"
_WRONG = ("set by a second", "set by seconds", "fast", "stands still", FAR, FAR)
HOUR = 3600.0
# From here on, of a run's steps, a clock may be set ten years forwards.
_LAST = 0.9
_LONGEST_CUT = 5.0
# A replica that is not heard is dead to others after ten seconds, if they were heard themselves all the while.
_UNTIL_OTHERS_KNOW = (11.0, 15.0)
_PATIENCE = 5.0
_UNTIL_MOST_HAVE_STARTED = 6.0


def _others_inherit(world: World, dying: Replica) -> bool:
    """Whether those that are left are spared until they know that it is dead, and have what it had in hand."""
    inherit = world.inherits(dying) and world.chance.often(0.7)
    if inherit:
        world.spared_until = world.loop.time() + _UNTIL_OTHERS_KNOW[1]
    return inherit


async def kills(world: World, replica: Replica, going: Callable[[], bool]) -> None:
    """``kill -9`` at any moment, or while it is at work, and a start some seconds later, or after others know."""
    while going():
        await world.later(0.5, 9)
        if world.spared:
            continue
        if replica.process is not None and world.chance.often(0.7):
            await replica.process.at_work(_PATIENCE)
        if replica.process is not None and replica.process.stopped is not None and world.chance.often(0.9):
            continue  # it is to go on later, when others have taken what it had in hand
        down = world.chance.between(0.1, 6)
        if _others_inherit(world, replica):
            down = world.chance.between(*_UNTIL_OTHERS_KNOW)
        if not going():
            return
        world.chance.told["killed"] += 1
        replica.kill()
        await asyncio.sleep(down)
        await replica.start()


async def stops(world: World, replica: Replica, going: Callable[[], bool]) -> None:
    """SIGSTOP, and SIGCONT when it has forgotten what time it is."""
    while going():
        await world.later(1, 4)
        process = replica.process
        if process is None or world.spared or not going():
            continue
        if world.chance.often(0.9):
            process.stops_when_it_writes = True
            await asyncio.sleep(2)  # the ticks write now and then, and agents do
        process.stops_when_it_writes = False
        _others_inherit(world, replica)
        process.stop()
        world.tell("stop", process.name)
        lasts = world.chance.between(CLAIM_FOR.total_seconds(), _LONGEST_STOP)
        if world.chance.often(0.1):
            lasts = world.chance.between(0.5, CLAIM_FOR.total_seconds())
        world.chance.told["stopped"] += 1
        outlasts = lasts > CLAIM_FOR.total_seconds()
        world.chance.told["stopped for longer than a claim"] += outlasts
        await asyncio.sleep(lasts)
        world.chance.told["went on when its claims had run out"] += outlasts and process.alive
        process.go_on()
        world.tell("go on", process.name)


async def cuts(world: World, replica: Replica, going: Callable[[], bool]) -> None:
    """One replica's line to the store, or to the upstreams, is cut for a while."""
    while going():
        await world.later(1.5, 12)
        process = replica.process
        if process is None or world.spared or not going():
            continue
        where = world.chance.one_of("store", "upstreams")
        world.chance.told[f"cut off from the {where}"] += 1
        process.cut_from_store, process.cut_from_upstream = where == "store", where == "upstreams"
        await asyncio.sleep(world.chance.between(0.5, _LONGEST_CUT))
        process.cut_from_store = process.cut_from_upstream = False


async def clocks(world: World, replica: Replica, going: Callable[[], bool]) -> None:
    """The machine's clock is set, runs fast, stands still; NTP puts it right in the end."""
    while going() and not world.disk.shared:  # brokers that share a ledger go by its time
        await asyncio.sleep(world.chance.between(0.3, 2.5))
        if not going():
            return
        what = world.chance.one_of(*_WRONG)
        world.chance.told["clock wrong"] += 1
        world.chance.told[f"clock {what}"] += 1
        world.tell("clock", replica.name, what)
        set_wrong(world, replica.wall, what)
        await asyncio.sleep(world.chance.between(0.8, 3.5))
        replica.wall.put_right()
        if what == FAR:
            await _until_believed(world, replica)


def set_wrong(world: World, clock: WallClock, what: str) -> None:
    """A machine's clock: one of ``_WRONG``."""
    sign = 1 if world.chance.often(0.5) else -1
    match what:
        case "set by a second":
            clock.jump(sign)
        case "set by seconds":
            clock.jump(sign * world.chance.between(2, 25))
        case "fast":
            clock.run(1.1)
        case "stands still":
            clock.run(0)
        case _:
            years = world.chance.often(0.2)
            if years and world.loop.steps < world.steps * _LAST:
                sign = -1  # after it was set ten years forwards nothing is granted to the end of the run
            clock.jump(sign * (10 * 365 * 86_400 if years else HOUR))


async def _until_believed(world: World, replica: Replica) -> None:
    """What people do about it: broker time is an hour ahead, so it is off for an hour; or they wait until it settles.

    Else it is right again when the broker is started again the next time.
    """
    ahead = max(replica.fast_by(), (world.checks.ledger.latest - world.clock.now()).total_seconds())
    if HOUR / 2 < ahead < 2 * HOUR:
        world.chance.told["off until its clock had caught up"] += 1
        world.quiet_until = world.off_until = world.loop.time() + ahead + 1
        replica.kill()
        await replica.start()
    elif replica.doubt() is not None and world.chance.often(0.8):
        world.quiet_until = world.loop.time() + SETTLE_MS / 1000 + 10
        await world.later(0, 0)
        world.chance.told["waited until its clock was believed"] += replica.doubt() is None


async def outages(world: World, going: Callable[[], bool]) -> None:
    """An upstream is away for a while, in one of the ways in which they are."""
    upstream = world.connectors["fake"]
    while going():
        await world.later(3, 24)
        world.chance.told["outage"] += 1
        upstream.down = world.chance.one_of("hangs", "broken", "forbidden", "limits")
        await asyncio.sleep(world.chance.between(1, 8))
        upstream.down = ""


async def bad_disks(world: World, going: Callable[[], bool]) -> None:
    """No write succeeds for a while."""
    while going():
        await world.later(4, 32)
        world.chance.told["disk full"] += 1
        world.disk.failing = True
        await asyncio.sleep(world.chance.between(0.1, 2))
        world.disk.failing = False


async def restores(world: World, going: Callable[[], bool]) -> None:
    """Backups are taken, and an old one is put back: after all brokers were ended, or beneath them."""
    under_way: set[asyncio.Task[None]] = set()
    while going() and world.witness is not None:
        for _ in range(int(world.chance.between(2, 6))):
            await world.later(0.3, 2.5)
            if going():
                world.backups.take()
        if going() and (old := world.backups.old()):
            beneath = world.disk.shared and world.chance.often(0.75)
            chosen = old[int(world.chance.between(0, len(old)))]
            under_way = {asyncio.create_task(put_back(world, chosen, beneath=beneath)), *under_way}
            # Some are killed, stopped and cut off while they start: the next time does not wait for all of them.
            _, under_way = await asyncio.wait(under_way, timeout=_UNTIL_MOST_HAVE_STARTED)


async def put_back(world: World, chosen: Backup, *, beneath: bool) -> None:
    """An old ledger, and brokers on it."""
    world.chance.told["ledger put back beneath its brokers" if beneath else "ledger put back"] += 1
    if not beneath:
        world.kill()
    world.backups.put_back(chosen)
    await asyncio.sleep(world.chance.between(0.1, 3))
    await world.start()


async def witnesses(world: World, going: Callable[[], bool]) -> None:
    """The machine with the checkpoints cannot be reached for a while."""
    while going() and world.witness is not None:
        await world.later(1, 12)
        world.chance.told["witness away"] += 1
        world.witness.away = True
        await asyncio.sleep(world.chance.between(0.5, 6))
        world.witness.away = False


TO_ALL = (outages, bad_disks, restores, witnesses)
TO_EACH = (kills, stops, cuts, clocks)
