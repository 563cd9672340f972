"""Who is heard by whom, by the truth: replicas tell the ledger that they live, by whatever time it is to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.ports.clock import Clock
from broker.ports.replicas import REPLICA_DEAD_AFTER
from broker.stores.times import from_ms
from tests.clock import START
from tests.simulation.broken import Broken
from tests.simulation.machine import Machine

_NEARLY_DEAD_AFTER = REPLICA_DEAD_AFTER * 0.8
_JUST_NOW = timedelta(seconds=5)
# In seconds. Each hears what the others were told with its beats; the mark that says so is some seconds old.
_SOON_ONE = 15.0
# In seconds. What was claimed before a clock was set may have run out since, by what another one reads of it.
_LATELY = 60.0
_NEVER = START - timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Heard:
    """When a process told last that it lives: by its own time (ms), and by the truth; and when it had not for long."""

    seen_at: int
    at: datetime
    missed_at: datetime


@dataclass
class Hearing:
    """Of one world; ``machine``: that the process of this name runs on, while it does."""

    clock: Clock
    machine: Callable[[str], Machine | None]
    _heard: dict[str, Heard] = field(default_factory=dict)  # by process

    def look(self, connection: sqlite3.Connection, put_back: datetime) -> None:
        """After a commit. What was sent long ago may have come just now. Raises Broken.

        ``put_back``: when the ledger was, the last time.
        """
        for process, seen_at in connection.execute("SELECT writer, seen_at FROM replicas"):
            before = self._heard.get(process)
            if before is None or before.seen_at != seen_at:
                machine, now = self.machine(process), self.clock.now()
                ahead = 0.0 if machine is None else machine.fast_by()
                at = min(from_ms(seen_at) - timedelta(seconds=ahead), now)
                missed = before is not None and now - before.at > _NEARLY_DEAD_AFTER
                missed_at = now if missed else _NEVER if before is None else before.missed_at
                self._heard[process] = Heard(seen_at, at, missed_at)
                if (now - put_back).total_seconds() > _SOON_ONE:
                    self._look_at_the_times(process, now)

    def _look_at_the_times(self, process: str, now: datetime) -> None:
        """Of brokers that are heard, some seconds after anything was done to the clock that they share."""
        times = list[float]()
        for name, heard in self._heard.items():
            all_the_while = now - heard.at < _JUST_NOW and (now - heard.missed_at).total_seconds() > _SOON_ONE
            machine = self.machine(name) if all_the_while else None
            if machine is not None and machine.has_begun and machine.counts.untouched_for() > _SOON_ONE:
                times.append(machine.fast_by())
        if times and (apart := max(times) - min(times)) > _SOON_ONE:
            raise Broken(f"F40: {process} is heard, and is {apart:.0f} s from another one that is")

    def is_heard(self, process: str) -> bool:
        """Whether it told the ledger lately that it lives."""
        heard = self._heard.get(process)
        return heard is not None and self.clock.now() - heard.at < REPLICA_DEAD_AFTER

    def set_lately(self, process: str) -> bool:
        """Whether anything was done to the clock that it goes by, so that claims may have run out by that."""
        machine = self.machine(process)
        return machine is not None and machine.counts.untouched_for() < _LATELY

    def keeps_its_claims(self, process: str, put_back: datetime) -> bool:
        """Whether nobody can have taken from it what it has claimed some seconds ago."""
        heard = self._heard.get(process)
        if heard is None or self.set_lately(process):
            return False
        return (self.clock.now() - max(heard.missed_at, put_back)).total_seconds() > _LATELY
