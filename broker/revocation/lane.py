"""One connector's lane: what it has claimed and not yet recorded, and how far it may claim ahead.

Claims go ahead of the tries by as much as the upstream is fast, so that one that answers in a moment is worked off in
large portions, and one that is slow holds no more than its workers are trying. Plain state of the event loop; what is
done with it is in ``revoker.py``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from broker.ports.connectors import RevokeOutcome
from broker.ports.leases import Attempt, Tried
from broker.ports.orphans import Orphan

# The most that one lane holds: what is claimed and not recorded. Half of it is claimed, or recorded, at a time, which
# bounds how long others wait for the ledger's one writer, and what a crash leaves to wait for its claims to run out.
MOST_HELD = 256
# A try that takes longer than this (seconds) is a slow one: claiming ahead of such only lets claims run out.
BRISK = 0.05


@dataclass(slots=True)
class Tally:
    """What one connector's lane has done, for /metrics."""

    revoked: int = 0
    expired: int = 0
    failed: int = 0


class Claimed(NamedTuple):
    """What was claimed, and until when (event loop's time) a try of it may begin: its claim has to outlive the try."""

    what: Attempt | Orphan
    begin_by: float


@dataclass(slots=True)
class Lane:
    """Of one connector, which at most ``workers`` tries at once are made with."""

    workers: int
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    orphans: bool = False  # some of what no lease is of may be due
    tally: Tally = field(default_factory=Tally)
    runner: asyncio.Task[None] | None = None
    queue: deque[Claimed] = field(default_factory=deque)  # claimed, and not begun
    at_work: set[asyncio.Task[None]] = field(default_factory=set)  # workers
    done: list[tuple[Tried, RevokeOutcome]] = field(default_factory=list)  # tried, and not recorded
    recorder: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None  # looks again by itself
    due: bool = False  # something may be due that is not claimed
    held: int = 0  # claimed, and not recorded
    ahead: int = 0  # how much may be held

    def __post_init__(self) -> None:
        self.ahead = self.workers

    def room(self) -> int:
        """How many more to claim now: none while it is not worth a transaction."""
        free = self.ahead - self.held
        return free if free >= (self.ahead // 2 if self.ahead > self.workers else 1) else 0

    def learn(self, took: float, *, answered: bool) -> None:
        """One try took so many seconds. Each brisk one lets a further one be claimed ahead."""
        if not answered:
            self.ahead = self.workers
        elif took > BRISK:  # by one that is slow, or by a machine that is busy
            self.ahead = max(self.workers, self.ahead // 2)
        elif self.ahead < MOST_HELD:
            self.ahead += 1

    def let_go(self) -> None:
        """What is not begun is not tried now: its claims run out, and it is due again by itself."""
        self.held -= len(self.queue)
        self.queue.clear()

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return not self.at_work and (self.recorder is None or self.recorder.done())
