"""Backups of the ledger, and an old one put back: with all brokers ended, as the manual says, or beneath them."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker.stores.backup import back_up
from tests.simulation.restored import Told

if TYPE_CHECKING:
    from tests.simulation.world import World

_KEPT = 12
_LAST_CHECKPOINT = (
    "SELECT max(coalesce((SELECT max(at_ms) FROM audit_checkpoints), -1),"
    " coalesce((SELECT max(evidence_at) FROM recoveries), -1))"
)


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy, what the trail had told then, and the time of the latest checkpoint that it knows of."""

    path: Path
    told: Told
    checkpoint_ms: int


class Backups:
    """The last few of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._made = 0
        self._kept: list[Backup] = []

    def take(self) -> None:
        """One, now: whatever is going on."""
        self._made += 1
        path = self._world.disk.path.with_name(f"backup-{self._made}")
        back_up(self._world.disk.path, path)
        with contextlib.closing(sqlite3.connect(path)) as copy:
            (at_ms,) = copy.execute(_LAST_CHECKPOINT).fetchone()
        self._kept.append(Backup(path, self._world.checks.told_until_now(), at_ms))
        if len(self._kept) > _KEPT:
            self._kept.pop(0).path.unlink()

    def old(self) -> list[Backup]:
        """Those that a witness shows to be old. What no witness has seen nobody can miss."""
        assert self._world.witness is not None
        seen = self._world.witness.seen_ms()
        return [each for each in self._kept if each.checkpoint_ms < seen]

    def put_back(self, chosen: Backup) -> None:
        """The ledger is this one from now on."""
        with (
            contextlib.closing(sqlite3.connect(chosen.path)) as copy,
            contextlib.closing(sqlite3.connect(self._world.disk.path)) as ledger,
        ):
            copy.backup(ledger)
        self._world.tell("restore", chosen.told.seen)
        self._world.checks.put_back(chosen.told, self._world.running())
