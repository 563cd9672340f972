"""Steps: the task is completed, and its credential is dead, whatever the agent does about it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from broker.cli.demo.attack import ReconnectLoop
from broker.cli.demo.database import answers, enter, seconds_until, stays, turned_away
from broker.cli.demo.narrator import failed
from broker.cli.demo.world import CHANGE_ORDERS, READ_ORDERS, World
from broker.client import Grant, Task

_AFTERMATH_SECONDS = 1.0
_LOGINS_BEFORE, _REFUSALS_AFTER, _LOOP_SECONDS = 20, 20, 20.0
_TABLE = "kept_by_an_agent"
_MAKE_TABLE = "CREATE TABLE kept_by_an_agent AS SELECT * FROM orders"


async def completion_ends_it(world: World) -> None:
    """PostgreSQL refuses the login, and ends the session that was open."""
    tell, analyst = world.tell, world.agent("analyst")
    async with analyst.task("count the open orders") as task:
        grant = await world.ask(analyst, READ_ORDERS, task.id)
        session = await enter(grant.conninfo())
        tell.checked(await answers(session), "The agent is logged in, and keeps its session open.")
        begun = time.perf_counter()
    completed = time.perf_counter()
    _is_revoked(world, task, grant, completed - begun)
    words = await turned_away(grant.conninfo())
    refused = time.perf_counter()
    tell.checked(
        words is not None,
        f"The next login, {_ms(refused - begun)} after the agent asked for the end, is refused by PostgreSQL: {words}.",
        "PostgreSQL still lets the login in although its lease is said to be REVOKED.",
    )
    tell.checked(not await answers(session), "The session that was open is ended.", "the open session still answers.")
    await session.close()
    await _nothing_left(world, grant)


async def completion_defeats_a_reconnect_loop(world: World) -> None:
    """An agent that logs in as fast as it can, before, during and after, keeps nothing."""
    tell, analyst = world.tell, world.agent("analyst")
    async with analyst.task("hold on to a login") as task:
        grant = await world.ask(analyst, READ_ORDERS, task.id)
        with ReconnectLoop(grant.conninfo()) as loop:
            await seconds_until(_reaches(lambda: loop.accepted, _LOGINS_BEFORE), _LOOP_SECONDS, "the loop gets in")
            tell.checked(
                await world.database.sessions(grant.database.username) > 0,
                f"An agent logs in again and again: {loop.accepted} times so far, its latest sessions kept open.",
            )
            begun = time.perf_counter()
            await analyst.complete_task(task.id)
            completed = time.perf_counter()
            enough = loop.refused + _REFUSALS_AFTER
            await stays(lambda: _is_out(world, grant), _AFTERMATH_SECONDS, "the agent has no session left")
            await seconds_until(_reaches(loop.turned_away, enough), _LOOP_SECONDS, "the loop still tries")
            survivors = loop.survivors()
        tell.checked(
            loop.last_accepted < completed,
            f"Completed in {_ms(completed - begun)}: the last of {loop.accepted} logins came before that,"
            f" {loop.refused} attempts were refused.",
            "PostgreSQL let the loop in after the completion.",
        )
        tell.checked(
            survivors == 0,
            f"Not one session survived, and none came back in the {_AFTERMATH_SECONDS:g} s in which it went on trying.",
            f"{survivors} sessions of the loop still answer.",
        )
    await _nothing_left(world, grant)


async def completion_takes_what_it_made(world: World) -> None:
    """A login that owns something cannot simply be dropped; it is dropped all the same."""
    tell, migrator = world.tell, world.agent("migrator")
    async with migrator.task("repair the orders", ticket=CHANGE_ORDERS.ticket) as task:
        grant = await world.ask(migrator, CHANGE_ORDERS, task.id)
        async with await enter(grant.conninfo()) as session:
            await session.execute(_MAKE_TABLE)
        owner = await world.database.owner(_TABLE)
        tell.checked(
            owner == grant.database.username,
            f"Another agent, allowed to write, makes a table; its login {owner} owns it.",
        )
        begun = time.perf_counter()
    _is_revoked(world, task, grant, time.perf_counter() - begun)
    words = await turned_away(grant.conninfo())
    tell.checked(words is not None, f"Its login is refused: {words}.", "its login still works.")
    tell.checked(await world.database.owner(_TABLE) is None, "The table went with it.", "the table is still there.")
    await _nothing_left(world, grant)


def _is_revoked(world: World, task: Task, grant: Grant, seconds: float) -> None:
    completion = task.outcome
    if completion is None:
        failed("the task was not completed.")
    states = {lease.id: lease.state for lease in completion.leases}
    world.tell.checked(
        states == {grant.lease.id: "REVOKED"},
        f"The task is completed; {_ms(seconds)} later its lease is REVOKED: OpenBao has confirmed the end.",
        f"the task was completed, and its leases are {states}.",
    )


async def _nothing_left(world: World, grant: Grant) -> None:
    login = grant.database.username
    world.tell.checked(
        login not in await world.database.logins() and not await world.database.sessions(login),
        "PostgreSQL's superuser sees neither the role nor a session of it.",
        f"PostgreSQL's superuser still sees {login}.",
    )


async def _is_out(world: World, grant: Grant) -> bool:
    return await world.database.sessions(grant.database.username) == 0


def _reaches(figure: Callable[[], int], count: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return figure() >= count

    return reached


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
