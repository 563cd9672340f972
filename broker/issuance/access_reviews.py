"""Access reviews: a person signs off a report of what every agent could get, and another falls due.

The report is made and read outside of the broker; what is kept is that this person stands for a report with this
digest, about the set that is in force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.errors import InvalidInput, Reason, WrongState
from broker.identity.agent import Person
from broker.issuance.caller import OperatorCaller
from broker.ports.access_reviews import AccessReviewSigned, NewAccessReview
from broker.ports.deploys import DeploySet
from broker.ports.lease_store import LeaseStore
from broker.scope.blank import refuse_blank
from broker.scope.canonical import JsonValue, canonical_json

# How far a report's clock may be ahead of ours.
_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class SignOff:
    """What a person says of one report."""

    request_id: str
    report_digest: str
    deploy_digest: str
    report_time: datetime
    findings: str

    def digest(self) -> str:
        """SHA-256 (hex) of its content, the request id left out."""
        told: Mapping[str, JsonValue] = {
            "report_digest": self.report_digest,
            "deploy_digest": self.deploy_digest,
            "report_ms": int(self.report_time.timestamp() * 1000),
            "findings": self.findings,
        }
        return hashlib.sha256(canonical_json(told)).hexdigest()


class AccessReviewDesk:
    """Where reports are signed off. ``every``: after so long the next one is due; None: there is no schedule."""

    def __init__(self, store: LeaseStore, every: timedelta | None) -> None:
        self._store = store
        self._every = every

    async def sign_off(self, caller: OperatorCaller, said: SignOff) -> AccessReviewSigned:
        """Keep it. Raises WrongState (ACCESS_REPORT_STALE) for a report about another set than the one in force,
        InvalidInput (FIELD_INVALID) for one from the future, Conflict (REQUEST_ID_REUSED).
        """
        refuse_blank("findings", said.findings)
        _check_current(caller, said)
        new = NewAccessReview(
            tenant=caller.tenant,
            person=caller.id,
            request_id=said.request_id,
            request_digest=said.digest(),
            report_digest=said.report_digest,
            deploy_digest=said.deploy_digest,
            report_time=said.report_time,
            findings=said.findings,
            agents=len(caller.deploy.registry),
            own_agents=_own_agents(caller.deploy, caller.operator.person),
            now=caller.now,
            due=None if self._every is None else caller.now + self._every,
        )
        return await self._store.sign_off_access_review(new)

    async def overdue(self, tenant: str, now: datetime) -> bool:
        """Whether a review is due, as it is where nobody ever signed one off. Never without a schedule."""
        if self._every is None:
            return False
        last = await self._store.last_access_review(tenant)
        return last is None or now > last + self._every


def _check_current(caller: OperatorCaller, said: SignOff) -> None:
    if said.report_time > caller.now + _SKEW:
        raise InvalidInput(
            Reason.FIELD_INVALID,
            "report_time lies in the future.",
            hint="Look at the clock of the machine that made the report.",
            metadata={"field": "report_time"},
        )
    if said.deploy_digest != caller.deploy.digest:
        raise WrongState(
            Reason.ACCESS_REPORT_STALE,
            f"The report is about the deploy set {said.deploy_digest[:12]}; {caller.deploy.digest[:12]} is in force.",
            hint="Make the report again, from the set that is in force: broker access report.",
            metadata={"reported": said.deploy_digest, "inForce": caller.deploy.digest},
        )


def _own_agents(deploy: DeploySet, person: Person) -> int:
    entries = (*deploy.registry, *deploy.registry.patterns)
    return sum(1 for entry in entries if entry.owner.id == person.id)
