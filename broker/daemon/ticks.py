"""What is done again and again, by APScheduler: it only ticks. What has to be done is in the ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from broker.errors import BrokerError

log = structlog.get_logger("brokerd")

# Its name, what it does, and after how many seconds it is done again.
Job = tuple[str, Callable[[], Any], float]


class _StopsAreNoFailures(logging.Filter):
    """Only a stop cancels jobs. One that was about to begin cannot say so itself, and APScheduler tells a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


_STOPS = _StopsAreNoFailures()


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
                "interval",
                seconds=seconds,
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
        except asyncio.CancelledError:
            # Only a stop cancels jobs; APScheduler would report it as a failure.
            log.debug("a periodic job was cut short by the stop", job=name)

    return run
