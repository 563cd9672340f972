"""A port with points before and after each of its calls, by the call's name and how often it was made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from broker.errors import Reason, UpstreamFailed
from tests.failpoints.points import Fault, Points
from tests.simulation.process import Dead


class Pointed:
    """``failure``: what whoever calls is told where a call fails."""

    def __init__(self, port: Any, points: Points, failure: Callable[[], Exception]) -> None:
        self._port = port
        self._points = points
        self._failure = failure

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            numbered = self._points.numbered(f"call {name}")
            await self._pass(f"{numbered} before")
            answer = await found(*arguments, **named)
            await self._pass(f"{numbered} after")
            return answer

        return call

    async def _pass(self, point: str) -> None:
        match self._points.meet(point):
            case Fault.CRASH:
                raise Dead
            case Fault.ERROR:
                raise self._failure()
            case Fault.HANG:
                await self._points.stand_still()


def unanswered() -> Exception:
    """What an adapter says of an upstream of which it is not known whether it did what it was asked."""
    return UpstreamFailed(Reason.UPSTREAM_UNAVAILABLE, "there is no answer.", outcome_known=False)
