"""Threads for a library that blocks, what becomes of a call nobody waits for any more, and closing in good order.

A thread cannot be cancelled. When the one who waits is cancelled, a call that has not begun is
dropped; one that is under way runs to its end, and then ``undo`` takes back what it made: a late
create must not live because its caller was gone (faults.md F18, F19).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

from broker.ports.connectors import Doubt, Severity

_T = TypeVar("_T")


class Threads:
    """At most ``size`` calls at a time; more wait their turn."""

    def __init__(self, name: str, size: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix=name)

    async def run(self, call: Callable[[], _T], *, undo: Callable[[_T], object] | None = None) -> _T:
        """The result of ``call``, or what it raises. ``undo`` gets a result that came too late for us."""
        future = self._pool.submit(call)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if undo is not None:
                future.add_done_callback(partial(self._take_back, undo))
            raise

    def begin(self, call: Callable[[], _T]) -> asyncio.Future[_T]:
        """As :meth:`run`, but begun when this returns: closing waits for it."""
        return asyncio.wrap_future(self._pool.submit(call))

    def later(self, call: Callable[[], object]) -> None:
        """Do ``call`` without anybody waiting: a best effort that something else guarantees. Once closed: nothing."""
        with suppress(RuntimeError):
            self._pool.submit(call)

    async def close(self) -> None:
        """Let what is under way or queued finish, then let go of the threads."""
        await asyncio.to_thread(self._pool.shutdown)

    def _take_back(self, undo: Callable[[_T], object], future: Future[_T]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        try:
            self._pool.submit(undo, future.result())
        except RuntimeError:  # closed meanwhile: then here, in the thread that made it
            undo(future.result())


class Closing:
    """Whether a connector still takes calls, and how many are under way. Belongs to the event loop."""

    def __init__(self) -> None:
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.closed = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call of the port; it may go through several threads and checkpoints."""
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def close(self) -> None:
        """Take no more calls and wait for those under way."""
        self.closed = True
        await self._idle.wait()


def being_replaced() -> Doubt:
    """What an examination finds of a connector that takes no calls any more."""
    return Doubt(Severity.WARNING, "It is being replaced by a newer definition.", "Ask again in a few seconds.")
