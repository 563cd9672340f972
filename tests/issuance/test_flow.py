"""One request, from asking to proven end, and everything that can go wrong between."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.errors import (
    BrokerError,
    Conflict,
    Denied,
    Exhausted,
    InvalidInput,
    NotFound,
    NotReady,
    Reason,
    UpstreamFailed,
    WrongState,
)
from broker.issuance.issue import Grant
from broker.lease.credential import ContractClass, DatabaseLogin
from broker.lease.machine import MAYBE_ALIVE, TERMINAL, State
from broker.ports.leases import EndCause, LeaseFilter
from broker.ports.tasks import TaskState
from tests.connectors.fake import IssueMishap, RevokeMishap, contract
from tests.issuance.world import ALICE, BOB, EVE, ISSUE_TIMEOUT, TENANT, TTL, WAIT, World
from tests.patience import PATIENCE


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


async def leases(world: World, who: object = ALICE) -> list[State]:
    found = await world.store.list_leases(LeaseFilter(TENANT, str(who.spiffe_id)), "", 100)  # type: ignore[attr-defined]
    return [lease.state for lease in found]


def granted(grant: Grant) -> tuple[str, str]:
    """(lease id, attempt id)"""
    assert grant.lease is not None
    return grant.lease.id, grant.lease.attempt_id


async def ended(world: World, lease_id: str, state: State, who: object = ALICE) -> None:
    async def there() -> bool:
        return (await world.lease(lease_id, who)).state is state  # type: ignore[arg-type]

    await world.settle(there)


# ------------------------------------------------------------------ the good path


async def test_a_grant_is_active_and_carries_its_credential_once(world: World) -> None:
    grant = await world.grant(await world.task())
    assert grant.lease is not None
    assert isinstance(grant.credential, DatabaseLogin)
    assert grant.lease.state is State.ACTIVE
    assert grant.lease.expires_at == world.clock.now() + TTL
    assert grant.decision.policies == ("reads",)
    assert world.upstream.usable(grant.lease.attempt_id, world.clock.now())


async def test_intent_is_durable_before_the_upstream_is_called(world: World) -> None:
    found: list[State] = []
    issue = world.upstream.issue

    async def looking(*args: object) -> object:
        found.extend(await leases(world))
        return await issue(*args)  # type: ignore[arg-type]

    world.upstream.issue = looking  # type: ignore[method-assign, assignment]
    await world.grant(await world.task())
    assert found == [State.ISSUING]


async def test_completing_the_task_ends_the_lease(world: World) -> None:
    task = await world.task()
    lease_id, attempt = granted(await world.grant(task))
    done, found = await world.tasks.complete(world.caller(), task.id, WAIT)
    assert done.state is TaskState.COMPLETED
    assert [(lease.id, lease.state, lease.cause) for lease in found] == [(lease_id, State.REVOKED, EndCause.COMPLETED)]
    assert attempt not in world.upstream.alive


async def test_nothing_commits_after_completion(world: World) -> None:
    task = await world.task()
    await world.tasks.complete(world.caller(), task.id, timedelta(0))
    with pytest.raises(WrongState) as refused:
        await world.grant(task)
    assert refused.value.reason is Reason.TASK_ENDED
    assert world.upstream.calls == []


async def test_completion_during_an_issue_revokes_what_it_yields(world: World) -> None:
    task = await world.task()
    gate = asyncio.Event()
    issue = world.upstream.issue

    async def slow(*args: object) -> object:
        issued = await issue(*args)  # type: ignore[arg-type]
        gate.set()
        await completed.wait()
        return issued

    completed = asyncio.Event()
    world.upstream.issue = slow  # type: ignore[method-assign, assignment]
    asking = asyncio.create_task(world.grant(task))
    await gate.wait()
    await world.tasks.complete(world.caller(), task.id, timedelta(0))
    completed.set()
    with pytest.raises(WrongState):
        await asking
    assert world.upstream.alive == {}  # taken back at once; that it is gone is proven later, because it was not noted
    await world.pass_time(2 * ISSUE_TIMEOUT)
    await world.settle(lambda: _all_ended(world))


async def _all_ended(world: World) -> bool:
    return all(state in TERMINAL for state in await leases(world))


async def test_expiry_ends_a_lease_nobody_completes(world: World) -> None:
    lease_id, attempt = granted(await world.grant(await world.task()))
    await world.leases.confirm(world.caller(), lease_id, attempt)
    await world.pass_time(TTL - timedelta(milliseconds=1))
    assert (await world.lease(lease_id)).state is State.ACTIVE
    await world.pass_time(timedelta(milliseconds=1))
    await ended(world, lease_id, State.REVOKED)
    assert (await world.lease(lease_id)).cause is EndCause.EXPIRED


async def test_an_unconfirmed_delivery_is_taken_back(world: World) -> None:
    lease_id, attempt = granted(await world.grant(await world.task()))
    await world.pass_time(timedelta(seconds=30))
    await ended(world, lease_id, State.REVOKED)
    assert (await world.lease(lease_id)).cause is EndCause.UNCONFIRMED
    with pytest.raises(WrongState):
        await world.leases.confirm(world.caller(), lease_id, attempt)


async def test_validate_only_decides_and_issues_nothing(world: World) -> None:
    task = await world.task()
    grant = await world.issuer.request(world.caller(), world.asked(task), validate_only=True)
    assert (grant.lease, grant.credential) == (None, None)
    assert grant.decision.policies == ("reads",)
    assert await leases(world) == []
    assert world.upstream.calls == []


async def test_validate_only_says_that_the_task_is_over(world: World) -> None:
    task = await world.task()
    await world.tasks.complete(world.caller(), task.id, timedelta(0))
    with pytest.raises(WrongState):
        await world.issuer.request(world.caller(), world.asked(task), validate_only=True)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"template": "nothing"}, NotFound, Reason.TEMPLATE_NOT_FOUND),
        ({"resource": "secret"}, Denied, Reason.POLICY_DENIED),
        ({"resource": "*"}, InvalidInput, Reason.RESOURCE_NOT_IN_TEMPLATE),
        ({"account": "prod"}, InvalidInput, Reason.ACCOUNT_NOT_IN_TEMPLATE),
        ({"environment": "prod"}, InvalidInput, Reason.ENVIRONMENT_NOT_IN_TEMPLATE),
        ({"ttl": timedelta(0)}, InvalidInput, Reason.TTL_INVALID),
        ({"ttl": timedelta(seconds=-1)}, InvalidInput, Reason.TTL_INVALID),
        ({"ttl": timedelta(days=400)}, InvalidInput, Reason.TTL_TOO_LONG),
        ({"ttl": timedelta(milliseconds=1)}, InvalidInput, Reason.TTL_TOO_SHORT),
        ({"parameters": {"x": "y"}}, InvalidInput, Reason.PARAMETER_UNKNOWN),
        ({"task_id": "task-nowhere"}, NotFound, Reason.TASK_NOT_FOUND),
    ],
)
async def test_refused_and_nothing_happened(
    world: World, changes: dict[str, object], kind: type[BrokerError], reason: Reason
) -> None:
    task = await world.task()
    with pytest.raises(kind) as refused:
        await world.grant(task, **changes)
    assert refused.value.reason is reason
    assert refused.value.hint
    assert await leases(world) == []
    assert world.upstream.calls == []


async def test_a_ttl_beyond_the_task_is_refused(world: World) -> None:
    task = await world.task(max_duration=timedelta(minutes=1))
    with pytest.raises(WrongState) as refused:
        await world.grant(task, ttl=timedelta(minutes=2))
    assert refused.value.reason is Reason.TASK_ENDS_TOO_SOON


async def test_a_closed_gate_stops_grants_but_not_revocation(world: World) -> None:
    task = await world.task()
    lease_id, _ = granted(await world.grant(task))
    world.gate.draining = True
    with pytest.raises(NotReady):
        await world.grant(task, name="r2")
    lease = await world.leases.revoke(world.caller(), lease_id, WAIT)
    assert lease.state is State.REVOKED


async def test_the_quota_of_live_leases(world: World) -> None:
    task = await world.task()
    for number in range(5):
        await world.grant(task, name=f"r{number}")
    with pytest.raises(Exhausted) as refused:
        await world.grant(task, name="r5")
    assert refused.value.reason is Reason.QUOTA_LIVE_LEASES


async def test_the_quota_of_open_tasks(world: World) -> None:
    for number in range(3):
        await world.task(name=f"t{number}")
    with pytest.raises(Exhausted) as refused:
        await world.task(name="t3")
    assert refused.value.reason is Reason.QUOTA_OPEN_TASKS


# ------------------------------------------------------------------ who may what


async def test_another_agent_sees_nothing_and_ends_nothing(world: World) -> None:
    task = await world.task(ALICE, BOB)
    lease_id, attempt = granted(await world.grant(task))
    eve, bob = world.caller(EVE), world.caller(BOB)
    for attack in (
        world.tasks.get(eve, task.id),
        world.tasks.complete(eve, task.id, timedelta(0)),
        world.issuer.request(eve, world.asked(task)),
        world.leases.get(eve, lease_id),
        world.leases.revoke(eve, lease_id, timedelta(0)),
        world.leases.confirm(eve, lease_id, attempt),
        world.leases.get(bob, lease_id),  # a participant is no holder
        world.leases.revoke(bob, lease_id, timedelta(0)),
    ):
        with pytest.raises(NotFound):
            await attack
    with pytest.raises(Denied) as refused:
        await world.tasks.complete(bob, task.id, timedelta(0))
    assert refused.value.reason is Reason.NOT_TASK_CREATOR
    assert (await world.lease(lease_id)).state is State.ACTIVE


async def test_a_task_of_others_and_no_task_are_one_answer(world: World) -> None:
    task = await world.task()
    told = []
    for task_id in (task.id, "task-" + "z" * 26):
        for attempt in (
            world.tasks.get(world.caller(EVE), task_id),
            world.tasks.complete(world.caller(EVE), task_id, timedelta(0)),
            world.issuer.request(world.caller(EVE), world.asked(replace(task, id=task_id))),
        ):
            with pytest.raises(NotFound) as refused:
                await attempt
            told.append((refused.value.reason, str(refused.value).replace(task_id, "ID")))
    assert told[:3] == told[3:]


async def test_two_agents_and_two_steps_do_not_end_each_other(world: World) -> None:
    task = await world.task(ALICE, BOB)
    plan, _ = granted(await world.grant(task, name="p", step="plan"))
    run, _ = granted(await world.grant(task, name="e", step="execute"))
    bobs, _ = granted(await world.grant(task, BOB))
    await world.leases.revoke(world.caller(), plan, WAIT)
    assert (await world.lease(plan)).state is State.REVOKED
    assert (await world.lease(run)).state is State.ACTIVE
    assert (await world.lease(bobs, BOB)).state is State.ACTIVE
    _, found = await world.tasks.complete(world.caller(), task.id, WAIT)
    assert {lease.state for lease in found} == {State.REVOKED}


async def test_a_participant_must_be_registered(world: World) -> None:
    with pytest.raises(Denied) as refused:
        await world.task(participants=["spiffe://test/agent/typo"])
    assert refused.value.reason is Reason.AGENT_NOT_REGISTERED


# ------------------------------------------------------------------ the same request again


async def test_a_retry_replaces_and_never_two_live(world: World) -> None:
    task = await world.task()
    first, old = granted(await world.grant(task))
    second, new = granted(await world.grant(task))
    assert first == second
    assert old not in world.upstream.alive
    assert new in world.upstream.alive
    lease = await world.lease(first)
    assert (lease.state, lease.attempts, lease.attempt_id) == (State.ACTIVE, 2, new)


async def test_other_content_under_the_same_id_is_refused(world: World) -> None:
    task = await world.task()
    await world.grant(task)
    with pytest.raises(Conflict) as refused:
        await world.grant(task, intent="something else")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert len(world.upstream.alive) == 1


async def test_a_retry_whose_predecessor_will_not_die_issues_nothing(tmp_path: Path) -> None:
    world = await World.open(tmp_path)
    task = await world.task()
    world.upstream.contract = contract(ContractClass.EXPIRY_ONLY)
    lease_id, old = granted(await world.grant(task))
    with pytest.raises(UpstreamFailed) as refused:
        await world.grant(task)
    assert refused.value.reason is Reason.PREVIOUS_ATTEMPT_LIVE
    assert set(world.upstream.alive) == {old}
    assert (await world.lease(lease_id)).state is State.REVOKING
    await world.close()


async def test_many_retries_at_once_leave_at_most_one_alive(world: World) -> None:
    task = await world.task()
    outcomes = await asyncio.gather(*(world.grant(task) for _ in range(8)), return_exceptions=True)
    won = [each for each in outcomes if isinstance(each, Grant)]
    assert len(won) >= 1
    assert all(isinstance(each, Grant | BrokerError) for each in outcomes)
    assert len(world.upstream.alive) <= 1


async def test_an_ended_lease_is_not_reopened(world: World) -> None:
    task = await world.task()
    lease_id, _ = granted(await world.grant(task))
    await world.leases.revoke(world.caller(), lease_id, WAIT)
    with pytest.raises(WrongState) as refused:
        await world.grant(task)
    assert refused.value.reason is Reason.LEASE_ENDED


@pytest.mark.parametrize("mishap", [IssueMishap.REFUSED, IssueMishap.BUSY, IssueMishap.LONGER, IssueMishap.LOST_REPLY])
async def test_what_was_never_delivered_may_be_asked_for_again(world: World, mishap: IssueMishap) -> None:
    task = await world.task()
    world.upstream.issue_mishaps.append(mishap)
    with pytest.raises(UpstreamFailed):
        await world.grant(task)
    await world.settle(lambda: _nothing_alive(world))
    await world.pass_time(2 * ISSUE_TIMEOUT)
    lease_id, attempt = granted(await world.grant(task))
    assert set(world.upstream.alive) == {attempt}
    await world.settle(lambda: _one_living(world))
    assert (await world.lease(lease_id)).state is State.ACTIVE


async def _one_living(world: World) -> bool:
    return sum(state in MAYBE_ALIVE for state in await leases(world)) == 1


async def test_an_unconfirmed_delivery_may_be_asked_for_again(world: World) -> None:
    task = await world.task()
    first, _ = granted(await world.grant(task))
    await world.pass_time(timedelta(seconds=30))
    await ended(world, first, State.REVOKED)
    second, attempt = granted(await world.grant(task))
    assert second != first  # what has ended stays ended
    assert (await world.lease(first)).state is State.REVOKED
    assert set(world.upstream.alive) == {attempt}


# ------------------------------------------------------------------ the upstream misbehaves


async def test_a_proven_refusal_is_void(world: World) -> None:
    world.upstream.issue_mishaps.append(IssueMishap.REFUSED)
    with pytest.raises(UpstreamFailed):
        await world.grant(await world.task())
    assert await leases(world) == [State.VOID]


@pytest.mark.parametrize("mishap", [IssueMishap.LOST_REPLY, IssueMishap.DEFECT])
async def test_an_unknown_outcome_counts_as_issued_and_is_swept(world: World, mishap: IssueMishap) -> None:
    world.upstream.issue_mishaps.append(mishap)
    with pytest.raises((UpstreamFailed, RuntimeError)):
        await world.grant(await world.task())
    await world.settle(lambda: _nothing_alive(world))
    assert await leases(world) == [State.REVOKING]  # a late create could still land
    await world.pass_time(2 * ISSUE_TIMEOUT)
    await world.settle(lambda: _all_ended(world))
    assert await leases(world) == [State.REVOKED]


async def _nothing_alive(world: World) -> bool:
    return not world.upstream.alive


async def test_a_late_create_is_swept_when_it_lands(world: World) -> None:
    world.upstream.issue_mishaps.append(IssueMishap.LATE_CREATE)
    with pytest.raises(UpstreamFailed):
        await world.grant(await world.task())
    await world.settle(lambda: _called(world, "revoke", 1))
    world.upstream.land()
    assert world.upstream.alive
    await world.pass_time(2 * ISSUE_TIMEOUT)
    await world.settle(lambda: _all_ended(world))
    assert world.upstream.alive == {}


async def _called(world: World, what: str, times: int) -> bool:
    return sum(call[0] == what for call in world.upstream.calls) >= times


async def test_more_than_asked_is_taken_back(world: World) -> None:
    world.upstream.issue_mishaps.append(IssueMishap.LONGER)
    with pytest.raises(UpstreamFailed) as refused:
        await world.grant(await world.task())
    assert refused.value.reason is Reason.UPSTREAM_GRANT_MISMATCH
    await world.settle(lambda: _nothing_alive(world))


async def test_a_hanging_issue_is_given_up_and_swept(tmp_path: Path) -> None:
    world = await World.open(tmp_path, issue_timeout=timedelta(milliseconds=50))
    world.upstream.issue_mishaps.append(IssueMishap.HANG)
    with pytest.raises(UpstreamFailed) as refused:
        await world.grant(await world.task())
    assert refused.value.reason is Reason.UPSTREAM_UNAVAILABLE
    await world.settle(lambda: _nothing_alive(world))
    await world.close()


async def test_a_cancelled_request_is_taken_back(world: World) -> None:
    task = await world.task()
    reached, go_on = asyncio.Event(), asyncio.Event()
    issue = world.upstream.issue

    async def slow(*args: object) -> object:
        reached.set()
        await go_on.wait()
        return await issue(*args)  # type: ignore[arg-type]

    world.upstream.issue = slow  # type: ignore[method-assign, assignment]
    asking = asyncio.create_task(world.grant(task))
    await reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go_on.set()
    await world.settle(lambda: _all_ended(world))
    assert await leases(world) == [State.REVOKED]
    assert world.upstream.alive == {}


@pytest.mark.parametrize("mishap", [IssueMishap.LOST_REPLY, IssueMishap.DEFECT])
async def test_what_fails_when_nobody_waits_any_more_is_ended_and_a_defect_is_told(
    world: World, mishap: IssueMishap
) -> None:
    """F4, F7: its caller has hung up; nobody is left to raise to."""
    unheard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: unheard.append(str(what["message"])))
    task = await world.task()
    reached, go_on = asyncio.Event(), asyncio.Event()
    issue = world.upstream.issue

    async def slow(*args: object) -> object:
        reached.set()
        await go_on.wait()
        return await issue(*args)  # type: ignore[arg-type]

    world.upstream.issue = slow  # type: ignore[method-assign, assignment]
    world.upstream.issue_mishaps.append(mishap)
    asking = asyncio.create_task(world.grant(task))
    await reached.wait()
    asking.cancel()
    with capture_logs() as logs:
        with pytest.raises(asyncio.CancelledError):
            await asking
        go_on.set()
        await world.issuer.drain()
    gc.collect()  # an exception that nobody asked for is told when its task is collected
    assert unheard == []
    told = [each["event"] for each in logs if each["log_level"] == "error"]
    assert told == (["a request failed that nobody waited for"] if mishap is IssueMishap.DEFECT else [])
    assert all(state in (State.REVOKING, State.REVOKED) for state in await leases(world))


@pytest.mark.parametrize(
    "mishap", [RevokeMishap.BROKEN, RevokeMishap.FORBIDDEN, RevokeMishap.NOT_FOUND, RevokeMishap.DONE_BUT_LOST]
)
async def test_a_failed_revocation_is_never_called_revoked_and_never_given_up(
    world: World, mishap: RevokeMishap
) -> None:
    lease_id, _ = granted(await world.grant(await world.task()))
    world.upstream.revoke_mishaps.extend([mishap] * 4)
    await world.leases.revoke(world.caller(), lease_id, timedelta(0))
    for tries in range(1, 5):
        await world.settle(lambda tries=tries: _failures(world, lease_id, tries))
        lease = await world.lease(lease_id)
        assert lease.state is State.REVOKING
        await world.pass_time(timedelta(minutes=1))
    await ended(world, lease_id, State.REVOKED)


async def _failures(world: World, lease_id: str, count: int) -> bool:
    return (await world.lease(lease_id)).failures >= count


async def test_one_stuck_lease_does_not_hold_up_the_others(tmp_path: Path) -> None:
    world = await World.open(tmp_path, try_timeout=timedelta(milliseconds=500))  # closing waits for it
    task = await world.task()
    stuck, _ = granted(await world.grant(task, name="stuck"))
    fine, _ = granted(await world.grant(task, name="fine"))
    world.upstream.revoke_mishaps.append(RevokeMishap.HANG)
    await world.leases.revoke(world.caller(), stuck, timedelta(0))
    await world.upstream.hanging.wait()
    lease = await world.leases.revoke(world.caller(), fine, WAIT)
    assert lease.state is State.REVOKED
    await world.close()


async def test_only_time_ends_what_only_time_can_end(world: World) -> None:
    task = await world.task()
    world.upstream.contract = contract(ContractClass.EXPIRY_ONLY)
    lease_id, _ = granted(await world.grant(task))
    _, found = await world.tasks.complete(world.caller(), task.id, WAIT)
    assert [lease.state for lease in found] == [State.REVOKING]
    await world.pass_time(TTL)
    await ended(world, lease_id, State.EXPIRED)


# ------------------------------------------------------------------ by itself


async def test_a_task_ends_at_its_deadline_with_its_leases(world: World) -> None:
    task = await world.task(max_duration=timedelta(minutes=10))
    lease_id, attempt = granted(await world.grant(task, ttl=timedelta(minutes=10)))
    await world.leases.confirm(world.caller(), lease_id, attempt)
    await world.pass_time(timedelta(minutes=10))
    await ended(world, lease_id, State.REVOKED)
    assert (await world.tasks.get(world.caller(), task.id)).state is TaskState.ENDED


async def test_a_dropped_hold_ends_the_task(world: World) -> None:
    task = await world.task()
    lease_id, attempt = granted(await world.grant(task))
    await world.leases.confirm(world.caller(), lease_id, attempt)
    beats = world.tasks.hold(world.caller(), task.id, timedelta(seconds=6))
    assert (await anext(beats)).task.state is TaskState.OPEN
    await beats.aclose()  # type: ignore[attr-defined]
    await world.pass_time(timedelta(seconds=5))
    assert (await world.tasks.get(world.caller(), task.id)).state is TaskState.OPEN
    await world.pass_time(timedelta(seconds=1))
    await ended(world, lease_id, State.REVOKED)
    assert (await world.tasks.get(world.caller(), task.id)).cause is EndCause.HOLD_DROPPED


async def test_a_hold_tells_when_its_task_ends(world: World) -> None:
    task = await world.task()
    beats = world.tasks.hold(world.caller(), task.id, timedelta(seconds=30))
    await anext(beats)
    following = asyncio.ensure_future(anext(beats))
    await asyncio.sleep(0.01)
    await world.tasks.complete(world.caller(), task.id, timedelta(0))
    async with asyncio.timeout(PATIENCE):
        last = await following
    assert last.task.state is TaskState.COMPLETED
    with pytest.raises(StopAsyncIteration):
        await anext(beats)


async def test_an_agent_that_leaves_the_registry_loses_its_leases(world: World) -> None:
    lease_id, _ = granted(await world.grant(await world.task()))
    ended_count = await world.store.end_unregistered(TENANT, {str(BOB.spiffe_id)}.__contains__, world.clock.now())
    assert ended_count == 1
    await world.upkeep.tick()
    await ended(world, lease_id, State.REVOKED)
    assert (await world.lease(lease_id)).cause is EndCause.HOLDER_UNREGISTERED


async def test_the_watcher_sees_every_change_in_order(world: World) -> None:
    stream = world.leases.watch(world.caller(), 0)
    assert await anext(stream) == 0
    lease_id, attempt = granted(await world.grant(await world.task()))
    await world.leases.confirm(world.caller(), lease_id, attempt)
    await world.leases.revoke(world.caller(), lease_id, WAIT)
    seen, last = [], 0
    async with asyncio.timeout(PATIENCE):
        async for event in stream:
            assert not isinstance(event, int)
            assert event.previous == last
            last = event.sequence
            seen.append(event.type)
            if event.type == "lease.revoked":
                break
    assert seen == ["lease.intent", "lease.issued", "delivery.confirmed", "lease.revoking", "lease.revoked"]


async def test_restart_revokes_what_was_left_unknown(tmp_path: Path) -> None:
    world = await World.open(tmp_path)
    world.upstream.issue_mishaps.append(IssueMishap.HANG)
    asking = asyncio.create_task(world.grant(await world.task()))
    await world.upstream.hanging.wait()
    await world.store.close()  # as a crash would: nothing more is written
    asking.cancel()
    alive = dict(world.upstream.alive)
    assert alive

    again = await World.open(tmp_path)
    again.upstream.alive = alive
    assert await again.store.recover(again.clock.now()) == 1
    await again.upkeep.tick()
    await again.settle(lambda: _nothing_alive(again))
    await again.pass_time(2 * ISSUE_TIMEOUT)
    await again.settle(lambda: _all_ended(again))
    await again.close()


async def test_living_states_are_the_ones_with_a_due_time(world: World) -> None:
    task = await world.task()
    for number in range(3):
        await world.grant(task, name=f"r{number}")
    found = await world.store.list_leases(LeaseFilter(TENANT, str(ALICE.spiffe_id)), "", 100)
    assert all((lease.state in MAYBE_ALIVE) == (lease.next_due is not None) for lease in found)
    first = replace(found[0])
    await world.leases.revoke(world.caller(), first.id, WAIT)
    assert (await world.lease(first.id)).next_due is None


# ------------------------------------------------------------------ what is settled while the activation is committed


async def test_what_is_not_settled_is_not_delivered(world: World) -> None:
    """Even where the adapter says that nothing was made: something was, and is ACTIVE by then."""
    world.upstream.issue_mishaps.append(IssueMishap.UNSETTLED)
    with pytest.raises(UpstreamFailed) as failed:
        await world.grant(await world.task())
    assert failed.value.reason is Reason.UPSTREAM_REFUSED
    await world.settle(lambda: _all_ended(world))
    assert world.upstream.alive == {}
    (lease,) = await world.store.list_leases(LeaseFilter(TENANT, str(ALICE.spiffe_id)), "", 10)
    assert (lease.state, lease.cause, lease.confirmed_at) == (State.REVOKED, EndCause.OUTCOME_UNKNOWN, None)


async def test_what_is_never_settled_is_given_up_at_the_issues_deadline(tmp_path: Path) -> None:
    world = await World.open(tmp_path, issue_timeout=timedelta(seconds=2))  # waited for, and enough to be active in
    world.upstream.issue_mishaps.append(IssueMishap.NEVER_SETTLED)
    task = await world.task()
    asking = asyncio.create_task(world.grant(task))

    async def active() -> bool:
        return await leases(world) == [State.ACTIVE]

    await world.settle(active)
    assert not asking.done()
    with pytest.raises(UpstreamFailed) as failed:
        await asking
    assert failed.value.reason is Reason.UPSTREAM_UNAVAILABLE
    await world.settle(lambda: _all_ended(world))
    assert world.upstream.alive == {}
    await world.close()


async def test_what_could_not_be_activated_is_taken_back_at_once(world: World) -> None:
    async def unavailable(*args: object) -> object:
        raise NotReady(Reason.STORE_UNAVAILABLE, "the disk is away.")

    world.store.activate = unavailable  # type: ignore[method-assign, assignment]
    with pytest.raises(NotReady):
        await world.grant(await world.task())
    assert [what for what, _ in world.upstream.calls] == ["issue", "take back"]
    assert world.upstream.alive == {}


async def test_the_activation_notes_what_ends_it(world: World) -> None:
    grant = await world.grant(await world.task())
    lease_id, attempt_id = granted(grant)
    (attempt,) = await world.store.living_attempts(TENANT, lease_id)
    assert attempt.handle == {
        "attempt": attempt_id,
        "holder": str(ALICE.spiffe_id),
        "noted": True,
        "upstream": f"up-{attempt_id}",
    }
    assert await world.store.known_upstream("fake", [f"up-{attempt_id}"]) == {f"up-{attempt_id}"}
