"""The real ledger, all but its threads and its lock: several processes have one open, over lines that can be cut.

Each has a writer, images, a trail and readers of its own. Their transactions are serial, as on every database.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from broker.errors import BrokerError, Defect, NotReady, Reason
from broker.ports.keys import KeyRing
from broker.ports.replicas import Heartbeat, Pulse
from broker.ports.suspensions import Members, StillAlive
from broker.stores.database import Writing, closed
from broker.stores.group_commit import GroupCommit, Job
from broker.stores.ledger import LedgerStore
from broker.stores.ledger_file import connect_writer
from broker.stores.others_commits import OthersCommits
from broker.stores.postgres_clock import ServerClock
from broker.stores.readers import Readers
from broker.stores.seal import RowSeal
from broker.stores.sqlite_database import SqliteWriting
from broker.stores.trail import Trail
from broker.stores.transaction import Transaction
from broker.stores.view import View
from broker.suspension.suspension import Suspension
from tests.simulation.broken import Broken
from tests.simulation.disk import Disk
from tests.simulation.process import Process
from tests.simulation.server import Follower

T = TypeVar("T")


class SimulatedLedger(LedgerStore):
    """As one process opens it: what it commits bears that process's name."""

    def __init__(self, disk: Disk, keys: KeyRing, process: Process, follows: ServerClock | None) -> None:
        """``follows`` reads the server's clock from now on, where there is a server."""
        self._disk = disk
        self._process = process
        self._connection = connect_writer(disk.path)
        follower = None if disk.server is None or follows is None else Follower(disk.server, process, follows)
        try:
            super().__init__(_Line(disk, process, self._connection, follower), keys, process.name, keeps_texts=True)
        except BaseException:
            self._connection.close()
            raise

    @property
    def shared(self) -> bool:
        """See ReplicaStore.shared."""
        return self._disk.shared

    async def hear_of_others(self) -> None:
        """For as long as the process lives: words that others committed come, or are lost."""
        if not self.shared:
            return
        others = OthersCommits(self._head_now, self._committed)
        self._disk.listeners[self._process.name] = others.wake
        await others.run()

    async def beat(self, said: Heartbeat, now: datetime) -> Pulse:
        """See ReplicaStore.beat. A file has no timeline, a server has."""
        pulse = await super().beat(said, now)
        return pulse if self._disk.server is None else pulse._replace(timeline=str(self._disk.server.timeline))

    async def inherit(self, writer: str, now: datetime) -> int:
        """See ReplicaStore.inherit."""
        taken = await super().inherit(writer, now)
        self._disk.chance.told["taken over from one that is dead"] += taken
        return taken

    async def still_alive(self, suspension: Suspension, members: Members) -> Sequence[StillAlive]:
        """See LeaseStore.still_alive. Nobody here reads it: what lives is looked up in the truth."""
        return ()

    async def _head_now(self) -> int:
        row = await self._readers.scan(lambda view: view.one("audit_head", {}))
        return 0 if row is None else int(row[0])

    def _reading(self, seal: RowSeal) -> Readers:
        return _Readers(self._disk, self._process, seal)

    def _writing(self, writing: Writing, transaction: Transaction, trail: Trail) -> GroupCommit:
        return _Writer(self._disk, self._process, writing, transaction, trail, self._committed)

    def lose_power(self) -> None:
        """Everything that is not committed is gone. Nobody who waits for an answer gets one."""
        assert isinstance(self._writer, _Writer) and isinstance(self._readers, _Readers)
        self._writer.off = True
        self._closed = True
        self._disk.listeners.pop(self._process.name, None)
        self._readers.cut()
        self._connection.close()


class _Line(SqliteWriting):
    """Where transactions begin and end: what is asked may not arrive, what was done may not be told."""

    def __init__(self, disk: Disk, process: Process, connection: sqlite3.Connection, follower: Follower | None) -> None:
        super().__init__(connection)
        self._disk = disk
        self._process = process
        self._follower = follower

    def send(self) -> None:
        """A batch is on its way."""
        if self._follower is not None:
            self._follower.send()

    def begin(self) -> bool:
        if self._process.cut_from_store or self._disk.away:
            raise sqlite3.OperationalError("the line to the store is cut")
        if self._disk.fails():
            raise sqlite3.OperationalError("disk I/O error")
        strange = super().begin()
        if self._follower is not None:
            self._follower.read()
        return strange

    def commit(self) -> None:
        if self._disk.fails():
            raise sqlite3.OperationalError("database or disk is full")
        super().commit()
        if self._disk.chance.sometimes("committed and not told", 0.03):
            self._version = -1  # the next session is another one, and knows nothing
            raise NotReady(Reason.COMMIT_UNKNOWN, "the line was cut during COMMIT.")


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
        self._send()
        self._loop.call_later(self._disk.latency(), self._write, batch)

    def _write(self, batch: list[Job]) -> None:
        stopped = self._process.stopped
        if stopped is not None and not self.off and self._disk.chance.sometimes("late write of a stopped one", 0.8):
            # It had not sent it yet: it comes when it goes on, with the time of before.
            stopped.add_done_callback(lambda _: self._write_late(batch))
            return
        if self.off:
            return
        self._commit(batch)
        for job in batch:
            # Whoever asked for it, and whatever comes of that. A disk that fails refuses otherwise.
            if job.error is not None and not isinstance(job.error, BrokerError):
                raise Broken(f"an operation met a bug: {type(job.error).__name__}: {job.error}")
            if isinstance(job.error, Defect) or "SQLITE_CONSTRAINT" in str(job.error):
                raise Broken(f"an operation met a defect: {job.error}")
        self._disk.committed(self._process.name)
        self._loop.call_later(self._disk.latency(), self._tell, batch, self._trail.committed_seq)

    def _write_late(self, batch: list[Job]) -> None:
        self._send()
        self._write(batch)

    def _send(self) -> None:
        assert isinstance(self._writing, _Line)
        self._writing.send()

    def _tell(self, batch: list[Job], head: int) -> None:
        if not self.off:
            self._answer(batch, head)


class _Readers(Readers):
    """Answers on the loop, after a while."""

    def __init__(self, disk: Disk, process: Process, seal: RowSeal) -> None:
        super().__init__(disk.path, seal)
        self._disk = disk
        self._process = process

    async def point(self, read: Callable[[View], T]) -> T:
        if self._disk.shared:
            await asyncio.sleep(self._disk.latency())
        return await super().point(self._over_the_line(read))

    async def scan(self, read: Callable[[View], T]) -> T:
        await asyncio.sleep(self._disk.latency())
        if self._closed:
            raise closed()
        return self._scan(self._over_the_line(read))

    async def walk(self, read: Callable[[View], T]) -> T:
        return await self.scan(read)

    def _over_the_line(self, read: Callable[[View], T]) -> Callable[[View], T]:
        def over(view: View) -> T:
            if self._process.cut_from_store or self._disk.away:
                raise sqlite3.OperationalError("the line to the store is cut")
            return read(view)

        return over

    def cut(self) -> None:
        self._closed = True
        for connection in self._opened:
            connection.close()
