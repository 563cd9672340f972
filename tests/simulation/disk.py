"""What the ledger lies on: it takes its time, fails, fills up. What lies on it stays there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from broker.stores.ledger_file import connect_writer, prepare_file
from broker.stores.migrate import migrate
from tests.simulation.chance import Chance


class Disk:
    """``on_commit`` is called after each transaction, told or not. ``shared``: it is reached over a network."""

    def __init__(self, path: Path, chance: Chance, on_commit: Callable[[], None], *, shared: bool) -> None:
        self.path = path
        self.chance = chance
        self.on_commit = on_commit
        self.shared = shared
        self.failing = False  # for a while, every write

    def make(self) -> None:
        """An empty ledger."""
        prepare_file(self.path)
        with contextlib.closing(connect_writer(self.path)) as connection:
            migrate(connection)

    def latency(self) -> float:
        """Seconds for one access."""
        if self.chance.sometimes("slow disk", 0.002):
            return self.chance.between(0.5, 8)
        return self.chance.between(0.0001, 0.004)

    def fails(self) -> bool:
        return (self.failing and not self.chance.calm) or self.chance.sometimes("failed write", 0.002)
