"""What operators wrote in approvals.yaml: whose yes an approval takes. Values only; reading them is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Quorum:
    """So many different people of one group."""

    group: str
    people: int

    def __post_init__(self) -> None:
        if not self.group or self.people < 1:
            raise ValueError("a quorum is at least one person of a group")


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """One approval by name, and whose yes gives it: any one of its quorums."""

    name: str
    description: str
    any_of: tuple[Quorum, ...]
    expires_in: timedelta  # from asking: then nobody can approve any more
    redeem_within: timedelta  # from the last yes: then nobody can redeem any more

    def __post_init__(self) -> None:
        if not self.name or not self.any_of:
            raise ValueError("an approval has a name and at least one quorum")
        if self.expires_in <= timedelta(0) or self.redeem_within <= timedelta(0):
            raise ValueError("the deadlines of an approval lie in the future")
