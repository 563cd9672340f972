"""What the looks at one credential come to: is it dead, since when at the latest, was the contract's bound kept.

A *look* is one use of the credential. It has a beginning and an end, and the upstream decided somewhere between: that
it still works is sure of the beginning, that it is refused only of the end. So ``refused`` is an upper bound, and
``worked`` the lower one. What could not be told proves neither.

Times are measured by a clock that nobody sets (``Moment.tick``); the wall clock only says where to begin. Where the two
drift apart meanwhile, somebody has set the wall clock, and a deadline on it is no measure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from broker.canary.canary import Kind

# Between two looks: a share of the time that has passed, within these.
_FINEST, _COARSEST = timedelta(milliseconds=10), timedelta(seconds=15)
_SHARE = 8
_AHEAD = 4
# So long after the bound nobody goes on looking where nothing can be told.
PATIENCE = timedelta(minutes=1)
# What a clock that is disciplined may be corrected by during a run.
_DRIFT = timedelta(milliseconds=500)


class Moment(NamedTuple):
    """One moment on two clocks: the wall clock, and one that only ever goes forward."""

    at: datetime
    tick: timedelta

    def later(self, by: timedelta) -> Moment:
        """The moment so much later, on both."""
        return Moment(self.at + by, self.tick + by)


class Said(StrEnum):
    """What came of one look."""

    WORKS = "WORKS"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"


class State(StrEnum):
    """Where the watch stands."""

    WATCHING = "WATCHING"
    DEAD = "DEAD"
    BROKEN = "BROKEN"  # it works although the bound has passed; it is watched on
    LOST = "LOST"  # for too long nothing could be told, or the clock was set


@dataclass(frozen=True, slots=True)
class Watch:
    """The looks so far. Durations count from ``since`` and may be negative."""

    kind: Kind
    since: Moment  # when the revocation was asked for, or the deadline
    bound: timedelta
    first: Moment  # when the credential was seen to work first
    last: Moment  # the end of the latest look
    worked: timedelta | None = None  # the latest beginning of a look that worked
    refused: timedelta | None = None  # the end of the first one that was refused
    known: timedelta | None = None  # the end of the latest one that told something
    looks: int = 0

    def seen(self, said: Said, begun: Moment, ended: Moment) -> Watch:
        """With one look more."""
        seen = replace(self, looks=self.looks + 1, last=ended)
        end = ended.tick - self.since.tick
        if said is Said.UNKNOWN:
            return seen
        if said is Said.REFUSED:
            return replace(seen, refused=end, known=end)
        return replace(seen, worked=begun.tick - self.since.tick, known=end)

    @property
    def state(self) -> State:
        """Where it stands."""
        if self.spoilt:
            return State.LOST
        if self.refused is not None:
            return State.DEAD
        elapsed = self.last.tick - self.since.tick
        if elapsed - max(self.bound, self.known or timedelta(0)) > PATIENCE:
            return State.LOST
        return State.BROKEN if self.broken else State.WATCHING

    @property
    def broken(self) -> bool:
        """Whether the credential was seen to work after the bound: for certain, and not for a look that took long."""
        return self.worked is not None and self.worked > self.bound and not self.spoilt

    @property
    def spoilt(self) -> bool:
        """Whether the wall clock was set meanwhile, and so a deadline on it is no measure."""
        return self.kind is Kind.ON_EXPIRY and self.jumped is not None

    @property
    def kept(self) -> bool:
        """Whether it was seen dead within the bound, for certain."""
        return self.refused is not None and self.refused <= self.bound

    @property
    def jumped(self) -> timedelta | None:
        """By how much the wall clock was set meanwhile; None: it was not."""
        by = (self.last.at - self.first.at) - (self.last.tick - self.first.tick)
        return by if abs(by) > _DRIFT else None

    def pause(self) -> timedelta:
        """How long to wait before the next look: long while nothing can change yet, short around ``since``."""
        elapsed = self.last.tick - self.since.tick
        if elapsed < timedelta(0):
            return max(-elapsed / _AHEAD, _FINEST)
        return min(max(elapsed / _SHARE, _FINEST), _COARSEST)
