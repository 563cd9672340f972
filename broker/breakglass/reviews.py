"""What a use of break-glass owes: a review by somebody else, in time, or its groups are blocked.

Belongs here: one use, where its review stands at a moment, whom it blocks, who may review it, and whose word passes
over a block or a suspension. Time is an argument: no tick needs to have run for an overdue review to block.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from broker.errors import Denied, Reason, WrongState

# So many people, each other than who then breaks glass, pass over a block together.
OVERRIDES_FOR_REVIEW = 2
# Beside who breaks glass, so many more pass over a suspension: two people in all.
OVERRIDES_FOR_SUSPENSION = 1
# A word of theirs is good for so long, once.
OVERRIDE_LASTS = timedelta(hours=1)


class ReviewState(StrEnum):
    """Where the review of one use stands."""

    AHEAD = "AHEAD"  # the lease is still alive; the review is due all the same
    DUE = "DUE"  # over, and in time
    OVERDUE = "OVERDUE"  # its groups are blocked
    REVIEWED = "REVIEWED"  # terminal
    NOT_NEEDED = "NOT_NEEDED"  # terminal: proved that nothing was ever issued


OWED = frozenset({ReviewState.AHEAD, ReviewState.DUE, ReviewState.OVERDUE})


class OverrideKind(StrEnum):
    """What two people can pass over."""

    SUSPENSION = "SUSPENSION"
    REVIEW = "REVIEW"


@dataclass(frozen=True, slots=True)
class Findings:
    """The review: who, when, what they found."""

    reviewer: str  # issuer#subject
    reviewer_name: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Use:
    """One use of break-glass: the lease it is, who did it, why, and what is owed for it."""

    tenant: str
    lease_id: str
    task_id: str
    template: str
    person: str  # issuer#subject
    person_name: str
    for_agent: str  # the agent whose task it is for; empty: the person's own
    owner: str  # of that agent: issuer#subject
    groups: frozenset[str]  # that pre-authorised it
    reason: str
    incident: str
    how: str  # BY_LOGIN, BY_CODE
    code_id: str
    told: tuple[str, ...]  # who would have approved: issuer#subject
    overrode: tuple[str, ...]  # suspensions, and reviews of groups, that others' words passed over
    created_at: datetime
    review_due: datetime
    ended_at: datetime | None
    void: bool
    findings: Findings | None

    def review_state(self, now: datetime) -> ReviewState:
        """Where its review stands at ``now``."""
        if self.findings is not None:
            return ReviewState.REVIEWED
        if self.void:
            return ReviewState.NOT_NEEDED
        if now >= self.review_due:
            return ReviewState.OVERDUE
        return ReviewState.AHEAD if self.ended_at is None else ReviewState.DUE


def blocked_groups(uses: Iterable[Use], groups: Collection[str], now: datetime) -> dict[str, str]:
    """Of ``groups``, those that an overdue review blocks, each with the lease that is to be reviewed."""
    blocked: dict[str, str] = {}
    for use in uses:
        if use.review_state(now) is ReviewState.OVERDUE:
            for group in sorted(use.groups & frozenset(groups)):
                blocked.setdefault(group, use.lease_id)
    return blocked


def check_reviewer(use: Use, reviewer: str) -> None:
    """Raises :class:`Denied` (REVIEW_OF_ONES_OWN) for who used it, or owns the agent that it was for."""
    part = "broke the glass" if reviewer == use.person else "owns the agent it was for"
    if reviewer in (use.person, use.owner):
        raise Denied(
            Reason.REVIEW_OF_ONES_OWN,
            f"{reviewer} {part}, and so may not review {use.lease_id}.",
            hint="Somebody without a part in it reviews it.",
            metadata={"leaseId": use.lease_id, "part": part},
        )


def check_reviewable(use: Use, *, living: bool) -> None:
    """Raises :class:`WrongState` for a use that is reviewed, needs no review, or whose credential is in use."""
    if use.findings is not None:
        raise WrongState(
            Reason.BREAK_GLASS_REVIEWED,
            f"{use.lease_id} was reviewed by {use.findings.reviewer_name}.",
            hint="`broker break-glass show` prints the findings. They are not written over.",
            metadata={"leaseId": use.lease_id},
        )
    if use.void:
        raise WrongState(
            Reason.BREAK_GLASS_REVIEWED,
            f"{use.lease_id} needs no review: it is proved that nothing was issued.",
            metadata={"leaseId": use.lease_id},
        )
    if living:
        raise WrongState(
            Reason.BREAK_GLASS_LIVE,
            f"{use.lease_id} is still in use, so nobody can say yet what was done with it.",
            hint=f"End it first: broker break-glass end {use.lease_id}",
            metadata={"leaseId": use.lease_id},
        )
