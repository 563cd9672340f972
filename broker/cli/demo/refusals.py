"""Steps: what is refused, to whom, and what a stranger can see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from broker.cli.demo.database import turned_away
from broker.cli.demo.narrator import refusal
from broker.cli.demo.world import CHANGE_ORDERS, READ_ORDERS, READ_REPORT, World
from broker.client import AsyncClient
from broker.errors import Reason
from broker.scope.request import AccessRequest

_TOO_LONG = timedelta(minutes=16)  # orders-readonly: at most 15
_SIX_MINUTES = timedelta(minutes=6)  # the template allows 15, the policy for autonomous agents 5


async def refuses_with_reasons(world: World) -> None:
    """Outside the template, and outside policy: nothing is issued, and the agent is told why."""
    tell, analyst, reporter = world.tell, world.agent("analyst"), world.agent("reporter")
    before = await world.database.logins()
    async with analyst.task("see what is refused") as task:
        tell.told("Outside the template:")
        other_resource = replace(READ_ORDERS, resource="payments")
        await _refused(world, analyst, other_resource, task.id, Reason.RESOURCE_NOT_IN_TEMPLATE)
        await _refused(world, analyst, replace(READ_ORDERS, ttl=_TOO_LONG), task.id, Reason.TTL_TOO_LONG)
        tell.told("Inside the template, but outside policy:")
        await _refused(world, analyst, CHANGE_ORDERS, task.id, Reason.POLICY_DENIED)
        async with reporter.task("see what is refused") as reports:
            long_report = replace(READ_REPORT, ttl=_SIX_MINUTES)
            await _refused(world, reporter, long_report, reports.id, Reason.POLICY_DENIED)
        leases = await analyst.leases(task_id=task.id)
    tell.checked(
        not leases and await world.database.logins() == before, "Nothing was issued: no lease, no PostgreSQL login."
    )


async def _refused(world: World, client: AsyncClient, request: AccessRequest, task_id: str, reason: Reason) -> None:
    what = f"{request.template} on {request.resource} for {request.ttl.total_seconds() / 60:g} minutes"
    error = await refusal(world.ask(client, request, task_id), reason, what)
    world.tell.checked(bool(error.message), f"{what}: {reason}: {error.message}")


async def hides_from_others(world: World) -> None:
    """A neighbour with the same rights sees nothing of it, and can end nothing."""
    tell, analyst, other = world.tell, world.agent("analyst"), world.agent("other")
    async with analyst.task("count the open orders") as task:
        grant = await world.ask(analyst, READ_ORDERS, task.id)
        tell.checked(
            (await analyst.lease(grant.lease.id)).state == "ACTIVE", "The analyst holds a lease under its task."
        )
        await _as_if_absent(world, "see the lease", other.lease, grant.lease.id, Reason.LEASE_NOT_FOUND)
        tell.checked(
            grant.lease.id not in {lease.id for lease in await other.leases()}, "Its list of leases does not have it."
        )
        await _as_if_absent(world, "complete the task", other.complete_task, task.id, Reason.TASK_NOT_FOUND)
        tell.checked(
            (await analyst.get_task(task.id)).is_open and await turned_away(grant.conninfo()) is None,
            "The task is still open, and the analyst's login still works.",
        )


async def _as_if_absent(
    world: World, what: str, call: Callable[[str], Awaitable[object]], real: str, reason: Reason
) -> None:
    """The answer for ``real`` is the one for an id that never was: nothing can be learned by trying ids."""
    kind, _, random = real.partition("-")
    made_up = f"{kind}-{random[::-1]}"
    answers = []
    for each in (real, made_up):
        error = await refusal(call(each), reason, f"another agent's attempt to {what}")
        answers.append(f"{error} {error.metadata}".replace(each, "ID"))
    world.tell.checked(
        answers[0] == answers[1],
        f"Another agent tries to {what}: {reason}, word for word as for an id that never was.",
        f"another agent, trying to {what}, can tell a real id from a made-up one: {answers}.",
    )
