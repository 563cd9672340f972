"""What the checks ask of the machine that a process runs on."""

from __future__ import annotations

from typing import Protocol

from broker.timekeeping import Doubt
from tests.simulation.clocks import WallClock


class Machine(Protocol):
    """A replica's."""

    @property
    def has_begun(self) -> bool:
        """Whether its broker has a time."""
        ...

    def fast_by(self) -> float:
        """By how many seconds its broker's time is ahead of the truth."""
        ...

    def doubt(self) -> Doubt | None:
        """Whether its broker doubts what time it is, and since when."""
        ...

    def may_doubt(self) -> bool:
        """Whether anything was wrong with its clock that its broker can have noticed."""
        ...

    @property
    def counts(self) -> WallClock:
        """The clock by which its broker goes."""
        ...

    def set_since_it_runs(self) -> bool:
        """Whether its clock was set, by more than a broker tolerates, since its broker's time began."""
        ...
