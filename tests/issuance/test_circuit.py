"""F10: an upstream that fails at one attempt after the other issues nothing, and comes back by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import NotReady, Reason, UpstreamFailed
from broker.issuance.connectors import ConnectorDesk
from broker.lease.breaker import FAILURES
from broker.lease.machine import State
from broker.ports.connectors import Severity
from broker.ports.deploys import ConnectorSpec
from tests.connectors.fake import IssueMishap, RevokeMishap
from tests.issuance.world import ALICE, BOB, World
from tests.patience import becomes_true


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


async def break_it(world: World) -> list[str]:
    """FAILURES leases whose revocation the upstream fails; their ids."""
    task = await world.task(name="broken")
    granted = [await world.grant(task, name=f"b{number}") for number in range(FAILURES)]
    world.upstream.revoke_mishaps.extend([RevokeMishap.BROKEN] * FAILURES)
    await world.tasks.complete(world.caller(), task.id, timedelta(0))
    await becomes_true(lambda: world.breakers.open)
    return [each.lease.id for each in granted if each.lease is not None]


async def test_nothing_is_issued_or_intended_and_the_caller_is_told_when_to_retry(world: World) -> None:
    await break_it(world)
    task, calls = await world.task(BOB), list(world.upstream.calls)
    before = len(await world.store.audit_since(0, 1_000))
    with pytest.raises(NotReady) as refused:
        await world.grant(task, BOB)
    assert refused.value.reason is Reason.CONNECTOR_CIRCUIT_OPEN
    assert refused.value.retry_after == pytest.approx(1.0)
    assert world.upstream.calls == calls
    assert len(await world.store.audit_since(0, 1_000)) == before


async def test_it_comes_back_by_itself_and_everything_that_is_owed_ends(world: World) -> None:
    leases = await break_it(world)
    await world.pass_time(timedelta(minutes=2))

    async def ended() -> bool:
        return {(await world.lease(each)).state for each in leases} == {State.REVOKED}

    await world.settle(ended)
    assert not world.breakers.open
    assert (await world.grant(await world.task(BOB), BOB)).lease is not None


async def test_issuing_that_gets_no_answer_is_refused_early_too_and_revoking_goes_on(world: World) -> None:
    task = await world.task(ALICE, BOB, name="fine")
    fine = await world.grant(task, name="fine")
    assert fine.lease is not None
    for number in range(FAILURES):
        world.upstream.issue_mishaps.append(IssueMishap.LOST_REPLY)
        with pytest.raises(UpstreamFailed):
            await world.grant(task, (ALICE, BOB)[number % 2], name=f"lost{number}")
    with pytest.raises(NotReady) as refused:
        await world.grant(task, name="early")
    assert refused.value.reason is Reason.CONNECTOR_CIRCUIT_OPEN
    await world.tasks.complete(world.caller(), task.id, timedelta(0))

    async def ended() -> bool:
        assert fine.lease is not None
        return (await world.lease(fine.lease.id)).state is State.REVOKED

    await world.settle(ended)


async def test_people_are_told_why(world: World) -> None:
    await break_it(world)
    deploy = replace(world.deploy, connectors={"fake": ConnectorSpec("fake", "fake", {}, "d" * 64)})
    caller = replace(world.person("ada"), deploy=deploy)
    desk = ConnectorDesk(lambda name: world.upstream, world.clock, breakers=world.breakers)
    (shown,) = desk.list(caller)
    assert "open since 2026-01-01" in shown.circuit
    (examined,) = await desk.examine(caller, "fake")
    assert examined.doubts[0].severity is Severity.ERROR
    assert shown.circuit in examined.doubts[0].what
