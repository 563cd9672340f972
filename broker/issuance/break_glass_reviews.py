"""What others do about a use of break-glass: review it, or say that somebody may pass over what blocks the next."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from broker.approval.intent_digest import REVIEW_BREAK_GLASS
from broker.breakglass.intent import OVERRIDE_BREAK_GLASS, override_fields, review_fields
from broker.breakglass.reviews import OVERRIDE_LASTS, OverrideKind, Use, check_reviewer
from broker.breakglass.rules import unfit
from broker.issuance.break_glass_admission import person_in_force
from broker.issuance.caller import OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.ports.break_glass import BreakGlassStore, NewOverride, OverrideGiven
from broker.ports.clock import Clock, Rng
from broker.ports.reviews import NewFindings
from broker.scope.blank import blank
from broker.scope.canonical import canonical_json

_SEE_HELP = "`broker break-glass --help` shows what each command takes."

OVERRIDE_PREFIX = "over-"


@dataclass(frozen=True, slots=True)
class OverrideOrder:
    """One person's word: ``person`` (a key of people.yaml, or issuer#subject) may pass over ``subject``, once."""

    request_id: str
    kind: OverrideKind
    subject: str
    person: str
    reason: str


class ReviewDesk:
    """Reviews and overrides. Who may call which is the door's question; that it is not about oneself, the ledger's."""

    def __init__(self, store: BreakGlassStore, fresh: FreshLogins, clock: Clock, rng: Rng) -> None:
        self._store = store
        self._fresh = fresh
        self._clock = clock
        self._rng = rng

    async def review(
        self, caller: OperatorCaller, lease_id: str, request_id: str, findings: str, *, fresh_id_token: str
    ) -> Use:
        """Record what was found. Raises Denied (REVIEW_OF_ONES_OWN), WrongState (BREAK_GLASS_REVIEWED, _LIVE)."""
        person_in_force(caller)
        if blank(findings):
            raise unfit("findings", "say what was looked at, and what was found", _SEE_HELP)
        use, _ = await self._store.get_use(caller.tenant, lease_id)
        check_reviewer(use, caller.id)  # nobody has to log in for what is refused anyway
        fields = review_fields(lease_id, findings)
        proof = self._fresh.demand(
            caller, fresh_id_token, REVIEW_BREAK_GLASS, fields, about=lease_id, not_before=use.created_at
        )
        return await self._store.review_use(
            NewFindings(
                tenant=caller.tenant,
                lease_id=lease_id,
                request_id=request_id,
                reviewer=caller.id,
                reviewer_name=caller.operator.person.display_name,
                findings=findings,
                proof=proof,
                now=self._clock.now(),
            )
        )

    async def override(self, caller: OperatorCaller, order: OverrideOrder, *, fresh_id_token: str) -> OverrideGiven:
        """One word, good for an hour, once. Raises Denied (SECOND_PERSON_REQUIRED) for a word for oneself."""
        person_in_force(caller)
        if blank(order.reason):
            raise unfit("reason", "say why it may be passed over", _SEE_HELP)
        now, person = self._clock.now(), whose(caller, order.person)
        fields = override_fields(order.kind.value, order.subject, order.person, order.reason)
        proof = self._fresh.demand(caller, fresh_id_token, OVERRIDE_BREAK_GLASS, fields, about=order.subject)
        said = {"kind": order.kind.value, "subject": order.subject, "person": person, "reason": order.reason}
        return await self._store.override(
            NewOverride(
                tenant=caller.tenant,
                id=OVERRIDE_PREFIX + self._rng.id(),
                request_id=order.request_id,
                request_digest=hashlib.sha256(canonical_json(said)).hexdigest(),
                kind=order.kind,
                subject=order.subject,
                person=person,
                by=caller.id,
                by_name=caller.operator.person.display_name,
                reason=order.reason,
                proof=proof,
                now=now,
                expires_at=now + OVERRIDE_LASTS,
            )
        )


def whose(caller: OperatorCaller, named: str) -> str:
    """issuer#subject of an enabled person, named by key or by that. Raises InvalidInput (BREAK_GLASS_VALUE_INVALID)."""
    for key, person in caller.deploy.people.items():
        if named in (key, person.id) and person.enabled(caller.now):
            return person.id
    raise unfit("person", f"{named!a} is nobody who is enabled in people.yaml", _SEE_HELP)
