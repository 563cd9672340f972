"""One replica: brokers that come one after the other on one machine, with its clock and its lines to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.issuance.world import StaticKeys
from tests.simulation.broker import SimulatedBroker
from tests.simulation.clocks import WallClock
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.process import Process

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

    async def start(self) -> None:
        """A broker, on what is on the disk."""
        world = self._world
        self._starts += 1
        process = Process(f"{self.name}{self._starts}")
        self.process, self.ledger = process, SimulatedLedger(world.disk, StaticKeys(), process)
        made = SimulatedBroker(
            *(
                process,
                self.ledger,
                world.connectors,
                world.deploy,
                world.fresh,
                self.wall,
                world.loop.time,
                world.chance,
            )
        )
        world.tell("boot", process.name)
        await world.within(process, made.boot())
        self.broker = made

    def kill(self) -> None:
        """``kill -9`` or a power cut: nobody is told anything."""
        process, ledger = self.process, self.ledger
        self.process = self.ledger = self.broker = None
        if process is not None and ledger is not None:
            self._world.tell("kill", process.name)
            process.kill()
            ledger.lose_power()
