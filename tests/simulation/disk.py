"""What the ledger lies on: it takes its time, fails, fills up. What lies on it stays there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from broker.stores.ledger_file import connect_writer, prepare_file
from broker.stores.migrate import migrate
from tests.simulation.chance import Chance
from tests.simulation.server import Server


class Disk:
    """``on_commit`` is called after each transaction, told or not.

    ``server``: whose it is, where it is shared: reached over a network, by several. None: it is one broker's own.
    """

    def __init__(self, path: Path, chance: Chance, on_commit: Callable[[], None], server: Server | None) -> None:
        self.path = path
        self.server = server
        self.chance = chance
        self._on_commit = on_commit
        # By process: whom to tell that somebody committed.
        self.listeners: dict[str, Callable[[], None]] = {}
        self.failing = False  # for a while, every write

    @property
    def shared(self) -> bool:
        """By several."""
        return self.server is not None

    @property
    def away(self) -> bool:
        """Whether nobody answers."""
        return self.server is not None and self.server.away

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
