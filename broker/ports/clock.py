"""Clock and chance."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Protocol, TypeVar, runtime_checkable

from broker.errors import BrokerError

T = TypeVar("T")


class Clock(Protocol):
    """Wall-clock time. Whoever decides asks once per decision and passes the answer on."""

    def now(self) -> datetime:
        """The present, aware, UTC, truncated to the millisecond."""
        ...


@runtime_checkable
class DoubtedClock(Clock, Protocol):
    """One whose time goes on where the wall clock was set back, and so can be ahead of everybody's for hours."""

    def wall_in_doubt(self) -> datetime | None:
        """What the wall clock says, while the time is doubted and that is behind it; else None."""
        ...


def by_either(clock: Clock, judge: Callable[[datetime], T]) -> T:
    """What ``judge`` says of somebody's paper (a certificate, a token) at the present, or in doubt by the wall clock.

    Who issues papers goes by a clock of his own. Where a wall clock was ahead for a moment, no paper in the world would
    be valid until it has caught up: nobody could stop or give back anything, and brokerd could not show who it is to
    who ends its credentials, nor start. Nothing is granted while time is doubted; what else a paper is good for that is
    valid by the wall clock alone, ``api/authorization.IN_DOUBT`` says. Raises what ``judge`` raises of the present.
    """
    try:
        return judge(clock.now())
    except BrokerError:
        wall = _in_doubt(clock)
        if wall is not None:
            with suppress(BrokerError):
                return judge(wall)
        raise


def earliest(clock: Clock) -> datetime:
    """The present, or in doubt what the wall clock says: what is over by this is over by both."""
    wall = _in_doubt(clock)
    return clock.now() if wall is None else wall


def _in_doubt(clock: Clock) -> datetime | None:
    return clock.wall_in_doubt() if isinstance(clock, DoubtedClock) else None


class Rng(Protocol):
    """Chance, for ids and jitter."""

    def id(self) -> str:
        """Letters and digits, at most 40: 128 bits of them random, from a cryptographic source."""
        ...

    def fraction(self) -> float:
        """A number in [0, 1), for jitter only."""
        ...
