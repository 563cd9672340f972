"""What agents do in a pipeline: one plans, one decides about it, one carries it out; each tries what is not for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

from broker.identity.agent import Agent
from broker.issuance.plans import PlanOrder, Proposal
from broker.plan.machine import PlanEvent
from broker.plan.plan import Action, Plan
from broker.ports.tasks import Task
from broker.scope.request import AccessRequest
from tests.simulation.calling import Client, Work
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Of one task. Each of ``agents`` takes part in it: who plans, who validates, who executes."""

    world: World
    task: Task
    planner: Agent
    validator: Agent
    executor: Agent

    async def plan(self) -> Plan | None:
        """A plan of one step or more; some are valid for moments only."""
        chance = self.world.chance
        steps = [self._proposal(f"step-{n}") for n in range(int(chance.between(1, 4)))]
        moments = timedelta(seconds=int(chance.between(1, 8))) if chance.often(0.15) else None
        order = PlanOrder(chance.id(), self.task.id, "Count the orders.", steps, moments)
        client = Client(self.world, self.planner)
        register: Work = lambda broker, caller: broker.plans.register(caller, order)  # noqa: E731
        if chance.sometimes("a plan registered twice at once", 0.1):
            return await client.call_twice("RegisterPlan", register, register)
        return await client.call("RegisterPlan", register)

    def _proposal(self, step: str) -> Proposal:
        chance = self.world.chance
        template = chance.one_of("orders-read", "orders-read", "orders-read", "reports-read")
        ttl = timedelta(seconds=int(chance.between(2, 40)))
        return Proposal(step, template, chance.one_of("dev", "dev", "prod"), "dev", "orders", ttl)

    async def decide(self, plan: Plan) -> None:
        """Mostly the validator confirms. Some reject, some decide twice at once, some forget; some planners try it."""
        chance = self.world.chance
        await asyncio.sleep(chance.between(0, 0.5))
        who = self.planner if chance.sometimes("a plan confirmed by its planner", 0.08) else self.validator
        client = Client(self.world, who)
        confirm, reject = self._decision(plan, PlanEvent.CONFIRM), self._decision(plan, PlanEvent.REJECT)
        if chance.sometimes("a plan confirmed and rejected at once", 0.1):
            await client.call_twice("DecidePlan", confirm, reject)
        elif chance.sometimes("a plan rejected", 0.12):
            await client.call("DecidePlan", reject)
        elif not chance.sometimes("a plan that nobody decides about", 0.08):
            await client.call("DecidePlan", confirm)

    def _decision(self, plan: Plan, event: PlanEvent) -> Work:
        return lambda broker, caller: broker.plans.decide(caller, plan.id, plan.digest, event, "looked at it")

    def requests(self, plan: Plan, action: Action) -> list[tuple[Agent, AccessRequest]]:
        """Who asks for a step, and what for: the executor, for that or less; now and then others, or for more."""
        chance = self.world.chance
        who = self.executor
        if chance.sometimes("a step asked for by who planned or validated it", 0.1):
            who = self.planner if chance.often(0.5) else self.validator
        request = self._request(plan, action)
        if chance.sometimes("more asked for than was planned", 0.15):
            request = self._more(request, action)
        asked = [(who, request)]
        if chance.sometimes("a step asked for by two at once", 0.4):
            asked.append((self.executor, self._request(plan, action)))
        return asked

    def _request(self, plan: Plan, action: Action) -> AccessRequest:
        planned = action.reach.ttl or timedelta(seconds=2)
        less = timedelta(seconds=int(self.world.chance.between(1, planned.total_seconds())))
        return AccessRequest(
            request_id=self.world.chance.id(),
            template=action.reach.template,
            task_id=self.task.id,
            account=action.reach.account,
            environment=action.reach.environment,
            resource=action.reach.resource,
            ttl=less if self.world.chance.often(0.5) else planned,
            step=action.step,
            plan_id=plan.id,
        )

    def _more(self, request: AccessRequest, action: Action) -> AccessRequest:
        """In one dimension or the other."""
        if self.world.chance.often(0.5):
            return replace(request, ttl=(action.reach.ttl or request.ttl) + timedelta(seconds=1))
        return replace(request, account="prod" if request.account == "dev" else "dev")
