"""The real ledger on a database that takes its time, fails, and is reached over lines that are cut: all but the threads.

Several brokers have it open, each with a writer, images, a trail and readers of its own; their transactions are serial.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from broker.ports import KeyRing
from broker.stores.group_commit import GroupCommit, Job, closed
from broker.stores.ledger_file import connect_writer, prepare_file
from broker.stores.migrate import migrate
from broker.stores.readers import Readers
from broker.stores.seal import RowSeal
from broker.stores.sqlite import SqliteStore
from broker.audit.chain import GENESIS
from broker.stores.queries import SQL
from broker.stores.trail import Head, Trail
from broker.stores.transaction import Transaction, View
from tests.simulation.chance import Chance
from tests.simulation.process import Process

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

    def make(self) -> None:
        """An empty ledger."""
        prepare_file(self.path)
        with contextlib.closing(connect_writer(self.path)) as connection:
            migrate(connection)

    def open(self, keys: KeyRing, process: Process) -> SimulatedLedger:
        """As one process opens it: what it commits is called by that process's name."""
        connection = connect_writer(self.path)
        migrate(connection)
        made = type("OnDisk", (SimulatedLedger,), {"disk": self, "process": process})
        return made(_NoLock(), connection, self.path, keys, process.name, keeps_texts=True)  # type: ignore[no-any-return]


class _NoLock:
    """Several may have it open: what one of them commits, the others see when they begin."""

    def release(self) -> None: ...


class _Writer(GroupCommit):
    """Group commit without its thread: a batch is written when the disk has got round to it."""

    def __init__(self, disk: Disk, process: Process, *arguments: Any) -> None:
        self._disk = disk
        self._process = process
        self.off = False
        super().__init__(*arguments)

    def _start(self) -> None:
        pass

    def _hand_over(self, batch: list[Job]) -> None:
        if self._process.stops_when_it_writes:
            self._process.stop()
        self._loop.call_later(self._disk.latency(), self._write, batch)

    def _write(self, batch: list[Job]) -> None:
        stopped = self._process.stopped
        if stopped is not None and not self.off and self._disk.chance.sometimes("late write of a stopped one", 0.5):
            # It had begun to send: the rest comes when it goes on, with the time of before.
            stopped.add_done_callback(lambda _: self._write(batch))
            return
        if self.off:
            return
        self._commit(batch)
        self._disk.on_commit()
        self._loop.call_later(self._disk.latency(), self._tell, batch, self._trail.committed_seq)

    def _tell(self, batch: list[Job], head: int) -> None:
        if not self.off:
            self._answer(batch, head)

    def _transact(self, batch: list[Job], run: Callable[[Job], None]) -> None:
        if self._process.cut_from_store:
            raise sqlite3.OperationalError("the connection is lost")
        if self._disk.fails():
            raise sqlite3.OperationalError("disk I/O error")
        full = self._disk.fails()

        def and_fill(job: Job) -> None:
            run(job)
            if full and job is batch[-1]:
                raise sqlite3.OperationalError("database or disk is full")

        self._look_again()
        super()._transact(batch, and_fill)
        if self._disk.chance.sometimes("committed and not told", 0.003):
            raise sqlite3.OperationalError("the connection was lost during COMMIT")


    def _look_again(self) -> None:
        row = self._connection.execute(SQL["audit_head"]).fetchone()
        self._trail._committed = self._trail._head = Head(0, GENESIS) if row is None else Head(row[0], row[1])


class _Readers(Readers):
    """Answers scans on the loop, after a while."""

    def __init__(self, disk: Disk, process: Process, path: Path, seal: RowSeal) -> None:
        super().__init__(path, seal)
        self._disk = disk
        self._process = process

    def point(self, read: Callable[[View], T]) -> T:
        return super().point(self._over_the_line(read))

    async def scan(self, read: Callable[[View], T]) -> T:
        await asyncio.sleep(self._disk.latency())
        if self._closed:
            raise closed()
        return self._scan(self._over_the_line(read))

    def _over_the_line(self, read: Callable[[View], T]) -> Callable[[View], T]:
        def over(view: View) -> T:
            if self._process.cut_from_store:
                raise sqlite3.OperationalError("the connection is lost")
            return read(view)

        return over

    def cut(self) -> None:
        self._closed = True
        for connection in self._opened:
            connection.close()


class SimulatedLedger(SqliteStore):
    """Opened by :meth:`Disk.open`."""

    disk: Disk
    process: Process

    def _reading(self, path: Path, seal: RowSeal) -> Readers:
        return _Readers(self.disk, self.process, path, seal)

    def _writing(self, connection: sqlite3.Connection, transaction: Transaction, trail: Trail) -> GroupCommit:
        return _Writer(self.disk, self.process, connection, transaction, trail, self._committed)

    def lose_power(self) -> None:
        """Everything that is not committed is gone. Nobody who waits for an answer gets one."""
        assert isinstance(self._writer, _Writer) and isinstance(self._readers, _Readers)
        self._writer.off = True
        self._closed = True
        self._readers.cut()
        self._connection.close()
        self._lock.release()
