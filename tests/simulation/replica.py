"""One replica: brokers that come one after the other on one machine, with its clock and its lines to the others."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

from broker.clock import KeptClock
from broker.ports.clock import Clock
from tests.issuance.world import StaticKeys
from tests.simulation.broker import SimulatedBroker
from tests.simulation.clocks import WallClock
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.process import Gone, Process

if TYPE_CHECKING:
    from tests.simulation.world import World


class Replica:
    """``broker`` is None while it is down. Every start is a process of its own, with a name of its own."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self.wall = WallClock(world.loop)
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
        process = Process(f"{self.name}{self._starts}")
        while self.ledger is None:
            try:
                self.ledger = SimulatedLedger(world.disk, StaticKeys(), process)
            except sqlite3.Error:  # the daemon does not start, and is started again
                await asyncio.sleep(1)
        self.process = process
        made = SimulatedBroker(
            *(
                process,
                self.ledger,
                world.connectors,
                world.deploy,
                world.fresh,
                self._clock(),
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
        world.checks.booted(process.name, made.clock.now())

    async def _end_when_lost(self, ledger: SimulatedLedger) -> None:
        """As the daemon does, whose service is started again."""
        await ledger.lost()
        if self.ledger is ledger:
            self._world.chance.told["ended because the ledger was another one"] += 1
            self.kill()
            await asyncio.sleep(1)
            await self.start()

    def _clock(self) -> Clock:
        if self._world.disk.shared:
            return self._world.disk.clock
        loop = self._world.loop
        return KeptClock(self.wall.milliseconds, lambda: int(loop.time() * 1000))

    def doubts(self) -> bool:
        """Whether its broker doubts what time it is."""
        clock = None if self.broker is None else self.broker.clock
        return isinstance(clock, KeptClock) and clock.keeper.doubt is not None

    def set_since_it_runs(self) -> bool:
        """Whether its clock was set, by more than a broker tolerates, since its broker's time began."""
        return self.broker is not None and self.wall.jumped_at > self.broker.time_begins

    def fast_by(self) -> float:
        """By how many seconds its broker's time is ahead of the truth."""
        return 0.0 if self.broker is None else (self.broker.clock.now() - self._world.clock.now()).total_seconds()

    def kill(self) -> None:
        """``kill -9`` or a power cut: nobody is told anything."""
        process, ledger = self.process, self.ledger
        self.process = self.ledger = self.broker = None
        if process is not None and ledger is not None:
            self._world.tell("kill", process.name)
            process.kill()
            ledger.lose_power()
