"""Refusals leave a trace, but one hijacked agent cannot fill the log with them.

Each principal has a budget of audit events per window; what comes above it is counted, by reason,
and written as one summary event per principal when the window ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.errors import Reason
from broker.scope.canonical import JsonValue

# Principals watched at once; the anonymous and the unregistered share one budget, so that nobody
# can make this table grow by inventing ids.
MAX_PRINCIPALS = 10_000
EVERYBODY_ELSE = "others"
NOTHING_MORE: Mapping[str, JsonValue] = MappingProxyType({})


@dataclass(slots=True)
class _Window:
    opened: datetime
    written: int = 0
    folded: Counter[str] = field(default_factory=Counter)


class RefusalBudget:
    """Which refusals become events of their own, and which are folded. Pure but for its counters."""

    def __init__(self, per_window: int = 20, window: timedelta = timedelta(minutes=1)) -> None:
        self._per_window = per_window
        self._window = window
        self._open: dict[str, _Window] = {}

    def admit(self, principal: str, reason: str, now: datetime) -> tuple[str, bool]:
        """Count one refusal: (whose budget it fell under, whether it is to be written by itself)."""
        if principal not in self._open and len(self._open) >= MAX_PRINCIPALS:
            principal = EVERYBODY_ELSE
        window = self._open.setdefault(principal, _Window(now))
        if window.written < self._per_window:
            window.written += 1
            return principal, True
        window.folded[reason] += 1
        return principal, False

    def close_windows(self, now: datetime, *, every: bool = False) -> Sequence[tuple[str, dict[str, int]]]:
        """End the windows that are over (or ``every`` one): what was folded, per principal."""
        over = [p for p, w in self._open.items() if every or now - w.opened >= self._window]
        closed = [(p, dict(self._open.pop(p).folded)) for p in over]
        return [(principal, folded) for principal, folded in closed if folded]


def refusal(
    tenant: str,
    principal: str,
    method: str,
    reason: str,
    message: str,
    metadata: dict[str, str],
    evidence: Mapping[str, JsonValue] = NOTHING_MORE,
) -> AuditEvent:
    """The event for one refusal. Who is denied, and comes all the same, has an event of its own kind.

    ``evidence``: what the trail shall know beyond what the caller was told.
    """
    return AuditEvent(
        EventType.AGENT_DENIED if reason == Reason.AGENT_DENIED else EventType.REQUEST_REFUSED,
        actor=principal,
        vouched_by=Vouch.BROKER,
        tenant=tenant,
        data={**evidence, "method": method, "reason": reason, "message": message[:500], "metadata": dict(metadata)},
    )


def summary(tenant: str, principal: str, folded: dict[str, int]) -> AuditEvent:
    """The event for what a window folded. Its actor is the registry entry, which may stand for many workloads."""
    return AuditEvent(
        EventType.REFUSALS_SUMMARISED,
        actor=principal,
        vouched_by=Vouch.BROKER,
        tenant=tenant,
        data={"counts": folded},
    )
