"""Counting requests against a rate: GCRA, the generic cell rate algorithm (ITU-T I.371, annex A).

Belongs here: per subject one instant, its *theoretical arrival time*, and nothing else, whatever the rate is.
A subject whose instant has passed has all of its allowance again, so forgetting it changes nothing: that
is what keeps the table small. It is not kept over a restart: then every subject has its whole allowance at once.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.policy.quotas import Rate

# Each is some 200 bytes. Subjects beyond that share one allowance: they are neither let through uncounted nor
# locked out, and nobody makes the table larger by inventing tasks or workloads of a pattern.
MAX_SUBJECTS = 20_000
EVERYBODY_ELSE = ""
# A full table is looked through for what may be forgotten at most this often.
_SWEEP = timedelta(seconds=1)
_NOTHING = timedelta(0)


class RateTable:
    """The subjects of one quota. Not locked: it belongs to the thread of one event loop."""

    def __init__(self, max_subjects: int = MAX_SUBJECTS) -> None:
        self._max = max_subjects
        self._arrivals: dict[str, datetime] = {}
        self._next_sweep: datetime | None = None

    def __len__(self) -> int:
        return len(self._arrivals)

    def wait(self, subject: str, rate: Rate, now: datetime) -> timedelta:
        """How long ``subject`` must wait before one more request; zero: it may ask now. Counts nothing."""
        earliest = self._arrival(subject, rate, now) + rate.interval - rate.within
        return max(earliest - now, _NOTHING)

    def spend(self, subject: str, rate: Rate, now: datetime) -> None:
        """Count one request, which :meth:`wait` allowed."""
        arrival = self._arrival(subject, rate, now) + rate.interval
        if subject not in self._arrivals and len(self._arrivals) >= self._max:
            self._sweep(now)
        self._arrivals[self._whose(subject)] = arrival

    def _arrival(self, subject: str, rate: Rate, now: datetime) -> datetime:
        # Never beyond one whole allowance from now: a clock that was set back locks nobody out for longer than that.
        stored = self._arrivals.get(self._whose(subject), now)
        return min(max(stored, now), now + rate.within)

    def _whose(self, subject: str) -> str:
        full = subject not in self._arrivals and len(self._arrivals) >= self._max
        return EVERYBODY_ELSE if full else subject

    def _sweep(self, now: datetime) -> None:
        if self._next_sweep is not None and now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP
        for subject in [each for each, arrival in self._arrivals.items() if arrival <= now]:
            del self._arrivals[subject]
