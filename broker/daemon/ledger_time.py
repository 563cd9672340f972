"""The time that all daemons on one ledger go by: their database's.

Due times, deadlines and claims are compared with ``now`` by whichever daemon comes by, so a daemon whose clock goes
wrong would end early what others keep, or keep what others end. Each asks the database what time it is, once a second,
and goes by that. Where the database is a file of this machine, its clock is the machine's.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.ports import Clock

# An answer that took longer says too little about when it was given.
_TOO_SLOW = timedelta(seconds=1)
_NOTHING = timedelta(0)
_RESOLUTION = timedelta(milliseconds=1)


class LedgerTime:
    """A :class:`broker.ports.Clock`: this machine's, put right by what the database said last."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self.offset = _NOTHING  # how far this machine's clock is behind the database's

    def now(self) -> datetime:
        """The present, by the database's clock."""
        return self._own.now() + self.offset if self.offset else self._own.now()

    def mine(self) -> datetime:
        """The present, by this machine's clock."""
        return self._own.now()

    def heard(self, theirs: datetime, asked: datetime, answered: datetime) -> None:
        """The database said ``theirs`` at some moment between two of this machine's. What that cannot tell stays."""
        took = answered - asked
        if not _NOTHING <= took <= _TOO_SLOW:
            return
        measured = theirs - (asked + took / 2)
        if abs(measured - self.offset) > took / 2 + _RESOLUTION:
            self.offset = measured - measured % _RESOLUTION
