"""What time it is, as far as a machine's clocks can say, and when that is to be doubted.

A machine has a wall clock, which people and NTP set, and a running clock, which nobody sets and which goes on while
the machine sleeps. *Broker time* is made of both, by these rules:

- It never goes back, over a restart neither: the ledger holds a high-water mark, and time begins there at the least.
  Of several brokers on one ledger each goes on there, too: nobody's time is earlier than what another one was told.
- It is the wall clock's while that is not behind it. So what a jump forwards makes due is due at once.
- While the wall clock is behind (it was set back) broker time runs on by the running clock, at nine tenths of its
  speed: credentials still end, at most a tenth of their time late, and the wall clock catches up in the end.
- It is *doubted* from a jump of more than :data:`TOLERANCE_MS` against the running clock, and while the wall clock is
  further behind than that. The doubt ends when both clocks have agreed for :data:`SETTLE_MS` and the wall clock is not
  behind any more. Who grants asks :attr:`Timekeeper.doubt`; who revokes does not.

Does not belong here: asking the machine (``clock.py``), the ledger's mark (``stores/high_water.py``). Times are whole
milliseconds: of the wall clock since 1970, of the running clock since whenever.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

TOLERANCE_MS = 30_000
# For so long the clocks must agree before a new wall-clock time is believed: NTP steps within its first minutes.
SETTLE_MS = 300_000
# Clocks that agree differ by less: a leap second that is stepped, the steps by which NTP still corrects itself.
AGREEMENT_MS = 1_000
# A difference that grew within this time is a jump (or a clock that runs wrong by 5 % and more); what grew more slowly
# is drift, with which any machine lives.
ANCHOR_MS = 600_000
_SLOWED_TENTHS = 9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Jump(StrEnum):
    """Why time is doubted."""

    FORWARDS = "FORWARDS"  # the wall clock was set forwards, or the machine stood still and did not notice
    BACKWARDS = "BACKWARDS"  # the wall clock was set back, or stopped
    BEHIND = "BEHIND"  # it is behind what the ledger has seen, at a start, or by what others have read of it


@dataclass(frozen=True, slots=True)
class Doubt:
    """That the wall clock cannot be believed for now, and what began it. Setting it right is no second one."""

    why: Jump
    by_ms: int  # how far it jumped, or is behind; positive
    since_ms: int  # broker time


class Certain(NamedTuple):
    """What is true even if the clock is wrong.

    ``at``: a time that has come; None: whoever set the clock forwards may have erred. When it was set back, it is not
    later than it said then, nor than it was believed before: what sets it back by a second, or by as little as two
    readings of a server's clock differ, puts no hour right. That it was set forwards again is no proof before it has
    settled. ``settled``: the clocks have agreed for :data:`SETTLE_MS`, so nothing is under way that was before.
    """

    at: datetime | None
    settled: bool


class Timekeeper:
    """Makes broker time of readings of both clocks, in whatever order and at whatever interval they come."""

    def __init__(self) -> None:
        self.doubt: Doubt | None = None
        self._now = 0
        self._horizon = -1  # wall-clock times from _now to here need no second look
        self._base: tuple[int, int] | None = None  # (broker time, running) when the wall clock was last not behind
        self._anchor = 0  # wall minus running, when last believed (or, in doubt, when it last changed)
        self._anchored = 0  # running, at that time
        self._least = 0  # wall minus running, the lowest since it was last believed

    def at(self, wall: int) -> int | None:
        """Broker time at ``wall``; None where something may be wrong: then it is :meth:`look` that knows."""
        if not self._now <= wall <= self._horizon:
            return None
        self._now = wall
        return wall

    def resume(self, mark: int) -> None:
        """Begin anew, at ``mark`` at the least: what a ledger has seen, perhaps of an earlier run.

        What was told before the ledger was known bound nobody; it may even have been another machine's clock.
        """
        self.doubt = None
        self._now, self._horizon, self._base = mark, -1, None

    def not_before(self, mark: int, running: int) -> None:
        """Go on at ``mark`` at the least: others on the same ledger were told so. Whether it is to be doubted, look."""
        if mark > self._now:
            self._now, self._horizon, self._base = mark, -1, (mark, running)

    def look(self, wall: int, running: int) -> int:
        """Compare the clocks; the daemon does so every second. Returns broker time."""
        if self._base is None:
            self._base = (self._now, running)
            self._believe(wall, running)
        since, ran_since = self._base
        self._now = max(self._now, wall, since + (running - ran_since) * _SLOWED_TENTHS // 10)
        if self._now == wall:
            self._base = (wall, running)
        self._horizon = wall + TOLERANCE_MS
        self._least = min(self._least, wall - running)
        self._judge(wall, running)
        return self._now

    @property
    def now(self) -> int:
        """The last broker time that anybody was told."""
        return self._now

    def certain(self, wall: int, running: int) -> Certain:
        """What can be said of the time although it may be doubted."""
        if self.doubt is None:
            return Certain(_moment(self._now), settled=True)
        settled = running - self._anchored >= SETTLE_MS
        surely = wall if settled else min(wall, running + self._least)
        return Certain(_moment(surely) if wall < self._now else None, settled)

    def behind_ms(self, wall: int) -> int:
        """How far ``wall`` is behind broker time; 0 where it is not."""
        return max(0, self._now - wall)

    def _judge(self, wall: int, running: int) -> None:
        moved, behind = wall - running - self._anchor, self.behind_ms(wall)
        if self.doubt is not None and abs(moved) > AGREEMENT_MS:
            self._agree_on(wall, running)  # not settled: from the beginning
        elif abs(moved) > TOLERANCE_MS:
            self._agree_on(wall, running)
            self.doubt = Doubt(Jump.FORWARDS if moved > 0 else Jump.BACKWARDS, abs(moved), self._now)
        elif self.doubt is None and behind > TOLERANCE_MS:
            self._agree_on(wall, running)
            self.doubt = Doubt(Jump.BEHIND, behind, self._now)
        elif running - self._anchored >= (ANCHOR_MS if self.doubt is None else SETTLE_MS):
            self._settled(wall, running, behind)

    def _settled(self, wall: int, running: int, behind: int) -> None:
        if self.doubt is None or behind <= AGREEMENT_MS:
            self._believe(wall, running)

    def _believe(self, wall: int, running: int) -> None:
        self._agree_on(wall, running)
        self._least, self.doubt = wall - running, None

    def _agree_on(self, wall: int, running: int) -> None:
        self._anchor, self._anchored = wall - running, running


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
