"""One broker as the operating system sees it: it runs, is stopped for a while, or is gone and acts no more."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from broker.errors import Reason, UpstreamFailed

T = TypeVar("T")
_SEVERAL = 3
_CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Dead(BaseException):
    """Inside of a process that is gone: unwinds whatever still stands there. Nothing of it reaches the world."""


class Gone(Exception):
    """The broker that was asked is not there, or went while it was asked."""


class Process:
    """Everything that was started by :meth:`start`, and everything that started in turn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        # For a while, nothing passes between it and the store, or between it and the upstreams.
        self.cut_from_store = self.cut_from_upstream = False
        self.stopped: asyncio.Future[None] | None = None
        self.stops_when_it_writes = False
        self.has_stood_still = False
        self._asking = 0  # upstreams, at this moment
        self._at_work: asyncio.Future[None] | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in order: a seed must repeat in which they are cancelled

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it as a part of this process."""
        context = copy_context()
        context.run(_CURRENT.set, self)
        return context.run(asyncio.create_task, work)

    def kill(self) -> None:
        """At once, wherever it is."""
        self.alive = False
        self.go_on()
        for task in list(self._tasks):
            task.cancel()

    def stop(self) -> None:
        """SIGSTOP: it answers nobody and does nothing, and does not know it."""
        self.stopped = self.stopped or asyncio.get_running_loop().create_future()
        self.has_stood_still = True

    def go_on(self) -> None:
        """SIGCONT."""
        if self.stopped is not None:
            self.stopped.set_result(None)
            self.stopped = None

    async def at_work(self, patience: float) -> None:
        """Until it waits for several answers of upstreams; so many seconds at most."""
        self._at_work = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._at_work, patience)
        self._at_work = None

    async def running(self) -> None:
        """What this process does next it does when it runs. Raises :class:`Dead`."""
        while self.alive and self.stopped is not None:
            await asyncio.shield(self.stopped)
        if not self.alive:
            raise Dead

    def reach(self, port: Any) -> Any:
        """``port``, as this process reaches it."""
        return _Reached(self, port)

    def reach_upstream(self, connector: Any) -> Any:
        """A connector over this process's own line to its upstream."""
        return _Reached(self, connector, over=self._line)

    async def _line(self, asked: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What is sent into a cut line does not arrive; what is answered into one was done, and nobody hears of it."""
        if self.cut_from_upstream:
            raise UpstreamFailed(Reason.UPSTREAM_UNAVAILABLE, "the line to the upstream is cut.", outcome_known=True)
        self._asking += 1
        if self._at_work is not None and not self._at_work.done() and self._asking >= _SEVERAL:
            self._at_work.set_result(None)
        try:
            answer = await asked()
        finally:
            self._asking -= 1
        if self.cut_from_upstream:
            raise UpstreamFailed(Reason.UPSTREAM_UNAVAILABLE, "the answer was lost.", outcome_known=False)
        return answer


class _Reached:
    """Calls go out, and answers come in, only while the process runs."""

    def __init__(self, process: Process, port: Any, over: Any = None) -> None:
        self._process = process
        self._port = port
        self._over = over

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            await self._process.running()
            try:
                if self._over is not None:
                    return await self._over(lambda: found(*arguments, **named))
                return await found(*arguments, **named)
            finally:
                await self._process.running()

        return call


def current() -> Process | None:
    """The process that runs now; None: nobody's."""
    return _CURRENT.get()


def tasks_know_their_process(loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
    """A task factory: a task is its process's."""
    task = asyncio.Task(work, loop=loop, **named)
    process = _CURRENT.get()
    if process is not None:
        process._tasks[task] = None
        task.add_done_callback(lambda done: process._tasks.pop(done, None) and None)
    return task
