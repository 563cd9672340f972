"""An agent that holds tasks and watches what becomes of its leases and requests, by the SDK, through every fault.

Each event is heard once, in order; what a task came to is told; a task that nobody holds any more ends, after its grace
time and not before; and nothing of a stream stays behind when it is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from broker.api.agents import AgentService
from broker.client.hold import Hold
from broker.client.watch import watch, watch_requests
from broker.errors import WrongState
from broker.issuance.tasks import TaskOrder
from broker.lease.machine import TERMINAL
from broker.ports.leases import EndCause
from broker.ports.tasks import TaskState
from broker.stores.times import to_ms
from tests.failpoints.errand import Daemon, Errand
from tests.failpoints.line import AgentGone, Line
from tests.failpoints.points import Armed
from tests.issuance.world import ALICE, TENANT
from tests.patience import PATIENCE

_GRACE = timedelta(milliseconds=600)
_HOLDER = str(ALICE.spiffe_id)
_TICK = 0.1  # seconds, real ones
_BEATS = 2  # of the task that is held to its end: so many are looked at
_LEASES, _REQUESTS = "WatchLeases", "WatchAccessRequests"


class Streams(Errand):
    """One task is held until it is completed, another one is let go of."""

    differing: ClassVar[Mapping[str, int]] = {"start_task": 2, "hold_task": 2}

    def __init__(self, directory: Path, armed: Armed | None, impatient: float) -> None:
        super().__init__(directory, armed, impatient)
        self._gives_up_in = max(self._gives_up_in, 0.5)
        self._line: Line
        self._tasks: dict[str, str] = {}
        self._begun = {name: asyncio.Event() for name in ("held", "dropped")}
        self._holds: dict[str, Hold] = {}
        self._let_go = asyncio.Event()
        self._heard: dict[str, list[int]] = {_LEASES: [], _REQUESTS: []}
        self._owed: dict[str, list[int]] = {_LEASES: [], _REQUESTS: []}
        self._beats: Counter[str] = Counter()
        self._time_passed = False
        self._what_became = ""

    # ------------------------------------------------------------------ the agent

    async def tell(self) -> None:
        """See Errand. The agent is there before the broker and after it."""
        before, threads = asyncio.all_tasks(), set(threading.enumerate())
        self._line = Line(self.points, self._label)
        agent = [
            asyncio.create_task(work)
            for work in (
                self._watches(_LEASES, watch),
                self._watches(_REQUESTS, watch_requests),
                self._holds_on("held", asyncio.Event()),
                self._holds_on("dropped", self._let_go),
            )
        ]
        try:
            await super().tell()
        finally:
            for each in agent:
                each.cancel()
            await asyncio.wait(agent)
        assert not self._line.open, "a stream is open that nobody reads"
        assert asyncio.all_tasks() == before, "a task stayed behind"
        left = {each for each in set(threading.enumerate()) - threads if not each.name.startswith("asyncio_")}
        assert not left, f"a thread stayed behind: {left}"

    async def _watches(self, rpc: str, events: Callable[..., Any]) -> None:
        """What was heard is written down at once; started again, it goes on from there."""
        heard = self._heard[rpc]
        while True:
            following = events(self._line, heard[-1] if heard else 0, lambda: 0.0)
            with contextlib.suppress(AgentGone):
                async with contextlib.aclosing(following):
                    async for event in following:
                        heard.append(event.sequence)

    async def _holds_on(self, name: str, enough: asyncio.Event) -> None:
        """Until it is told that the task has ended, or it lets go."""
        await self._begun[name].wait()
        grace = Duration()
        grace.FromTimedelta(_GRACE)
        told = False
        while not (told or enough.is_set()):
            calls: Any = self._line
            hold = Hold(calls, self._tasks[name], grace, lambda: 0.0, f"hold-{name}")
            self._holds[name] = hold
            entering = asyncio.ensure_future(hold.__aenter__())
            await asyncio.sleep(0)  # it begins
            assert hold._holding is not None
            letting_go = asyncio.ensure_future(enough.wait())
            await asyncio.wait({hold._holding, letting_go}, return_when=asyncio.FIRST_COMPLETED)
            letting_go.cancel()
            await hold.release()
            # What ends with its process says nothing more, and is started again.
            told = hold.ended.is_set()
            entering.cancel()
            await asyncio.wait({entering})

    def _label(self, rpc: str, request: Any, message: Any) -> str | None:
        if rpc != "HoldTask":
            return message.type or "heartbeat"
        if request.task_id != self._tasks.get("held"):
            return None
        if message.task.state != message.task.STATE_OPEN:
            return "end"
        return f"beat #{min(self._beats['held'], _BEATS)}"

    # ------------------------------------------------------------------ the broker

    async def wake(self, daemon: Daemon) -> None:
        """See Errand."""
        none: Any = None
        service = AgentService(
            *(daemon.issuer, daemon.tasks, daemon.leases, daemon.requests, none, none, daemon.connectors)
        )

        async def serve(rpc: str, request: Message) -> AsyncIterator[Message]:
            async for message in getattr(service, rpc)(request, self.caller(), None):
                said: Any = message
                if rpc == "HoldTask" and said.task.id == self._tasks.get("held"):
                    self._beats["held"] += 1
                yield message

        self._line.lead_to(daemon.process, daemon.ledger.points, serve)

    async def turn(self, daemon: Daemon) -> None:
        """See Errand."""
        await daemon.upkeep.tick()  # time has passed
        for name in self._begun:
            await self.once(f"start {name}", self._start(daemon, name))
        with contextlib.suppress(WrongState):  # it had ended meanwhile, for want of a hold
            await self._meanwhile(daemon)
        self._let_go.set()
        await self.once("complete", daemon.tasks.complete(self.caller(), self._tasks["held"], timedelta(0)))
        await self.settled(daemon)
        self.world.clock.advance(2 * _GRACE)  # what nobody holds
        await daemon.upkeep.tick()
        await self.settled(daemon)
        await self._comes_true(daemon, lambda: not self._is_open("held") and self._holds["held"].ended.is_set())
        leases = await daemon.store.lease_events(TENANT, _HOLDER, 0, 1_000)
        requests = await daemon.store.access_request_events(TENANT, _HOLDER, 0, 1_000)
        self._owed = {_LEASES: [each.sequence for each in leases], _REQUESTS: [each.sequence for each in requests]}
        await self._comes_true(daemon, lambda: all(len(self._heard[rpc]) >= len(self._owed[rpc]) for rpc in self._owed))

    async def _start(self, daemon: Daemon, name: str) -> None:
        order = TaskOrder(f"start-{name}", "testing", timedelta(hours=1), [], "", "")
        self._tasks[name] = (await daemon.tasks.start(self.caller(), order)).id
        self._begun[name].set()

    async def _meanwhile(self, daemon: Daemon) -> None:
        """What there is to hear of."""
        held = self._tasks["held"]
        await self._comes_true(daemon, lambda: all(self._is_held(name) for name in self._begun))
        await self._comes_true(daemon, lambda: self._beats["held"] >= _BEATS or not self._is_open("held"))
        task = await daemon.tasks.get(self.caller(), held)
        granting = daemon.issuer.request(self.caller(), self.world.asked(task, "lease"))
        grant = await granting
        assert grant.lease is not None
        await self.once("confirm", daemon.leases.confirm(self.caller(), grant.lease.id, grant.lease.attempt_id))
        filed = await daemon.issuer.request(self.caller(), self.world.asked(task, "filed", account="prod"))
        assert filed.access_request is not None
        await self.once("withdraw", daemon.requests.withdraw(self.caller(), filed.access_request.id))

    async def _comes_true(self, daemon: Daemon, condition: Callable[[], bool]) -> None:
        """Where something hangs, time goes on: beyond the grace of what is held."""
        end, ticks_at = time.monotonic() + PATIENCE, time.monotonic() + _TICK
        while daemon.process.alive and not condition():
            rows = {name: self._row(name) for name in self._tasks}
            assert time.monotonic() < end, f"it never came: {rows}, {self._beats}, {self._heard}, {self._owed}"
            if self.points.hanging.is_set() and not self._time_passed:
                self._time_passed = True
                self.world.clock.advance(3 * _GRACE)
            if time.monotonic() > ticks_at:  # as by itself: a hold may be committed when its grace is over
                await daemon.upkeep.tick()
                ticks_at = time.monotonic() + _TICK
            await asyncio.sleep(0.002)

    def _is_open(self, name: str) -> bool:
        return self._row(name)[0] == TaskState.OPEN

    def _is_held(self, name: str) -> bool:
        state, _, until, _ = self._row(name)
        return state != TaskState.OPEN or (until is not None and until > to_ms(self.world.clock.now()))

    def _row(self, name: str) -> tuple[str, str, int | None, int | None]:
        ((state, cause, until, ended),) = self.ask(
            "SELECT state, cause, hold_until, ended_at FROM tasks WHERE id = ?", self._tasks[name]
        )
        return state, cause, until, ended

    async def done(self, daemon: Daemon) -> bool:
        """See Errand."""
        alive = self.ask("SELECT 1 FROM attempts WHERE due_at IS NOT NULL")
        return not alive and not any(map(self._is_open, self._tasks)) and self._heard == self._owed

    # ------------------------------------------------------------------ what must be true

    async def check(self) -> None:
        """See Errand."""
        assert self._heard == self._owed, "each event once, in order"
        assert all(self._owed.values()) or self._row("held")[1] == EndCause.HOLD_DROPPED, "there was nothing to hear"
        for name in self._tasks:
            state, cause, until, ended = self._row(name)
            assert until is not None or self.faulty, f"{name} was never held"
            if cause == EndCause.HOLD_DROPPED:
                assert until is not None
                assert ended is not None
                assert ended >= until, f"{name} ended within the grace of its hold"
            else:
                assert (name, state, cause) == ("held", TaskState.COMPLETED, EndCause.COMPLETED), (name, state, cause)
        assert self.faulty or self._row("held")[1] == EndCause.COMPLETED
        self._holder_was_told()
        states = {row[0] for row in self.ask("SELECT state FROM attempts")}
        assert states <= {each.value for each in TERMINAL}, states
        assert all(row[0] <= to_ms(self.world.clock.now()) for row in self.ask("SELECT ended_at FROM tasks"))

    def _holder_was_told(self) -> None:
        hold = self._holds["held"]
        assert hold.ended.is_set(), "it holds on to what has ended"
        state, cause, _, _ = self._row("held")
        if hold.error is None and hold.task is not None:
            assert (hold.task.state, hold.task.end_cause) == (state, cause), "it was told something else"
