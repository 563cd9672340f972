"""Requests that people decide on, from filing to the one lease; and every way it must not go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from broker.approval.machine import RequestState
from broker.audit.record import decode
from broker.errors import BrokerError, Conflict, Denied, Exhausted, InvalidInput, NotFound, Reason, WrongState
from broker.identity.agent import Registry
from broker.lease.machine import State
from broker.policy.decision import Effect
from broker.ports.access_requests import FiledRequest
from broker.ports.leases import LeaseFilter
from broker.ports.tasks import TaskState
from tests.gates import gate
from tests.issuance.world import ALICE, BOB, EVE, PEOPLE, RULES, TENANT, TTL, World, gated_policies, template


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.gated(tmp_path)
    yield made
    await made.close()


async def events(world: World, prefix: str = "access.") -> list[str]:
    records = [decode(body) for body in await world.store.audit_since(0, 10_000)]
    return [record.type for record in records if record.type.startswith(prefix)]


async def leases(world: World) -> list[State]:
    found = await world.store.list_leases(LeaseFilter(TENANT, str(ALICE.spiffe_id)), "", 100)
    return [lease.state for lease in found]


async def refused(world: World, call: Awaitable[Any], family: type[BrokerError], reason: Reason) -> BrokerError:
    """``call`` is refused for ``reason``, and nothing was recorded, issued or changed."""
    before, calls = await events(world, ""), list(world.upstream.calls)
    with pytest.raises(family) as caught:
        await call
    assert caught.value.reason is reason
    assert (await events(world, ""), world.upstream.calls) == (before, calls)
    return caught.value


async def state(world: World, filed: FiledRequest) -> RequestState:
    return (await world.store.get_access_request(TENANT, filed.id)).state


# ------------------------------------------------------------------ the good path


async def test_a_request_waits_for_a_person_and_is_redeemed_once(world: World) -> None:
    task = await world.task()
    filed = await world.file(task)
    assert filed.state is RequestState.AWAITING_APPROVAL
    assert (filed.approvals, await leases(world), world.upstream.calls) == (("one-sre",), [], [])

    approved = await world.approve(filed)
    assert approved.state is RequestState.APPROVED
    assert approved.redeem_by == world.clock.now() + RULES["one-sre"].redeem_within
    assert await leases(world) == []

    grant = await world.redeem(filed)
    assert grant.lease is not None
    assert grant.lease.state is State.ACTIVE
    assert grant.decision.effect is Effect.ALLOW
    again = await world.store.get_access_request(TENANT, filed.id)
    assert (again.state, again.lease_id) == (RequestState.REDEEMED, grant.lease.id)
    assert await events(world) == ["access.requested", "access.voted", "access.approved", "access.redeemed"]

    await refused(world, world.redeem(filed, name="redeem-2"), WrongState, Reason.ACCESS_REQUEST_REDEEMED)
    assert await leases(world) == [State.ACTIVE]


async def test_the_clock_of_the_lease_starts_when_it_is_redeemed(world: World) -> None:
    filed = await world.file(await world.task())
    world.later(timedelta(minutes=9))
    await world.approve(filed)
    world.later(timedelta(minutes=4))
    grant = await world.redeem(filed)
    assert grant.lease is not None
    assert grant.lease.expires_at == world.clock.now() + TTL


async def test_validate_only_names_the_approvals_and_files_nothing(world: World) -> None:
    request = world.asked(await world.task(), account="vault")
    grant = await world.issuer.request(world.caller(), request, validate_only=True)
    assert (grant.decision.effect, grant.decision.approvals) == (Effect.NEEDS_APPROVAL, ("one-sre", "security"))
    assert grant.access_request is None
    assert await events(world) == []


async def test_asking_again_under_the_same_request_id_is_the_same_request(world: World) -> None:
    task = await world.task()
    first = await world.file(task)
    assert (await world.file(task)).id == first.id
    assert await events(world) == ["access.requested"]
    other = world.grant(task, account="prod", reason="another")
    await refused(world, other, Conflict, Reason.REQUEST_ID_REUSED)


async def test_a_retry_of_the_redemption_replaces_the_credential_of_the_one_lease(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed)
    first = await world.redeem(filed)
    second = await world.redeem(filed)
    assert first.lease is not None
    assert second.lease is not None
    assert (second.lease.id, second.lease.attempts) == (first.lease.id, 2)
    assert first.lease.attempt_id not in world.upstream.alive
    assert await leases(world) == [State.ACTIVE]
    assert (await events(world)).count("access.redeemed") == 1


async def test_the_tool_of_what_was_approved_is_checked_when_it_is_redeemed(world: World) -> None:
    """By the list of that moment; a retry, whose tool call is erased, needs no second look."""
    reader = replace(ALICE, tools=frozenset({"sql.read"}))
    filed = await world.file(await world.task(), reader, tool_call='{"tool": "sql.read"}')
    await world.approve(filed)
    writer = replace(ALICE, tools=frozenset({"sql.write"}))
    await refused(world, world.redeem(filed, writer), Denied, Reason.TOOL_NOT_ALLOWED)
    assert (await world.redeem(filed, reader)).lease is not None
    again = await world.redeem(filed, reader)
    assert again.lease is not None
    assert again.lease.attempts == 2


async def test_what_was_approved_before_there_was_a_list_needs_a_tool_now(world: World) -> None:
    filed = await world.file(await world.task(), ALICE)
    await world.approve(filed)
    reader = replace(ALICE, tools=frozenset({"sql.read"}))
    await refused(world, world.redeem(filed, reader), InvalidInput, Reason.TOOL_CALL_MALFORMED)


async def test_a_lease_that_has_ended_is_not_redeemed_again(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed)
    grant = await world.redeem(filed)
    assert grant.lease is not None
    await world.leases.revoke(world.caller(), grant.lease.id, timedelta(seconds=5))
    with pytest.raises(WrongState):
        await world.redeem(filed)
    assert await leases(world) == [State.REVOKED]


async def test_what_was_asked_comes_back_from_the_ledger_with_its_digests(world: World) -> None:
    task = await world.task()
    texts = {"prompt": "p" * 2000, "tool_call": "psql", "plan": "1. look\n2. leave", "reason": "why"}
    filed = await world.file(task, **texts)
    assert (filed.plan, filed.tool_call) == (texts["plan"], texts["tool_call"])
    assert "p" * 2000 not in str(filed)
    assert filed.request.digest() == world.asked(task, account="prod", **texts).digest()


# ------------------------------------------------------------------ quorums


async def test_two_approvals_are_two_people(world: World) -> None:
    """Cyd is in both groups, and has one vote."""
    filed = await world.file(await world.task(), account="vault")
    filed = await world.approve(filed, "cyd", approval="one-sre")
    assert filed.state is RequestState.AWAITING_APPROVAL
    await refused(world, world.approve(filed, "cyd", approval="security"), Conflict, Reason.VOTE_ALREADY_CAST)
    assert (await world.approve(filed, "eli")).state is RequestState.APPROVED


async def test_a_yes_whose_answer_was_lost_is_said_again(world: World) -> None:
    """With what the request has become since: approved, and then redeemed."""
    filed = await world.file(await world.task())
    first = await world.approve(filed, "bea", request_id="say-1")
    again = await world.approve(filed, "bea", request_id="say-1")
    assert (again.state, again.approved_at, len(again.votes)) == (first.state, first.approved_at, 1)
    await refused(world, world.approve(filed, "bea", request_id="say-2"), WrongState, Reason.ACCESS_REQUEST_APPROVED)
    await world.redeem(filed)
    again = await world.approve(filed, "bea", request_id="say-1")
    assert (again.state, len(again.votes)) == (RequestState.REDEEMED, 1)
    await refused(world, world.approve(filed, "cyd", request_id="say-1"), WrongState, Reason.ACCESS_REQUEST_REDEEMED)
    no = world.approvals.deny(world.person("bea"), filed.id, filed.digest, request_id="say-1")
    await refused(world, no, Conflict, Reason.REQUEST_ID_REUSED)


async def test_two_of_a_group_or_one_of_another(world: World) -> None:
    task = await world.task()
    filed = await world.file(task, account="bank")
    assert (await world.approve(filed, "bea")).state is RequestState.AWAITING_APPROVAL
    assert (await world.approve(filed, "cyd")).state is RequestState.APPROVED
    other = await world.file(task, name="r2", account="bank")
    assert (await world.approve(other, "fay")).state is RequestState.APPROVED


async def test_a_yes_counts_for_an_approval_of_the_voters_groups(world: World) -> None:
    filed = await world.file(await world.task(), account="vault")
    await refused(world, world.approve(filed, "fay"), Denied, Reason.NOT_AN_APPROVER)
    await refused(world, world.approve(filed, "bea", approval="security"), Denied, Reason.NOT_AN_APPROVER)
    await refused(world, world.approve(filed, "bea", approval="two"), InvalidInput, Reason.FIELD_INVALID)
    await refused(world, world.approve(filed, "dee"), Denied, Reason.NOT_AN_APPROVER)


async def test_one_no_denies_also_what_was_approved(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed, "bea")
    denied = await world.approvals.deny(world.person("bea"), filed.id, filed.digest, note="not tonight")
    assert (denied.state, denied.note) == (RequestState.DENIED, "not tonight")
    await refused(world, world.redeem(filed), WrongState, Reason.ACCESS_REQUEST_DENIED)
    await refused(world, world.approve(filed, "cyd"), WrongState, Reason.ACCESS_REQUEST_DENIED)


async def test_a_no_is_for_those_who_have_a_say_and_for_the_owner(world: World) -> None:
    filed = await world.file(await world.task(), account="vault")
    deny = world.approvals.deny
    await refused(world, deny(world.person("fay"), filed.id, filed.digest), Denied, Reason.NOT_AN_APPROVER)
    await refused(world, deny(world.person("dee"), filed.id, filed.digest), Denied, Reason.NOT_AN_APPROVER)
    assert (await deny(world.person("ada"), filed.id, filed.digest)).state is RequestState.DENIED


# ------------------------------------------------------------------ self-approval


async def test_the_owner_does_not_approve(world: World) -> None:
    filed = await world.file(await world.task())
    error = await refused(world, world.approve(filed, "ada"), Denied, Reason.SELF_APPROVAL)
    assert "owns the agent" in error.message


@pytest.mark.parametrize(
    "sponsor", ["bea", "BEA", "bea@x.test", "https://idp.test#bea", "Bea <bea@x.test>", "cyd, bea", "ｂｅａ", " Bea "]
)
async def test_whoever_the_claimed_sponsor_could_be_does_not_approve(world: World, sponsor: str) -> None:
    filed = await world.file(await world.task(sponsor=sponsor))
    error = await refused(world, world.approve(filed, "bea"), Denied, Reason.SELF_APPROVAL)
    assert "sponsors the task" in error.message


async def test_who_becomes_the_owner_after_the_vote_does_not_count(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed, "bea")
    new = replace(ALICE, owner=PEOPLE["bea"])
    world.deploy = replace(world.deploy, registry=Registry([new, BOB, EVE]))
    await refused(world, world.redeem(filed, new), Denied, Reason.APPROVAL_NOT_HELD)


async def test_an_owner_who_hands_the_agent_over_still_does_not_approve(world: World) -> None:
    filed = await world.file(await world.task())
    world.deploy = replace(world.deploy, registry=Registry([replace(ALICE, owner=PEOPLE["eli"]), BOB, EVE]))
    await refused(world, world.approve(filed, "ada"), Denied, Reason.SELF_APPROVAL)


# ------------------------------------------------------------------ between the vote and the redemption


@pytest.mark.parametrize("gone", [{"disabled": True}, {"groups": frozenset({"dba"})}, None])
async def test_votes_are_counted_again_by_the_people_in_force(world: World, gone: dict[str, Any] | None) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed, "bea")
    people = dict(PEOPLE)
    if gone is None:
        del people["bea"]
    else:
        people["bea"] = replace(people["bea"], **gone)
    world.deploy = replace(world.deploy, people=people)
    await refused(world, world.redeem(filed), Denied, Reason.APPROVAL_NOT_HELD)
    world.deploy = replace(world.deploy, people=PEOPLE)
    assert (await world.redeem(filed)).lease is not None


async def test_a_changed_template_is_neither_approved_nor_redeemed(world: World) -> None:
    task = await world.task()
    waiting, approved = await world.file(task), await world.file(task, name="r2")
    await world.approve(approved)
    changed = template(accounts=frozenset({"dev", "prod"}), actions=("SELECT", "DELETE"), digest="u" * 64)
    for templates in ({"orders-read": changed}, {}):
        world.deploy = replace(world.deploy, templates=templates)
        await refused(world, world.approve(waiting), WrongState, Reason.APPROVAL_TEMPLATE_CHANGED)
        await refused(world, world.redeem(approved), WrongState, Reason.APPROVAL_TEMPLATE_CHANGED)


async def test_changed_policies_are_neither_approved_nor_redeemed(world: World) -> None:
    task = await world.task()
    waiting, approved = await world.file(task), await world.file(task, name="r2")
    await world.approve(approved)
    world.deploy = replace(world.deploy, policies=gated_policies("\n// A word more."))
    await refused(world, world.approve(waiting), WrongState, Reason.APPROVAL_POLICY_CHANGED)
    await refused(world, world.redeem(approved), WrongState, Reason.APPROVAL_POLICY_CHANGED)


async def test_stricter_rules_ask_for_the_people_that_they_lack(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed)
    world.deploy = replace(world.deploy, approvals={**RULES, "one-sre": replace(RULES["two"], name="one-sre")})
    error = await refused(world, world.redeem(filed), Denied, Reason.APPROVAL_NOT_HELD)
    assert "1 of sre or 1 of dba" in error.message
    world.deploy = replace(world.deploy, approvals={})
    await refused(world, world.redeem(filed), Denied, Reason.APPROVAL_NOT_HELD)


async def test_policy_decides_again_with_the_approvals_that_are_held(world: World) -> None:
    """The same policies, at a time when they ask for more: what was approved is not enough."""
    later = gate("security", 'resource.account == "prod" && context.hour == 1', "at-one")
    world.deploy = replace(world.deploy, policies=gated_policies(later))
    world.later(timedelta(minutes=58))
    filed = await world.file(await world.task(max_duration=timedelta(hours=2)))
    await world.approve(filed)
    world.later(timedelta(minutes=2))
    error = await refused(world, world.redeem(filed), Denied, Reason.APPROVAL_NOT_HELD)
    assert "security" in error.message
    assert await state(world, filed) is RequestState.APPROVED


async def test_an_agent_under_another_entry_is_not_who_was_approved(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed)
    renamed = replace(ALICE, principal="alice-two")
    world.deploy = replace(world.deploy, registry=Registry([renamed, BOB, EVE]))
    await refused(world, world.redeem(filed, renamed), Conflict, Reason.APPROVAL_DIGEST_MISMATCH)


async def test_another_agent_does_not_redeem(world: World) -> None:
    filed = await world.file(await world.task(ALICE, BOB))
    await world.approve(filed)
    await refused(world, world.redeem(filed, BOB), NotFound, Reason.ACCESS_REQUEST_NOT_FOUND)


async def test_quotas_and_the_task_hold_at_redemption(world: World) -> None:
    task = await world.task()
    filed = await world.file(task)
    await world.approve(filed)
    poor = replace(ALICE, quotas=replace(ALICE.quotas, live_leases=1))
    await world.grant(task, poor, "first")
    await refused(world, world.redeem(filed, poor), Exhausted, Reason.QUOTA_LIVE_LEASES)
    assert await state(world, filed) is RequestState.APPROVED
    await world.tasks.complete(world.caller(), task.id, timedelta(seconds=5))
    assert await state(world, filed) is RequestState.LAPSED
    await refused(world, world.redeem(filed), WrongState, Reason.ACCESS_REQUEST_LAPSED)


# ------------------------------------------------------------------ deadlines


async def test_nobody_approves_after_the_deadline_swept_or_not(world: World) -> None:
    filed = await world.file(await world.task())
    world.later(timedelta(minutes=10))
    await refused(world, world.approve(filed), WrongState, Reason.ACCESS_REQUEST_LAPSED)
    await world.upkeep.tick()
    assert await state(world, filed) is RequestState.LAPSED
    await refused(world, world.approve(filed), WrongState, Reason.ACCESS_REQUEST_LAPSED)


async def test_an_approval_that_nobody_redeems_lapses(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed)
    world.later(timedelta(minutes=5))
    await refused(world, world.redeem(filed), WrongState, Reason.ACCESS_REQUEST_LAPSED)
    await world.upkeep.tick()
    assert await state(world, filed) is RequestState.LAPSED


async def test_a_request_lapses_with_its_task(world: World) -> None:
    task = await world.task(max_duration=timedelta(minutes=6))
    filed = await world.file(task)
    assert filed.expires_at == world.clock.now() + timedelta(minutes=6)
    await world.pass_time(timedelta(minutes=6))
    assert (await world.store.get_task(TENANT, task.id)).state is TaskState.ENDED
    assert await state(world, filed) is RequestState.LAPSED


# ------------------------------------------------------------------ fatigue


async def test_the_quota_of_pending_requests(world: World) -> None:
    task = await world.task()
    filed = [await world.file(task, name=f"r{number}", reason=str(number)) for number in range(5)]
    await refused(world, world.file(task, name="r5"), Exhausted, Reason.QUOTA_PENDING_REQUESTS)
    await world.requests.withdraw(world.caller(), filed[0].id)
    await world.file(task, name="r5")


async def test_what_was_denied_is_not_asked_again_in_other_words(world: World) -> None:
    task = await world.task()
    filed = await world.file(task, reason="please")
    await world.approvals.deny(world.person("bea"), filed.id, filed.digest)
    other = await world.task(name="t2")
    nearly = ({"ttl": filed.request.ttl + timedelta(seconds=by)} for by in (-1, 1))
    said: tuple[dict[str, Any], ...] = ({"reason": "pretty please"}, {"intent": "help"}, {"step": "two"}, *nearly)
    for where, changes in zip((task, other, task, task, other), said, strict=True):
        await refused(world, world.file(where, name="r2", **changes), Denied, Reason.DENIED_BEFORE)
    check = world.issuer.request(world.caller(), world.asked(task, "r2", account="prod"), validate_only=True)
    await refused(world, check, Denied, Reason.DENIED_BEFORE)
    await world.file(task, name="r3", ttl=timedelta(minutes=1))
    world.later(timedelta(minutes=15))
    await world.file(task, name="r2")


async def test_withdrawing_is_final_and_can_be_repeated(world: World) -> None:
    filed = await world.file(await world.task())
    await refused(
        world, world.requests.withdraw(world.caller(BOB), filed.id), NotFound, Reason.ACCESS_REQUEST_NOT_FOUND
    )
    assert (await world.requests.withdraw(world.caller(), filed.id)).state is RequestState.WITHDRAWN
    assert (await world.requests.withdraw(world.caller(), filed.id)).state is RequestState.WITHDRAWN
    await refused(world, world.approve(filed), WrongState, Reason.ACCESS_REQUEST_WITHDRAWN)


# ------------------------------------------------------------------ what a yes is bound to


async def test_a_yes_to_something_else_is_refused(world: World) -> None:
    task = await world.task()
    filed, other = await world.file(task), await world.file(task, name="r2", reason="other")
    mixed = world.approvals.approve(world.person("bea"), filed.id, other.digest, fresh_id_token=world.fresh(other))
    await refused(world, mixed, Conflict, Reason.APPROVAL_DIGEST_MISMATCH)
    await refused(
        world,
        world.approvals.deny(world.person("bea"), filed.id, other.digest),
        Conflict,
        Reason.APPROVAL_DIGEST_MISMATCH,
    )


async def test_redeeming_what_nobody_approved(world: World) -> None:
    filed = await world.file(await world.task())
    await refused(world, world.redeem(filed), WrongState, Reason.ACCESS_REQUEST_PENDING)
    await refused(
        world, world.issuer.redeem(world.caller(), "areq-none", "x"), NotFound, Reason.ACCESS_REQUEST_NOT_FOUND
    )


async def test_a_request_id_of_another_lease_does_not_redeem(world: World) -> None:
    task = await world.task()
    filed = await world.file(task)
    await world.approve(filed)
    await world.grant(task, name="mine")
    await refused(world, world.redeem(filed, name="mine"), Conflict, Reason.REQUEST_ID_REUSED)


# ------------------------------------------------------------------ races


async def test_of_many_redemptions_at_once_one_makes_the_one_lease(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed)
    calls = [world.redeem(filed, name=f"redeem-{number}") for number in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    won = [each for each in outcomes if not isinstance(each, BaseException)]
    lost = [each.reason for each in outcomes if isinstance(each, BrokerError)]
    assert (len(won), lost) == (1, [Reason.ACCESS_REQUEST_REDEEMED] * 19)
    assert (await leases(world), len(world.upstream.alive)) == ([State.ACTIVE], 1)


async def test_of_approve_deny_withdraw_and_redeem_at_once_one_ends_it(world: World) -> None:
    """Whatever the order: one end, and a credential only if that end is the redemption."""
    task = await world.task()
    for number in range(12):
        filed = await world.file(task, name=f"r{number}", ticket=f"T-{number}")  # each is another request
        if number % 2:
            await world.approve(filed)
        calls: list[Awaitable[Any]] = [
            world.approvals.deny(world.person("cyd"), filed.id, filed.digest),
            world.requests.withdraw(world.caller(), filed.id),
            world.approve(filed),
            world.redeem(filed, name=f"redeem-{number}"),
        ]
        turned = calls[number % 4 :] + calls[: number % 4]
        outcomes = await asyncio.gather(*turned, return_exceptions=True)
        assert all(isinstance(each, (FiledRequest, BrokerError)) or hasattr(each, "lease") for each in outcomes)
        after = await world.store.get_access_request(TENANT, filed.id)
        ends = [each for each in await events_of(world, filed.id) if each in ENDS]
        assert len(ends) == 1
        granted = [each for each in outcomes if getattr(each, "lease", None) is not None]
        assert len(granted) == (after.state is RequestState.REDEEMED)
        if granted:
            await world.leases.revoke(world.caller(), granted[0].lease.id, timedelta(seconds=5))


ENDS = {"access.denied", "access.withdrawn", "access.redeemed", "access.lapsed"}


async def events_of(world: World, access_request_id: str) -> list[str]:
    records = [decode(body) for body in await world.store.audit_since(0, 10_000)]
    return [record.type for record in records if record.data.get("access_request") == access_request_id]


# ------------------------------------------------------------------ what approvers see


async def test_the_review_says_that_it_is_wrapped_and_whose_key_it_certifies(world: World) -> None:
    allowed = {name: replace(each, wrapping=True) for name, each in world.deploy.templates.items()}
    world.deploy = replace(world.deploy, templates=allowed)
    world.upstream.contract = replace(world.upstream.contract, wraps=True)
    key = "ssh-ed25519 AAAA"
    filed = await world.file(await world.task(), wrap=timedelta(seconds=30), subject_public_key=key)
    told = "\n".join((await world.approvals.review(world.person("bea"), filed.id)).effect)
    assert "kept at the upstream for one reader, for 0:00:30 at most" in told
    assert (
        f"certifies a key that the agent named (SHA-256 of what was sent: {sha256(key.encode()).hexdigest()})" in told
    )
    plain = await world.file(await world.task(name="t2"), name="r2")
    told = "\n".join((await world.approvals.review(world.person("bea"), plain.id)).effect)
    assert "one reader" not in told
    assert "certifies" not in told


async def test_the_review_says_the_effect_and_marks_what_is_claimed(world: World) -> None:
    task = await world.task(sponsor="cyd", purpose="help \x1b[2Jme")
    filed = await world.file(task, reason="it\u202es urgent", plan="1. look\n\x1b[1A2. leave", tool_call="psql")
    review = await world.approvals.review(world.person("bea"), filed.id)
    told = "\n".join(review.effect)
    for each in ("orders-read (read access)", "It can SELECT on orders.", "account prod, environment dev", "0:05:00"):
        assert each in told
    assert "Declared of the template: restricted data, blast radius organization, irreversible" in told
    claims = {each.name: each.text for each in review.claims}
    assert claims["reason"] == "it<U+202E>s urgent"
    assert claims["task purpose"] == "help <U+001B>[2Jme"
    assert (review.plan, review.plan_diff, review.plan_diff_base) == ("1. look\n<U+001B>[1A2. leave", "", "")
    assert review.missing == ("one-sre: 1 of sre",)
    assert [each.rpartition(") ")[2] for each in review.barred] == ["owns the agent", "sponsors the task"]
    assert review.contract is not None
    assert review.obstacle == ""
    # Nothing that the agent says stands among the effects.
    assert "urgent" not in told


async def test_the_plan_is_shown_against_the_one_approved_last(world: World) -> None:
    task = await world.task()
    first = await world.file(task, plan="1. look\n2. leave\n")
    await world.approve(first)
    await world.redeem(first)
    second = await world.file(task, name="r2", plan="1. look\n2. drop it\x0b\n")
    review = await world.approvals.review(world.person("bea"), second.id)
    assert review.plan_diff_base == first.id
    changed = [line for line in review.plan_diff.split("\n") if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-2. leave", "+2. drop it<U+000B>"]


async def test_the_review_says_why_it_can_be_approved_no_more_and_whose_vote_counts_no_more(world: World) -> None:
    filed = await world.file(await world.task(), account="bank")
    await world.approve(filed, "bea")
    people = {**PEOPLE, "bea": replace(PEOPLE["bea"], groups=frozenset())}
    world.deploy = replace(world.deploy, people=people)
    review = await world.approvals.review(world.person("cyd"), filed.id)
    assert [(each.person, each.counts) for each in review.votes] == [("https://idp.test#bea", False)]
    assert review.missing == ("two: 2 of sre or 1 of dba",)
    world.deploy = replace(world.deploy, templates={})
    review = await world.approvals.review(world.person("cyd"), filed.id)
    assert "the template orders-read has changed" in review.obstacle
