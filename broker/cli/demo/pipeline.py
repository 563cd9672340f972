"""Step: planner, validator and executor are three agents, and each of their cheats is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from broker.cli.demo.database import enter
from broker.cli.demo.narrator import refusal
from broker.cli.demo.world import CHANGE_ORDERS, World, agent_id
from broker.client import PlannedAction
from broker.errors import Reason

_STEP = "execute"
_PLANNED = timedelta(minutes=2)


async def only_what_was_planned(world: World) -> None:
    """What is not confirmed, what exceeds the plan and what was had already are refused; the plan itself is granted."""
    tell = world.tell
    planner, validator, executor = (world.agent(name) for name in ("planner", "validator", "executor"))
    others = [str(agent_id(name)) for name in ("validator", "executor")]
    async with planner.task("refund returned orders", participants=others) as task:
        action = PlannedAction(
            step=_STEP, template="orders-readwrite", account="dev", environment="dev", resource="orders", ttl=_PLANNED
        )
        plan = await planner.register_plan(task.id, "Refund the returned orders of OPS-1207.", [action])
        asked = replace(CHANGE_ORDERS, step=_STEP, plan="", plan_id=plan.id, ttl=_PLANNED)
        tell.checked(plan.state == "REGISTERED", f"The planner registers plan {plan.digest[:12]}: one step, 2 minutes.")
        error = await refusal(
            planner.validate_plan(plan, confirm=True), Reason.AGENT_ROLE_REQUIRED, "confirming one's own plan"
        )
        tell.checked(bool(error.message), f"It cannot confirm its own plan: {error.reason}: {error.message}")
        error = await refusal(
            world.ask(executor, asked, task.id), Reason.PLAN_NOT_CONFIRMED, "executing a plan that nobody confirmed"
        )
        tell.checked(bool(error.message), f"Nor can the executor go ahead without: {error.reason}: {error.message}")
        confirmed = await validator.validate_plan(plan, confirm=True)
        tell.checked(confirmed.state == "CONFIRMED", "The validator confirms exactly that plan, by its digest.")
        error = await refusal(
            world.ask(executor, asked, task.id, ttl=2 * _PLANNED), Reason.PLAN_EXCEEDED, "asking for more than planned"
        )
        tell.checked(bool(error.message), f"The executor asks for longer: {error.reason}: {error.message}")
        grant = await world.ask(executor, asked, task.id)
        async with await enter(grant.conninfo()) as session:
            changed = await session.execute("UPDATE orders SET state = state")
        tell.checked(changed.rowcount > 0, "It asks for what was planned, gets it, and its login does the step.")
        error = await refusal(world.ask(executor, asked, task.id), Reason.PLAN_STEP_USED, "having the same step again")
        tell.checked(bool(error.message), f"The step is had once: {error.reason}: {error.message}")
