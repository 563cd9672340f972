"""Access reviews: reports that people sign off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class NewAccessReview:
    """A report that a person signs off, with what the broker knows about it."""

    tenant: str
    person: str  # issuer#subject
    request_id: str  # same (person, request_id): the same sign-off; other content: Conflict
    request_digest: str
    report_digest: str
    deploy_digest: str
    report_time: datetime
    findings: str
    agents: int  # entries of the registry
    own_agents: int  # of which the person is the owner
    now: datetime
    due: datetime | None  # when the next one is due; None: no schedule


class AccessReviewSigned(NamedTuple):
    """A sign-off, as it was kept."""

    at: datetime
    due: datetime | None
    own_agents: int
