"""What agents do all day: ask, lose patience, ask again, forget to confirm, hand on, give back, never come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from broker.identity.agent import Agent
from broker.issuance.delegations import DelegationOrder
from broker.issuance.issue import Grant
from broker.issuance.tasks import TaskOrder
from broker.plan.plan import Plan
from broker.ports.access_requests import FiledRequest
from broker.ports.leases import Lease
from broker.ports.tasks import Task
from broker.scope.request import AccessRequest
from tests.simulation.calling import Client, Work
from tests.simulation.people import approve
from tests.simulation.pipelines import Pipeline
from tests.simulation.world import AGENTS, APPROVERS, OWNERS, World


class Life:
    """One agent's. ``going`` False: what it began it ends, and begins nothing more."""

    def __init__(self, world: World, who: Agent) -> None:
        self._world = world
        self._chance = world.chance
        self._who = who
        self._call = Client(world, who)

    async def live(self, going: Callable[[], bool]) -> None:
        while going():
            await self._world.later(0, 2)
            await self._task(going)

    # ------------------------------------------------------------------ one task

    async def _task(self, going: Callable[[], bool]) -> None:
        colleague, third = (AGENTS[(AGENTS.index(self._who) + n) % len(AGENTS)] for n in (1, 2))
        duration = timedelta(seconds=int(self._chance.between(100, 300)))
        sponsor = self._chance.one_of(*APPROVERS, "", "", "")
        order = TaskOrder(
            self._chance.id(), "testing", duration, [str(each.spiffe_id) for each in (colleague, third)], "", sponsor
        )
        task = await self._call.call("StartTask", lambda broker, caller: broker.tasks.start(caller, order))
        if not isinstance(task, Task):
            await self._world.later(0, 2)
            return
        self._world.tasks = [*self._world.tasks[-5:], task.id]
        errands = int(self._chance.between(1, 6))
        if self._chance.often(0.3):
            await self._by_a_plan(Pipeline(self._world, task, self._who, colleague, third))
        elif self._chance.often(0.6):
            work = [self._errand(task, colleague) for _ in range(errands)]
            if self._chance.sometimes("completed while asking", 0.4):
                work.append(self._complete_meanwhile(task))
            await asyncio.gather(*work)
        else:
            for _ in range(errands):
                if going():
                    await self._errand(task, colleague)
        if self._chance.often(0.7):  # else its deadline ends it
            await self._complete(task)

    async def _by_a_plan(self, pipeline: Pipeline) -> None:
        plan = await pipeline.plan()
        if plan is None:
            return
        if self._chance.sometimes("a step asked for while its plan is decided about", 0.15):
            await asyncio.gather(pipeline.decide(plan), self._carry_out(pipeline, plan))
        else:
            await pipeline.decide(plan)
            await self._carry_out(pipeline, plan)

    async def _carry_out(self, pipeline: Pipeline, plan: Plan) -> None:
        for action in plan.actions:
            asked = pipeline.requests(plan, action)
            at_once = (Life(self._world, who).carry(request, self._who) for who, request in asked)
            await asyncio.gather(*at_once)
            if self._chance.sometimes("a step asked for again", 0.5):
                again = pipeline.requests(plan, action)
                await Life(self._world, again[-1][0]).carry(again[-1][1], self._who)

    async def _complete_meanwhile(self, task: Task) -> None:
        await asyncio.sleep(self._chance.between(0, 0.2))
        await self._complete(task)

    async def _complete(self, task: Task) -> None:
        wait = timedelta(seconds=self._chance.between(0, 2))
        await self._call.call("CompleteTask", lambda broker, caller: broker.tasks.complete(caller, task.id, wait))

    async def _errand(self, task: Task, colleague: Agent) -> None:
        request = AccessRequest(
            request_id=self._chance.id(),
            template=self._chance.one_of("orders-read", "orders-read", "orders-read", "reports-read"),
            task_id=task.id,
            account=self._chance.one_of("dev", "dev", "prod"),
            environment="dev",
            resource="orders",
            ttl=timedelta(seconds=int(self._chance.between(2, 40) if self._chance.often(0.6) else 150)),
        )
        await self.carry(request, colleague)

    async def carry(self, request: AccessRequest, colleague: Agent) -> None:
        """Ask for it, some times if need be, and use what comes of that."""
        for _ in range(3):
            answer = await self._request(request)
            if isinstance(answer, Grant) and answer.access_request is not None:
                answer = await self._after_approval(answer.access_request, self._call)
            if isinstance(answer, Grant) and answer.lease is not None:
                await self._use(answer.lease, request, colleague)
                if not self._chance.sometimes("asked again for what was given", 0.4):
                    return
            await asyncio.sleep(self._chance.between(0, 1))

    async def _request(self, request: AccessRequest) -> Any:
        ask: Work = lambda broker, caller: broker.issuer.request(caller, request)  # noqa: E731
        if self._chance.sometimes("asked twice at once", 0.1):
            return await self._call.call_twice("RequestCredential", ask, ask)
        return await self._call.call("RequestCredential", ask, impatient=True)

    # ------------------------------------------------------------------ one lease

    async def _use(self, lease: Lease, request: AccessRequest, colleague: Agent) -> None:
        if not self._chance.sometimes("delivery never confirmed", 0.2):
            await self._call.call(
                "ConfirmDelivery", lambda broker, caller: broker.leases.confirm(caller, lease.id, lease.attempt_id)
            )
        together = [self._hand_on(lease, request, colleague)] if self._chance.often(0.8) else []
        await asyncio.gather(self._work_with(lease), *together)

    async def _work_with(self, lease: Lease) -> None:
        await asyncio.sleep(self._chance.between(0, 15))
        if self._chance.often(0.5):
            await self._give_back(lease)

    async def _give_back(self, lease: Lease) -> None:
        wait = timedelta(seconds=1)
        await self._call.call("RevokeLease", lambda broker, caller: broker.leases.revoke(caller, lease.id, wait))

    async def _hand_on(self, lease: Lease, request: AccessRequest, colleague: Agent) -> None:
        """A part of it, to a colleague, who asks for a credential of its own."""
        order = DelegationOrder(self._chance.id(), lease.id, str(colleague.spiffe_id))
        handed = await self._call.call("Delegate", lambda broker, caller: broker.delegations.delegate(caller, order))
        if handed is None:
            return
        cited = replace(
            request,
            request_id=self._chance.id(),
            ttl=timedelta(seconds=2),
            delegation_id=handed.id,
            account=lease.account,
        )
        await asyncio.gather(
            self._ask_for_a_part(cited, Client(self._world, colleague)), self._give_back_meanwhile(lease)
        )

    async def _ask_for_a_part(self, cited: AccessRequest, colleague: Client) -> None:
        answer = await colleague.call("RequestCredential", lambda broker, caller: broker.issuer.request(caller, cited))
        if isinstance(answer, Grant) and answer.access_request is not None:
            await self._after_approval(answer.access_request, colleague)

    async def _give_back_meanwhile(self, lease: Lease) -> None:
        if self._chance.often(0.8):
            await asyncio.sleep(self._chance.between(0, 0.1))
            await self._give_back(lease)

    # ------------------------------------------------------------------ people say yes

    async def _after_approval(self, filed: FiledRequest, client: Client) -> Any:
        await asyncio.sleep(self._chance.between(0, 5))
        # Whoever is asked first says yes, and where that is refused somebody else; who owns the agent asks himself.
        first = OWNERS[filed.holder] if self._chance.often(0.2) else ""
        asked = sorted(APPROVERS, key=lambda key: (key not in first, self._chance.fraction()))
        for key in asked:
            yes = lambda broker, _, key=key: approve(self._world, broker, filed, key)  # noqa: E731
            if await client.call("ApproveAccessRequest", yes) is not None:
                break

        def redeem(name: str) -> Work:
            return lambda broker, caller: broker.issuer.redeem(caller, filed.id, name)

        if self._chance.sometimes("redeemed twice at once", 0.5):
            return await client.call_twice("RedeemAccessRequest", redeem("one"), redeem("other"))
        return await client.call("RedeemAccessRequest", redeem("one"), impatient=True)
