"""One replica: brokers that come one after the other on one machine, with its clock and its lines to the others."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from copy import copy
from typing import TYPE_CHECKING

from broker.clock import KeptClock
from broker.stores.postgres_clock import ServerClock
from broker.stores.times import from_ms
from broker.timekeeping import ANCHOR_MS, TOLERANCE_MS, Doubt
from tests.issuance.world import StaticKeys
from tests.simulation.broker import SimulatedBroker
from tests.simulation.clocks import RunningClock, WallClock
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.process import Gone, Process

if TYPE_CHECKING:
    from tests.simulation.world import World

# In seconds; and in seconds per second, against the truth.
_MACHINES_OFF = (-7200.0, 7200.0)
_DRIFT = 100e-6
_NOTICED_WITHIN = ANCHOR_MS / 1000 + 60


class Replica:
    """``broker`` is None while it is down. Every start is a process of its own, with a name of its own."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        # Where a server's time counts, what this machine takes for it is nobody's matter.
        self.wall = WallClock(world.loop, world.chance.between(*_MACHINES_OFF) if world.disk.shared else 0)
        drift = world.chance.between(-_DRIFT, _DRIFT) if world.disk.shared else 0
        self.running = RunningClock(world.loop, world.chance.between(0, 1e6), 1 + drift)
        self.process: Process | None = None
        self.ledger: SimulatedLedger | None = None
        self.broker: SimulatedBroker | None = None
        self._starts = 0
        self._starting = asyncio.Lock()
        self._watching: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        """A broker, on what is on the disk, unless there is one."""
        async with self._starting:
            await self._world.on()
            if self.process is None:
                with contextlib.suppress(Gone):  # killed while it starts
                    await self._start()

    async def _start(self) -> None:
        world = self._world
        self._starts += 1
        process, clock = Process(f"{self.name}{self._starts}"), self._clock()
        follows = clock.source if isinstance(clock.source, ServerClock) else None
        while self.ledger is None:
            try:
                self.ledger = SimulatedLedger(world.disk, StaticKeys(), process, follows)
            except sqlite3.Error:  # the daemon does not start, and is started again
                await asyncio.sleep(1)
        self.process, seen = process, world.checks.ledger.latest
        made = SimulatedBroker(
            *(
                process,
                self.ledger,
                world.connectors,
                world.deploy,
                world.fresh,
                clock,
                world.loop.time,
                world.chance,
                world.witness,
            )
        )
        world.tell("boot", process.name)
        watching = asyncio.create_task(self._end_when_lost(self.ledger))
        self._watching[watching] = None
        watching.add_done_callback(self._watching.pop)
        await world.within(process, made.boot())
        self.broker = made
        world.checks.booted(process.name, made.clock.now(), seen)

    async def _end_when_lost(self, ledger: SimulatedLedger) -> None:
        """As the daemon does, whose service is started again."""
        await ledger.lost()
        if self.ledger is ledger:
            self._world.chance.told["ended because the ledger was another one"] += 1
            self.kill()
            await asyncio.sleep(1)
            await self.start()

    def _clock(self) -> KeptClock:
        """As the daemon's ``clock_of``."""
        if not self._world.disk.shared:
            return KeptClock(self.wall.milliseconds, self.running.milliseconds)
        follows = ServerClock(self.wall, self.running.seconds)
        return KeptClock(follows.milliseconds, self.running.milliseconds, source=follows)

    @property
    def counts(self) -> WallClock:
        """The clock by which its broker goes."""
        server = self._world.disk.server
        return self.wall if server is None else server.wall

    def doubt(self) -> Doubt | None:
        """Whether its broker doubts what time it is, and since when."""
        return None if self.broker is None else self.broker.clock.keeper.doubt

    def set_since_it_runs(self) -> bool:
        """Whether its clock was set, by more than a broker tolerates, since its broker's time began."""
        return self.broker is not None and self.counts.jumped_at > self.broker.time_begins

    @property
    def has_begun(self) -> bool:
        """Whether its broker has a time."""
        return self.broker is not None

    def may_doubt(self) -> bool:
        """Whether anything was wrong with its clock that its broker can have noticed."""
        return self.counts.untouched_for() < _NOTICED_WITHIN or self.fast_by() > TOLERANCE_MS / 1000

    def fast_by(self) -> float:
        """By how many seconds its broker's time is ahead of the truth. Nothing changes by that it is asked."""
        if self.broker is None:
            return 0.0
        clock = self.broker.clock
        ms = copy(clock.keeper).look(clock._wall(), clock._running())
        return (from_ms(ms) - self._world.clock.now()).total_seconds()

    def kill(self) -> None:
        """``kill -9`` or a power cut: nobody is told anything."""
        process, ledger = self.process, self.ledger
        self.process = self.ledger = self.broker = None
        if process is not None and ledger is not None:
            self._world.tell("kill", process.name)
            process.kill()
            ledger.lose_power()
