"""What the ledger lies on: it takes its time, fails, fills up. What lies on it stays there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from broker.ports.clock import Clock
from broker.stores.ledger_file import connect_writer, prepare_file
from broker.stores.migrate import migrate
from tests.simulation.chance import Chance


class Disk:
    """``on_commit`` is called after each transaction, told or not; ``clock`` is its machine's.

    ``shared``: it is reached over a network, by several.
    """

    def __init__(
        self, path: Path, chance: Chance, clock: Clock, on_commit: Callable[[], None], *, shared: bool
    ) -> None:
        self.path = path
        self.clock = clock
        self.chance = chance
        self._on_commit = on_commit
        # By process: whom to tell that somebody committed.
        self.listeners: dict[str, Callable[[], None]] = {}
        self.shared = shared
        self.failing = False  # for a while, every write

    def make(self) -> None:
        """An empty ledger."""
        prepare_file(self.path)
        with contextlib.closing(connect_writer(self.path)) as connection:
            migrate(connection)

    def committed(self, by: str) -> None:
        """After each transaction, told or not."""
        self._on_commit()
        for name, wake in self.listeners.items():
            if name != by and not self.chance.sometimes("word of a commit lost", 0.5):
                wake()

    def latency(self) -> float:
        """Seconds for one access."""
        if self.chance.sometimes("slow disk", 0.002):
            return self.chance.between(0.5, 8)
        return self.chance.between(0.0001, 0.004)

    def fails(self) -> bool:
        return (self.failing and not self.chance.calm) or self.chance.sometimes("failed write", 0.004)
