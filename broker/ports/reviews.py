"""Living leases, compared with the rules in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.ports.leases import Granted, Tightened
from broker.ports.proofs import ProofRecord


class ReviewStore(Protocol):
    """What becomes of living leases when rules change; in one database with, and by the rules of, LeaseStore."""

    async def living_grants(self, tenant: str, after: str, limit: int) -> Sequence[Granted]:
        """The leases that are being issued or ACTIVE, by holder; ``after`` is the last lease's id of the page before.

        Each page is told as the ledger is when it is read. One page after the other costs no more than what lives and
        what changed meanwhile. Memory holds one page, one portion of the trail, and of the one holder that the walk is
        at about 300 bytes for each of its living leases. Raises InvalidInput (PAGE_TOKEN_INVALID).
        """
        ...

    async def record_review(
        self,
        tenant: str,
        lease_id: str,
        attempt_id: str,
        tightened: Tightened | None,
        end: bool,
        actor: str,
        now: datetime,
        by: str = "",
    ) -> bool:
        """Remember how a living lease stands; whether that is news. None: it stands.

        News is an audit event (lease.policy_tightened, lease.policy_loosened), once per lease, attempt and deploy set.
        With ``end`` its living attempts are REVOKING when this returns (POLICY_TIGHTENED), news or not. A lease that
        has ended, or another attempt of which is the latest by now, is left alone. ``by``: the digest of the deploy set
        that says so; raises NotReady (DEPLOY_SET_OVERTAKEN) where another one is in force.
        """
        ...


@dataclass(frozen=True, slots=True)
class NewFindings:
    """One review. Same (reviewer, request_id): written once."""

    tenant: str
    lease_id: str
    request_id: str
    reviewer: str  # issuer#subject
    reviewer_name: str
    findings: str
    proof: ProofRecord
    now: datetime
