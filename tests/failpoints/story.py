"""One grant and its completion, told on the real issuer, ledger, revoker and connector, with one fault somewhere in it.

Then everything is healed, the agent asks again under the same ids, time passes to whatever is due next, and what must
be true is checked (I1 to I14). F1 to F5, F7, F8, F10, F13, F14, F20, F30, F36.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from broker.clock import SystemRng
from broker.errors import BrokerError
from broker.identity.agent import Agent, Peer, Registry
from broker.issuance.caller import Caller
from broker.issuance.gate import Gate
from broker.issuance.issue import Grant, Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.tasks import TaskDesk, TaskOrder
from broker.lease.credential import Credential
from broker.lease.root import Roots
from broker.policy.decision import Decision, Effect
from broker.policy.facts import Situation
from broker.ports.connectors import Connector
from broker.ports.deploys import DeploySet
from broker.ports.intents import Intent
from broker.ports.ledger import Ledger
from broker.revocation.revoker import Revoker
from broker.scope.request import AccessRequest
from broker.stores.invariants import LedgerChecks
from broker.stores.times import from_ms
from tests.failpoints.calls import Passing, PointedProxy, pointed_proxy
from tests.failpoints.ledger import PointedLedger
from tests.failpoints.points import Armed, Fault, Points
from tests.failpoints.sql_calls import SqlProxy, sql_proxy
from tests.failpoints.upstreams import Upstream
from tests.issuance.world import ALICE, MARK, PEOPLE, TENANT, StaticKeys, gated_policies
from tests.patience import PATIENCE
from tests.simulation.process import Dead, Process, tasks_know_their_process

T = TypeVar("T")
TTL = timedelta(minutes=5)
# How long the broker waits for an upstream that hangs, in real seconds. Where the machine itself is slower, the
# story does not come to its point, and is told again with more.
IMPATIENT = (1.0, 5.0, 20.0)
_ROUNDS = 40
_TICK = timedelta(milliseconds=1)


class Unanswered(Exception):
    """The agent has no answer: refused, given up, or nobody is there."""


@dataclass
class Running:
    """One process of the broker, from its start to its end."""

    process: Process
    ledger: PointedLedger
    proxy: PointedProxy | SqlProxy
    connector: Connector
    revoker: Revoker
    issuer: Issuer
    tasks: TaskDesk
    leases: LeaseDesk
    kick: Callable[[str], None]


class Story:
    """A ledger in ``directory``, an upstream, and one fault, or none."""

    def __init__(
        self,
        directory: Path,
        upstream: Upstream,
        clock: Passing,
        armed: Armed | None = None,
        impatient: float = IMPATIENT[0],
    ) -> None:
        self.points = Points(armed)
        self._path = directory / "ledger.sqlite3"
        self._upstream = upstream
        self._clock = clock
        self._faulty = armed is not None
        # An upstream that hangs is given up; for whatever else happens the broker has all the time of a slow machine.
        waits = armed is not None and armed.fault is Fault.HANG and armed.point.startswith("call")
        self._timeout = impatient if waits else PATIENCE
        self._hangs_for = 3 * impatient if waits else 0.05  # until whoever waits has given up
        self._stack = ExitStack()
        self._running: Running | None = None
        self._deploy = DeploySet("d" * 64, Registry([ALICE]), PEOPLE, {}, gated_policies(), {}, {})
        self._task = ""
        self._granted: Grant | None = None
        self._delivered: list[tuple[str, Credential]] = []
        self._done: set[str] = set()
        self.unintended: list[str] = []

    async def tell(self) -> None:
        """All of it. Raises AssertionError where a promise was not kept."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(tasks_know_their_process)
        loop.set_exception_handler(unless_dead)
        self._upstream.fresh()
        observer = self._upstream.make(self._upstream.target, PATIENCE, self._clock)
        before = await self._listed(observer)
        try:
            await self._alive()
            await self._day(observer, before)
            await self._heal()
            await self._day(observer, before)
            await self._settle(await self._alive())  # so that what is static has been looked at in vain
            self._upstream.rotate()
            await self._all_ends()
            await self._check(observer, before)
        finally:
            self.points.release()
            await self._close()
            await observer.close()
            self._stack.close()
            loop.set_task_factory(None)

    # ------------------------------------------------------------------ the broker comes and goes

    async def _alive(self) -> Running:
        """The broker, started again if it is gone."""
        if self._running is not None and self._running.process.alive:
            return self._running
        while True:
            if self._running is not None:
                await self._bury(self._running)

            process = Process("w")
            self.points.crash = partial(crash, process, asyncio.get_running_loop())
            self._running = running = await self._start(process)
            # A start that fails is tried again, as any supervisor does.
            with contextlib.suppress(BrokerError, Dead, asyncio.CancelledError):
                await self._unless_it_hangs(process.start(running.ledger.recover(self._clock.now())))
                if process.alive:
                    return running
            process.kill()

    async def _unless_it_hangs(self, starting: asyncio.Task[int]) -> None:
        """A start that hangs is waited for: whatever holds the disk lets go of it in the end."""
        hanging = asyncio.ensure_future(becomes_true_in(self.points.hanging.is_set, PATIENCE))
        await asyncio.wait({starting, hanging}, return_when=asyncio.FIRST_COMPLETED)
        hanging.cancel()
        if self.points.hanging.is_set():
            self.points.release()
        await starting

    async def _start(self, process: Process) -> Running:
        ledger = await PointedLedger.open_at(self._path, StaticKeys(), self.points, process)
        proxy, address = self._on_the_way(process)
        connector = self._upstream.make(address, self._timeout, self._clock)
        store: Ledger = process.reach(ledger)
        connectors = {"upstream": process.reach(connector)}
        rng, roots, day = SystemRng(), Roots(), timedelta(days=1)
        gate = Gate(day, 10_000, day, heartbeat=self._clock.now())
        allowance = timedelta(seconds=2 * self._timeout)
        revoker = Revoker(store, connectors.get, self._clock, rng, workers=2, try_timeout=allowance, roots=roots)
        kick = self._within(process, revoker)
        own = {"keys": StaticKeys(), "mark": MARK, "roots": roots, "issue_timeout": allowance}
        issuer = Issuer(store, connectors.get, kick, gate, self._clock, rng, **own)
        durations = {"default_duration": timedelta(hours=1), "max_duration": timedelta(hours=8)}
        tasks = TaskDesk(store, kick, gate, self._clock, rng, **durations)
        leases = LeaseDesk(store, kick, self._clock)
        return Running(process, ledger, proxy, connector, revoker, issuer, tasks, leases, kick)

    def _on_the_way(self, process: Process) -> tuple[PointedProxy | SqlProxy, str]:
        """What stands before the upstream for this process, and where."""
        target, points = self._upstream.target, self.points
        if self._upstream.speaks_sql:
            host, _, port = target.rpartition(":")
            sql = SqlProxy((host, int(port)), points, process, self._intended)
            return sql, self._stack.enter_context(sql_proxy(sql))
        http = PointedProxy(target, points, process, self._intended, self._clock.age)
        return http, self._stack.enter_context(pointed_proxy(http, keeps_host=self._upstream.keeps_host))

    @staticmethod
    def _within(process: Process, revoker: Revoker) -> Any:
        """Lanes that are started by a kick are the process's, whoever kicks."""

        async def kick(connector: str) -> None:
            revoker.kick(connector)

        def start(connector: str) -> None:
            if process.alive:
                process.start(kick(connector))

        return start

    async def _bury(self, running: Running) -> None:
        running.process.kill()
        while running.process._tasks:
            await asyncio.wait(list(running.process._tasks))
        running.proxy.settled()
        self.unintended += running.proxy.unintended
        await running.ledger.lose()
        with contextlib.suppress(Dead):
            await running.connector.close()

    async def _close(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await self._bury(running)

    # ------------------------------------------------------------------ what the agent does

    async def _day(self, observer: Connector, before: frozenset[str]) -> None:
        """As far as answers come; what was answered once is not asked again."""
        with contextlib.suppress(Unanswered):
            await self._once("StartTask", self._start_task)
            if not self._delivered and await self._once("RequestCredential", self._request):
                alive = await self._listed(observer) - before
                assert len(alive) <= 1, f"never two live: {alive}"
            if self._granted is not None:
                await self._once("ConfirmDelivery", self._confirm)
        with contextlib.suppress(Unanswered):
            if self._task:
                await self._once("CompleteTask", self._complete)

    async def _once(self, name: str, work: Any) -> bool:
        if name in self._done:
            return False
        await self._rpc(name, work)
        self._done.add(name)
        return True

    async def _start_task(self, running: Running) -> None:
        order = TaskOrder("start-1", "testing", timedelta(hours=1), [], "", "")
        task = await self._served(running, "StartTask", running.tasks.start(self._caller(ALICE), order))
        self._task = task.id

    async def _request(self, running: Running) -> None:
        intent = self._intent(running)
        granting = running.issuer.emergency(intent, process_reached(running), Situation())
        grant = await self._served(running, "RequestCredential", granting)
        assert grant.lease is not None
        assert grant.credential is not None
        self._granted = grant
        self._delivered.append((grant.lease.attempt_id, grant.credential))

    async def _confirm(self, running: Running) -> None:
        assert self._granted is not None
        assert self._granted.lease is not None
        lease = self._granted.lease
        confirming = running.leases.confirm(self._caller(ALICE), lease.id, lease.attempt_id)
        await self._served(running, "ConfirmDelivery", confirming)

    async def _complete(self, running: Running) -> None:
        completing = running.tasks.complete(self._caller(ALICE), self._task, timedelta(0))
        await self._served(running, "CompleteTask", completing)

    def _intent(self, running: Running) -> Intent:
        """As the issuer makes it of a request that policy allows (from there on the way is the same)."""
        now, scope, name = self._clock.now(), replace(self._upstream.scope, connector="upstream"), SystemRng().id()
        request = AccessRequest(
            request_id="request-1",
            template=scope.template,
            task_id=self._task,
            account=scope.account,
            environment=scope.environment,
            resource=scope.resource,
            ttl=TTL,
        )
        attempt, expires_at = MARK.attempt(name), now + TTL
        handle = running.connector.prepare(scope, attempt, str(ALICE.spiffe_id), expires_at)
        return Intent(
            tenant=TENANT,
            lease_id=f"lease-{name}",
            attempt_id=attempt,
            svid_serial="1",
            holder=str(ALICE.spiffe_id),
            entry=ALICE.principal,
            owner=ALICE.owner.id,
            request=request,
            request_digest=request.digest(),
            scope=scope,
            contract_class=running.connector.contract.cls,
            decision=Decision(Effect.ALLOW, ("reads",), ("reading",), (), "p" * 64),
            handle=handle,
            now=now,
            issue_deadline=now + timedelta(seconds=2 * self._timeout),
            expires_at=expires_at,
            max_live_leases=10,
            audit={},
        )

    def _caller(self, who: Agent) -> Caller:
        now = self._clock.now()
        peer = Peer(who.spiffe_id, now - timedelta(hours=1), now + timedelta(hours=1), 1, "f" * 64)
        return Caller(TENANT, who, peer, self._deploy, now)

    async def _served(self, running: Running, name: str, work: Coroutine[Any, Any, T]) -> T:
        """The answer as the agent has it, through the points of its way back."""
        answer = await self._in_process(running, self._then_sent(name, work))
        if self.points.meet(f"send {name} after") is Fault.HANG:
            running.process.stop()
        return answer

    async def _then_sent(self, name: str, work: Coroutine[Any, Any, T]) -> T:
        answer = await work
        match self.points.meet(f"send {name} before"):
            case Fault.HANG:
                await self.points.stand_still()
            case Fault.ERROR | Fault.CRASH:
                raise Unanswered
        return answer

    async def _rpc(self, name: str, work: Any) -> None:
        running = await self._alive()
        asking = asyncio.ensure_future(work(running))
        given_up = asyncio.ensure_future(self._patience())
        await asyncio.wait({asking, given_up}, return_when=asyncio.FIRST_COMPLETED)
        given_up.cancel()
        if not asking.done():
            asking.cancel()
        try:
            await asking
        except (BrokerError, Dead, asyncio.CancelledError):
            assert self._faulty, "a story without a fault has an answer to everything"
            raise Unanswered from None

    async def _patience(self) -> None:
        """Until the agent gives up: a moment after something hangs, but an upstream's giving up is waited for."""
        await becomes_true_in(self.points.hanging.is_set, 10 * PATIENCE)
        await asyncio.sleep(self._hangs_for)

    async def _in_process(self, running: Running, work: Coroutine[Any, Any, T]) -> T:
        task = running.process.start(work)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            raise

    # ------------------------------------------------------------------ healing, and the end

    async def _heal(self) -> None:
        self.points.release()
        if self._running is not None:
            self._running.process.go_on()
            await asyncio.to_thread(self._running.proxy.settled)
            if self._running.process.alive:
                await self._running.issuer.drain()

    async def _all_ends(self) -> None:
        """Time passes to whatever is due next, until nothing is. Raises where that never comes."""
        for _ in range(_ROUNDS):
            running = await self._alive()
            await self._settle(running)
            due = self._due()
            if due is None:
                return
            if due > self._clock.now():
                self._clock.pass_by(due - self._clock.now() + _TICK)
            running.kick("upstream")
            await self._settle(running)
        raise AssertionError(f"never came to an end: {self._rows()}")

    async def _settle(self, running: Running) -> None:
        """Wait until what is due has been looked at, and nobody is at anything; or the process is gone."""
        now = self._clock.now()
        while running.process.alive and (self._is_due(now) or works(running.process)):
            running.kick("upstream")
            await asyncio.sleep(0.002)
            if self.points.hanging.is_set():
                await becomes_true_in(lambda: not works(running.process), self._hangs_for)
                self.points.release()

    def _is_due(self, now: datetime) -> bool:
        due = self._due()
        return due is not None and due <= now

    def _due(self) -> datetime | None:
        dues = [row[2] for row in self._rows() if row[2] is not None]
        return from_ms(min(dues)) if dues else None

    def _rows(self) -> list[Any]:
        return self._ask("SELECT id, state, due_at, activated_at, last_error FROM attempts")

    def _intended(self, attempt: str) -> bool:
        return bool(self._ask("SELECT 1 FROM attempts WHERE id = ?", attempt))

    def _ask(self, question: str, *values: str) -> list[Any]:
        connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            return connection.execute(question, values).fetchall()
        finally:
            connection.close()

    # ------------------------------------------------------------------ what must be true

    async def _listed(self, observer: Connector) -> frozenset[str]:
        listed = await observer.inventory()
        return frozenset() if listed is None else frozenset(each.name for each in listed)

    async def _check(self, observer: Connector, before: frozenset[str]) -> None:
        left = await self._listed(observer) - before
        assert not left, f"I1: alive, and nobody knows: {left}"
        rows = {row[0]: row for row in self._rows()}
        self._clock.pass_by(observer.contract.on_expiry)  # what the contract promises, and no sooner
        for attempt, credential in self._delivered:
            assert rows[attempt][3] is not None, f"I2: {attempt} was delivered and never active"
            assert self._upstream.works is None or not self._upstream.works(credential), f"I1: {attempt} lets people in"
        await self._close()
        assert self.unintended == [], "I2: the upstream was asked for what was not intended"
        with LedgerChecks(self._path) as checks:
            assert list(checks.violations(StaticKeys())) == []


def unless_dead(loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
    """Nobody waits for what stood in a process that is gone."""
    if not isinstance(told.get("exception"), Dead):
        loop.default_exception_handler(told)


def crash(process: Process, loop: asyncio.AbstractEventLoop) -> None:
    """From any thread: nothing of it is written or sent any more; what stands in it is unwound by its loop."""
    process.alive = False
    loop.call_soon_threadsafe(process.kill)


_WORK = {"Revoker._work", "Revoker._record", "Issuer._carry_out", "Issuer._take_back"}


def works(process: Process) -> bool:
    """Whether a credential is being made or ended."""
    return any(getattr(task.get_coro(), "__qualname__", "") in _WORK for task in process._tasks)


def process_reached(running: Running) -> Connector:
    """The connector as the process reaches it."""
    reached: Connector = running.process.reach(running.connector)
    return reached


async def becomes_true_in(condition: Any, seconds: float) -> None:
    """Wait for it that long; returns either way."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)
