"""The real ledger on a disk that takes its time, fails, and loses power: everything of it but the threads."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from broker.ports import KeyRing
from broker.stores.database import Writing, closed
from broker.stores.group_commit import GroupCommit, Job
from broker.stores.readers import Readers
from broker.stores.seal import RowSeal
from broker.stores.sqlite import SqliteStore
from broker.stores.trail import Trail
from broker.stores.transaction import Transaction
from broker.stores.view import View
from tests.simulation.chance import Chance

T = TypeVar("T")


class Disk:
    """What lies on it stays there; when the power goes, what was under way is lost or not, and nobody is told."""

    def __init__(self, path: Path, chance: Chance, on_commit: Callable[[], None]) -> None:
        self.path = path
        self.chance = chance
        self.on_commit = on_commit
        self.failing = False  # for a while, every write

    def latency(self) -> float:
        """Seconds for one access."""
        if self.chance.sometimes("slow disk", 0.002):
            return self.chance.between(0.5, 8)
        return self.chance.between(0.0001, 0.004)

    def fails(self) -> bool:
        return (self.failing and not self.chance.calm) or self.chance.sometimes("failed write", 0.002)

    async def open(self, keys: KeyRing, writer: str) -> SimulatedLedger:
        """As after the power came back."""
        made = type("OnDisk", (SimulatedLedger,), {"disk": self})
        opened = await made.open(self.path, keys, writer)
        assert isinstance(opened, SimulatedLedger)
        return opened


class _Writer(GroupCommit):
    """Group commit without its thread: a batch is written when the disk has got round to it."""

    def __init__(self, disk: Disk, *arguments: Any) -> None:
        self._disk = disk
        self.off = False
        super().__init__(*arguments)

    def _start(self) -> None:
        pass

    def _hand_over(self, batch: list[Job]) -> None:
        self._loop.call_later(self._disk.latency(), self._write, batch)

    def _write(self, batch: list[Job]) -> None:
        if self.off:
            return
        self._commit(batch)
        self._disk.on_commit()
        self._loop.call_later(self._disk.latency(), self._tell, batch, self._trail.committed_seq)

    def _tell(self, batch: list[Job], head: int) -> None:
        if not self.off:
            self._answer(batch, head)

    def _transact(self, batch: list[Job], run: Callable[[Job], None]) -> None:
        if self._disk.fails():
            raise sqlite3.OperationalError("disk I/O error")
        full = self._disk.fails()

        def and_fill(job: Job) -> None:
            run(job)
            if full and job is batch[-1]:
                raise sqlite3.OperationalError("database or disk is full")

        super()._transact(batch, and_fill)


class _Readers(Readers):
    """Answers scans on the loop, after a while."""

    def __init__(self, disk: Disk, path: Path, seal: RowSeal) -> None:
        super().__init__(path, seal)
        self._disk = disk

    async def scan(self, read: Callable[[View], T]) -> T:
        await asyncio.sleep(self._disk.latency())
        if self._closed:
            raise closed()
        return self._scan(read)

    def cut(self) -> None:
        self._closed = True
        for connection in self._opened:
            connection.close()


class SimulatedLedger(SqliteStore):
    """Opened by :meth:`Disk.open`."""

    disk: Disk

    def _reading(self, seal: RowSeal) -> Readers:
        return _Readers(self.disk, self._path, seal)

    def _writing(self, writing: Writing, transaction: Transaction, trail: Trail) -> GroupCommit:
        return _Writer(self.disk, writing, transaction, trail, self._committed)

    def lose_power(self) -> None:
        """Everything that is not committed is gone. Nobody who waits for an answer gets one."""
        assert isinstance(self._writer, _Writer) and isinstance(self._readers, _Readers)
        self._writer.off = True
        self._closed = True
        self._readers.cut()
        self._connection.close()
        self._lock.release()
