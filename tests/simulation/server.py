"""The database server of a shared ledger: everybody's time is its clock's, read over a line; a standby has another one.

What a replica takes for the server's time is held against that clock at each reading (docs/replicas.md).
"""

from __future__ import annotations

from collections.abc import Callable

from broker.stores.postgres_clock import ServerClock
from tests.simulation.broken import Broken
from tests.simulation.chance import Chance
from tests.simulation.clocks import WallClock
from tests.simulation.process import Process
from tests.simulation.virtual import VirtualLoop

# In seconds. A reading that was under way for longer counts only where no better one is to be had.
_SHARP = 0.05
_WAY_BACK = 0.04
# What a machine's own clock may gain, until it reads again.
_GAIN = 0.02


class Server:
    """``wall`` is the clock of whichever server answers. ``fail`` is told of a replica that is off."""

    def __init__(self, loop: VirtualLoop, chance: Chance, fail: Callable[[Broken], None]) -> None:
        self.loop = loop
        self.chance = chance
        self.fail = fail
        self.wall = WallClock(loop)
        self.timeline = 1
        self.away = False  # nobody answers, for now

    def promote(self) -> None:
        """A standby goes on with all that was committed."""
        self.timeline += 1


class Follower:
    """One process's way to read the server's clock into its own ``clock``, as the adapter does with each batch."""

    def __init__(self, server: Server, process: Process, clock: ServerClock) -> None:
        self._server = server
        self._process = process
        self._clock = clock
        self._sent = clock.running()
        self._well_read_at = -1.0  # when the last sharp reading came
        self.read()

    def send(self) -> None:
        """A batch is on its way, and the question what time it is with it."""
        self._sent = self._clock.running()

    def read(self) -> None:
        """The server has begun with that batch, and says what time it is. Who is stopped hears it when it goes on."""
        sent, stopped = self._sent, self._process.stopped
        way_back = min(self._server.chance.between(0, _WAY_BACK), self._clock.running() - sent)
        said = self._server.wall.milliseconds() - int(way_back * 1000)
        if stopped is None:
            self._hear(sent, said)
        else:
            self._server.chance.told["the server's time heard too late"] += 1
            stopped.add_done_callback(lambda _: self._hear(sent, said))

    def _hear(self, sent: float, said: int) -> None:
        sharp = self._clock.running() - sent <= _SHARP
        self._clock.observe(sent, said)
        wall, now = self._server.wall, self._server.loop.time()
        if sharp:
            self._well_read_at = now
        elif wall.touched_at >= self._well_read_at or wall.runs_wrong:
            return  # it cannot know yet
        ahead = (self._clock.milliseconds() - wall.milliseconds()) / 1000
        if not -_SHARP - _GAIN <= ahead <= _GAIN:
            self._server.fail(
                Broken(f"F40: {self._process.name} takes the server's time to be {ahead:.3f} s ahead of what it is")
            )
