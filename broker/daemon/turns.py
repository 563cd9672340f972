"""Jobs of one replica at a time, as one replica sees them: whether it has its turn, and what is done when that begins.

A turn lasts as long as the replica is heard; it ends by itself, told by a clock that does not stop with the wall
clock's jumps. Nothing may rely on it for being right: a replica that was stopped in the middle of a job goes on with
it. Each job's writes only go forwards, are of a kind that two may do, or are compared with what was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

import structlog

from broker.errors import BrokerError
from broker.ports.replicas import REPLICA_DEAD_AFTER

log = structlog.get_logger("broker.replicas")

Begin = Callable[[], Awaitable[None]]
Work = Callable[[], Coroutine[Any, Any, None]]


class Turns:
    """Belongs to the event loop. ``ticking`` is a monotonic clock, in seconds; ``shared`` False: every turn is ours."""

    def __init__(self, names: frozenset[str], ticking: Callable[[], float], *, shared: bool) -> None:
        self.names = names
        self._ticking = ticking
        self._shared = shared
        self._held: frozenset[str] = frozenset() if shared else names
        self._until = 0.0
        self._begins: dict[str, Begin] = {}
        self._work: dict[str, Work] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def mine(self, name: str) -> bool:
        """Whether this replica does ``name`` now."""
        return name in self._held and (not self._shared or self._ticking() < self._until)

    def when_mine(self, name: str, job: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
        """``job``, which does nothing while ``name`` is another's."""

        async def run() -> None:
            if self.mine(name):
                await job()

        return run

    async def at_begin(self, name: str, begin: Begin) -> None:
        """Have ``begin`` called whenever ``name`` becomes this replica's; now, if it is. Raises what that raises."""
        self._begins[name] = begin
        if self.mine(name):
            await begin()

    def beside(self, name: str, work: Work) -> None:
        """Have ``work``, which has no end of its own, run for as long as ``name`` is this replica's."""
        self._work[name] = work
        if self.mine(name):
            self._start(name)

    async def heard(self, held: frozenset[str], asked: float) -> None:
        """The ledger says what is this replica's, to whom asked at ``asked`` (monotonic). Raises nothing."""
        before = frozenset(name for name in self.names if self.mine(name))
        self._held, self._until = held, asked + REPLICA_DEAD_AFTER / timedelta(seconds=1)
        for name in before - held:
            await self._end(name)
        for name in sorted(held - before):
            log.info("this replica does a job of one at a time from now on", job=name)
            await self._begin(name)

    async def lapse(self) -> None:
        """The ledger was not heard: end what is this replica's no more."""
        for name in [each for each in self._running if not self.mine(each)]:
            await self._end(name)

    async def close(self) -> None:
        """End the work that has no end of its own. What is done last, before this replica leaves, is still its turn."""
        for name in list(self._running):
            await self._end(name)

    async def _begin(self, name: str) -> None:
        try:
            if name in self._begins:
                await self._begins[name]()
        except BrokerError as failure:
            log.error("a job of one at a time could not be begun properly", job=name, reason=failure.reason)
        if name in self._work:
            await self._end(name)
            self._start(name)

    def _start(self, name: str) -> None:
        task = self._running[name] = asyncio.create_task(self._work[name](), name=name)
        task.add_done_callback(lambda done: _tell_end(name, done))

    async def _end(self, name: str) -> None:
        if (task := self._running.pop(name, None)) is not None:
            task.cancel()
            await asyncio.wait([task])


def _tell_end(name: str, task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        log.error("background work has ended by itself", work=name, exc_info=task.exception())
