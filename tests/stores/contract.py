"""What every LeaseStore does: the docstrings of the port, as tests. An adapter gives the ``store`` fixture.

The suite uses nothing but the port, so it runs unchanged on every adapter. Times are seconds after T0
(:mod:`tests.stores.make`): a task is open from 0 to 600, an intent at 1 has until 11 to be issued and
lives until 61, an activation at 2 must be confirmed by 32.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.audit.chain import GENESIS, link
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.record import Record, decode
from broker.errors import BrokerError, Conflict, Defect, Exhausted, InvalidInput, NotFound, Reason, WrongState
from broker.lease.machine import TERMINAL, TRANSITIONS, Event, State
from broker.ports.connectors import Noted
from broker.ports.figures import ExportBacklog
from broker.ports.intents import Opened
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import Attempt, EndCause, Lease, LeaseFilter, Selector, Tried
from broker.ports.ledger import Ledger
from broker.ports.tasks import TaskState
from broker.ports.trail import HighWater
from tests.stores.contract_holdings import HoldingContract
from tests.stores.make import ALICE, BOB, T0, TASK, TENANT, at, intent, new_task

# Ends after which the agent does not have what it asked for.
UNDELIVERED = {
    EndCause.NEVER_ISSUED,
    EndCause.OUTCOME_UNKNOWN,
    EndCause.GRANT_MISMATCH,
    EndCause.ABANDONED,
    EndCause.UNCONFIRMED,
    EndCause.REPLACED,
}


def nobody(holder: str) -> bool:
    """A registry without agents."""
    return False


async def grant(store: LeaseStore, name: str = "1", *, now: float = 1, **changes: Any) -> Lease:
    """An ACTIVE lease: intent at ``now``, activated a second later, to be confirmed within 30 s of that."""
    asked = intent(name, now=now, **changes)
    opened = await store.open_intent(asked)
    return await activate(store, opened, now=now + 1)


async def activate(
    store: LeaseStore, opened: Opened, *, now: float, confirm_by: float | None = None, noted: Noted | None = None
) -> Lease:
    attempt = opened.attempt
    confirm = at(now + 30 if confirm_by is None else confirm_by)
    return await store.activate(
        attempt.tenant, attempt.id, attempt.epoch, attempt.expires_at, confirm, {}, at(now), noted
    )


async def records(store: LeaseStore) -> list[Record]:
    return [decode(body) for body in await store.audit_since(0, 10_000)]


async def types(store: LeaseStore) -> list[str]:
    return [record.type for record in await records(store)]


async def refused(store: LeaseStore, call: Awaitable[Any], family: type[BrokerError], reason: Reason) -> BrokerError:
    """``call`` is refused for ``reason``, *and nothing was recorded*."""
    before = await types(store)
    with pytest.raises(family) as caught:
        await call
    assert caught.value.reason is reason
    assert await types(store) == before
    return caught.value


async def revoke_all(store: LeaseStore, connector: str = "bao", *, now: float) -> Sequence[Attempt]:
    claimed = await store.claim_due(connector, at(now), 100, timedelta(seconds=30))
    for attempt in claimed:
        assert await store.record_revocation(attempt, Event.REVOKE_CONFIRMED, at(now), at(now), "", False)
    return claimed


class TaskContract:
    """Tasks."""

    async def test_a_started_task_is_open_and_can_be_read(self, store: LeaseStore) -> None:
        task = await store.start_task(new_task(participants=frozenset({BOB})))
        assert (task.state, task.cause, task.ended_at) == (TaskState.OPEN, None, None)
        assert task.participants == {ALICE, BOB}  # the creator is one of them, named or not
        assert await store.get_task(TENANT, TASK) == task
        assert await types(store) == ["task.started"]

    async def test_starting_again_with_the_same_content_returns_the_first(self, store: LeaseStore) -> None:
        first = await store.start_task(new_task())
        again = await store.start_task(
            new_task("task-2", request_id="start-task-1", request_digest="digest-of-start-task-1")
        )
        assert again == first
        assert await types(store) == ["task.started"]

    async def test_starting_again_with_other_content_is_a_conflict(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        other = new_task("task-2", request_id="start-task-1", request_digest="something else")
        await refused(store, store.start_task(other), Conflict, Reason.REQUEST_ID_REUSED)

    async def test_two_creators_may_use_the_same_request_id(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        theirs = await store.start_task(new_task("task-2", request_id="start-task-1", creator=BOB))
        assert theirs.id == "task-2"

    async def test_the_quota_of_open_tasks(self, store: LeaseStore) -> None:
        await store.start_task(new_task("a", max_open=2))
        await store.start_task(new_task("b", max_open=2))
        await refused(store, store.start_task(new_task("c", max_open=2)), Exhausted, Reason.QUOTA_OPEN_TASKS)
        await store.end_task(TENANT, "a", TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(1))
        assert (await store.start_task(new_task("c", max_open=2))).id == "c"

    async def test_a_task_that_has_no_future_is_refused(self, store: LeaseStore) -> None:
        await refused(store, store.start_task(new_task(deadline=T0)), InvalidInput, Reason.TTL_INVALID)

    async def test_an_unknown_task(self, store: LeaseStore) -> None:
        await refused(store, store.get_task(TENANT, "nothing"), NotFound, Reason.TASK_NOT_FOUND)
        end = store.end_task(TENANT, "nothing", TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(1))
        await refused(store, end, NotFound, Reason.TASK_NOT_FOUND)
        hold = store.hold_task(TENANT, "nothing", timedelta(seconds=5), at(6), at(1))
        await refused(store, hold, NotFound, Reason.TASK_NOT_FOUND)

    async def test_ending_a_task_ends_what_lives_under_it_and_nothing_else(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.start_task(new_task("task-2"))
        await grant(store, "active")
        await store.open_intent(intent("issuing"))
        await grant(store, "elsewhere", task="task-2")
        task = await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        assert (task.state, task.cause, task.ended_at) == (TaskState.COMPLETED, EndCause.COMPLETED, at(5))
        for lease in await store.task_leases(TENANT, TASK):
            assert (lease.state, lease.cause, lease.next_due) == (State.REVOKING, EndCause.COMPLETED, at(5))
        assert [lease.state for lease in await store.task_leases(TENANT, "task-2")] == [State.ACTIVE]

    async def test_ending_again_changes_nothing(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        first = await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        before = await types(store)
        again = await store.end_task(TENANT, TASK, TaskState.ENDED, EndCause.TASK_DEADLINE, "broker", at(9))
        assert again == first
        assert await types(store) == before

    async def test_a_task_cannot_be_ended_into_open(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        end = store.end_task(TENANT, TASK, TaskState.OPEN, EndCause.COMPLETED, ALICE, at(5))
        await refused(store, end, Defect, Reason.INTERNAL)

    async def test_holding_a_task(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        task = await store.hold_task(TENANT, TASK, timedelta(seconds=5), at(7), at(2))
        assert (task.hold_grace, task.hold_until) == (timedelta(seconds=5), at(7))
        await refused(
            store, store.hold_task(TENANT, TASK, timedelta(seconds=5), at(12), at(7)), WrongState, Reason.TASK_ENDED
        )
        assert await store.get_task(TENANT, TASK) == task

    async def test_of_several_streams_that_hold_a_task_the_longest_counts(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        long = await store.hold_task(TENANT, TASK, timedelta(seconds=60), at(62), at(2))
        # A second stream with a short grace, and it is gone: what the first was told holds.
        assert await store.hold_task(TENANT, TASK, timedelta(seconds=1), at(4), at(3)) == long
        assert await store.end_due_tasks(at(61.999), 10) == 0
        longer = await store.hold_task(TENANT, TASK, timedelta(seconds=1), at(63), at(61.999))
        assert (longer.hold_grace, longer.hold_until) == (timedelta(seconds=1), at(63))
        assert await store.end_due_tasks(at(63), 10) == 1

    @pytest.mark.parametrize(
        ("hold_until", "seconds", "ended", "cause"),
        [
            (None, 599.999, 0, None),
            (None, 600, 1, EndCause.TASK_DEADLINE),
            (20, 19.999, 0, None),
            (20, 20, 1, EndCause.HOLD_DROPPED),
            (700, 600, 1, EndCause.TASK_DEADLINE),  # a hold does not move the deadline
        ],
    )
    async def test_due_tasks_end(
        self, store: LeaseStore, hold_until: float | None, seconds: float, ended: int, cause: EndCause | None
    ) -> None:
        await store.start_task(new_task())
        await grant(store)
        if hold_until is not None:
            await store.hold_task(TENANT, TASK, timedelta(seconds=5), at(hold_until), at(2))
        assert await store.end_due_tasks(at(seconds), 10) == ended
        task = await store.get_task(TENANT, TASK)
        (lease,) = await store.task_leases(TENANT, TASK)
        assert task.cause is cause
        assert (task.state is TaskState.ENDED) is bool(ended)
        assert (lease.state, lease.cause) == ((State.REVOKING, cause) if ended else (State.ACTIVE, None))

    async def test_due_tasks_end_in_portions(self, store: LeaseStore) -> None:
        for number in range(5):
            await store.start_task(new_task(f"task-{number}", deadline=at(10 + number)))
        assert await store.end_due_tasks(at(100), 3) == 3
        assert await store.end_due_tasks(at(100), 3) == 2
        assert await store.end_due_tasks(at(100), 3) == 0


class IntentContract:
    """The intent transaction."""

    async def test_an_intent_is_durable_before_anything_is_issued(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent())
        attempt = opened.attempt
        assert (opened.lease_id, attempt.id, attempt.number, opened.previous) == ("lease-1", "attempt-1", 1, ())
        assert (attempt.state, attempt.handle) == (State.ISSUING, {"attempt": "attempt-1"})
        assert attempt.due_at == at(11)  # min(issue deadline 1 + 10, expiry 1 + 60)
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.expires_at, lease.next_due) == (State.ISSUING, at(61), at(11))
        assert (lease.actions, lease.parameters, lease.policies) == (("SELECT",), {"schema": "public"}, ("dev-read",))
        (_, told) = await records(store)
        assert (told.type, told.actor, told.lease_id, told.attempt_id) == (
            "lease.intent",
            ALICE,
            "lease-1",
            "attempt-1",
        )
        assert told.data["reason"] == "because"
        assert told.data["policies"] == ["dev-read"]

    @pytest.mark.parametrize(
        ("asked", "family", "reason"),
        [
            (intent(task="nothing"), NotFound, Reason.TASK_NOT_FOUND),
            (intent(holder="spiffe://example.org/agent/carol"), NotFound, Reason.TASK_NOT_FOUND),
            (intent(tenant="other"), NotFound, Reason.TASK_NOT_FOUND),
            (intent(now=600), WrongState, Reason.TASK_ENDED),
            (intent(now=540.001, ttl=60), WrongState, Reason.TASK_ENDS_TOO_SOON),  # 540.001 + 60 > 600
            (intent(ttl=0), InvalidInput, Reason.TTL_INVALID),
            (intent(ttl=-1), InvalidInput, Reason.TTL_INVALID),
            (intent(max_live_leases=0), Exhausted, Reason.QUOTA_LIVE_LEASES),
        ],
    )
    async def test_refusals_write_nothing(
        self, store: LeaseStore, asked: Any, family: type[BrokerError], reason: Reason
    ) -> None:
        await store.start_task(new_task())
        await refused(store, store.open_intent(asked), family, reason)
        await refused(store, store.check_intent(asked), family, reason)
        assert await store.task_leases(TENANT, TASK) == []

    async def test_the_last_moment_that_fits_the_task(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent(now=540, ttl=60))  # 540 + 60 = 600, the deadline
        assert opened.attempt.expires_at == at(600)

    async def test_a_closed_task_grants_nothing(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(0.5))
        await refused(store, store.open_intent(intent()), WrongState, Reason.TASK_ENDED)

    async def test_a_dropped_hold_grants_nothing_even_before_it_is_swept(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.hold_task(TENANT, TASK, timedelta(seconds=5), at(5), at(0))
        await refused(store, store.open_intent(intent(now=5)), WrongState, Reason.TASK_ENDED)

    async def test_checking_writes_nothing(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.check_intent(intent())
        assert await store.task_leases(TENANT, TASK) == []
        assert await types(store) == ["task.started"]

    async def test_the_quota_counts_what_may_be_alive(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store, "a", max_live_leases=2)
        await store.open_intent(intent("b", max_live_leases=2))
        await store.end_leases(Selector(TENANT, lease_id="lease-a"), EndCause.RELEASED, ALICE, at(5))
        # One is REVOKING, one ISSUING: either may be alive.
        third = intent("c", now=6, max_live_leases=2)
        await refused(store, store.open_intent(third), Exhausted, Reason.QUOTA_LIVE_LEASES)
        assert (await store.open_intent(intent("bobs", holder=BOB, max_live_leases=1))).lease_id == "lease-bobs"
        await revoke_all(store, now=6)
        assert (await store.open_intent(third)).lease_id == "lease-c"

    async def test_thirty_two_at_once_under_one_request_id_make_one_attempt(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        calls = [store.open_intent(intent(f"{n}", request_id="same")) for n in range(32)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        won = [outcome for outcome in outcomes if isinstance(outcome, Opened)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        assert (len(won), len(lost)) == (1, 31)
        assert {conflict.reason for conflict in lost} == {Reason.REQUEST_IN_FLIGHT}
        assert len(await store.task_leases(TENANT, TASK)) == 1


class RetryContract:
    """The same request id again."""

    async def test_a_retry_replaces_the_earlier_attempt(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        opened = await store.open_intent(intent("2", now=5, request_id="request-1"))
        assert (opened.lease_id, opened.attempt.id, opened.attempt.number) == ("lease-1", "attempt-2", 2)
        (old,) = opened.previous
        assert (old.id, old.state, old.cause, old.due_at) == ("attempt-1", State.REVOKING, EndCause.REPLACED, at(5))
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.cause, lease.attempt_id, lease.attempts) == (State.ISSUING, None, "attempt-2", 2)
        assert (lease.confirm_by, lease.next_due) == (None, at(5))  # the old attempt is due first
        assert await store.record_revocation(old, Event.REVOKE_CONFIRMED, at(6), at(6), "", False)
        assert (await activate(store, opened, now=7)).state is State.ACTIVE
        assert [attempt.id for attempt in await store.living_attempts(TENANT, "lease-1")] == ["attempt-2"]

    async def test_a_retry_never_outlives_the_first_grant(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)  # until 1 + 60 = 61
        opened = await store.open_intent(intent("2", now=50, request_id="request-1"))  # asks until 110
        assert opened.attempt.expires_at == at(61)

    async def test_while_the_first_is_in_flight(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())  # may be issued until 11
        again = intent("2", now=10.999, request_id="request-1")
        await refused(store, store.open_intent(again), Conflict, Reason.REQUEST_IN_FLIGHT)
        late = await store.open_intent(replace(again, now=at(11), issue_deadline=at(21)))
        assert [attempt.id for attempt in late.previous] == ["attempt-1"]

    async def test_every_older_living_attempt_is_named(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent("1", now=1))
        await store.open_intent(intent("2", now=12, request_id="request-1"))
        third = await store.open_intent(intent("3", now=23, request_id="request-1"))
        assert [attempt.id for attempt in third.previous] == ["attempt-1", "attempt-2"]
        assert {attempt.state for attempt in third.previous} == {State.REVOKING}

    async def test_other_content_under_the_same_id(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        other = intent("2", now=5, request_id="request-1", request_digest="something else")
        await refused(store, store.open_intent(other), Conflict, Reason.REQUEST_ID_REUSED)

    @pytest.mark.parametrize("swept", [False, True])
    @pytest.mark.parametrize("cause", sorted(set(EndCause) - UNDELIVERED))
    async def test_what_ran_its_course_does_not_come_back(
        self, store: LeaseStore, cause: EndCause, swept: bool
    ) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.end_leases(Selector(TENANT, lease_id="lease-1"), cause, ALICE, at(3))
        if swept:
            await revoke_all(store, now=4)
        again = intent("2", now=5, request_id="request-1")
        await refused(store, store.open_intent(again), WrongState, Reason.LEASE_ENDED)
        await refused(store, store.check_intent(again), WrongState, Reason.LEASE_ENDED)

    @pytest.mark.parametrize("cause", sorted(UNDELIVERED))
    async def test_what_was_not_delivered_is_asked_for_again(self, store: LeaseStore, cause: EndCause) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.end_attempt(TENANT, "attempt-1", Event.END, cause, at(3))
        # While the first may be alive, the retry is a further attempt of the same lease, and waits for it.
        second = await store.open_intent(intent("2", now=5, request_id="request-1"))
        assert (second.lease_id, second.attempt.number) == ("lease-1", 2)
        assert [attempt.id for attempt in second.previous] == ["attempt-1"]
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.ISSUING
        # Once nothing of it lives, the retry opens a new lease.
        await revoke_all(store, now=5)
        await store.end_attempt(TENANT, "attempt-2", Event.NEVER_ISSUED, cause, at(6))
        third = await store.open_intent(intent("3", now=7, request_id="request-1"))
        assert (third.lease_id, third.attempt.number, third.previous) == ("lease-3", 1, ())
        assert third.attempt.expires_at == at(67)
        # And the request id names that one now.
        await refused(
            store,
            store.open_intent(intent("4", now=8, request_id="request-1")),
            Conflict,
            Reason.REQUEST_IN_FLIGHT,
        )

    async def test_what_was_confirmed_once_did_not_come_to_nothing(self, store: LeaseStore) -> None:
        """The agent had it, and asked for another that was never issued: what was asked for was given."""
        await store.start_task(new_task())
        await grant(store)
        confirmed = await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(4))
        opened = await store.open_intent(intent("2", now=5, request_id="request-1"))
        (old,) = opened.previous
        assert await store.record_revocation(old, Event.REVOKE_CONFIRMED, at(6), at(6), "", False)
        await store.end_attempt(TENANT, "attempt-2", Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(7))
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state in TERMINAL, lease.cause) == (True, EndCause.NEVER_ISSUED)
        assert lease.confirmed_at == confirmed.confirmed_at == at(4)
        again = intent("3", now=8, request_id="request-1")
        await refused(store, store.open_intent(again), WrongState, Reason.LEASE_ENDED)

    async def test_a_retry_of_what_was_confirmed_is_to_be_confirmed_anew(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(4))
        opened = await store.open_intent(intent("2", now=5, request_id="request-1"))
        lease = await activate(store, opened, now=6)
        assert lease.confirm_by == at(36)
        lease = await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-2", at(7))
        assert (lease.confirm_by, lease.confirmed_at) == (None, at(7))

    async def test_a_new_lease_by_retry_needs_room_in_the_quota(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        await store.end_attempt(TENANT, "attempt-1", Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(2))
        await grant(store, "other", now=3)
        again = intent("2", now=5, request_id="request-1", max_live_leases=1)
        await refused(store, store.open_intent(again), Exhausted, Reason.QUOTA_LIVE_LEASES)

    async def test_a_lease_past_its_time_is_not_retried(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)  # until 61, not swept
        again = intent("2", now=61, request_id="request-1")
        await refused(store, store.open_intent(again), WrongState, Reason.LEASE_ENDED)

    async def test_another_holder_may_use_the_same_request_id(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        opened = await store.open_intent(intent("2", holder=BOB, request_id="request-1"))
        assert (opened.lease_id, opened.previous) == ("lease-2", ())


class IssuingContract:
    """Checkpoint, activation, delivery."""

    async def test_a_checkpoint_replaces_the_handle(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        await store.checkpoint(TENANT, "attempt-1", 1, {"accessor": "a"}, "name-1", at(2))
        await store.checkpoint(TENANT, "attempt-1", 1, {"accessor": "b"}, None, at(3))  # None keeps the name
        (attempt,) = await store.claim_due("bao", at(11), 10, timedelta(seconds=30))
        assert attempt.handle == {"accessor": "b"}
        assert await store.known_upstream("bao", ["name-1", "name-2"]) == {"name-1"}
        assert await store.known_upstream("other", ["name-1"]) == frozenset()

    async def test_a_checkpoint_of_an_ended_attempt_changes_nothing(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        stale = store.checkpoint(TENANT, "attempt-1", 7, {"x": 1}, "name", at(2))
        await refused(store, stale, WrongState, Reason.LEASE_ENDED)
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(2))
        late = store.checkpoint(TENANT, "attempt-1", 1, {"x": 1}, "name", at(3))
        await refused(store, late, WrongState, Reason.LEASE_ENDED)
        (attempt,) = await store.living_attempts(TENANT, "lease-1")
        assert attempt.handle == {"attempt": "attempt-1"}
        assert await store.known_upstream("bao", ["name"]) == frozenset()

    async def test_an_unknown_attempt(self, store: LeaseStore) -> None:
        missing = (
            store.checkpoint(TENANT, "nothing", 1, {}, None, at(2)),
            store.activate(TENANT, "nothing", 1, at(60), at(32), {}, at(2)),
            store.end_attempt(TENANT, "nothing", Event.END, EndCause.RELEASED, at(2)),
            store.confirm_delivery(TENANT, "nothing", ALICE, "nothing", at(2)),
        )
        for call in missing:
            await refused(store, call, NotFound, Reason.LEASE_NOT_FOUND)

    async def test_activation(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        lease = await grant(store)
        assert (lease.state, lease.expires_at, lease.confirm_by) == (State.ACTIVE, at(61), at(32))
        assert lease.next_due == at(32)  # unconfirmed by then: taken back
        assert await store.get_lease(TENANT, "lease-1", ALICE) == lease
        assert await types(store) == ["task.started", "lease.intent", "lease.issued"]

    async def test_activation_only_shortens(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        for name, granted, kept in (("longer", 1000, 61), ("shorter", 40, 40)):
            await store.open_intent(intent(name))
            lease = await store.activate(TENANT, f"attempt-{name}", 1, at(granted), at(32), {}, at(2))
            assert lease.expires_at == at(kept)

    @pytest.mark.parametrize(("now", "state"), [(2, State.ACTIVE), (61, State.REVOKING), (600, State.REVOKING)])
    async def test_an_activation_keeps_what_ends_it_also_of_what_is_too_late(
        self, store: LeaseStore, now: float, state: State
    ) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent())
        with nullcontext() if state is State.ACTIVE else pytest.raises(WrongState):
            await activate(store, opened, now=now, noted=Noted({"lease": "up-1"}, "up-1"))
        (attempt,) = await store.living_attempts(TENANT, "lease-1")
        assert (attempt.state, attempt.handle) == (state, {"lease": "up-1"})
        assert await store.known_upstream(attempt.connector, ["up-1", "up-2"]) == {"up-1"}

    async def test_a_stale_epoch_activates_nothing(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        stale = store.activate(TENANT, "attempt-1", 2, at(60), at(32), {}, at(2))
        await refused(store, stale, WrongState, Reason.LEASE_ENDED)
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.ISSUING

    async def test_an_ended_attempt_is_not_activated(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent())
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(2))
        await refused(store, activate(store, opened, now=3), WrongState, Reason.LEASE_ENDED)
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.cause) == (State.REVOKING, EndCause.COMPLETED)

    @pytest.mark.parametrize(
        ("hold_until", "now", "reason", "cause"),
        [
            (None, 600, Reason.TASK_ENDED, EndCause.TASK_DEADLINE),
            (5, 5, Reason.TASK_ENDED, EndCause.HOLD_DROPPED),
            (None, 61, Reason.LEASE_ENDED, EndCause.EXPIRED),
        ],
    )
    async def test_too_late_to_activate_leaves_it_revoking(
        self, store: LeaseStore, hold_until: float | None, now: float, reason: Reason, cause: EndCause
    ) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent())
        if hold_until is not None:
            await store.hold_task(TENANT, TASK, timedelta(seconds=5), at(hold_until), at(0))
        with pytest.raises(WrongState) as caught:
            await activate(store, opened, now=now)
        assert caught.value.reason is reason
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.cause, lease.next_due) == (State.REVOKING, cause, at(now))
        assert (await types(store))[-1] == "lease.revoking"

    async def test_confirming_delivery(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        lease = await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(31.999))
        assert (lease.confirmed_at, lease.confirm_by, lease.next_due) == (at(31.999), None, at(61))
        before = await types(store)
        assert await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(40)) == lease
        assert await types(store) == before

    async def test_who_may_not_confirm_and_when(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await grant(store, "2", now=3)
        cases: list[tuple[str, str, str, float, type[BrokerError], Reason]] = [
            ("lease-1", BOB, "attempt-1", 5, NotFound, Reason.LEASE_NOT_FOUND),
            ("lease-1", ALICE, "attempt-2", 5, NotFound, Reason.LEASE_NOT_FOUND),
            ("lease-1", ALICE, "attempt-1", 32, WrongState, Reason.LEASE_ENDED),  # 2 + 30: too late
        ]
        for lease_id, holder, attempt_id, now, family, reason in cases:
            call = store.confirm_delivery(TENANT, lease_id, holder, attempt_id, at(now))
            await refused(store, call, family, reason)
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).confirmed_at is None

    async def test_a_replaced_attempt_cannot_be_confirmed(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.open_intent(intent("2", now=5, request_id="request-1"))
        call = store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(6))
        await refused(store, call, WrongState, Reason.LEASE_ENDED)


class EndingContract:
    """Ending attempts and leases."""

    @pytest.mark.parametrize("event", [Event.END, Event.NEVER_ISSUED])
    @pytest.mark.parametrize("state", list(State))
    async def test_end_attempt_follows_the_machine(self, store: LeaseStore, state: State, event: Event) -> None:
        await store.start_task(new_task())
        await self._bring_to(store, state)
        before = await types(store)
        expected = TRANSITIONS.get((state, event), state)
        assert await store.end_attempt(TENANT, "attempt-1", event, EndCause.ABANDONED, at(20), "why") is expected
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert lease.state is expected
        assert (lease.ended_at is not None) is (expected in TERMINAL)
        assert (lease.next_due is None) is (expected in TERMINAL)
        assert len(await types(store)) == len(before) + (expected is not state)

    async def _bring_to(self, store: LeaseStore, state: State) -> None:
        opened = await store.open_intent(intent())
        if state is State.ISSUING:
            return
        if state is State.VOID:
            await store.end_attempt(TENANT, "attempt-1", Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(2))
            return
        await activate(store, opened, now=2)
        if state is State.ACTIVE:
            return
        await store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(3))
        if state is State.REVOKING:
            return
        event = Event.REVOKE_CONFIRMED if state is State.REVOKED else Event.TIME_ENDED
        (attempt,) = await store.claim_due("bao", at(3), 1, timedelta(seconds=30))
        await store.record_revocation(attempt, event, at(4), at(4), "", False)

    async def test_the_first_cause_stands(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(3))
        await store.end_attempt(TENANT, "attempt-1", Event.END, EndCause.ABANDONED, at(4))
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).cause is EndCause.RELEASED

    async def test_end_attempt_takes_no_other_event(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        for event in (Event.ISSUED, Event.REVOKE_CONFIRMED, Event.TIME_ENDED):
            call = store.end_attempt(TENANT, "attempt-1", event, EndCause.ABANDONED, at(2))
            await refused(store, call, Defect, Reason.INTERNAL)

    @pytest.mark.parametrize(
        ("selector", "ended"),
        [
            (Selector(TENANT, lease_id="lease-a1"), {"lease-a1"}),
            (Selector(TENANT, attempt_id="attempt-a2"), {"lease-a2"}),
            (Selector(TENANT, task_id=TASK), {"lease-a1", "lease-b1"}),
            (Selector(TENANT, holder=ALICE), {"lease-a1", "lease-a2"}),
            (Selector(TENANT, task_id=TASK, holder=ALICE), {"lease-a1"}),
            (Selector(TENANT, lease_id="lease-a1", holder=BOB), set()),
            (Selector(TENANT, lease_id="lease-a1", task_id="task-2"), set()),
            (Selector(TENANT, attempt_id="attempt-a1", holder=BOB), set()),
            (Selector("other", holder=ALICE), set()),
        ],
    )
    async def test_selectors(self, store: LeaseStore, selector: Selector, ended: set[str]) -> None:
        await store.start_task(new_task())
        await store.start_task(new_task("task-2"))
        await grant(store, "a1")
        await grant(store, "a2", task="task-2")
        await grant(store, "b1", holder=BOB)
        assert await store.end_leases(selector, EndCause.RELEASED, "operator", at(5)) == len(ended)
        leases = [*await store.task_leases(TENANT, TASK), *await store.task_leases(TENANT, "task-2")]
        assert {lease.id for lease in leases if lease.state is State.REVOKING} == ended
        told = [record for record in await records(store) if record.type == "lease.revoking"]
        assert {record.lease_id for record in told} == ended
        assert {record.actor for record in told} <= {"operator"}
        assert await store.end_leases(selector, EndCause.RELEASED, "operator", at(6)) == 0

    async def test_a_selector_selects_something(self, store: LeaseStore) -> None:
        for selector in (Selector(TENANT), Selector("", holder=ALICE)):
            call = store.end_leases(selector, EndCause.RELEASED, ALICE, at(1))
            await refused(store, call, Defect, Reason.INTERNAL)

    async def test_more_leases_than_are_read_at_a_time(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await asyncio.gather(*(grant(store, f"{n}", max_live_leases=1000) for n in range(600)))
        task = await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        assert task.state is TaskState.COMPLETED
        assert {lease.state for lease in await store.task_leases(TENANT, TASK)} == {State.REVOKING}

    async def test_holders_that_left_the_registry(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store, "a")
        await grant(store, "b", holder=BOB)
        assert await store.end_unregistered(TENANT, {ALICE, BOB}.__contains__, at(5)) == 0
        assert await store.end_unregistered("other", nobody, at(5)) == 0
        assert await store.end_unregistered(TENANT, {ALICE}.__contains__, at(5)) == 1
        assert (await store.get_lease(TENANT, "lease-a", ALICE)).state is State.ACTIVE
        lease = await store.get_lease(TENANT, "lease-b", BOB)
        assert (lease.state, lease.cause) == (State.REVOKING, EndCause.HOLDER_UNREGISTERED)

    async def test_holders_and_certificates_that_were_denied(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store, "a")
        await grant(store, "b", svid_serial="0b5e55ed")
        await grant(store, "c", holder=BOB, svid_serial="")
        asked: set[tuple[str, str]] = set()

        def nobody(holder: str, serial: str) -> bool:
            asked.add((holder, serial))
            return False

        before = await types(store)
        assert await store.end_denied(TENANT, nobody, at(5)) == 0
        assert asked == {(ALICE, "5e71a1"), (ALICE, "0b5e55ed"), (BOB, "")}
        assert await store.end_denied("other", lambda holder, serial: True, at(5)) == 0
        assert await types(store) == before
        assert await store.end_denied(TENANT, lambda holder, serial: serial == "0b5e55ed", at(5)) == 1
        assert (await store.get_lease(TENANT, "lease-a", ALICE)).state is State.ACTIVE
        lease = await store.get_lease(TENANT, "lease-b", ALICE)
        assert (lease.state, lease.cause) == (State.REVOKING, EndCause.HOLDER_DENIED)
        assert await store.end_denied(TENANT, lambda holder, serial: holder in (ALICE, BOB), at(6)) == 2
        assert await store.end_denied(TENANT, lambda holder, serial: True, at(7)) == 0

    async def test_what_an_upstream_can_only_end_together_ends_and_says_because_of_which(
        self, store: LeaseStore
    ) -> None:
        await store.start_task(new_task())
        for name, upstream in (("a", "ROLE1:jb-a"), ("b", "ROLE1:jb-b"), ("c", "ROLE11:jb-c"), ("d", None)):
            await store.open_intent(intent(name))
            await store.checkpoint(TENANT, f"attempt-{name}", 1, {"x": name}, upstream, at(2))
        assert await store.end_together("other", "ROLE1:", "attempt-a", at(3)) == 0
        assert await store.end_together("bao", "ROLE2:", "attempt-a", at(3)) == 0
        await store.end_leases(Selector(TENANT, lease_id="lease-a"), EndCause.RELEASED, ALICE, at(3))
        assert await store.end_together("bao", "ROLE1:", "attempt-a", at(4)) == 1
        causes = {name: (await store.get_lease(TENANT, f"lease-{name}", ALICE)).cause for name in "abcd"}
        assert causes == {"a": EndCause.RELEASED, "b": EndCause.ENDED_TOGETHER, "c": None, "d": None}
        (told,) = [each for each in await records(store) if each.data.get("cause") == "ENDED_TOGETHER"]
        assert told.data["because"] == "attempt-a"
        with pytest.raises(Defect):
            await store.end_together("bao", "", "attempt-a", at(5))


class RevokerContract:
    """Claiming what is due and recording how it went."""

    async def test_nothing_is_claimed_before_it_is_due(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        assert await store.claim_due("bao", at(10.999), 10, timedelta(seconds=30)) == []

    @pytest.mark.parametrize(
        ("case", "now", "cause"),
        [
            ("issuing", 11, EndCause.OUTCOME_UNKNOWN),
            ("unconfirmed", 32, EndCause.UNCONFIRMED),
            ("confirmed", 61, EndCause.EXPIRED),
            ("unconfirmed", 61, EndCause.EXPIRED),  # both have passed: its time is over
        ],
    )
    async def test_a_claim_ends_what_nobody_has_ended(
        self, store: LeaseStore, case: str, now: float, cause: EndCause
    ) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent())
        if case != "issuing":
            await activate(store, opened, now=2)
        if case == "confirmed":
            await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(3))
        (attempt,) = await store.claim_due("bao", at(now), 10, timedelta(seconds=30))
        assert (attempt.state, attempt.cause, attempt.epoch) == (State.REVOKING, cause, 2)
        assert attempt.due_at == at(now + 30)
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.cause, lease.next_due) == (State.REVOKING, cause, at(now + 30))

    async def test_earliest_first_within_the_limit_and_per_connector(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        for name, now in (("third", 9), ("first", 1), ("second", 5)):
            await store.open_intent(intent(name, now=now))
        await store.open_intent(intent("other", connector="sts", now=0))
        first = await store.claim_due("bao", at(100), 2, timedelta(seconds=30))
        assert [attempt.id for attempt in first] == ["attempt-first", "attempt-second"]
        rest = await store.claim_due("bao", at(100), 2, timedelta(seconds=30))
        assert [attempt.id for attempt in rest] == ["attempt-third"]
        assert await store.claim_due("bao", at(100), 2, timedelta(seconds=30)) == []
        assert [a.id for a in await store.claim_due("sts", at(100), 2, timedelta(seconds=30))] == ["attempt-other"]

    async def test_soonest_native_expiry_first_but_nothing_waits_for_ever(self, store: LeaseStore) -> None:
        """F11: of what was let go together, what ends soonest goes first, until another has waited too long."""
        await store.start_task(new_task())
        for name, ttl in (("long", 500), ("short", 100), ("middle", 300)):
            await grant(store, name, ttl=ttl)
        await store.end_leases(Selector(TENANT, holder=ALICE), EndCause.RELEASED, ALICE, at(3))
        (first,) = await store.claim_due("bao", at(4), 1, timedelta(seconds=30))
        assert first.id == "attempt-short"
        await grant(store, "fresh", now=50, ttl=20)
        rest = await store.claim_due("bao", at(62.999), 1, timedelta(seconds=30))
        assert [each.id for each in rest] == ["attempt-short"]  # its claim ran out, and it was tried by nobody
        await store.end_leases(Selector(TENANT, lease_id="lease-fresh"), EndCause.RELEASED, ALICE, at(62))
        patient = await store.claim_due("bao", at(63), 3, timedelta(seconds=30))
        assert {each.id for each in patient[:2]} == {"attempt-long", "attempt-middle"}
        assert patient[2].id == "attempt-fresh"

    async def test_a_claimer_that_dies_is_replaced_and_fenced(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        (dead,) = await store.claim_due("bao", at(11), 1, timedelta(seconds=30))
        assert await store.claim_due("bao", at(40.999), 1, timedelta(seconds=30)) == []
        (next_,) = await store.claim_due("bao", at(41), 1, timedelta(seconds=30))
        assert (dead.epoch, next_.epoch) == (2, 3)
        before = await types(store)
        assert not await store.record_revocation(dead, Event.REVOKE_CONFIRMED, at(42), at(42), "", False)
        assert await types(store) == before
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.REVOKING
        assert await store.record_revocation(next_, Event.REVOKE_CONFIRMED, at(42), at(42), "", False)

    @pytest.mark.parametrize(
        ("event", "state"),
        [
            (Event.REVOKE_CONFIRMED, State.REVOKED),
            (Event.TIME_ENDED, State.EXPIRED),
            (Event.NEVER_ISSUED, State.VOID),
        ],
    )
    async def test_how_a_revocation_ends(self, store: LeaseStore, event: Event, state: State) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        (attempt,) = await store.claim_due("bao", at(11), 1, timedelta(seconds=30))
        assert await store.record_revocation(attempt, event, at(12), at(12), "", False)
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.cause, lease.ended_at) == (state, EndCause.OUTCOME_UNKNOWN, at(12))
        assert (await types(store))[-1] == f"lease.{state.lower()}"
        # Terminal states are final: the same claim records nothing more.
        assert not await store.record_revocation(attempt, event, at(13), at(13), "", False)
        assert await store.claim_due("bao", at(10_000), 10, timedelta(seconds=30)) == []

    async def test_a_failure_is_kept_counted_and_retried(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        now = 11.0
        for failures in (1, 2, 3):
            (attempt,) = await store.claim_due("bao", at(now), 1, timedelta(seconds=30))
            assert attempt.failures == failures - 1
            assert await store.record_revocation(attempt, None, at(now), at(now + 5), f"no {failures}", failures >= 3)
            lease = await store.get_lease(TENANT, "lease-1", ALICE)
            assert (lease.state, lease.failures, lease.next_due) == (State.REVOKING, failures, at(now + 5))
            assert await store.claim_due("bao", at(now + 4.999), 1, timedelta(seconds=30)) == []
            now += 5
        (attempt,) = await store.claim_due("bao", at(now), 1, timedelta(seconds=30))
        assert (attempt.failures, attempt.last_error) == (3, "no 3")

    async def test_when_it_is_tried_again_is_no_time_that_a_restart_forgets(self, store: Ledger) -> None:
        """F38, F39: else what waits by a clock that was an hour fast waits for an hour after a crash, and lives."""
        await store.start_task(new_task())
        await store.open_intent(intent())
        (attempt,) = await store.claim_due("bao", at(11), 1, timedelta(seconds=30))
        assert await store.record_revocation(attempt, None, at(3611), at(3616), "down", False)
        assert await store.high_water() == HighWater(at(3611))
        (attempt,) = await store.claim_due("bao", at(7211), 1, timedelta(seconds=30))
        assert await store.high_water() == HighWater(at(7211))
        assert attempt.epoch > 1

    @pytest.mark.parametrize("error", ["", "down"])
    async def test_what_a_try_notes_is_what_the_next_goes_by(self, store: LeaseStore, error: str) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        (attempt,) = await store.claim_due("bao", at(11), 1, timedelta(seconds=30))
        noted = {**attempt.handle, "token_ended": "2031-05-01T12:00:11+00:00"}
        assert await store.record_revocations([Tried(attempt, None, at(11), at(20), error, False, noted)]) == [True]
        (next_,) = await store.claim_due("bao", at(20), 1, timedelta(seconds=30))
        assert next_.handle == noted
        assert await store.record_revocation(next_, None, at(20), at(30), error, False)
        (last,) = await store.claim_due("bao", at(30), 1, timedelta(seconds=30))
        assert last.handle == noted
        # Whoever lost its claim notes nothing.
        stale = Tried(next_, None, at(31), at(32), error, False, {"attempt": "another"})
        assert await store.record_revocations([stale]) == [False]
        (found,) = await store.living_attempts(TENANT, "lease-1")
        assert found.handle == noted

    async def test_the_alarm_is_raised_once(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        for now in (11, 50, 90):
            (attempt,) = await store.claim_due("bao", at(now), 1, timedelta(seconds=30))
            await store.record_revocation(attempt, None, at(now), at(now + 5), "refused", True)
        assert (await types(store)).count("lease.stuck") == 1
        assert (await store.figures(at(91))).stuck == 1

    async def test_waiting_is_no_failure(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        (attempt,) = await store.claim_due("bao", at(11), 1, timedelta(seconds=30))
        await store.record_revocation(attempt, None, at(11), at(20), "down", False)
        (attempt,) = await store.claim_due("bao", at(20), 1, timedelta(seconds=30))
        await store.record_revocation(attempt, None, at(20), at(61), "", False)
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.failures, lease.next_due) == (State.REVOKING, 0, at(61))
        assert (await store.figures(at(60))).overdue == 0  # nothing is owed before 61

    async def test_only_ends_of_revocations_are_recorded(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent())
        for event in (Event.ISSUED, Event.END):
            call = store.record_revocation(opened.attempt, event, at(2), at(2), "", False)
            await refused(store, call, Defect, Reason.INTERNAL)
        for none_or_end in (None, Event.REVOKE_CONFIRMED):
            call = store.record_revocation(opened.attempt, none_or_end, at(2), at(2), "", False)
            await refused(store, call, Defect, Reason.ILLEGAL_TRANSITION)

    async def test_recovery_at_boot(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent("unknown", now=1))
        await grant(store, "unconfirmed", now=1)
        await grant(store, "fresh", now=30)
        await grant(store, "ended", now=30)
        await store.end_leases(Selector(TENANT, lease_id="lease-ended"), EndCause.RELEASED, ALICE, at(32))
        assert await store.recover(at(40)) == 2
        leases = {lease.id: lease for lease in await store.task_leases(TENANT, TASK)}
        expected = {
            "lease-unknown": (State.REVOKING, EndCause.OUTCOME_UNKNOWN, at(40)),
            "lease-unconfirmed": (State.REVOKING, EndCause.UNCONFIRMED, at(40)),
            "lease-fresh": (State.ACTIVE, None, at(61)),  # 31 + 30
            "lease-ended": (State.REVOKING, EndCause.RELEASED, at(32)),
        }
        assert {key: (lease.state, lease.cause, lease.next_due) for key, lease in leases.items()} == expected
        assert await store.recover(at(40)) == 0
        stale = store.activate(TENANT, "attempt-unknown", 1, at(61), at(70), {}, at(41))
        await refused(store, stale, WrongState, Reason.LEASE_ENDED)

    async def test_no_claim_outlives_who_made_it(self, store: LeaseStore) -> None:
        """F14, F42: what was being revoked at a kill is due at the next start, not when its claim ends."""
        await store.start_task(new_task())
        for name in ("claimed", "waiting", "failing"):
            await grant(store, name, now=1)
            await store.end_leases(Selector(TENANT, lease_id=f"lease-{name}"), EndCause.RELEASED, ALICE, at(3))
        claims = {each.lease_id: each for each in await store.claim_due("bao", at(4), 10, timedelta(seconds=30))}
        waits, fails = claims["lease-waiting"], claims["lease-failing"]
        assert await store.record_revocation(waits, None, at(5), at(60), "", False)
        assert await store.record_revocation(fails, None, at(5), at(50), "down", False)
        assert await store.recover(at(6)) == 0
        due = {lease.id: lease.next_due for lease in await store.task_leases(TENANT, TASK)}
        assert due == {"lease-claimed": at(6), "lease-waiting": at(60), "lease-failing": at(50)}
        lost = claims["lease-claimed"]
        assert not await store.record_revocation(lost, Event.REVOKE_CONFIRMED, at(7), at(7), "", False)
        (again,) = await store.claim_due("bao", at(7), 10, timedelta(seconds=30))
        assert (again.lease_id, again.epoch) == ("lease-claimed", lost.epoch + 2)
        assert await store.record_revocation(again, Event.REVOKE_CONFIRMED, at(8), at(8), "", False)

    async def test_recovery_of_more_than_is_read_at_a_time(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        opening = (store.open_intent(intent(f"{n}", max_live_leases=1000)) for n in range(600))
        await asyncio.gather(*opening)
        assert await store.recover(at(2)) == 600


class ReadingContract:
    """Reading, the stream, the figures."""

    async def test_a_lease_is_its_holders(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await refused(store, store.get_lease(TENANT, "lease-1", BOB), NotFound, Reason.LEASE_NOT_FOUND)
        await refused(store, store.get_lease(TENANT, "nothing", ALICE), NotFound, Reason.LEASE_NOT_FOUND)

    async def test_pages_newest_first(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        for number in range(7):
            await grant(store, f"{number}", now=1 + number // 2)  # some at the same moment
        await grant(store, "bobs", holder=BOB)
        filter_ = LeaseFilter(TENANT, ALICE)
        pages: list[list[str]] = []
        after = ""
        while page := await store.list_leases(filter_, after, 3):
            pages.append([lease.id for lease in page])
            after = page[-1].id
        assert [len(page) for page in pages] == [3, 3, 1]
        ids = [id_ for page in pages for id_ in page]
        assert ids == [f"lease-{n}" for n in (6, 5, 4, 3, 2, 1, 0)]

    async def test_filters(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.start_task(new_task("task-2"))
        await grant(store, "a")
        await grant(store, "b", task="task-2")
        await grant(store, "c", task="task-2", now=2)
        await store.end_leases(Selector(TENANT, lease_id="lease-c"), EndCause.RELEASED, ALICE, at(5))
        await revoke_all(store, now=5)

        async def ids(**narrowed: Any) -> list[str]:
            return [lease.id for lease in await store.list_leases(LeaseFilter(TENANT, ALICE, **narrowed), "", 10)]

        assert await ids() == ["lease-c", "lease-b", "lease-a"]
        assert await ids(living_only=True) == ["lease-b", "lease-a"]
        assert await ids(task_id="task-2") == ["lease-c", "lease-b"]
        assert await ids(task_id="task-2", living_only=True) == ["lease-b"]
        assert await ids(task_id="nothing") == []

    async def test_a_page_token_of_somebody_else(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store, "bobs", holder=BOB)
        for token in ("lease-bobs", "nothing"):
            call = store.list_leases(LeaseFilter(TENANT, ALICE), token, 10)
            await refused(store, call, InvalidInput, Reason.PAGE_TOKEN_INVALID)

    async def test_a_holders_stream(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store, "a")
        await grant(store, "bobs", holder=BOB)
        await store.confirm_delivery(TENANT, "lease-a", ALICE, "attempt-a", at(3))
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        events = await store.lease_events(TENANT, ALICE, 0, 100)
        told = ["lease.intent", "lease.issued", "delivery.confirmed", "lease.revoking"]
        assert [event.type for event in events] == told
        assert [event.previous for event in events] == [0, *(event.sequence for event in events[:-1])]
        assert {event.lease.state for event in events} == {State.REVOKING}  # the lease as it is now
        assert [event.at for event in events] == [at(1), at(2), at(3), at(5)]
        # Taken up in the middle, the chain of sequence numbers goes on where it was left.
        rest = await store.lease_events(TENANT, ALICE, events[1].sequence, 1)
        assert rest == [events[2]]
        assert await store.lease_events(TENANT, ALICE, events[-1].sequence, 100) == []

    async def test_waiting_for_a_change(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        head = await store.changed(0)
        assert head == 1
        waiting = asyncio.ensure_future(store.changed(head))
        await asyncio.sleep(0)
        assert not waiting.done()
        await grant(store)
        assert await waiting > head

    async def test_connectors_in_use(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        assert await store.connectors_in_use() == frozenset()
        await grant(store, "a", connector="bao")
        await grant(store, "b", connector="sts")
        assert await store.connectors_in_use() == {"bao", "sts"}
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        await revoke_all(store, "sts", now=5)
        assert await store.connectors_in_use() == {"bao"}

    async def test_figures(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store, "a")
        await grant(store, "b", now=3)
        await grant(store, "c", contract_class="EXPIRY_ONLY")
        await store.end_leases(Selector(TENANT, lease_id="lease-b"), EndCause.RELEASED, ALICE, at(5))
        figures = await store.figures(at(7))
        assert figures.live_by_class == {"IMMEDIATE": 2, "EXPIRY_ONLY": 1}
        assert (figures.open_tasks, figures.overdue, figures.stuck) == (1, 1, 0)
        assert figures.oldest_overdue == timedelta(seconds=2)  # owed since 5
        # A failing one is owed since it should have ended, however often it is tried.
        (attempt,) = await store.claim_due("bao", at(7), 1, timedelta(seconds=30))
        await store.record_revocation(attempt, None, at(7), at(60), "down", False)
        assert (await store.figures(at(25))).oldest_overdue == timedelta(seconds=20)
        await revoke_all(store, now=100)
        figures = await store.figures(at(101))
        assert (figures.live_by_class, figures.overdue, figures.oldest_overdue) == ({}, 0, timedelta(0))


class AuditContract:
    """The trail and the outbox."""

    async def test_events_that_change_nothing_else(self, store: LeaseStore) -> None:
        event = AuditEvent(
            EventType.REQUEST_REFUSED, BOB, Vouch.BROKER, tenant=TENANT, data={"reason": "POLICY_DENIED"}
        )
        await store.append([event, event], at(1))
        first, second = await records(store)
        assert (first.seq, second.seq, first.type, first.actor) == (1, 2, "request.refused", BOB)
        assert first.data == {"reason": "POLICY_DENIED"}
        assert (first.at_ms % 86_400_000, first.vouched_by) == (1000, "broker")

    async def test_records_are_chained(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        previous = GENESIS
        for number, body in enumerate(await store.audit_since(0, 100), start=1):
            record = decode(body)
            assert (record.seq, record.prev) == (number, previous.hex())
            previous = link(previous, body)

    async def test_concurrent_events_make_one_chain(self, store: LeaseStore) -> None:
        event = AuditEvent(EventType.REQUEST_REFUSED, BOB, Vouch.BROKER, tenant=TENANT)
        await asyncio.gather(*(store.append([event], at(n)) for n in range(300)))
        assert [record.seq for record in await records(store)] == list(range(1, 301))

    async def test_what_has_no_canonical_form_is_refused_whole(self, store: LeaseStore) -> None:
        good = AuditEvent(EventType.REQUEST_REFUSED, BOB, Vouch.BROKER)
        bad = AuditEvent(EventType.REQUEST_REFUSED, BOB, Vouch.BROKER, data={"figure": 0.5})  # type: ignore[dict-item]
        before = await types(store)
        with pytest.raises(TypeError):
            await store.append([good, bad], at(1))
        assert await types(store) == before
        await store.append([good], at(2))
        assert [record.seq for record in await records(store)] == [1]

    async def test_the_outbox(self, store: LeaseStore) -> None:
        event = AuditEvent(EventType.REQUEST_REFUSED, BOB, Vouch.BROKER)
        for now in (1, 2, 3):
            await store.append([event], at(now))
        assert [decode(body).seq for body in await store.audit_since(1, 1)] == [2]
        await store.audit_exported(2)
        await store.audit_exported(1)  # a late report moves nothing back
        figures = await store.figures(at(10))
        assert (figures.audit_head, figures.audit_exported) == (3, 2)
        assert figures.oldest_unexported == timedelta(seconds=7)  # record 3 was written at 3
        assert await store.export_backlog(at(10)) == ExportBacklog(3, 2, timedelta(seconds=7))
        await store.audit_exported(3)
        assert (await store.figures(at(10))).oldest_unexported == timedelta(0)


class DeployContract:
    """Signed deploy sets come into force one after the other, never the other way round."""

    async def test_only_forwards(self, store: LeaseStore) -> None:
        one, two, other = ("1" * 64, "2" * 64, "f" * 64)
        assert await store.accept_deploy(TENANT, 5, one, at(1)) == (5, one)
        assert await store.accept_deploy(TENANT, 5, one, at(2)) == (5, one)  # the same again, after a restart
        assert await store.accept_deploy(TENANT, 9, two, at(3)) == (9, two)  # numbers may be left out
        for serial, digest in ((5, one), (8, other), (9, other), (9, one)):
            assert await store.accept_deploy(TENANT, serial, digest, at(4)) == (9, two)
        assert await store.accept_deploy(TENANT, 10, one, at(5)) == (10, one)  # back on purpose: signed anew

    async def test_of_several_at_once_the_highest_stays(self, store: LeaseStore) -> None:
        asked = [(serial, f"{serial:064x}") for serial in (3, 1, 4, 2, 5, 4)]
        await asyncio.gather(*(store.accept_deploy(TENANT, *each, at(1)) for each in asked))
        assert await store.accept_deploy(TENANT, 1, "1" * 64, at(2)) == (5, f"{5:064x}")

    async def test_each_tenant_for_itself(self, store: LeaseStore) -> None:
        await store.accept_deploy(TENANT, 5, "1" * 64, at(1))
        assert await store.accept_deploy("other", 1, "2" * 64, at(2)) == (1, "2" * 64)


class TenantContract:
    """Nothing reaches across tenants, not even with the right ids."""

    async def test_every_method(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        lease = await grant(store)
        other = "other"
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.get_task(other, TASK),
            lambda: store.end_task(other, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5)),
            lambda: store.hold_task(other, TASK, timedelta(seconds=5), at(9), at(4)),
            lambda: store.open_intent(intent("2", tenant=other)),
            lambda: store.check_intent(intent("2", tenant=other)),
            lambda: store.checkpoint(other, "attempt-1", 1, {}, None, at(5)),
            lambda: store.activate(other, "attempt-1", 1, at(60), at(30), {}, at(5)),
            lambda: store.confirm_delivery(other, "lease-1", ALICE, "attempt-1", at(5)),
            lambda: store.end_attempt(other, "attempt-1", Event.END, EndCause.ABANDONED, at(5)),
            lambda: store.get_lease(other, "lease-1", ALICE),
        ]
        for call in calls:
            with pytest.raises(NotFound):
                await call()
        assert await store.end_leases(Selector(other, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(5)) == 0
        assert await store.end_unregistered(other, nobody, at(5)) == 0
        assert await store.list_leases(LeaseFilter(other, ALICE), "", 10) == []
        assert await store.living_attempts(other, "lease-1") == []
        assert await store.task_leases(other, TASK) == []
        assert await store.lease_events(other, ALICE, 0, 10) == []
        (claimed,) = await store.claim_due("bao", at(61), 1, timedelta(seconds=30))
        theirs = claimed._replace(tenant=other)
        with pytest.raises(NotFound):
            await store.record_revocation(theirs, Event.REVOKE_CONFIRMED, at(62), at(62), "", False)
        assert lease.state is State.ACTIVE
        assert (await store.get_task(TENANT, TASK)).state is TaskState.OPEN

    async def test_the_same_ids_in_two_tenants(self, store: LeaseStore) -> None:
        for tenant in (TENANT, "other"):
            await store.start_task(new_task(tenant=tenant))
            await grant(store, tenant=tenant)
        await store.end_task("other", TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.ACTIVE
        assert (await store.get_lease("other", "lease-1", ALICE)).state is State.REVOKING


class LeaseStoreContract(
    TaskContract,
    IntentContract,
    RetryContract,
    IssuingContract,
    EndingContract,
    RevokerContract,
    ReadingContract,
    HoldingContract,
    AuditContract,
    DeployContract,
    TenantContract,
):
    """The whole contract. Subclass it and give the fixture ``store``: an open, empty ledger."""
