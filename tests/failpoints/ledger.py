"""The real ledger with points before and after each commit, by the operation's name; and a way to lose it at once."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

from broker.ports.keys import KeyRing
from broker.stores.database import Writing
from broker.stores.group_commit import GroupCommit, Job
from broker.stores.readers import Readers
from broker.stores.seal import RowSeal
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_database import unavailable
from broker.stores.trail import Trail
from broker.stores.transaction import Transaction
from tests.failpoints.points import Fault, Points
from tests.simulation.process import Process


def operation_of(job: Job) -> str:
    """``LedgerStore.activate.<locals>.<lambda>`` is the operation ``activate``; so is a partial of ``activate``."""
    operation = job.operation.func if isinstance(job.operation, partial) else job.operation
    return operation.__qualname__.split(".")[1] if "." in operation.__qualname__ else operation.__qualname__


class _Writer(GroupCommit):
    """Group commit without its thread: a batch passes its points on the event loop."""

    def __init__(self, points: Points, process: Process, *arguments: Any) -> None:
        self._points = points
        self._process = process
        super().__init__(*arguments)

    def _start(self) -> None:
        pass

    def _hand_over(self, batch: list[Job]) -> None:
        self._carrying = self._loop.create_task(self._carry_out(batch))

    async def _carry_out(self, batch: list[Job]) -> None:
        commits = [self._points.commit(operation) for operation in dict.fromkeys(map(operation_of, batch))]
        refused = await self._pass(commits, "before")
        if not self._process.alive:
            return
        if not refused:
            self._commit(batch)
            refused = await self._pass(commits, "after")
        if not self._process.alive:
            return
        if refused:
            for job in batch:
                job.value, job.error = None, unavailable(sqlite3.OperationalError("disk I/O error"))
        self._answer(batch, self._trail.committed_seq)

    async def _pass(self, commits: list[str], side: str) -> bool:
        """Whether the batch is refused there."""
        refused = False
        for commit in commits:
            fault = self._points.meet(f"{commit} {side}")
            if fault is Fault.HANG:
                await self._points.stand_still()
            refused |= fault is Fault.ERROR
        return refused


class _Readers(Readers):
    def cut(self) -> None:
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in self._opened:
            connection.close()


class PointedLedger(SqliteStore):
    """Opened by :meth:`open_at`, for one process."""

    points: Points
    process: Process

    @classmethod
    async def open_at(cls, path: Path, keys: KeyRing, points: Points, process: Process) -> PointedLedger:
        """As after the process that had it is gone."""
        made = type("Pointed", (cls,), {"points": points, "process": process})
        opened = await made.open(path, keys, "w")
        assert isinstance(opened, PointedLedger)
        return opened

    def _reading(self, seal: RowSeal) -> Readers:
        return _Readers(self._path, seal)

    def _writing(self, writing: Writing, transaction: Transaction, trail: Trail) -> GroupCommit:
        return _Writer(self.points, self.process, writing, transaction, trail, self._committed)

    async def lose(self) -> None:
        """The process is gone: what is not committed is lost, and nobody who waits is answered."""
        assert isinstance(self._readers, _Readers)
        self._closed = True
        await asyncio.to_thread(self._readers.cut)
        self._connection.close()
        self._lock.release()
