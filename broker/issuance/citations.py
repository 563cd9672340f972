"""What a request cites, a step of a plan or a delegation: looked up and held against it before policy decides.

The intent transaction asks all of it again (``broker/stores/citation_ops.py``). Here it is asked early, so that no
policy and no person decides on what could not be granted anyway, and so that they know what it is a part of.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from broker.delegation.delegation import Delegation, check_redemption
from broker.errors import InvalidInput, Reason
from broker.identity.party import party
from broker.issuance.caller import Caller
from broker.plan.execution import check_execution
from broker.policy.facts import NOTHING_KNOWN, Situation
from broker.ports.intents import Citation
from broker.ports.leases import Lease
from broker.ports.ledger import Ledger
from broker.scope.bind import bind
from broker.scope.containment import Reach, reach_of
from broker.scope.model import Scope
from broker.scope.narrowing import narrowings
from broker.scope.request import AccessRequest

CONFIRMED = "confirmed"


def cite(caller: Caller, request: AccessRequest, scope: Scope) -> Citation | None:
    """What the request, bound to ``scope``, rests on besides its own; None where it cites nothing."""
    if not (request.plan_id or request.delegation_id):
        return None
    template = caller.deploy.templates[request.template]
    return Citation(
        plan_id=request.plan_id,
        delegation_id=request.delegation_id,
        party=party(caller.agent),
        roles=caller.agent.roles,
        reach=reach_of(scope),
        planned=reach_of(scope, without=template.from_identity, ttl=scope.ttl),
        compared=narrowings(template),
    )


class Citations:
    """Looks up what requests cite."""

    def __init__(self, store: Ledger) -> None:
        self._store = store

    async def situation(self, caller: Caller, request: AccessRequest) -> Situation:
        """What is known around a request by what it cites. Raises where that does not cover it."""
        if not (request.plan_id or request.delegation_id):
            return NOTHING_KNOWN
        if request.plan_id and request.delegation_id:
            raise InvalidInput(
                Reason.FIELD_INVALID,
                "a request cites a plan or a delegation, not both.",
                hint="What is delegated of a plan's step stays bound to the plan by itself.",
                metadata={"fields": "plan_id,delegation_id"},
            )
        task = await self._store.get_task(caller.tenant, request.task_id)
        template = caller.deploy.templates.get(request.template)
        if template is None or caller.id not in task.participants:
            # The request is refused for that, in the words of whoever checks it.
            return NOTHING_KNOWN
        citation = cite(caller, request, bind(template, request, dict(caller.agent.segments)))
        assert citation is not None  # noqa: S101 - it cites one of both
        if citation.plan_id:
            return await self._planned(caller, request, citation)
        return await self._delegated(caller, request, citation)

    async def _planned(self, caller: Caller, request: AccessRequest, citation: Citation) -> Situation:
        plan = await self._store.get_plan(caller.tenant, citation.plan_id)
        check_execution(
            plan,
            request.task_id,
            request.step,
            citation.party,
            citation.roles,
            citation.planned,
            citation.compared,
            caller.now,
        )
        return Situation(plan=CONFIRMED)

    async def _delegated(self, caller: Caller, request: AccessRequest, citation: Citation) -> Situation:
        delegation, lease = await self._store.redeemable(
            caller.tenant, citation.delegation_id, citation.party, caller.now
        )
        latest_end = min(delegation.expires_at, lease.expires_at)
        asked = replace(citation.reach, ends_at=min(caller.now + request.ttl, latest_end))
        whole = _reach(lease, delegation, latest_end)
        check_redemption(delegation, request.task_id, citation.party, whole, asked, citation.compared, caller.now)
        return Situation(
            plan=CONFIRMED if lease.plan_id else "",
            delegators=tuple(each.principal for each in delegation.chain),
            latest_end=latest_end,
        )


def _reach(lease: Lease, delegation: Delegation, ends_at: datetime) -> Reach:
    return Reach(
        template=lease.template,
        template_digest=lease.template_digest,
        connector=lease.connector,
        account=lease.account,
        environment=lease.environment,
        resource=lease.resource,
        access=lease.access,
        actions=frozenset(lease.actions),
        parameters=lease.parameters,
        ends_at=ends_at,
        further=delegation.further,
    )
