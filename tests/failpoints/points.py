"""Named points that work passes, and what happens at the one that is armed: once, and nowhere else.

There is no such point in ``broker``: the ledger's writer, the way to the upstream and the way back to the agent are
wrapped by whoever tests (``ledger.py``, ``calls.py``, ``story.py``), so that nothing could arm one in what is shipped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.patience import PATIENCE


class Fault(StrEnum):
    """What happens at a point."""

    CRASH = "crash"  # the process is gone, at that moment
    ERROR = "error"  # before: refused, and nothing was done; after: it was done, and an error is told
    HANG = "hang"  # nothing happens until whoever waits has given up; then it goes on


@dataclass(frozen=True, slots=True)
class Armed:
    """One fault at one point; of points that are passed several times, at the first."""

    point: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.fault} {self.point}"


class Points:
    """Of one story. Safe from any thread.

    ``differing``: of operations that do several things, how many of their commits are points by themselves.
    """

    def __init__(self, armed: Armed | None = None, differing: Mapping[str, int] | None = None) -> None:
        self._armed = armed
        self._differing = differing or {}
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._calls: Counter[str] = Counter()
        self.passed: dict[str, None] = {}  # in their order
        self.fired = False
        self.hanging = threading.Event()
        self.crash: Callable[[], None] = lambda: None  # ends the process that is running now

    def meet(self, point: str, crash: Callable[[], None] | None = None) -> Fault | None:
        """What happens at this point now. A crash has been carried out when this returns; ``crash``: of another."""
        with self._lock:
            self.passed.setdefault(point)
            if self.fired or self._armed is None or self._armed.point != point:
                return None
            self.fired = True
            fault = self._armed.fault
        if fault is Fault.CRASH:
            (crash or self.crash)()
        if fault is Fault.HANG:
            self.hanging.set()
        return fault

    def numbered(self, call: str) -> str:
        """The call's name with how often it has been made: the second look at a lease is another point."""
        with self._lock:
            self._calls[call] += 1
            return f"{call} #{self._calls[call]}"

    def commit(self, operation: str) -> str:
        """The name of the next commit of this operation."""
        with self._lock:
            self._calls[operation] += 1
            number = min(self._calls[operation], self._differing.get(operation, 1))
        return f"commit {operation}" if number == 1 else f"commit {operation} #{number}"

    def release(self) -> None:
        """What hangs goes on."""
        self._released.set()

    def stand(self) -> None:
        """Hang, in a thread."""
        self._released.wait(PATIENCE)

    async def stand_still(self) -> None:
        """Hang, on the event loop."""
        while not self._released.is_set():
            await asyncio.sleep(0.005)
