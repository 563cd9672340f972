"""Step: the kill switch. What lives is dead, what is asked for is refused, until people lift it."""

from __future__ import annotations

import time

from broker.api.v1 import admin_service_pb2 as pb
from broker.approval.intent_digest import RESUME_SUSPENSION
from broker.cli.demo.database import answers, enter, seconds_until, turned_away
from broker.cli.demo.narrator import refusal
from broker.cli.demo.world import READ_ORDERS, World, agent_id
from broker.errors import Reason

_SECONDS = 20.0


async def suspension_kills_it(world: World) -> None:
    """A live login and its open session end; the agent is refused by name, its neighbour is not."""
    tell, analyst, sam = world.tell, world.agent("analyst"), world.person("sam")
    async with analyst.task("count the open orders") as task:
        grant = await world.ask(analyst, READ_ORDERS, task.id)
        session = await enter(grant.conninfo())
        tell.checked(await turned_away(grant.conninfo()) is None, "The agent is logged in to PostgreSQL.")
        begun = time.perf_counter()
        request = pb.SuspendRequest(
            request_id=sam.new_id(),
            kind="KIND_AGENT",
            value=str(agent_id("analyst")),
            reason="It reads what nobody asked it to read.",
        )
        suspension = (await sam.call("Suspend", request)).suspension
        told = time.perf_counter() - begun

        async def shut() -> bool:
            return await turned_away(grant.conninfo()) is not None

        async def ended() -> bool:
            return not await answers(session)

        await seconds_until(shut, _SECONDS, "the login of the suspended agent is refused")
        dead = time.perf_counter() - begun
        tell.checked(
            await shut(),
            f"Sam suspends it (told after {told * 1000:.0f} ms). {dead * 1000:.0f} ms after the call PostgreSQL refuses"
            f" the login: {await turned_away(grant.conninfo())}.",
        )
        await seconds_until(ended, _SECONDS, "the session of the suspended agent is ended")
        tell.checked(await ended(), "Its open session is ended.", "its open session still answers.")
        await session.close()
        error = await refusal(world.ask(analyst, READ_ORDERS, task.id), Reason.SUSPENDED, "asking while suspended")
        tell.checked(bool(error.message), f"It asks again: {error.reason}: {error.message}")
        other = world.agent("other")
        async with other.task("count the open orders") as neighbours:
            granted = await world.ask(other, READ_ORDERS, neighbours.id)
            tell.checked(await turned_away(granted.conninfo()) is None, "Its neighbour works on.")
        fields = {"suspension_id": suspension.id, "reason": "It was mended."}
        token = world.fresh_login("sam", RESUME_SUSPENSION, fields)
        resume = pb.ResumeRequest(**fields, request_id=sam.new_id(), fresh_id_token=token)
        await sam.call("Resume", resume)
        again = await world.ask(analyst, READ_ORDERS, task.id)
        tell.checked(await turned_away(again.conninfo()) is None, "Sam lifts it: the agent is served again.")
