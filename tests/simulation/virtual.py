"""An event loop in which time passes only when nothing else can happen, and then at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextvars import Context
from typing import Any


class Stalled(Exception):
    """Nothing is scheduled any more: whoever waits, waits for ever."""


class _Time(selectors.SelectSelector):
    """Waits for no file; what the loop would sleep is what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stalled
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Times in seconds from 0. ``steps`` counts every callback that was ever scheduled."""

    def __init__(self) -> None:
        self._passing = _Time()
        self.steps = 0
        super().__init__(self._passing)

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._passing.now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        """As everywhere, and a step."""
        self.steps += 1
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As everywhere, and a step."""
        self.steps += 1
        return super().call_at(when, callback, *args, context=context)
