"""People's looking leaves a trace, but whoever looks every second cannot fill the log with it.

In each window of one person (or workload of operators' automation) the first look at something is an event of its own,
up to a number; the same again, and what comes above that number, is counted by method and written as one summary event
when the window ends. So a dashboard that polls costs two events a minute for each thing it looks at, and somebody who
leafs through all leases is told with what they looked for first, and how often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.scope.canonical import JsonValue

# What somebody looked at: the request's own fields, by name.
About = Mapping[str, str]


@dataclass(slots=True)
class _Window:
    opened: datetime
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = field(default_factory=set)
    folded: Counter[str] = field(default_factory=Counter)


class LookBudget:
    """Which looks become events of their own, and which are folded. Pure but for its counters.

    Only people and workloads of people.yaml are let in, so that there are no more windows than these.
    """

    def __init__(self, per_window: int = 20, window: timedelta = timedelta(minutes=1)) -> None:
        self._per_window = per_window
        self._window = window
        self._open: dict[str, _Window] = {}

    def admit(self, person: str, method: str, about: About, now: datetime) -> bool:
        """Count one look; whether it is to be written by itself."""
        window = self._open.setdefault(person, _Window(now))
        look = (method, frozenset(about.items()))
        if look not in window.seen and len(window.seen) < self._per_window:
            window.seen.add(look)
            return True
        window.folded[method] += 1
        return False

    def close_windows(self, now: datetime, *, every: bool = False) -> Sequence[tuple[str, dict[str, int]]]:
        """End the windows that are over (or ``every`` one): what was folded, per person."""
        over = [who for who, window in self._open.items() if every or now - window.opened >= self._window]
        closed = [(who, dict(self._open.pop(who).folded)) for who in over]
        return [(who, folded) for who, folded in closed if folded]


def look(tenant: str, person: str, method: str, about: About) -> AuditEvent:
    """The event for one look."""
    return AuditEvent(
        EventType.ADMIN_READ,
        actor=person,
        vouched_by=Vouch.BROKER,
        tenant=tenant,
        task_id=about.get("task_id", ""),
        lease_id=about.get("lease_id", ""),
        data={"method": method, "about": dict(about)},
    )


def summary(tenant: str, person: str, folded: Mapping[str, int]) -> AuditEvent:
    """The event for what a window folded."""
    counts: dict[str, JsonValue] = dict(folded)
    return AuditEvent(
        EventType.ADMIN_READS_SUMMARISED, actor=person, vouched_by=Vouch.BROKER, tenant=tenant, data={"counts": counts}
    )
