"""What is done again and again, by APScheduler: it only ticks. What has to be done is in the ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from broker.errors import BrokerError

log = structlog.get_logger("brokerd")

# Its name, what it does, and after how many seconds it is done again.
Job = tuple[str, Callable[[], Any], float]


class _StopsAreNoFailures(logging.Filter):
    """Only a stop cancels jobs, and APScheduler tells a traceback of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


_STOPS = _StopsAreNoFailures()


class _NextFromNow(IntervalTrigger):  # type: ignore[misc] # APScheduler has no types
    """An interval of which what was missed is one time, however long ago the last one was.

    APScheduler makes a list of all the times that were missed, also where it coalesces them: after a weekend in which
    the machine slept, or a wall clock that jumped, millions of steps on the event loop before anything is done.
    """

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first one after ``now`` where ``previous_fire_time`` is over."""
        if previous_fire_time is not None and previous_fire_time < now:
            previous_fire_time += (now - previous_fire_time) // self.interval * self.interval
        following: datetime | None = super().get_next_fire_time(previous_fire_time, now)
        return following


class Ticks:
    """``jobs``, each never twice at a time; one that comes late is done once."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        logging.getLogger("apscheduler.executors.default").addFilter(_STOPS)
        self.scheduler = AsyncIOScheduler()

    def start(self) -> None:
        """Begin."""
        for name, job, seconds in self._jobs:
            self.scheduler.add_job(
                _guarded(name, job),
                _NextFromNow(seconds=seconds, timezone=UTC),
                id=name,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
            )
        self.scheduler.start()

    def again(self) -> None:
        """Begin anew, where they have stopped: what hangs is cancelled."""
        if self.scheduler.running:
            self.stop()
        self.scheduler = AsyncIOScheduler()
        self.start()

    def stop(self) -> None:
        """Cancel what is under way."""
        self.scheduler.shutdown(wait=False)


def _guarded(name: str, job: Callable[[], Any]) -> Callable[[], Any]:
    async def run() -> None:
        try:
            await job()
        except BrokerError as failure:
            log.error("a periodic job failed; the next tick tries again", job=name, reason=failure.reason)

    return run
