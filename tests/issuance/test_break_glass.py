"""Using break-glass: who may, what it passes over, and what it never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.approval.intent_digest import BREAK_GLASS
from broker.breakglass.reviews import OverrideKind, ReviewState
from broker.errors import BrokerError, Reason
from broker.issuance.break_glass_order import fields_of
from broker.issuance.holders import may_hold
from broker.lease.machine import State
from broker.ports.break_glass import BREAK_GLASS_REQUEST
from broker.ports.leases import EndCause
from broker.ports.replicas import Heartbeat
from broker.suspension.suspension import Kind
from tests.connectors.fake import IssueMishap, RevokeMishap
from tests.issuance.emergency import Emergency
from tests.issuance.world import ALICE, BOB, PEOPLE, TENANT, WAIT


@pytest.fixture
async def glass(tmp_path: Path) -> AsyncIterator[Emergency]:
    made = await Emergency.open(tmp_path)
    yield made
    await made.world.close()


async def refused(call: Any) -> Reason:
    with pytest.raises(BrokerError) as caught:
        await call
    return caught.value.reason


async def nothing_issued(glass: Emergency) -> None:
    """No credential, no lease, no task, no use."""
    assert not glass.world.upstream.alive
    assert not await glass.events("lease.")
    assert not await glass.events("task.")
    assert not await glass.world.store.uses(TENANT, False, "", 10)


# ------------------------------------------------------------------ for oneself


async def test_a_person_gets_what_agents_would_need_approval_for(glass: Emergency) -> None:
    lease = await glass.used()
    assert (lease.holder, lease.state) == (PEOPLE["bea"].id, State.ACTIVE)
    assert lease.attempt_id in glass.world.upstream.alive
    badge = lease.break_glass
    assert badge is not None
    assert (badge.person, badge.reason, badge.incident) == (PEOPLE["bea"].id, "orders are locked", "INC-1")
    assert badge.review_due == glass.world.clock.now() + timedelta(hours=24)
    task = await glass.world.store.get_task(TENANT, lease.task_id)
    assert (task.creator, task.purpose, task.ticket) == (PEOPLE["bea"].id, "orders are locked", "INC-1")


async def test_everyone_who_would_have_approved_is_told_with_it(glass: Emergency) -> None:
    await glass.used()
    (event,) = await glass.events("break_glass.used")
    # Every gate about reading names one-sre, two (SRE or DBA) or security; Dee is disabled, Bea is the one.
    assert {each["person"] for each in event["data"]["told"]} == {
        PEOPLE[key].id for key in ("ada", "cyd", "eli", "fay")
    }
    assert event["actor"] == PEOPLE["bea"].id
    assert len(event["data"]["fresh_login"]) == 64
    assert event["data"]["incident"] == "INC-1"


async def test_every_event_of_the_lease_wears_the_badge(glass: Emergency) -> None:
    await glass.ended()
    events = await glass.events("lease.") + await glass.events("delivery.")
    assert {each["type"] for each in events} >= {"lease.intent", "lease.issued", "delivery.confirmed", "lease.revoked"}
    assert all(each["data"]["break_glass"] is True for each in events)


async def test_unconfirmed_it_is_revoked(glass: Emergency) -> None:
    grant = await glass.use()
    assert grant.lease is not None
    await glass.world.pass_time(timedelta(seconds=30))
    attempt = grant.lease.attempt_id

    async def dead() -> bool:
        return attempt not in glass.world.upstream.alive

    await glass.world.settle(dead)
    _, lease = await glass.desk.get(glass.person("bea"), grant.lease.id)
    assert lease.cause is EndCause.UNCONFIRMED


async def test_a_retry_replaces_the_credential_and_is_one_use(glass: Emergency) -> None:
    first, second = await glass.use(), await glass.use()
    assert first.lease is not None and second.lease is not None
    assert first.lease.id == second.lease.id
    assert list(glass.world.upstream.alive) == [second.lease.attempt_id]
    assert (await glass.types()) == ["used"]
    assert await refused(glass.use(resource="secret")) is Reason.REQUEST_ID_REUSED


async def test_what_an_upstream_never_issued_counts_for_nothing(glass: Emergency) -> None:
    for name in ("g1", "g2", "g3"):
        glass.world.upstream.issue_mishaps.append(IssueMishap.REFUSED)
        assert await refused(glass.use(name=name)) is Reason.UPSTREAM_REFUSED
        await glass.tend()
    # The rate is two; none of the three was one, and none needs a review.
    glass.world.later(timedelta(hours=25))
    lease = await glass.used(name="g4")
    states = {use.lease_id: use.review_state(glass.world.clock.now()) for use, _ in await glass.uses()}
    assert states.pop(lease.id) is ReviewState.AHEAD
    assert set(states.values()) == {ReviewState.NOT_NEEDED}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"reason": " "}, Reason.BREAK_GLASS_REASON_MISSING),
        ({"reason": "\u200b"}, Reason.BREAK_GLASS_REASON_MISSING),
        ({"incident": ""}, Reason.BREAK_GLASS_INCIDENT_MISSING),
        ({"incident": "\u2060\u200b"}, Reason.BREAK_GLASS_INCIDENT_MISSING),
        ({"ttl": timedelta(minutes=31)}, Reason.TTL_TOO_LONG),
        ({"ttl": timedelta(0)}, Reason.TTL_INVALID),
        ({"template": "orders"}, Reason.TEMPLATE_NOT_FOUND),
        ({"account": "elsewhere"}, Reason.ACCOUNT_NOT_IN_TEMPLATE),
        ({"resource": "everything"}, Reason.RESOURCE_NOT_IN_TEMPLATE),
        ({"parameters": {"a": "b"}}, Reason.PARAMETER_UNKNOWN),
        ({"agent": "spiffe://test/agent/alice"}, Reason.BREAK_GLASS_VALUE_INVALID),
        ({"task_id": "task-none"}, Reason.TASK_NOT_FOUND),
    ],
)
async def test_what_is_refused_by_name(glass: Emergency, changes: dict[str, Any], why: Reason) -> None:
    assert await refused(glass.use(**changes)) is why
    await nothing_issued(glass)


@pytest.mark.parametrize("who", ["eli", "fay"])
async def test_another_group_may_not(glass: Emergency, who: str) -> None:
    assert await refused(glass.use(who)) is Reason.BREAK_GLASS_NOT_ALLOWED
    await nothing_issued(glass)


async def test_nobody_may_on_a_template_without_the_section(glass: Emergency) -> None:
    glass.world.deploy = replace(glass.world.deploy, break_glass={})
    assert await refused(glass.use()) is Reason.BREAK_GLASS_NOT_ALLOWED
    await nothing_issued(glass)


async def test_who_is_disabled_may_not(glass: Emergency) -> None:
    assert await refused(glass.use("dee")) is Reason.OPERATOR_DISABLED
    await nothing_issued(glass)


@pytest.mark.parametrize(
    ("rule", "how", "good"),
    [
        ({"acr": frozenset({"phr", "phrh"})}, {"acr": "phr"}, True),
        ({"acr": frozenset({"phrh"})}, {"acr": "phr"}, False),
        ({"amr": frozenset({"mfa"})}, {"amr": ("mfa", "pwd")}, True),
        ({"amr": frozenset({"mfa", "hwk"})}, {"amr": ("mfa", "pwd")}, False),
    ],
)
async def test_the_login_is_as_strong_as_the_template_says(
    tmp_path: Path, rule: dict[str, Any], how: dict[str, Any], good: bool
) -> None:
    glass = await Emergency.open(tmp_path, **rule)
    try:
        token = glass.login("bea", BREAK_GLASS, fields_of(glass.order()), **how)
        if good:
            assert (await glass.use(token=token)).lease is not None
        else:
            assert await refused(glass.use(token=token)) is Reason.FRESH_LOGIN_TOO_WEAK
            await nothing_issued(glass)
    finally:
        await glass.world.close()


async def test_a_login_is_for_exactly_this_once(glass: Emergency) -> None:
    token = glass.login("bea", BREAK_GLASS, fields_of(glass.order()))
    assert await refused(glass.desk.use(glass.person("bea"), glass.order())) is Reason.FRESH_LOGIN_REQUIRED
    assert await refused(glass.use(token=token, resource="secret")) is Reason.ID_TOKEN_NONCE
    others = glass.login("cyd", BREAK_GLASS, fields_of(glass.order()))
    assert await refused(glass.use(token=others)) is Reason.FRESH_LOGIN_OF_ANOTHER
    await nothing_issued(glass)
    first, again = await glass.use(token=token), await glass.use(token=token)
    assert first.lease is not None and again.lease is not None and first.lease.id == again.lease.id
    # The same login for another use is not: neither as a retry of something else, nor as its first try.
    assert await refused(glass.use(name="g2", token=token)) is Reason.FRESH_LOGIN_USED
    assert (await glass.types()) == ["used"]


async def test_what_the_upstream_did_not_do_is_tried_again_with_the_same_login(glass: Emergency) -> None:
    token = glass.login("bea", BREAK_GLASS, fields_of(glass.order()))
    glass.world.upstream.issue_mishaps.append(IssueMishap.BUSY)
    assert await refused(glass.use(token=token)) is Reason.UPSTREAM_UNAVAILABLE
    assert (await glass.use(token=token)).lease is not None


# ------------------------------------------------------------------ for an agent's task


async def test_for_an_agents_task_the_agent_holds_it_and_the_person_gets_it(glass: Emergency) -> None:
    task = await glass.world.task()
    grant = await glass.use(task_id=task.id)
    assert grant.lease is not None
    assert grant.decision.approvals == ("one-sre",)
    assert grant.lease.holder == str(ALICE.spiffe_id)
    lease_id, attempt = grant.lease.id, grant.lease.attempt_id
    # The agent sees it, with its badge, and cannot say that it has what a person got.
    seen = await glass.world.lease(lease_id)
    assert seen.break_glass is not None and seen.break_glass.for_agent == str(ALICE.spiffe_id)
    assert await refused(glass.world.leases.confirm(glass.world.caller(), lease_id, attempt)) is Reason.LEASE_NOT_FOUND
    assert await refused(glass.desk.confirm(glass.person("cyd"), lease_id, attempt)) is Reason.BREAK_GLASS_NOT_FOUND
    await glass.desk.confirm(glass.person("bea"), lease_id, attempt)
    (event,) = await glass.events("break_glass.used")
    assert event["data"]["approvals_passed_over"] == ["one-sre"]
    # Ada owns the agent and would have been barred from approving; she is told all the same.
    assert {each["person"] for each in event["data"]["told"]} == {PEOPLE[key].id for key in ("ada", "cyd")}
    # It dies with the agent's task.
    await glass.world.tasks.complete(glass.world.caller(), task.id, WAIT)
    assert not glass.world.upstream.alive


async def test_an_agent_cannot_get_it_by_asking_for_the_same(glass: Emergency) -> None:
    task = await glass.world.task()
    lease = await glass.used(task_id=task.id)
    assert lease.request_id == BREAK_GLASS_REQUEST + "g1"
    asked = replace(
        glass.world.asked(task, lease.request_id, account="prod", plan="p", ticket="INC-1"),
        intent="orders are locked",
        reason="orders are locked",
    )
    grant = await glass.world.issuer.request(glass.world.caller(), asked)
    assert grant.lease is None and grant.access_request is not None


async def test_what_no_approval_would_open_stays_shut(glass: Emergency) -> None:
    task = await glass.world.task()
    assert await refused(glass.use(task_id=task.id, resource="secret")) is Reason.POLICY_DENIED
    assert not glass.world.upstream.alive


async def test_for_who_has_no_part_in_the_task_there_is_nothing(glass: Emergency) -> None:
    task = await glass.world.task()
    assert await refused(glass.use(task_id=task.id, agent=str(BOB.spiffe_id))) is Reason.TASK_NOT_FOUND
    assert await refused(glass.use(task_id=task.id, agent="spiffe://test/agent/x")) is Reason.AGENT_NOT_REGISTERED
    assert await refused(glass.use(task_id=task.id, agent="alice")) is Reason.FIELD_INVALID


# ------------------------------------------------------------------ what it passes over, and not


async def test_stopped_grants_do_not_stop_it_but_going_away_does(glass: Emergency) -> None:
    gate = glass.world.gate
    gate.backlog_records = gate.max_backlog_records + 1
    gate.heartbeat = None
    assert gate.why_closed(glass.world.clock.now()) is not None
    await glass.used()
    (event,) = await glass.events("break_glass.used")
    assert event["data"]["gates_passed_over"] == ["REVOKER_STALLED"]
    gate.recovery = "recovery-1"
    assert await refused(glass.use(name="g2")) is Reason.RECOVERY_MODE
    gate.recovery, gate.draining = "", True
    assert await refused(glass.use(name="g2")) is Reason.SHUTTING_DOWN


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Kind.TEMPLATE, "orders-read"), (Kind.OWNER, "bea"), (Kind.ACCOUNT, "prod"), (Kind.CONNECTOR, "fake")],
)
async def test_a_suspension_is_passed_over_by_two_people_only(glass: Emergency, kind: Kind, value: str) -> None:
    stop = await glass.suspend(kind, value)
    assert await refused(glass.use()) is Reason.SUSPENDED
    await nothing_issued(glass)
    assert await refused(glass.override("bea", OverrideKind.SUSPENSION, stop.id)) is Reason.SECOND_PERSON_REQUIRED
    # A word for somebody else is none for Bea.
    await glass.override("eli", OverrideKind.SUSPENSION, stop.id, person="cyd")
    assert await refused(glass.use()) is Reason.SUSPENDED
    given = await glass.override("eli", OverrideKind.SUSPENSION, stop.id, name="o2")
    assert (given.needed, given.by) == (1, (PEOPLE["eli"].id,))
    lease = await glass.used()
    assert lease.break_glass is not None and lease.break_glass.overrode == (f"SUSPENSION {stop.id}",)
    # What goes on ending what is suspended leaves it alone; a word is good once.
    await glass.tend()
    assert lease.attempt_id in glass.world.upstream.alive
    assert await refused(glass.use(name="g2")) is Reason.SUSPENDED
    # A retry of the same use is not a second one.
    again = await glass.use()
    assert again.lease is not None and again.lease.id == lease.id


async def test_a_later_suspension_ends_it(glass: Emergency) -> None:
    lease = await glass.used()
    await glass.suspend(Kind.EVERYTHING)
    _, after = await glass.desk.get(glass.person("bea"), lease.id)
    assert (after.state in (State.REVOKING, State.REVOKED), after.cause) == (True, EndCause.SUSPENDED)


async def test_a_retry_of_what_a_later_suspension_covers_uses_no_word_up(glass: Emergency) -> None:
    """What was granted before it is ended by it; a word is for another use, and stands in the trail with that."""
    glass.world.upstream.issue_mishaps.append(IssueMishap.LOST_REPLY)
    glass.world.upstream.revoke_mishaps.extend([RevokeMishap.BROKEN] * 50)
    await refused(glass.use())
    stop = await glass.suspend(Kind.TEMPLATE, "orders-read")
    assert await refused(glass.use()) is Reason.SUSPENDED
    await glass.override("eli", OverrideKind.SUSPENSION, stop.id)
    assert await refused(glass.use()) is Reason.SUSPENDED
    lease = await glass.used(name="g2")
    assert lease.break_glass is not None and lease.break_glass.overrode == (f"SUSPENSION {stop.id}",)
    assert await refused(glass.use(name="g3")) is Reason.SUSPENDED


async def test_everything_takes_two_others(glass: Emergency) -> None:
    stop = await glass.suspend(Kind.EVERYTHING)
    await glass.override("eli", OverrideKind.SUSPENSION, stop.id)
    assert await refused(glass.use()) is Reason.SUSPENDED
    await glass.override("cyd", OverrideKind.SUSPENSION, stop.id)
    assert (await glass.use()).lease is not None


async def test_a_word_is_good_for_an_hour(glass: Emergency) -> None:
    stop = await glass.suspend(Kind.TEMPLATE, "orders-read")
    await glass.override("eli", OverrideKind.SUSPENSION, stop.id)
    glass.world.clock.advance(timedelta(hours=1))
    assert await refused(glass.use()) is Reason.SUSPENDED


async def test_a_word_of_somebody_who_is_gone_is_none(glass: Emergency) -> None:
    stop = await glass.suspend(Kind.TEMPLATE, "orders-read")
    await glass.override("eli", OverrideKind.SUSPENSION, stop.id)
    gone = {**PEOPLE, "eli": replace(PEOPLE["eli"], disabled=True)}
    glass.world.deploy = replace(glass.world.deploy, people=gone)
    assert await refused(glass.use()) is Reason.SUSPENDED


async def test_there_is_nothing_to_override(glass: Emergency) -> None:
    for kind, subject in ((OverrideKind.SUSPENSION, "susp-none"), (OverrideKind.REVIEW, "sre")):
        found = await refused(glass.override("eli", kind, subject))
        assert found is Reason.BREAK_GLASS_NOTHING_TO_OVERRIDE


# ------------------------------------------------------------------ ending


async def test_anybody_ends_it_and_its_review_is_due(glass: Emergency) -> None:
    lease = await glass.used()
    use, after = await glass.desk.end(glass.person("fay"), lease.id, WAIT)
    assert after.state is State.REVOKED
    assert not glass.world.upstream.alive
    await glass.tend()
    await glass.tend()
    assert await glass.types() == ["used", "ended", "review_due"]
    use, _ = await glass.desk.get(glass.person("fay"), lease.id)
    assert use.review_state(glass.world.clock.now()) is ReviewState.DUE
    assert (await glass.desk.end(glass.person("fay"), lease.id, WAIT))[1].state is State.REVOKED


async def test_what_a_person_got_ends_when_the_person_is_gone(glass: Emergency) -> None:
    task = await glass.world.task()
    own, agents = await glass.used(), await glass.used(name="g2", task_id=task.id)
    gone = {**PEOPLE, "bea": replace(PEOPLE["bea"], disabled=True)}
    glass.world.deploy = replace(glass.world.deploy, people=gone)
    now = glass.world.clock.now()
    await glass.tend()
    await glass.world.store.end_unregistered(TENANT, may_hold(glass.world.deploy, now), now)
    for lease in (own, agents):
        _, after = await glass.desk.get(glass.person("cyd"), lease.id)
        assert (after.state in (State.REVOKING, State.REVOKED), after.cause) == (True, EndCause.HOLDER_UNREGISTERED)


async def test_whom_only_a_newer_deploy_set_has_keeps_it(glass: Emergency) -> None:
    """F28: a replica that has an older one, and may not have heard of the newer yet, ends nobody in its name."""
    lease, now = await glass.used(), glass.world.clock.now()
    await glass.world.store.put_in_force(Heartbeat("another", TENANT, "newer"), now, deliberate=True)
    gone = {**PEOPLE, "bea": replace(PEOPLE["bea"], disabled=True)}
    glass.world.deploy = replace(glass.world.deploy, people=gone)
    await glass.tend()
    assert (await glass.desk.get(glass.person("cyd"), lease.id))[1].state is State.ACTIVE


async def test_a_person_who_stays_keeps_it(glass: Emergency) -> None:
    lease, now = await glass.used(), glass.world.clock.now()
    assert await glass.world.store.end_unregistered(TENANT, may_hold(glass.world.deploy, now), now) == 0
    await glass.tend()
    assert lease.attempt_id in glass.world.upstream.alive


# ------------------------------------------------------------------ rate


async def test_of_two_at_once_where_one_is_left_exactly_one_wins(tmp_path: Path) -> None:
    glass = await Emergency.open(tmp_path, max_uses=1)
    try:
        outcomes = await asyncio.gather(
            glass.use("bea", "g1"), glass.use("cyd", "g2"), glass.use("ada", "g3"), return_exceptions=True
        )
        lost = [each.reason for each in outcomes if isinstance(each, BrokerError)]
        assert lost == [Reason.BREAK_GLASS_RATE] * 2
        assert len(glass.world.upstream.alive) == 1
        assert len(await glass.events("task.started")) == 1
    finally:
        await glass.world.close()


async def test_the_cap_is_of_the_group_and_time_opens_it(glass: Emergency) -> None:
    for name, who in (("g1", "bea"), ("g2", "cyd")):
        use = await glass.ended(who, name)
        await glass.review(use.lease_id, name=f"v-{name}")
    assert await refused(glass.use("ada", "g3")) is Reason.BREAK_GLASS_RATE
    glass.world.later(timedelta(hours=24))
    assert (await glass.use("ada", "g4")).lease is not None
