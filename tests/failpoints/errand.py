"""What the broker does by itself, told on its real parts with one fault somewhere in it: the base of such stories.

A world is prepared without faults and closed. Then a process of the broker is at its errand, turn by turn, and is
started again where it is gone, until the errand is done. A last one is started after that, to which nothing happens,
and what must be true is checked: by the ground truth, and by the ledger's invariants.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from broker.audit.record import Record
from broker.clock import SystemRng
from broker.errors import BrokerError
from broker.identity.agent import Agent
from broker.issuance.caller import Caller
from broker.issuance.gate import Gate
from broker.issuance.issue import Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.looks import LookBudget
from broker.issuance.refusals import RefusalBudget
from broker.issuance.requests import RequestDesk
from broker.issuance.tasks import TaskDesk
from broker.ports.connectors import Connector
from broker.ports.ledger import Ledger
from broker.ports.trail import AuditSink
from broker.revocation.reconciler import Reconciler
from broker.revocation.revoker import Revoker
from broker.stores.audit_reader import AuditReader
from broker.stores.invariants import LedgerChecks
from broker.upkeep import Upkeep
from tests.failpoints.ledger import PointedLedger
from tests.failpoints.points import Armed, Fault, Points
from tests.failpoints.ports import Pointed, unanswered
from tests.failpoints.story import becomes_true_in, crash, unless_dead, works
from tests.issuance.world import ALICE, MARK, TENANT, StaticKeys, World
from tests.patience import PATIENCE
from tests.simulation.process import Dead, Process, tasks_know_their_process

# How long the broker waits for what hangs, in real seconds; see story.IMPATIENT.
IMPATIENT = (0.2, 2.0, 20.0)
DAY = timedelta(days=1)
_ROUNDS = 20


@dataclass
class Daemon:
    """One process of the broker, from its start to its end. ``own`` is what the errand has of it."""

    process: Process
    ledger: PointedLedger
    store: Ledger
    gate: Gate
    revoker: Revoker
    upkeep: Upkeep
    reconciler: Reconciler
    issuer: Issuer
    tasks: TaskDesk
    leases: LeaseDesk
    requests: RequestDesk
    connectors: Callable[[str], Connector | None]
    own: Any = None


class Errand:
    """One story in ``directory``."""

    kept: ClassVar[timedelta | None] = None  # how long what has ended is kept
    differing: ClassVar[Mapping[str, int]] = {}  # see Points
    patience: ClassVar[timedelta] = timedelta(seconds=31)  # between turns: a claim runs out

    def __init__(self, directory: Path, armed: Armed | None, impatient: float) -> None:
        self.points = Points(armed, self.differing)
        self.faulty = armed is not None
        waits = armed is not None and armed.fault is Fault.HANG and armed.point.startswith("call")
        self.timeout = impatient if waits else PATIENCE
        self._gives_up_in = 3 * impatient if waits else 0.05
        self.directory = directory
        self.path = directory / "ledger.sqlite3"
        self.world: World
        self.daemon: Daemon | None = None
        self._met = self.points  # by the process that is running
        self._done: set[str] = set()
        self._over = False
        self._prepared = 0  # records of the trail
        self.trail: list[Record] = []  # at the end

    # ------------------------------------------------------------------ what an errand is

    async def prepare(self) -> None:
        """Into ``world``."""

    async def wake(self, daemon: Daemon) -> None:
        """What the errand has to do at each start, within the process."""

    async def turn(self, daemon: Daemon) -> None:
        """One turn, within the process."""
        raise NotImplementedError

    async def done(self, daemon: Daemon) -> bool:
        """Whether there is nothing left of it. Asked only after a turn that came through."""
        return True

    async def let_go(self, daemon: Daemon) -> None:
        """Of what the process has open."""

    async def check(self) -> None:
        """Raises AssertionError where a promise was not kept. Nothing runs any more."""
        raise NotImplementedError

    def sink(self) -> AuditSink | None:
        """Where the trail is exported to."""
        return None

    # ------------------------------------------------------------------ how it is told

    async def tell(self) -> None:
        """All of it. Raises AssertionError where a promise was not kept."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(tasks_know_their_process)
        loop.set_exception_handler(unless_dead)
        try:
            self.world = await World.gated(self.directory)
            await self.prepare()
            await self.world.close()
            self._prepared = len(self._told())
            await self._until_done()
            self._met = Points()
            await self._until_done()
            await self._close()
            self.trail = self._told()
            await self.check()
            with LedgerChecks(self.path) as checks:
                violations = list(checks.violations(StaticKeys()))
                assert violations == [], str(violations)
        finally:
            self.points.release()
            await self._close()
            loop.set_task_factory(None)

    async def _until_done(self) -> None:
        """By a process of its own, that is gone at the end as by a crash."""
        for _ in range(_ROUNDS):
            daemon = await self._alive()
            self._over = False
            if await self._carried_out(daemon, self.turn(daemon)) and daemon.process.alive:
                await self._carried_out(daemon, self._look(daemon))
            if self._over:
                await self._close()
                return
            self.world.clock.advance(self.patience)
        raise AssertionError("it never came to an end")

    async def _look(self, daemon: Daemon) -> None:
        self._over = await self.done(daemon)

    async def _alive(self) -> Daemon:
        if self.daemon is not None and self.daemon.process.alive:
            return self.daemon
        while True:
            await self._close()
            process = Process("w")
            self._met.crash = partial(crash, process, asyncio.get_running_loop())
            self.daemon = daemon = await self._started(process)
            # A start that fails is tried again, as any supervisor does.
            if await self._carried_out(daemon, self._woken(daemon)) and process.alive:
                return daemon
            process.kill()

    async def _woken(self, daemon: Daemon) -> None:
        await daemon.ledger.recover(self.world.clock.now())
        await self.wake(daemon)

    async def _carried_out(self, daemon: Daemon, work: Coroutine[Any, Any, None]) -> bool:
        """Whether it came through. What hangs in it is given up by whoever waits, and then goes on."""
        task = daemon.process.start(work)
        hanging = asyncio.ensure_future(becomes_true_in(self.points.hanging.is_set, 10 * PATIENCE))
        await asyncio.wait({task, hanging}, return_when=asyncio.FIRST_COMPLETED)
        hanging.cancel()
        if not task.done():
            await asyncio.wait({task}, timeout=self._gives_up_in)
            self.points.release()
            daemon.process.go_on()
        try:
            await task
        except (BrokerError, OSError, Dead, asyncio.CancelledError):
            assert self.faulty, "a story without a fault comes through"
            return False
        return True

    async def _started(self, process: Process) -> Daemon:
        ledger = await PointedLedger.open_at(self.path, StaticKeys(), self._met, process)
        store: Ledger = process.reach(ledger)
        connectors: dict[str, Connector] = {"fake": process.reach(Pointed(self.world.upstream, self._met, unanswered))}
        clock, rng, wait = self.world.clock, SystemRng(), timedelta(seconds=self.timeout)
        gate = Gate(DAY, 10_000, DAY, heartbeat=clock.now())
        revoker = Revoker(store, connectors.get, clock, rng, workers=2, try_timeout=wait)
        issuer = Issuer(
            *(store, connectors.get, revoker.kick, gate, clock, rng), keys=StaticKeys(), mark=MARK, issue_timeout=wait
        )
        durations = {"default_duration": timedelta(hours=1), "max_duration": timedelta(hours=8)}
        tasks = TaskDesk(store, revoker.kick, gate, clock, rng, **durations)
        leases, requests = LeaseDesk(store, revoker.kick, clock), RequestDesk(store, clock)
        sink = self.sink()
        exported = None if sink is None else process.reach(Pointed(sink, self._met, lambda: OSError("disk I/O error")))
        names = lambda: ["fake"]  # noqa: E731
        budgets = (RefusalBudget(), LookBudget())
        upkeep = Upkeep(
            *(store, revoker, names, gate, *budgets, exported, clock, TENANT),
            keep_texts=self.kept or DAY,
            keep_ended=self.kept,
        )
        reconciler = Reconciler(
            *(store, connectors.get, names, revoker.kick_orphans, clock, rng, TENANT, MARK),
            issue_timeout=timedelta(minutes=1),
            timeout=wait,
        )
        desks = (issuer, tasks, leases, requests)
        return Daemon(process, ledger, store, gate, revoker, upkeep, reconciler, *desks, connectors.get)

    async def _close(self) -> None:
        daemon, self.daemon = self.daemon, None
        if daemon is None:
            return
        daemon.process.kill()
        while daemon.process._tasks:
            await asyncio.wait(list(daemon.process._tasks))
        await self.let_go(daemon)
        await daemon.ledger.lose()

    # ------------------------------------------------------------------ shorthand

    async def once(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """What was answered once is not asked again."""
        if name in self._done:
            work.close()
            return
        await work
        self._done.add(name)

    async def settled(self, daemon: Daemon) -> None:
        """Everything that is due has been looked at, and nobody is at anything."""
        while daemon.process.alive and (self._due() or works(daemon.process)):
            daemon.revoker.kick_orphans("fake")
            await asyncio.sleep(0.002)

    def caller(self, who: Agent = ALICE) -> Caller:
        """At the agents' door."""
        return self.world.caller(who)

    def news(self, *types: str) -> list[Record]:
        """What was in the trail at the end, since the world was prepared, of these types; or of those beneath them."""
        return [each for each in self.trail[self._prepared :] if each.type in types or each.type.split(".")[0] in types]

    def _told(self) -> list[Record]:
        with AuditReader(self.path) as reader:
            return list(reader.records())

    def ask(self, question: str, *values: object) -> list[Any]:
        """The ledger's file, beside whoever has it."""
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=PATIENCE)
        with contextlib.closing(connection):
            return connection.execute(question, values).fetchall()

    def _due(self) -> bool:
        now = int(self.world.clock.now().timestamp() * 1000)
        return any(
            self.ask(f"SELECT 1 FROM {table} WHERE due_at <= ? LIMIT 1", now)
            for table in ("attempts", "upstream_orphans")
        )
