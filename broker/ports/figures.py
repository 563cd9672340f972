"""What /metrics tells of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ExportBacklog:
    """How far the audit export is behind."""

    head: int  # the last record's sequence
    exported: int  # the last one that the export has
    oldest: timedelta  # age of the first that it has not


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """What /metrics tells."""

    live_by_class: Mapping[str, int]
    open_tasks: int
    overdue: int
    oldest_overdue: timedelta
    stuck: int
    audit_head: int
    audit_exported: int
    oldest_unexported: timedelta
    suspensions: Mapping[str, int] = field(default_factory=dict)  # in force, by kind
    suspensions_tampered: int = 0  # among them, those whose rows fail their MAC
    tightened: Mapping[str, int] = field(
        default_factory=dict
    )  # living leases that would not be granted now, by outcome
    break_glass_live: int = 0  # leases of break-glass that may be alive
    reviews: Mapping[str, int] = field(default_factory=dict)  # of break-glass, not done: by AHEAD, DUE, OVERDUE
