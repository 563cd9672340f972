"""What every PipelineStore does, as tests. An adapter gives the ``store`` fixture: an open, empty ledger.

Times are seconds after T0. The task is open from 0 to 600; Pia plans, Vic validates, Alice and Bob execute.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.errors import BrokerError, Conflict, Denied, Exhausted, InvalidInput, NotFound, Reason, WrongState
from broker.identity.party import Party
from broker.lease.machine import Event, State
from broker.plan.machine import PlanEvent, PlanState
from broker.plan.plan import Action, Plan, plan_digest
from broker.ports.intents import Citation, Intent
from broker.ports.leases import EndCause, Lease, Selector
from broker.ports.ledger import Ledger
from broker.ports.pipelines import NewDelegation, NewPlan
from broker.ports.tasks import TaskLimits, TaskState
from broker.scope.containment import reach_of
from broker.scope.narrowing import Narrowing, Narrowings
from tests.stores.contract import activate, records, refused, types
from tests.stores.make import ALICE, BOB, T0, TASK, TENANT, at, intent, new_task

PIA, VIC, EVE = (f"spiffe://example.org/agent/{name}" for name in ("pia", "vic", "eve"))
EVERYBODY = frozenset({ALICE, BOB, PIA, VIC})
ROLES = frozenset({"executor"})
COMPARED = Narrowings(Narrowing.FOLDER, {})


def party(spiffe_id: str) -> Party:
    return Party(spiffe_id, spiffe_id.rpartition("/")[2])


def action(step: str = "plan", **changes: Any) -> Action:
    scope = intent().scope
    return Action(step, replace(reach_of(scope, ttl=timedelta(seconds=60)), **changes))


def new_plan(plan_id: str = "plan-1", *actions: Action, **changes: Any) -> NewPlan:
    said = actions or (action(),)
    values: dict[str, Any] = {
        "tenant": TENANT,
        "id": plan_id,
        "request_id": f"register-{plan_id}",
        "request_digest": f"digest-of-{plan_id}",
        "task_id": TASK,
        "planner": party(PIA),
        "text": "count, then report",
        "actions": said,
        "digest": plan_digest(TASK, party(PIA), "count, then report", said),
        "created_at": at(1),
        "deadline": at(301),
        "max_plans": 3,
    }
    return NewPlan(**{**values, **changes})


def cited(asked: Intent, *, plan: str = "", delegation: str = "", who: str = "", **changes: Any) -> Intent:
    """``asked``, citing a plan or a delegation."""
    values: dict[str, Any] = {
        "plan_id": plan,
        "delegation_id": delegation,
        "party": party(who or asked.holder),
        "roles": ROLES,
        "reach": reach_of(asked.scope),
        "planned": reach_of(asked.scope, ttl=asked.scope.ttl),
        "compared": COMPARED,
    }
    return replace(asked, citation=Citation(**{**values, **changes}))


def hand_on(lease: str = "lease-1", to: str = BOB, name: str = "1", **changes: Any) -> NewDelegation:
    scope = intent().scope
    values: dict[str, Any] = {
        "tenant": TENANT,
        "id": f"delegation-{name}",
        "request_id": f"hand-on-{name}",
        "request_digest": f"digest-of-hand-on-{name}",
        "lease_id": lease,
        "delegator": party(ALICE),
        "delegate": party(to),
        "template_digest": scope.template_digest,
        "resource": scope.resource,
        "parameters": scope.parameters,
        "further": 0,
        "compared": COMPARED,
        "created_at": at(3),
        "expires_at": None,
        "limits": TaskLimits(),
    }
    return NewDelegation(**{**values, **changes})


async def confirmed(store: Ledger, *actions: Action, name: str = "plan-1") -> Plan:
    plan = await store.register_plan(new_plan(name, *actions))
    return await decide(store, plan, PlanEvent.CONFIRM)


async def decide(store: Ledger, plan: Plan, event: PlanEvent, who: str = VIC, now: float = 2) -> Plan:
    return await store.decide_plan(TENANT, plan.id, event, plan.digest, party(who), "because", at(now))


async def granted(store: Ledger, asked: Intent) -> Lease:
    """ACTIVE a second after it was asked for, and confirmed."""
    opened = await store.open_intent(asked)
    now = (asked.now - T0).total_seconds() + 1
    lease = await activate(store, opened, now=now)
    return await store.confirm_delivery(TENANT, lease.id, asked.holder, opened.attempt.id, at(now))


async def undelivered(store: Ledger, asked: Intent) -> None:
    opened = await store.open_intent(asked)
    await store.end_attempt(TENANT, opened.attempt.id, Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, asked.now)


class WithTask:
    """One task, open to everybody but Eve."""

    @pytest.fixture(autouse=True)
    async def task(self, store: Ledger) -> None:
        await store.start_task(new_task(participants=EVERYBODY))


async def refused_all(
    store: Ledger, asked: Intent, family: type[BrokerError], reason: Reason, *, checked: bool = True
) -> None:
    """The intent is refused, and so is asking whether it would be; nothing changes."""
    await refused(store, store.open_intent(asked), family, reason)
    if checked:
        await refused(store, store.check_intent(asked), family, reason)


class PlanContract(WithTask):
    """Plans."""

    async def test_a_plan_is_kept_as_it_was_said(self, store: Ledger) -> None:
        new = new_plan()
        plan = await store.register_plan(new)
        assert (plan.state, plan.actions, plan.text, plan.digest) == (
            PlanState.REGISTERED,
            new.actions,
            new.text,
            new.digest,
        )
        assert await store.get_plan(TENANT, "plan-1") == plan
        assert await store.task_plans(TENANT, TASK) == [plan]
        (told,) = [record for record in await records(store) if record.type == "plan.registered"]
        assert (told.actor, told.data["digest"], told.data["steps"]) == (PIA, plan.digest, ["plan"])
        assert new.text not in str(told.data)

    async def test_its_deadline_is_within_the_tasks(self, store: Ledger) -> None:
        assert (await store.register_plan(new_plan(deadline=at(9999)))).deadline == at(600)

    async def test_registering_again_returns_the_first_and_other_content_is_a_conflict(self, store: Ledger) -> None:
        first = await store.register_plan(new_plan())
        again = new_plan("plan-2", request_id="register-plan-1", request_digest="digest-of-plan-1")
        assert await store.register_plan(again) == first
        other = replace(again, request_digest="something else")
        await refused(store, store.register_plan(other), Conflict, Reason.REQUEST_ID_REUSED)

    async def test_only_who_takes_part_and_only_while_the_task_is_open(self, store: Ledger) -> None:
        await refused(store, store.register_plan(new_plan(planner=party(EVE))), NotFound, Reason.TASK_NOT_FOUND)
        await refused(store, store.register_plan(new_plan(task_id="task-9")), NotFound, Reason.TASK_NOT_FOUND)
        late = new_plan(created_at=at(600), deadline=at(700))
        await refused(store, store.register_plan(late), WrongState, Reason.TASK_ENDED)

    async def test_the_number_of_plans_of_a_task(self, store: Ledger) -> None:
        for number in range(3):
            await store.register_plan(new_plan(f"plan-{number}"))
        await refused(store, store.register_plan(new_plan("more")), Exhausted, Reason.LIMIT_PLANS_PER_TASK)

    @pytest.mark.parametrize(
        ("event", "state", "told"),
        [
            (PlanEvent.CONFIRM, PlanState.CONFIRMED, "plan.confirmed"),
            (PlanEvent.REJECT, PlanState.REJECTED, "plan.rejected"),
        ],
    )
    async def test_one_decision_stands(self, store: Ledger, event: PlanEvent, state: PlanState, told: str) -> None:
        plan = await store.register_plan(new_plan())
        decided = await decide(store, plan, event)
        assert (decided.state, decided.validator, decided.reason, decided.decided_at) == (
            state,
            party(VIC),
            "because",
            at(2),
        )
        assert (await types(store))[-1] == told
        before = await types(store)
        assert await decide(store, plan, event, now=5) == decided  # repeated: harmless, and nothing is told
        assert await types(store) == before
        for other in PlanEvent.CONFIRM, PlanEvent.REJECT:
            await refused(store, decide(store, plan, other, who=BOB), WrongState, Reason.PLAN_DECIDED)
        assert await store.get_plan(TENANT, plan.id) == decided

    async def test_of_decisions_at_the_same_time_exactly_one_wins(self, store: Ledger) -> None:
        plan = await store.register_plan(new_plan())
        calls = [
            decide(store, plan, event, who=who) for who in (VIC, BOB) for event in (PlanEvent.CONFIRM, PlanEvent.REJECT)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        lost = [result for result in results if isinstance(result, WrongState)]
        assert len(lost) == 3
        assert {error.reason for error in lost} == {Reason.PLAN_DECIDED}
        assert len([name for name in await types(store) if name in ("plan.confirmed", "plan.rejected")]) == 1

    async def test_who_may_not_decide(self, store: Ledger) -> None:
        plan = await store.register_plan(new_plan())
        await refused(store, decide(store, plan, PlanEvent.CONFIRM, who=PIA), Denied, Reason.PLAN_SAME_PRINCIPAL)
        pod = store.decide_plan(
            TENANT, plan.id, PlanEvent.CONFIRM, plan.digest, Party(VIC, "pia"), "", at(2)
        )  # another pod of the planner's pattern
        await refused(store, pod, Denied, Reason.PLAN_SAME_PRINCIPAL)
        await refused(store, decide(store, plan, PlanEvent.CONFIRM, who=EVE), NotFound, Reason.PLAN_NOT_FOUND)
        other = replace(plan, digest="f" * 64)
        await refused(store, decide(store, other, PlanEvent.CONFIRM), InvalidInput, Reason.PLAN_DIGEST_MISMATCH)
        await refused(store, decide(store, plan, PlanEvent.CONFIRM, now=301), WrongState, Reason.PLAN_LAPSED)
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(3))
        await refused(store, decide(store, plan, PlanEvent.CONFIRM, now=4), WrongState, Reason.TASK_ENDED)

    async def test_a_plan_of_nobody(self, store: Ledger) -> None:
        await refused(store, store.get_plan(TENANT, "plan-9"), NotFound, Reason.PLAN_NOT_FOUND)
        await store.register_plan(new_plan())
        await refused(store, store.get_plan("another tenant", "plan-1"), NotFound, Reason.PLAN_NOT_FOUND)


class StepContract(WithTask):
    """What a plan gives."""

    async def test_a_step_gives_one_lease_that_says_so(self, store: Ledger) -> None:
        plan = await confirmed(store)
        lease = await granted(store, cited(intent(now=3), plan=plan.id))
        assert (lease.plan_id, lease.parent_lease_id, lease.delegation_id) == (plan.id, "", "")
        assert await store.get_lease(TENANT, lease.id, ALICE) == lease
        assert await store.task_leases(TENANT, TASK) == [lease]
        (used,) = [record for record in await records(store) if record.type == "plan.step_used"]
        assert used.data == {"plan_id": plan.id, "step": "plan", "used_for": lease.id, "principal": "alice"}

    @pytest.mark.parametrize("ended", [False, True])
    async def test_and_no_second_one(self, store: Ledger, ended: bool) -> None:
        plan = await confirmed(store)
        lease = await granted(store, cited(intent(now=3), plan=plan.id))
        if ended:
            await store.end_leases(Selector(TENANT, lease_id=lease.id), EndCause.RELEASED, ALICE, at(5))
            (claimed,) = await store.claim_due("bao", at(5), 9, timedelta(seconds=9))
            await store.record_revocation(claimed, Event.REVOKE_CONFIRMED, at(5), at(5), "", False)
        for who in ALICE, BOB:
            again = cited(intent("2", now=6, holder=who), plan=plan.id)
            await refused_all(store, again, WrongState, Reason.PLAN_STEP_USED)

    async def test_of_two_executors_exactly_one_gets_it(self, store: Ledger) -> None:
        plan = await confirmed(store)
        calls = [
            store.open_intent(cited(intent(f"{who}{turn}", now=3, holder=holder), plan=plan.id))
            for who, holder in enumerate((ALICE, BOB))
            for turn in range(5)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        lost = [result for result in results if isinstance(result, WrongState)]
        assert len(lost) == len(results) - 1
        assert {error.reason for error in lost} == {Reason.PLAN_STEP_USED}
        assert (await types(store)).count("lease.intent") == 1

    async def test_each_step_by_itself(self, store: Ledger) -> None:
        plan = await confirmed(store, action("plan"), action("report"))
        first, second = intent(now=3), intent("2", now=3)
        second = replace(second, request=replace(second.request, step="report"))
        await granted(store, cited(first, plan=plan.id))
        await granted(store, cited(second, plan=plan.id))
        third = intent("3", now=5)
        third = replace(third, request=replace(third.request, step="else"))
        await refused_all(store, cited(third, plan=plan.id), InvalidInput, Reason.PLAN_STEP_UNKNOWN)

    async def test_a_retry_under_its_request_id_uses_the_step_once(self, store: Ledger) -> None:
        plan = await confirmed(store)
        lease = await granted(store, cited(intent(now=3), plan=plan.id))
        opened = await store.open_intent(cited(intent("2", now=20, request_id="request-1"), plan=plan.id))
        assert opened.lease_id == lease.id
        assert (await types(store)).count("plan.step_used") == 1

    @pytest.mark.parametrize("request_id", ["request-1", "another"])
    async def test_what_was_never_delivered_may_be_asked_again(self, store: Ledger, request_id: str) -> None:
        plan = await confirmed(store)
        await undelivered(store, cited(intent(now=3), plan=plan.id))
        lease = await granted(store, cited(intent("2", now=5, request_id=request_id), plan=plan.id))
        assert lease.plan_id == plan.id
        await refused_all(store, cited(intent("3", now=9), plan=plan.id), WrongState, Reason.PLAN_STEP_USED)

    @pytest.mark.parametrize("request_id", ["request-1", "another"])
    async def test_what_was_had_and_then_not_replaced_was_delivered(self, store: Ledger, request_id: str) -> None:
        """The executor had it, asked for another under the same id, and that was never issued."""
        plan = await confirmed(store)
        await granted(store, cited(intent(now=3), plan=plan.id))
        opened = await store.open_intent(cited(intent("2", now=20, request_id="request-1"), plan=plan.id))
        (old,) = opened.previous
        await store.end_attempt(TENANT, opened.attempt.id, Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(21))
        assert await store.record_revocation(old, Event.REVOKE_CONFIRMED, at(22), at(22), "", False)
        again = cited(intent("3", now=23, request_id=request_id), plan=plan.id)
        reason = Reason.LEASE_ENDED if request_id == "request-1" else Reason.PLAN_STEP_USED
        await refused_all(store, again, WrongState, reason)

    async def test_while_it_may_still_be_alive_it_is_used(self, store: Ledger) -> None:
        """The outcome is unknown: until its end is proven, nobody else gets it."""
        plan = await confirmed(store)
        opened = await store.open_intent(cited(intent(now=3), plan=plan.id))
        await store.end_attempt(TENANT, opened.attempt.id, Event.END, EndCause.OUTCOME_UNKNOWN, at(4))
        await refused_all(store, cited(intent("2", now=5), plan=plan.id), WrongState, Reason.PLAN_STEP_USED)

    async def test_what_was_not_confirmed_gives_nothing(self, store: Ledger) -> None:
        plan = await store.register_plan(new_plan())
        await refused_all(store, cited(intent(now=3), plan=plan.id), WrongState, Reason.PLAN_NOT_CONFIRMED)
        await decide(store, plan, PlanEvent.REJECT)
        await refused_all(store, cited(intent(now=3), plan=plan.id), WrongState, Reason.PLAN_REJECTED)
        other = await confirmed(store, name="plan-2")
        await refused_all(store, cited(intent(now=301), plan=other.id), WrongState, Reason.PLAN_LAPSED)

    async def test_who_may_not_execute(self, store: Ledger) -> None:
        plan = await confirmed(store)
        for who in PIA, VIC:
            asked = cited(intent(now=3, holder=who), plan=plan.id)
            await refused_all(store, asked, Denied, Reason.PLAN_SAME_PRINCIPAL)
        asked = cited(intent(now=3), plan=plan.id, roles=frozenset({"reader"}))
        await refused_all(store, asked, Denied, Reason.AGENT_ROLE_REQUIRED)
        await refused_all(store, cited(intent(now=3, holder=EVE), plan=plan.id), NotFound, Reason.TASK_NOT_FOUND)

    async def test_beyond_the_plan(self, store: Ledger) -> None:
        plan = await confirmed(store)
        longer = cited(intent(now=3, ttl=61), plan=plan.id)
        await refused_all(store, longer, Denied, Reason.PLAN_EXCEEDED)
        asked = intent(now=3)
        other = replace(asked, scope=replace(asked.scope, resource="all"))
        await refused_all(store, cited(other, plan=plan.id), Denied, Reason.PLAN_EXCEEDED)
        await granted(store, cited(intent("2", now=3, ttl=59), plan=plan.id))

    async def test_another_tasks_plan(self, store: Ledger) -> None:
        plan = await confirmed(store)
        await store.start_task(new_task("task-2", participants=EVERYBODY))
        asked = cited(intent(now=3, task="task-2"), plan=plan.id)
        await refused_all(store, asked, NotFound, Reason.PLAN_NOT_FOUND)


class DelegationContract(WithTask):
    """Handing on."""

    async def test_a_part_is_handed_on_and_redeemed_once(self, store: Ledger) -> None:
        await granted(store, intent(now=1))
        made = await store.delegate(hand_on())
        assert (made.chain, made.delegate, made.expires_at) == ((party(ALICE),), party(BOB), at(61))
        found, parent = await store.redeemable(TENANT, made.id, party(BOB), at(4))
        assert (found, parent.id) == (made, "lease-1")
        child = await granted(store, cited(intent("2", now=4, ttl=50, holder=BOB), delegation=made.id))
        assert (child.parent_lease_id, child.delegation_id) == ("lease-1", made.id)
        again = cited(intent("3", now=6, ttl=50, holder=BOB), delegation=made.id)
        await refused_all(store, again, WrongState, Reason.DELEGATION_USED)
        told = [name for name in await types(store) if name.startswith("delegation.")]
        assert told == ["delegation.given", "delegation.used"]

    async def test_repeating_it_and_reusing_its_request_id(self, store: Ledger) -> None:
        await granted(store, intent(now=1))
        made = await store.delegate(hand_on())
        again = hand_on(name="2", request_id="hand-on-1", request_digest="digest-of-hand-on-1")
        assert await store.delegate(again) == made
        other = replace(again, request_digest="else")
        await refused(store, store.delegate(other), Conflict, Reason.REQUEST_ID_REUSED)
        assert await store.task_delegations(TENANT, TASK, ALICE) == [made]
        assert await store.task_delegations(TENANT, TASK, BOB) == [made]
        assert await store.task_delegations(TENANT, TASK, PIA) == []

    @pytest.mark.parametrize(
        ("changes", "family", "reason"),
        [
            ({"delegator": party(BOB), "delegate": party(ALICE)}, NotFound, Reason.LEASE_NOT_FOUND),
            ({"lease_id": "lease-9"}, NotFound, Reason.LEASE_NOT_FOUND),
            ({"delegate": party(EVE)}, Denied, Reason.DELEGATE_NOT_PARTICIPANT),
            ({"delegate": party(ALICE)}, InvalidInput, Reason.DELEGATION_CIRCULAR),
            ({"delegate": Party(BOB, "alice")}, InvalidInput, Reason.DELEGATION_CIRCULAR),
            ({"resource": "all"}, Denied, Reason.DELEGATION_EXCEEDED),
            ({"template_digest": "n" * 64}, Denied, Reason.DELEGATION_EXCEEDED),
            ({"expires_at": at(62)}, Denied, Reason.DELEGATION_EXCEEDED),
            ({"further": 1}, Denied, Reason.DELEGATION_TOO_DEEP),
            ({"limits": TaskLimits(delegation_depth=0)}, Denied, Reason.DELEGATION_TOO_DEEP),
            ({"created_at": at(61)}, WrongState, Reason.LEASE_ENDED),
            ({"limits": TaskLimits(delegations_per_lease=0)}, Exhausted, Reason.LIMIT_DELEGATIONS),
            ({"limits": TaskLimits(delegations_per_task=0)}, Exhausted, Reason.LIMIT_DELEGATIONS),
        ],
    )
    async def test_what_is_not_handed_on(
        self, store: Ledger, changes: dict[str, Any], family: type[BrokerError], reason: Reason
    ) -> None:
        await granted(store, intent(now=1))
        await refused(store, store.delegate(hand_on(**changes)), family, reason)

    async def test_only_what_lives_is_handed_on(self, store: Ledger) -> None:
        await store.open_intent(intent(now=1))
        await refused(store, store.delegate(hand_on()), WrongState, Reason.LEASE_ENDED)
        await store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(2))
        await refused(store, store.delegate(hand_on()), WrongState, Reason.LEASE_ENDED)

    @pytest.mark.parametrize(
        ("changes", "family", "reason"),
        [
            ({"holder": VIC}, NotFound, Reason.DELEGATION_NOT_FOUND),
            ({"now": 40, "ttl": 1}, WrongState, Reason.DELEGATION_ENDED),
            ({"ttl": 37}, Denied, Reason.DELEGATION_EXCEEDED),
        ],
    )
    async def test_what_is_not_redeemed(
        self, store: Ledger, changes: dict[str, Any], family: type[BrokerError], reason: Reason
    ) -> None:
        await granted(store, intent(now=1))
        made = await store.delegate(hand_on(expires_at=at(40)))
        asked = intent("2", **{"now": 4, "ttl": 30, "holder": BOB, **changes})
        await refused_all(store, cited(asked, delegation=made.id), family, reason)

    async def test_beyond_what_was_handed_on(self, store: Ledger) -> None:
        await granted(store, intent(now=1))
        made = await store.delegate(hand_on(resource="orders/eu"))
        asked = cited(intent("2", now=4, ttl=30, holder=BOB), delegation=made.id)
        await refused_all(store, asked, Denied, Reason.DELEGATION_EXCEEDED)

    async def test_two_delegations_are_never_laid_together(self, store: Ledger) -> None:
        await granted(store, intent(now=1))
        eu = await store.delegate(hand_on(resource="orders/eu"))
        us = await store.delegate(hand_on(name="2", resource="orders/us"))
        for made in eu, us:
            asked = cited(intent("2", now=4, ttl=30, holder=BOB), delegation=made.id)
            await refused_all(store, asked, Denied, Reason.DELEGATION_EXCEEDED)

    @pytest.mark.parametrize(
        "how", ["released", "completed", "expired", "unregistered", "denied", "replaced", "attempt"]
    )
    async def test_what_hangs_under_a_lease_ends_with_it(self, store: Ledger, how: str) -> None:
        """Whatever ends the parent, in the same transaction: nobody sees a moment between."""
        await granted(store, intent(now=1))
        made = await store.delegate(hand_on())
        child = await granted(store, cited(intent("2", now=4, ttl=50, holder=BOB), delegation=made.id))
        unused = await store.delegate(hand_on(name="unused"))
        seen = PARENT_ENDS[how]
        await END_PARENT[how](store)
        lease = await store.get_lease(TENANT, child.id, BOB)
        assert (lease.state, lease.cause) == (State.REVOKING, seen)
        asked = cited(intent("3", now=30, ttl=5, holder=BOB), delegation=unused.id)
        family, reason = (
            (WrongState, Reason.DELEGATION_ENDED) if how != "completed" else (WrongState, Reason.TASK_ENDED)
        )
        await refused_all(store, asked, family, reason)

    async def test_an_issue_under_way_ends_with_its_parent(self, store: Ledger) -> None:
        await granted(store, intent(now=1))
        made = await store.delegate(hand_on())
        opened = await store.open_intent(cited(intent("2", now=4, ttl=50, holder=BOB), delegation=made.id))
        await store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(5))
        with pytest.raises(WrongState) as refused_:
            await activate(store, opened, now=6)
        assert refused_.value.reason is Reason.LEASE_ENDED
        assert (await store.get_lease(TENANT, "lease-2", BOB)).state is State.REVOKING

    async def test_a_whole_subtree_ends_at_once(self, store: Ledger) -> None:
        deep = TaskLimits(delegation_depth=2)
        await granted(store, intent(now=1))
        first = await store.delegate(hand_on(further=1, limits=deep))
        await granted(store, cited(intent("2", now=4, ttl=50, holder=BOB), delegation=first.id))
        second = await store.delegate(hand_on("lease-2", VIC, "2", delegator=party(BOB), limits=deep, created_at=at(6)))
        assert second.chain == (party(ALICE), party(BOB))
        leaf = await granted(store, cited(intent("3", now=7, ttl=40, holder=VIC), delegation=second.id))
        # Whoever held it before sees it; whoever did not does not.
        for who in ALICE, BOB:
            assert (await store.get_lease(TENANT, leaf.id, who)).id == leaf.id
        await refused(store, store.get_lease(TENANT, leaf.id, PIA), NotFound, Reason.LEASE_NOT_FOUND)
        await refused(store, store.get_lease(TENANT, "lease-1", BOB), NotFound, Reason.LEASE_NOT_FOUND)
        circular = hand_on(
            "lease-3", ALICE, "3", delegator=party(VIC), created_at=at(9), limits=TaskLimits(delegation_depth=9)
        )
        await refused(store, store.delegate(circular), InvalidInput, Reason.DELEGATION_CIRCULAR)
        deeper = hand_on(
            "lease-3", PIA, "4", delegator=party(VIC), created_at=at(9), limits=TaskLimits(delegation_depth=9)
        )
        await refused(store, store.delegate(deeper), Denied, Reason.DELEGATION_TOO_DEEP)
        before = len(await records(store))
        await store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(10))
        causes = {lease.id: lease.cause for lease in await store.task_leases(TENANT, TASK)}
        assert causes == {
            "lease-1": EndCause.RELEASED,
            "lease-2": EndCause.PARENT_ENDED,
            "lease-3": EndCause.PARENT_ENDED,
        }
        assert [record.type for record in (await records(store))[before:]] == ["lease.revoking"] * 3

    async def test_more_parts_than_one_portion_end_with_it(self, store: Ledger) -> None:
        limits = TaskLimits(delegations_per_lease=1000, delegations_per_task=1000)
        await granted(store, intent(now=1))
        for number in range(300):
            made = await store.delegate(hand_on(name=f"p{number}", limits=limits))
            asked = intent(f"p{number}", now=4, ttl=50, holder=BOB, max_live_leases=1000)
            await store.open_intent(cited(asked, delegation=made.id))
        await store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(5))
        assert {lease.state for lease in await store.task_leases(TENANT, TASK)} == {State.REVOKING}

    @pytest.mark.parametrize("who", [ALICE, BOB])
    async def test_taken_back_it_ends_what_was_issued_by_it(self, store: Ledger, who: str) -> None:
        await granted(store, intent(now=1))
        made = await store.delegate(hand_on())
        child = await granted(store, cited(intent("2", now=4, ttl=50, holder=BOB), delegation=made.id))
        call = store.revoke_delegation(TENANT, made.id, who, at(7))
        if who == BOB:  # the delegate gives its lease back; the delegation is not its own
            await refused(store, call, NotFound, Reason.DELEGATION_NOT_FOUND)
            return
        taken_back = await call
        assert taken_back.revoked_at == at(7)
        ended = await store.get_lease(TENANT, child.id, BOB)
        assert (ended.state, ended.cause) == (State.REVOKING, EndCause.DELEGATION_REVOKED)
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.ACTIVE
        before = await types(store)
        assert await store.revoke_delegation(TENANT, made.id, ALICE, at(9)) == taken_back
        assert await types(store) == before
        asked = cited(intent("3", now=9, ttl=5, holder=BOB), delegation=made.id)
        await refused_all(store, asked, WrongState, Reason.DELEGATION_ENDED)

    async def test_what_a_plan_gave_stays_apart_from_who_made_the_plan(self, store: Ledger) -> None:
        plan = await confirmed(store)
        await granted(store, cited(intent(now=3), plan=plan.id))
        for who in PIA, VIC:
            handed = hand_on(to=who, name=who[-3:], created_at=at(5))
            await refused(store, store.delegate(handed), Denied, Reason.PLAN_SAME_PRINCIPAL)
        made = await store.delegate(hand_on(created_at=at(5)))
        reader = cited(intent("2", now=6, ttl=30, holder=BOB), delegation=made.id, roles=frozenset({"reader"}))
        await refused_all(store, reader, Denied, Reason.AGENT_ROLE_REQUIRED)
        child = await granted(store, cited(intent("3", now=6, ttl=30, holder=BOB), delegation=made.id))
        assert (child.plan_id, child.delegation_id) == (plan.id, made.id)
        # The part does not use the step a second time, and does not free it.
        await refused_all(store, cited(intent("4", now=9), plan=plan.id), WrongState, Reason.PLAN_STEP_USED)


END_PARENT: dict[str, Any] = {
    "released": lambda store: store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(7)),
    "completed": lambda store: store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(7)),
    "expired": lambda store: store.claim_due("bao", at(61), 9, timedelta(seconds=30)),
    "unregistered": lambda store: store.end_unregistered(TENANT, lambda holder: holder != ALICE, at(7)),
    "denied": lambda store: store.end_denied(TENANT, lambda holder, serial: holder == ALICE, at(7)),
    "replaced": lambda store: store.open_intent(intent("9", now=7, request_id="request-1")),
    "attempt": lambda store: store.end_attempt(TENANT, "attempt-1", Event.END, EndCause.ABANDONED, at(7)),
}
PARENT_ENDS = dict.fromkeys(END_PARENT, EndCause.PARENT_ENDED) | {
    "completed": EndCause.COMPLETED,  # the task's end ends both by itself
    "expired": EndCause.EXPIRED,  # it never lives longer than its parent
}


class LimitContract(WithTask):
    """Retries and chains have an end."""

    async def test_attempts_of_a_lease(self, store: Ledger) -> None:
        limits = TaskLimits(attempts_per_lease=2)
        await store.open_intent(intent("1", now=1, limits=limits))
        await store.open_intent(intent("2", now=12, ttl=30, request_id="request-1", limits=limits))
        third = intent("3", now=23, ttl=30, request_id="request-1", limits=limits)
        await refused_all(store, third, Exhausted, Reason.LIMIT_ATTEMPTS_PER_LEASE)

    async def test_leases_of_a_task(self, store: Ledger) -> None:
        limits = TaskLimits(leases_per_task=2)
        await undelivered(store, intent("1", now=1, limits=limits))
        await store.open_intent(intent("2", now=1, limits=limits))
        await refused_all(store, intent("3", now=1, limits=limits), Exhausted, Reason.LIMIT_LEASES_PER_TASK)
        # A retry is not one more.
        await store.open_intent(intent("4", now=12, ttl=30, request_id="request-2", limits=limits))


class PipelineStoreContract(PlanContract, StepContract, DelegationContract, LimitContract):
    """The whole contract. Subclass it and give the fixture ``store``: an open, empty ledger."""
