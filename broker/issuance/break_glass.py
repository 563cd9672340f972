"""Break-glass: a person passes over approvals and gates, for themselves or for a named agent's task.

Whether somebody may is decided in ``break_glass_admission.py``, the way from the intent on is the Issuer's. What is
passed over: approvals (where policy says *needs approval*), the stops of :meth:`Gate.passed_over`, quotas of what
agents hold. What is not: who somebody is, the template's scope, the connector's contract, a deny of policy that no
approval would open, suspensions (but by others' words), the intent before the upstream, confirmation of delivery,
revocation, the trail. Why each is where it is stands in docs/decisions/break-glass.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from broker.approval.intent_digest import BREAK_GLASS
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.breakglass.reviews import Use
from broker.breakglass.rules import BreakGlassRule, check_words
from broker.errors import BrokerError, Denied, NotFound, Reason
from broker.identity.agent import TO_PEOPLE, Agent, Person
from broker.identity.operator import Role
from broker.issuance.break_glass_admission import Admission, Asked, as_agent, person_in_force
from broker.issuance.break_glass_order import BreakGlassOrder, Proven, fields_of, own_task
from broker.issuance.caller import OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.fresh_logins import proven as as_proven
from broker.issuance.gate import Gate
from broker.issuance.holders import enabled_people
from broker.issuance.issue import Grant, Issuer
from broker.issuance.records import decided_on
from broker.issuance.redemption import LEASE_PREFIX
from broker.issuance.situation import seen
from broker.issuance.waiting import only_time_ends, until
from broker.lease.machine import TERMINAL
from broker.policy.decision import Decision
from broker.ports.break_glass import NewUse
from broker.ports.clock import Clock, Rng
from broker.ports.connectors import Connector
from broker.ports.deploys import DeploySet
from broker.ports.intents import Intent
from broker.ports.leases import EndCause, Lease, Selector
from broker.ports.ledger import Ledger
from broker.ports.tasks import DEFAULT_LIMITS, TaskLimits
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope, ScopeTemplate

log = structlog.get_logger("broker.issuance")

# Who ends another's use.
MAY_END = frozenset({Role.APPROVER, Role.OPERATOR, Role.SECURITY})
# Of people, how many are named in the event that tells them; all of them are counted.
_MOST_TOLD = 200
_NO_QUOTA = 10_000


@dataclass(frozen=True, slots=True)
class Option:
    """One template that a person may break glass on."""

    template: ScopeTemplate
    rule: BreakGlassRule
    groups: frozenset[str]
    blocked_by: str  # the lease whose overdue review blocks it; empty


class BreakGlassDesk:
    """Everything that is done with a use of break-glass but its review. ``connectors`` finds one by name."""

    def __init__(
        self,
        store: Ledger,
        issuer: Issuer,
        connectors: Callable[[str], Connector | None],
        kick: Callable[[str], None],
        gate: Gate,
        clock: Clock,
        rng: Rng,
        *,
        fresh: FreshLogins,
        issue_timeout: timedelta,
        limits: TaskLimits = DEFAULT_LIMITS,
    ) -> None:
        self._fresh = fresh
        self._store = store
        self._issuer = issuer
        self._admission = Admission(store, connectors)
        self._kick = kick
        self._gate = gate
        self._clock = clock
        self._rng = rng
        self._issue_timeout = issue_timeout
        self._limits = limits

    # ------------------------------------------------------------------ use

    async def use(
        self, caller: OperatorCaller, order: BreakGlassOrder, *, fresh_id_token: str = "", proven: Proven | None = None
    ) -> Grant:
        """The credential, once: by a login for exactly this, or (``proven``) by a sealed code.

        The same request id again is a retry of the same use.

        Raises InvalidInput (BREAK_GLASS_REASON_MISSING, BREAK_GLASS_INCIDENT_MISSING, TTL_*, what binding refuses),
        Denied (BREAK_GLASS_NOT_ALLOWED, FRESH_LOGIN_TOO_WEAK, BREAK_GLASS_BLOCKED, POLICY_DENIED, SUSPENDED),
        Exhausted (BREAK_GLASS_RATE), and what the Issuer raises. Nothing is issued then.
        """
        caller = replace(caller, now=self._clock.now())
        check_words(order.reason, order.incident)
        if proven is None:
            record = self._fresh.demand(caller, fresh_id_token, BREAK_GLASS, fields_of(order), about=order.request_id)
            caller, proven = as_proven(caller, record), Proven(record)
        asked = await self._admission.admit(caller, order, proven)
        gates = self._gate.passed_over(caller.now)
        intent = self._intent(caller, order, proven, asked, gates)
        try:
            return await self._issuer.emergency(intent, asked.connector, asked.situation)
        except Denied as refused:
            if refused.reason is Reason.BREAK_GLASS_BLOCKED:
                await self._tell_blocked(caller, order, refused)
            raise

    def _intent(
        self, caller: OperatorCaller, order: BreakGlassOrder, proven: Proven, asked: Asked, gates: tuple[str, ...]
    ) -> Intent:
        name, now, agent = self._rng.id(), caller.now, asked.agent
        attempt_id, expires_at = self._issuer.mark.attempt(name), now + asked.scope.ttl
        told = would_have_approved(caller, asked.decision, asked.scope, agent)
        new = NewUse(
            person=caller.id,
            person_name=caller.operator.person.display_name,
            for_agent="" if agent is None else asked.holder,
            groups=asked.groups,
            reason=order.reason,
            incident=order.incident,
            how=proven.how,
            proof=None if proven.record is None else replace(proven.record, about=LEASE_PREFIX + name),
            code_id=proven.code_id,
            review_due=now + asked.rule.review_within,
            max_uses=asked.rule.max_uses,
            per=asked.rule.per,
            approvals=asked.decision.approvals,
            told=tuple((person.id, person.display_name) for person in told if person.id != caller.id)[:_MOST_TOLD],
            gates=gates,
            task=None if agent is not None else own_task(caller, order, asked.request),
            enabled=enabled_people(caller.deploy, now),
        )
        audit: dict[str, JsonValue] = {
            "reason": order.reason,
            "incident": order.incident,
            "person": caller.id,
            "delivery": TO_PEOPLE,
            "sealed": False,
            "principal": "" if agent is None else agent.principal,
        }
        if agent is not None:
            audit["decided_on"] = decided_on(as_agent(caller, agent), asked.scope, asked.situation)
        return Intent(
            tenant=caller.tenant,
            lease_id=LEASE_PREFIX + name,
            attempt_id=attempt_id,
            holder=asked.holder,
            entry="" if agent is None else agent.principal,
            owner=caller.id if agent is None else agent.owner.id,
            svid_serial="",
            request=asked.request,
            request_digest=asked.request.digest(),
            scope=asked.scope,
            contract_class=asked.connector.contract.cls,
            decision=asked.decision,
            handle=asked.connector.prepare(
                asked.scope, attempt_id, asked.holder, expires_at, task_id=asked.request.task_id
            ),
            now=now,
            issue_deadline=now + self._issue_timeout,
            expires_at=expires_at,
            max_live_leases=_NO_QUOTA,
            audit=audit,
            seen=None if agent is None else seen(as_agent(caller, agent), asked.request, asked.situation),
            limits=self._limits,
            break_glass=new,
        )

    async def _tell_blocked(self, caller: OperatorCaller, order: BreakGlassOrder, refused: Denied) -> None:
        about = {"template": order.template, "incident": order.incident, "why": refused.message, **refused.metadata}
        event = AuditEvent(
            EventType.BREAK_GLASS_BLOCKED, caller.id, Vouch.BROKER, tenant=caller.tenant, data=dict(about)
        )
        try:
            await self._store.append([event], caller.now)
        except BrokerError as lost:
            log.error("a blocked break-glass could not be recorded", person=caller.id, reason=lost.reason)

    # ------------------------------------------------------------------ after it

    async def confirm(self, caller: OperatorCaller, lease_id: str, attempt_id: str) -> Lease:
        """The credential has arrived. Only who broke the glass can say so."""
        use, lease = await self._store.get_use(caller.tenant, lease_id)
        if use.person != caller.id:
            raise _not_found(lease_id)
        now = self._clock.now()
        return await self._store.confirm_delivery(caller.tenant, lease_id, lease.holder, attempt_id, now, caller.id)

    async def end(self, caller: OperatorCaller, lease_id: str, wait: timedelta) -> tuple[Use, Lease]:
        """End it now. Its state after at most ``wait``. Raises Denied (ROLE_REQUIRED) for who only looks."""
        use, lease = await self._store.get_use(caller.tenant, lease_id)
        if use.person != caller.id and not MAY_END & caller.roles:
            raise Denied(
                Reason.ROLE_REQUIRED,
                f"{lease_id} is ended by who broke the glass, or with one of the roles {', '.join(sorted(MAY_END))}.",
                hint="Ask somebody who has one; or suspend what it touches.",
                metadata={"needed": ",".join(sorted(MAY_END)), "roles": ",".join(sorted(caller.roles))},
            )
        if lease.state not in TERMINAL:
            selector = Selector(caller.tenant, lease_id=lease_id)
            await self._store.end_leases(selector, EndCause.RELEASED, caller.id, self._clock.now())
            self._kick(lease.connector)

        async def ended() -> bool:
            nonlocal use, lease
            use, lease = await self._store.get_use(caller.tenant, lease_id)
            return lease.state in TERMINAL or only_time_ends(lease)

        await until(ended, self._store, wait.total_seconds())
        return use, lease

    async def check_code(self, caller: OperatorCaller, lease_id: str, proven: Proven) -> None:
        """Raises NotFound unless the lease is the one that this code got."""
        use, _ = await self._store.get_use(caller.tenant, lease_id)
        if (use.person, use.code_id) != (caller.id, proven.code_id):
            raise _not_found(lease_id)

    async def get(self, caller: OperatorCaller, lease_id: str) -> tuple[Use, Lease]:
        """One use."""
        return await self._store.get_use(caller.tenant, lease_id)

    async def list(
        self, caller: OperatorCaller, *, unsettled: bool, after: str, limit: int
    ) -> tuple[Sequence[tuple[Use, Lease]], str]:
        """A page of everybody's uses, newest first, and the id to continue after (empty: the end)."""
        found = await self._store.uses(caller.tenant, unsettled, after, limit + 1)
        page = found[:limit]
        return page, page[-1][0].lease_id if len(found) > limit else ""

    async def options(self, caller: OperatorCaller) -> Sequence[Option]:
        """What the caller may break glass on, and what blocks it."""
        groups = person_in_force(caller).groups
        blocked = await self._store.blocked(caller.tenant, groups, self._clock.now())
        return [
            Option(caller.deploy.templates[name], rule, rule.groups & groups, _first(blocked, rule.groups))
            for name, rule in sorted(caller.deploy.break_glass.items())
            if rule.groups & groups and name in caller.deploy.templates
        ]

    async def tend(self, tenant: str, deploy: DeploySet) -> Mapping[str, str]:
        """Once a second: tell ends and overdue reviews, end what people got who are gone.

        The groups that are blocked now, each with the lease that is to be reviewed.
        """
        now = self._clock.now()
        tended = await self._store.tend_uses(tenant, enabled_people(deploy, now), now, by=deploy.digest)
        for lease_id in tended.overdue:
            log.error("the review of a break-glass is overdue; its groups are blocked", lease=lease_id)
        for connector in tended.connectors:
            self._kick(connector)
        groups = frozenset(group for rule in deploy.break_glass.values() for group in rule.groups)
        return await self._store.blocked(tenant, groups, self._clock.now()) if groups else {}


def would_have_approved(caller: OperatorCaller, decision: Decision, scope: Scope, agent: Agent | None) -> list[Person]:
    """Everybody whose yes was passed over, by key: of the gates that fired; for a person, for whom none was asked, of
    all that there are for such an access.
    """
    deploy = caller.deploy
    names = decision.approvals if agent is not None else deploy.policies.approvals_about[scope.access.value]
    rules = [deploy.approvals[name] for name in names if name in deploy.approvals]
    groups = {quorum.group for rule in rules for quorum in rule.any_of}
    people = [person for _, person in sorted(deploy.people.items())]
    return [person for person in people if person.enabled(caller.now) and person.groups & groups]


def _first(blocked: Mapping[str, str], groups: frozenset[str]) -> str:
    return next((blocked[group] for group in sorted(groups) if group in blocked), "")


def _not_found(lease_id: str) -> NotFound:
    return NotFound(
        Reason.BREAK_GLASS_NOT_FOUND,
        f"{lease_id!a} is no use of break-glass of yours.",
        hint="`broker break-glass list` shows them.",
        metadata={"leaseId": lease_id},
    )
