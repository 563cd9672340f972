"""What must be true of a ledger that was put back to an older state: nothing is granted until two people say so.

And what it held open is over by then. What it has forgotten is ended upstream: that is asked of the whole world at the
end (``checks.py``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from broker.lease.machine import State
from tests.clock import START
from tests.simulation.broken import Broken
from tests.simulation.glass import Glass
from tests.simulation.plans import Plans


@dataclass
class Known:
    """One attempt, as the trail has told it so far."""

    name: str
    lease: str
    task: str
    holder: str
    request: str
    expires_at: datetime
    intended_at: datetime
    process: str  # which intended it
    only_time_ends_it: bool
    state: State = State.ISSUING
    activated_by: str = ""
    by_a_fast_clock: bool = False  # it was said to be over
    over_by: float = 0.0  # see ages.py


@dataclass
class Told:
    """What the trail of one ledger has told, up to record ``seen``."""

    seen: int = 0
    attempts: dict[str, Known] = field(default_factory=dict)
    of_lease: dict[str, list[str]] = field(default_factory=dict)
    of_request: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # by holder and request id
    part_of: dict[str, str] = field(default_factory=dict)  # by the lease that was granted by a delegation
    parts: set[str] = field(default_factory=set)  # of these, what may still be alive
    tasks_over: set[str] = field(default_factory=set)
    suspended: dict[str, dict[str, Any]] = field(default_factory=dict)
    glass: Glass = field(default_factory=Glass)
    plans: Plans = field(default_factory=Plans)
    latest: datetime = START  # the highest time in the trail

    def copy(self) -> Told:
        """That nothing changes any more."""
        return Told(
            self.seen,
            {name: replace(known) for name, known in self.attempts.items()},
            {name: list(attempts) for name, attempts in self.of_lease.items()},
            {name: list(attempts) for name, attempts in self.of_request.items()},
            dict(self.part_of),
            set(self.parts),
            set(self.tasks_over),
            dict(self.suspended),
            self.glass.copy(),
            self.plans.copy(),
            self.latest,
        )


@dataclass
class Recoveries:
    """Of one run, as the trail tells them."""

    told: Counter[str]
    shut: bool = False  # nothing may be granted
    since: datetime = START - timedelta(days=1)  # when the ledger was put back last
    _entered: bool = False  # and the ledger knows it
    _spoken: set[str] = field(default_factory=set)  # who has said that grants may begin again
    _held_then: dict[str, Known] = field(default_factory=dict)  # when it was entered
    _cannot_know: frozenset[str] = frozenset()  # processes that ran while the ledger was put back beneath them

    def put_back(self, running: frozenset[str], now: datetime) -> None:
        """The ledger is an old copy from now on. ``running``: the processes that were not ended for it."""
        self.since = now
        self.shut, self._entered, self._cannot_know = True, False, running

    def intended(self, attempt: str, process: str, *, passes_over: bool = False) -> None:
        """Raises Broken where nothing may be. ``passes_over``: an emergency, where a witness could not be asked yet."""
        if not self.shut:
            return
        if passes_over and not self._entered:
            self.told["an emergency on a ledger that no witness could be asked about"] += 1
            return
        # It has seen nothing of later, so to it the ledger is what it was, until one that has enters a recovery: each
        # intent's transaction looks for that. What was granted before is ended then.
        if self._entered or process not in self._cannot_know:
            raise Broken(f"I8: {attempt} is intended on a ledger that was put back, and that nobody has released")
        self.told["intended by one that ran on over a restore"] += 1

    def take(self, record: dict[str, Any], attempts: dict[str, Known]) -> None:
        """A record about recovery."""
        kind, actor = record["type"], record["actor"]
        if kind == "recovery.entered":
            if not self.shut:
                raise Broken(f"{record['writer']} begins a recovery, and its ledger is the newest that there was")
            self._entered, self._spoken = True, set()
            self._held_then = {name: known for name, known in attempts.items() if _is_usable(known)}
            self.told["recovery entered"] += 1
        elif self._entered:
            self._spoken.add(actor)
            if kind == "recovery.released":
                self._released()

    def _released(self) -> None:
        if len(self._spoken) < 2:
            raise Broken(f"I8: {self._spoken} alone has released the ledger")
        if left := [name for name, known in self._held_then.items() if _is_usable(known)]:
            raise Broken(f"I8: the ledger that was put back is released, and what it held then is alive: {left}")
        self.shut, self._entered, self._held_then = False, False, {}
        self.told["recovery released"] += 1


def _is_usable(known: Known) -> bool:
    return known.state in (State.ISSUING, State.ACTIVE)
