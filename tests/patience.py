"""How long a test waits, in real time, for what happens by itself.

For giving up on what hangs, and never for measuring: a machine may be slow, or stand still for seconds. What must be so
*within* a time is tested with time as an argument, or by counting ticks.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0  # seconds


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until the awaitable ``condition()`` is true."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.01)


async def becomes_true(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` is true; the event loop goes on meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def until(condition: Callable[[], T]) -> T:
    """What ``condition()`` is as soon as it is true; the thread waits."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come true")


class Pauses(threading.Thread):
    """While the block lasts: for how long, in seconds altogether, this process did not get to run when it wanted to.

    For the few tests of a short real time that cannot be an argument, because another program keeps it or TLS does:
    what the machine stood still for is not held against what is tested.
    """

    _LOOK_SECONDS = 0.02

    def __init__(self) -> None:
        super().__init__(name="pauses", daemon=True)
        self.seconds = 0.0
        self._ended = threading.Event()

    @property
    def span(self) -> timedelta:
        """The same, as a time."""
        return timedelta(seconds=self.seconds)

    def __enter__(self) -> Pauses:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(self._LOOK_SECONDS):
            now = time.monotonic()
            self.seconds, before = self.seconds + max(0.0, now - before - self._LOOK_SECONDS), now
