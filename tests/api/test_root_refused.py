"""What operators see of an upstream that refuses the broker itself, and of what its inventory does not agree with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from broker.keys import new_key
from tests.api.served import ANALYST, Served, ask, private, reason, serve, start_task
from tests.connectors.fake import IssueMishap
from tests.patience import eventually

REFUSED = 'broker_connector_root_refused{connector="openbao-orders"}'


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path) as running:
        yield running


def alarms(served: Served) -> list[str]:
    """The warnings of /readyz that are about connectors."""
    return [each for each in served.daemon._warnings() if each.startswith("connector ")]


async def metric(served: Served, name: str) -> str:
    """Its value; empty where it is not there."""
    lines = (await served.daemon._scrape()).decode().splitlines()
    return next((line.removeprefix(name).strip() for line in lines if line.startswith(name)), "")


async def test_it_is_an_alarm_that_goes_by_itself(served: Served) -> None:
    agent = served.stub(ANALYST)
    task = await start_task(agent)
    assert alarms(served) == []
    served.upstream.issue_mishaps.append(IssueMishap.ROOT_REFUSED)
    for request, expected in (("r1", "UPSTREAM_ROOT_REFUSED"), ("r2", "CONNECTOR_ROOT_REFUSED")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await agent.RequestCredential(ask(task, request))
        assert reason(refused.value)[1] == expected
    (alarm,) = alarms(served)
    assert alarm.startswith("connector openbao-orders issues nothing: since ")
    assert served.daemon._problems() == []  # others go on: it is ready
    assert await metric(served, REFUSED) == "1.0"
    await served.daemon._pool.tend()
    assert (await agent.RequestCredential(ask(task, "r3"))).lease.id
    assert alarms(served) == []
    assert await metric(served, REFUSED) in ("", "0.0")

    async def told() -> bool:
        types = [each["type"] for each in await served.audit()]
        return types.count("connector.root_refused") == types.count("connector.root_restored") == 1

    await eventually(told)  # by the tick


async def test_inventories_are_compared_by_a_tick_and_shown(served: Served) -> None:
    job = served.daemon._ticks.scheduler.get_job("reconcile")
    assert job is not None
    assert job.trigger.interval <= timedelta(seconds=5)
    job.pause()  # what is shown below is of the one look that the test takes
    attempt = served.daemon._mark.attempt("lost")
    now = served.upstream.clock.now()
    served.upstream.plant(attempt, now + timedelta(hours=1), born=now - timedelta(hours=1))
    await job.func()

    async def ended() -> bool:
        return attempt not in served.upstream.alive

    await eventually(ended)
    assert await metric(served, 'broker_upstream_listed{connector="openbao-orders"}') == "1.0"
    assert await metric(served, 'broker_upstream_missing{connector="openbao-orders"}') == "0.0"
    assert await metric(served, 'broker_reconciliation_failed{connector="openbao-orders"}') == "0.0"


async def test_the_mark_is_in_every_attempt_and_stays_over_a_restart(tmp_path: Path) -> None:
    marks = []
    private(tmp_path / "keys" / "kept.key", new_key())
    for number in range(2):
        async with serve(tmp_path, keys={"ledger": ["file:keys/kept.key"]}) as served:
            agent = served.stub(ANALYST)
            granted = await agent.RequestCredential(ask(await start_task(agent, f"t{number}"), f"r{number}"))
            assert served.daemon._mark.owns(granted.lease.attempt_id)
            marks.append(served.daemon._mark)
    assert marks[0] == marks[1]
