"""Watching refusals for escalation attempts, and answering them.

Refusals of authenticated agents come in from the door's one place where refusals are recorded. Whether a task or
lease that was "not found" is really somebody else's is asked afterwards, on a queue: the agent has its answer by
then, the same one for both, and neither its words nor its time can tell it which it was.

Suspending is somebody else's work (``Suspend``). Where that is not possible, the agent cools down instead: an
enforced rule is never answered with nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.errors import BrokerError, Exhausted, NotFound, Reason
from broker.escalation.detect import Detector, Firing
from broker.escalation.rules import Answer, Counts, Mode, Rule, Sighting, family_of
from broker.issuance.caller import Caller
from broker.ports.clock import Clock
from broker.ports.deploys import DeploySource
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import NO_IDS, NamedIds
from broker.scope.canonical import JsonValue

log = structlog.get_logger("broker.escalation")

# Tenant, SPIFFE ID, the reason to tell, the time. Suspends that one identity, until somebody resumes it.
Suspend = Callable[[str, str, str, datetime], Awaitable[None]]

# Not found, and not looked into yet. What comes above it is dropped, and counted.
MAX_QUESTIONS = 1_000
# SPIFFE IDs that cool down at once. Above it the one that would be free soonest is let go.
MAX_COOLING = 50_000
# Where an agent should have been suspended and could not be.
INSTEAD_OF_SUSPENSION = timedelta(hours=1)
# What a firing is answered with where it is only observed.
NOTHING = "none"


class Tell(Protocol):
    """Where firings are counted."""

    def escalation(self, rule: str, mode: str, took: str) -> None:
        """One firing; ``took`` is what was done about it."""
        ...

    def unquestioned(self) -> None:
        """One id that was not found was not looked into, because too many were."""
        ...


@dataclass(frozen=True, slots=True)
class Named:
    """What a refused request named. Empty where it named nothing of the kind, or was not read at all."""

    request_id: str = ""
    template: str = ""
    resource: str = ""
    ids: NamedIds = NO_IDS


@dataclass(frozen=True, slots=True)
class _Question:
    sighting: Sighting
    tenant: str
    named: Named


class Watch:
    """Belongs to one event loop; :meth:`run` answers questions until it is cancelled."""

    def __init__(
        self,
        store: LeaseStore,
        deploy: DeploySource,
        tell: Tell,
        clock: Clock,
        tenant: str,
        suspend: Suspend | None = None,
    ) -> None:
        self._store = store
        self._deploy = deploy
        self._tell = tell
        self._clock = clock
        self._tenant = tenant
        self._suspend = suspend
        self._detector = Detector()
        self._cooling: dict[str, datetime] = {}
        self._questions: asyncio.Queue[_Question] = asyncio.Queue(MAX_QUESTIONS)

    def check(self, who: str, now: datetime) -> None:
        """Raises :class:`Exhausted` (COOLING_DOWN) for a SPIFFE ID that may ask for nothing at ``now``."""
        until = self._cooling.get(who)
        if until is None:
            return
        if until <= now:
            del self._cooling[who]
            return
        seconds = (until - now).total_seconds()
        raise Exhausted(
            Reason.COOLING_DOWN,
            f"{who} was refused too much lately, and may ask for nothing until {until.isoformat()}.",
            hint="Give back what you hold; ask the agent's owner what it was trying to do.",
            metadata={"until": until.isoformat()},
            retry_after=seconds,
        )

    async def refused(self, failure: BrokerError, method: str, caller: Caller, named: Named) -> None:
        """Count one refusal of an authenticated, registered agent, and answer whatever fires."""
        rules, family = self._deploy.current.escalation, family_of(failure)
        if not rules or family is None:
            return
        sighting = Sighting(
            spiffe_id=caller.id,
            entry=caller.agent.principal,
            at=caller.now,
            reason=failure.reason,
            family=family,
            method=method.rpartition("/")[2],
            request_id=named.request_id,
            template=named.template,
            resource=named.resource,
        )
        await self._see(rules, sighting)
        if family is NotFound and any(rule.counts is Counts.FOREIGN_IDS for rule in rules):
            self._ask(_Question(replace(sighting, foreign=True), caller.tenant, named))

    async def run(self) -> None:
        """Look into what was not found, one after the other, for ever."""
        while True:
            question = await self._questions.get()
            try:
                await self._look_into(question)
            finally:
                self._questions.task_done()

    async def settle(self) -> None:
        """Wait until every question so far is answered; :meth:`run` must be under way."""
        await self._questions.join()

    async def forget(self) -> None:
        """What needs no memory any more; called now and then."""
        now = self._clock.now()
        self._detector.forget(self._deploy.current.escalation, now)
        self._cooling = {who: until for who, until in self._cooling.items() if until > now}

    def _ask(self, question: _Question) -> None:
        if not any(question.named.ids):
            return
        try:
            self._questions.put_nowait(question)
        except asyncio.QueueFull:
            self._tell.unquestioned()

    async def _look_into(self, question: _Question) -> None:
        named, who = question.named, question.sighting.spiffe_id
        try:
            theirs = await self._store.is_someone_elses(question.tenant, who, named.ids)
        except BrokerError as failure:
            log.error("an id that was not found could not be looked into", agent=who, reason=failure.reason)
            return
        if theirs:
            await self._see(self._deploy.current.escalation, question.sighting)

    async def _see(self, rules: tuple[Rule, ...], sighting: Sighting) -> None:
        for firing in self._detector.see(rules, sighting):
            took = await self._answer(firing)
            rule = firing.rule
            self._tell.escalation(rule.name, rule.mode, took)
            log.warning(
                "escalation attempt",
                rule=rule.name,
                mode=rule.mode,
                took=took,
                agent=firing.spiffe_id,
                entry=firing.entry,
                count=firing.count,
                reasons=dict(firing.reasons),
            )
            try:
                await self._store.append([_event(self._tenant, firing, took)], self._clock.now())
            except BrokerError as lost:
                log.error("an escalation attempt could not be recorded", rule=rule.name, reason=lost.reason)

    async def _answer(self, firing: Firing) -> str:
        rule, who = firing.rule, firing.spiffe_id
        if rule.mode is Mode.OBSERVE:
            return NOTHING
        match rule.answer:
            case Answer.ALERT:
                return Answer.ALERT
            case Answer.COOL_DOWN:
                self._cool_down(who, firing.last + rule.cool_down)
                return Answer.COOL_DOWN
            case Answer.SUSPEND:
                if await self._suspended(firing):
                    return Answer.SUSPEND
                self._cool_down(who, firing.last + INSTEAD_OF_SUSPENSION)
                return Answer.COOL_DOWN

    async def _suspended(self, firing: Firing) -> bool:
        if self._suspend is None:
            log.error("this broker cannot suspend agents; it cools down instead", agent=firing.spiffe_id)
            return False
        why = f"escalation rule {firing.rule.name}: {firing.count} {firing.rule.counts} within {firing.rule.within}"
        try:
            await self._suspend(self._tenant, firing.spiffe_id, why, self._clock.now())
        except BrokerError as failure:
            log.error("an agent could not be suspended; it cools down instead", reason=failure.reason)
            return False
        return True

    def _cool_down(self, who: str, until: datetime) -> None:
        self._cooling[who] = max(until, self._cooling.get(who, until))
        if len(self._cooling) > MAX_COOLING:
            del self._cooling[min(self._cooling, key=lambda each: self._cooling[each])]


def _event(tenant: str, firing: Firing, took: str) -> AuditEvent:
    rule = firing.rule
    data: dict[str, JsonValue] = {
        "rule": rule.name,
        "mode": rule.mode.value,
        "answer": rule.answer.value,
        "took": str(took),
        "agent": firing.spiffe_id,
        "entry": firing.entry,
        "counts": rule.counts.value,
        "count": firing.count,
        "within_ms": rule.within // timedelta(milliseconds=1),
        "first": firing.first.isoformat(timespec="milliseconds"),
        "last": firing.last.isoformat(timespec="milliseconds"),
        "reasons": dict(firing.reasons),
        "methods": list(firing.methods),
        "templates": list(firing.templates),
        "request_ids": list(firing.request_ids),
    }
    return AuditEvent(EventType.ESCALATION_DETECTED, BROKER, Vouch.BROKER, tenant=tenant, data=data)
