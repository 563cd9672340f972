"""Quotas on the way of a request: rates are counted here, living leases in the intent transaction.

A request is counted as soon as its template is known, whatever becomes of it, dry runs included: what a rate
protects is also the deciding. One refused by a rate counts nowhere.
"""

from __future__ import annotations

from datetime import timedelta

from broker.errors import Exhausted, NotFound, Reason
from broker.issuance.caller import Caller
from broker.policy.quotas import Asked, Counted, Per, Quota, belongs, counted
from broker.policy.rate import RateTable
from broker.ports.intents import LiveQuota
from broker.ports.lease_store import LeaseStore
from broker.scope.request import AccessRequest


class Rates:
    """The rates of the set in force. Counters live as long as their quota has its name, and not over a restart."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self._tables: dict[str, RateTable] = {}
        self._quotas: tuple[Quota, ...] = ()

    async def admit(self, caller: Caller, request: AccessRequest) -> None:
        """Count ``request``. Raises :class:`Exhausted` (QUOTA_REQUESTS), and then nothing is counted."""
        asked = asked_by(caller, request)
        if asked is None:
            return
        bounded = [each for each in counted(caller.deploy.quotas, asked) if each.quota.rate is not None]
        if any(each.quota.per is Per.TASK for each in bounded) and not await self._has_part(caller, request.task_id):
            # Whoever names another's task uses up none of its rate; the intent refuses them in its own words.
            bounded = [each for each in bounded if each.quota.per is not Per.TASK]
        self._follow(caller.deploy.quotas)
        for each in bounded:
            rate = each.quota.rate
            if rate is not None and (wait := self._table(each).wait(each.subject, rate, caller.now)):
                raise _too_often(each, wait)
        for each in bounded:
            if each.quota.rate is not None:
                self._table(each).spend(each.subject, each.quota.rate, caller.now)

    async def _has_part(self, caller: Caller, task_id: str) -> bool:
        try:
            task = await self._store.get_task(caller.tenant, task_id)
        except NotFound:
            return False
        return caller.id in task.participants

    def _table(self, each: Counted) -> RateTable:
        return self._tables.setdefault(each.quota.name, RateTable())

    def _follow(self, quotas: tuple[Quota, ...]) -> None:
        """Forget the counters of quotas that a reload took away."""
        if quotas is not self._quotas:
            self._quotas = quotas
            names = {quota.name for quota in quotas}
            self._tables = {name: table for name, table in self._tables.items() if name in names}


def asked_by(caller: Caller, request: AccessRequest) -> Asked | None:
    """What ``request`` is counted by; None where its template does not exist, which is refused elsewhere."""
    template = caller.deploy.templates.get(request.template)
    if template is None:
        return None
    return Asked(caller.agent, request.task_id, template.name, template.connector)


def live_quotas(caller: Caller, request: AccessRequest) -> tuple[LiveQuota, ...]:
    """What the intent transaction must count, beside the agent's own quota."""
    asked = asked_by(caller, request) if caller.deploy.quotas else None
    if asked is None or caller.is_broker:  # a canary neither waits for agents, nor takes a place from them
        return ()
    return tuple(
        _live(caller, each, each.quota.live_leases)
        for each in counted(caller.deploy.quotas, asked)
        if each.quota.live_leases is not None
    )


def _live(caller: Caller, each: Counted, limit: int) -> LiveQuota:
    per, subject, shown = each.quota.per, each.subject, each.shown
    if per is Per.ENTRY and not caller.agent.segments:
        # An exact entry is one identity: counted like one.
        per, subject = Per.AGENT, caller.id
    several = per in (Per.ENTRY, Per.OWNER)
    registry = caller.deploy.registry
    members = belongs(registry, per, subject) if several else None
    uncounted = "" if registry.own is None else str(registry.own.spiffe_id)
    return LiveQuota(each.quota.name, per, subject, limit, shown, members, uncounted)


def _too_often(each: Counted, wait: timedelta) -> Exhausted:
    quota, rate = each.quota, each.quota.rate
    assert rate is not None  # noqa: S101 - only rates are asked for a wait
    seconds = wait.total_seconds()
    return Exhausted(
        Reason.QUOTA_REQUESTS,
        f"quota {quota.name}: {quota.per} {each.shown} has made its {rate.requests} requests"
        f" per {rate.within.total_seconds():g} s.",
        hint=f"Try again in {seconds:.3g} s; an operator sets the quota in quotas.yaml.",
        metadata={
            "quota": quota.name,
            "per": quota.per,
            "subject": each.shown,
            "limit": str(rate.requests),
            "within": f"{rate.within.total_seconds():g}s",
        },
        retry_after=seconds,
    )
