"""Stopping and starting again: what operators do with the kill switch."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from broker.approval.intent_digest import RESUME_SUSPENSION
from broker.errors import BrokerError, InvalidInput, NotFound, Reason
from broker.identity.agent import Registry
from broker.identity.spiffe_id import SpiffeId, is_trust_domain
from broker.issuance.caller import OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.holders import is_person
from broker.ports.clock import Clock, Rng
from broker.ports.deploys import DeploySet
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import Ended
from broker.ports.suspensions import Lifting, Members, NewSuspension, StillAlive
from broker.scope.blank import refuse_blank
from broker.scope.canonical import canonical_json
from broker.suspension.suspension import Kind, Suspension

log = structlog.get_logger("broker.issuance")

SUSPENSION_PREFIX = "susp-"
# A stop is answered by then, whether or not it could be said what lives on: a walk may be behind another one.
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class SuspensionOrder:
    """What an operator says to stop something. ``lasts`` None: until somebody lifts it."""

    request_id: str
    kind: Kind
    value: str
    reason: str
    lasts: timedelta | None

    def digest(self) -> str:
        """SHA-256 (hex) of everything said, for idempotency."""
        lasts = None if self.lasts is None else self.lasts // timedelta(microseconds=1)
        said = {"kind": self.kind.value, "value": self.value, "reason": self.reason, "lasts_us": lasts}
        return hashlib.sha256(canonical_json(said)).hexdigest()


@dataclass(frozen=True, slots=True)
class Stopped:
    """What came of it. ``known`` False: nothing deployed, or no task, is called so, which may be a slip.

    ``alive``: what it covers and may still work; None: that could not be read.
    """

    suspension: Suspension
    ended: Ended
    known: bool
    alive: Sequence[StillAlive] | None = None


class SuspensionDesk:
    """Everything operators do with suspensions. ``kick`` wakes a connector's revoker."""

    def __init__(
        self, store: LeaseStore, kick: Callable[[str], None], fresh: FreshLogins, clock: Clock, rng: Rng
    ) -> None:
        self._store = store
        self._fresh = fresh
        self._kick = kick
        self._clock = clock
        self._rng = rng

    async def suspend(self, caller: OperatorCaller, order: SuspensionOrder) -> Stopped:
        """Stop it now. Raises InvalidInput (SUSPENSION_VALUE_INVALID) for a value that can be nobody's."""
        refuse_blank("reason", order.reason)
        value, known = _checked(order, caller.deploy)
        now = self._clock.now()
        new = NewSuspension(
            tenant=caller.tenant,
            id=SUSPENSION_PREFIX + self._rng.id(),
            request_id=order.request_id,
            request_digest=order.digest(),
            kind=order.kind,
            value=value,
            reason=order.reason,
            author=caller.id,
            author_name=caller.operator.person.display_name,
            now=now,
            until=None if order.lasts is None else now + order.lasts,
        )
        members = members_of(caller.deploy.registry)
        suspension, ended = await self._store.suspend(new, members)
        self._kick_all(ended)
        if order.kind is Kind.TASK:
            known = await self._is_task(caller.tenant, value)
        return Stopped(suspension, ended, known, await self._alive(suspension, members))

    async def _alive(self, suspension: Suspension, members: Members) -> Sequence[StillAlive] | None:
        """Asked when it is stopped, as below: whatever becomes of the look, the stop stands, and its answer says so."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await self._store.still_alive(suspension, members)
        except (BrokerError, TimeoutError, ValueError, OverflowError) as failure:  # a time that somebody wrote
            log.warning(
                "what a suspension leaves alive could not be read", suspension=suspension.id, error=str(failure)
            )
            return None

    async def _is_task(self, tenant: str, task_id: str) -> bool:
        """Asked when it is stopped: no stop waits for a look, nor fails by it."""
        try:
            await self._store.get_task(tenant, task_id)
        except NotFound:
            return False
        except BrokerError:
            pass
        return True

    async def stop_agent(self, tenant: str, deploy: DeploySet, agent: str, reason: str) -> Suspension:
        """Suspend one SPIFFE ID by the broker's own decision (a rule of escalation.yaml), until a person lifts it."""
        name = self._rng.id()
        order = SuspensionOrder(name, Kind.AGENT, agent, reason, None)
        new = NewSuspension(
            tenant=tenant,
            id=SUSPENSION_PREFIX + name,
            request_id=order.request_id,
            request_digest=order.digest(),
            kind=order.kind,
            value=agent,
            reason=reason,
            author="broker",
            author_name="the broker itself (an escalation rule)",
            now=self._clock.now(),
            until=None,
        )
        suspension, ended = await self._store.suspend(new, members_of(deploy.registry))
        self._kick_all(ended)
        return suspension

    async def resume(
        self, caller: OperatorCaller, suspension_id: str, request_id: str, reason: str, *, fresh_id_token: str
    ) -> Suspension:
        """Lift it, or be the first of two where two must; each by a login for exactly this.

        Raises :class:`Denied` (FRESH_LOGIN_*), :class:`Unauthenticated` (ID_TOKEN_*), and what ``LeaseStore.resume``
        raises.
        """
        refuse_blank("reason", reason)
        fields = {"suspension_id": suspension_id, "reason": reason}
        # Its id is random: nobody can have logged in for it before it was there.
        proof = self._fresh.demand(caller, fresh_id_token, RESUME_SUSPENSION, fields, about=suspension_id)
        lifting = Lifting(
            tenant=caller.tenant,
            id=suspension_id,
            request_id=request_id,
            by=caller.id,
            name=caller.operator.person.display_name,
            reason=reason,
            now=self._clock.now(),
            proof=proof,
        )
        return await self._store.resume(lifting)

    async def list(
        self, caller: OperatorCaller, *, ended: bool, after: str, limit: int
    ) -> tuple[Sequence[Suspension], str]:
        """A page, newest first, and the id to continue after (empty: the end)."""
        found = await self._store.suspensions(caller.tenant, ended, after, limit + 1)
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else ""

    async def tend(self, tenant: str, deploy: DeploySet) -> Ended:
        """Once a second: what time, a crash or a reload left to be done."""
        ended = await self._store.tend_suspensions(tenant, members_of(deploy.registry), self._clock.now())
        self._kick_all(ended)
        return ended

    def _kick_all(self, ended: Ended) -> None:
        for connector in ended.connectors:
            self._kick(connector)


def members_of(registry: Registry) -> Members:
    """Of a holder, its entry and who answers for it; empty where it is registered no more."""

    def members(holder: str) -> tuple[str, str]:
        if is_person(holder):
            return "", holder  # who stops all that a person answers for stops what the person holds
        try:
            agent = registry.find(SpiffeId.parse(holder))
        except BrokerError:
            return "", ""
        return agent.principal, agent.owner.id

    return members


def _checked(order: SuspensionOrder, deploy: DeploySet) -> tuple[str, bool]:
    """The value as it is kept, and whether the deploy set knows it."""
    kind, value = order.kind, order.value
    if (kind is Kind.EVERYTHING) is bool(value):
        raise _refused(kind, value, "takes no value" if kind is Kind.EVERYTHING else "needs a value")
    match kind:
        case Kind.AGENT:
            return value, _spiffe_id(value) in deploy.registry
        case Kind.OWNER:
            return _owner(value, deploy)
        case Kind.TRUST_DOMAIN:
            if not is_trust_domain(value):
                raise _refused(kind, value, "must be the name of a trust domain, without spiffe://")
            return value, any(agent.spiffe_id.trust_domain == value for agent in deploy.registry) or any(
                entry.pattern.trust_domain == value for entry in deploy.registry.patterns
            )
        case Kind.ENTRY:
            return value, value in {each.principal for each in (*deploy.registry, *deploy.registry.patterns)}
        case Kind.TEMPLATE:
            return value, value in deploy.templates
        case Kind.CONNECTOR:
            return value, value in deploy.connectors
        case Kind.ACCOUNT:
            return value, any(value in template.accounts for template in deploy.templates.values())
        case _:
            return value, True


def _spiffe_id(value: str) -> SpiffeId:
    try:
        return SpiffeId.parse(value)
    except BrokerError as error:
        raise _refused(Kind.AGENT, value, f"must be a SPIFFE ID: {error.message}") from None


def _owner(value: str, deploy: DeploySet) -> tuple[str, bool]:
    """By key of people.yaml, or by issuer#subject for one who is not there any more."""
    if value in deploy.people:
        return deploy.people[value].id, True
    if "#" not in value:
        raise _refused(Kind.OWNER, value, "is nobody in people.yaml; write a key of it, or issuer#subject")
    return value, value in {person.id for person in deploy.people.values()}


def _refused(kind: Kind, value: str, why: str) -> InvalidInput:
    return InvalidInput(
        Reason.SUSPENSION_VALUE_INVALID,
        f"{kind.value} {value!a}: {why.rstrip('.')}.",
        hint="`broker suspend --help` shows what each kind takes.",
        metadata={"kind": kind.value, "value": value[:200]},
    )
