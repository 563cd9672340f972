"""Suspensions: what every LeaseStore does about them, as tests; see ``contract.py``.

Alice (entry ``alice``, owner Ada) and Bob (entry ``bob``, owner Ada, too) hold leases; one suspension at 5 ends some.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from broker.errors import Conflict, Denied, InvalidInput, NotFound, Reason, WrongState
from broker.lease.machine import State
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause, Selector
from broker.ports.suspensions import Lifting, NewSuspension
from broker.suspension.suspension import Kind, Subject
from tests.stores.contract import activate, grant, records, refused, revoke_all, types
from tests.stores.make import ALICE, BOB, TASK, TENANT, at, intent, new_task, proof

ADA, EVE = "https://idp.test#ada", "https://idp.test#eve"
MEMBERS = {ALICE: ("alice", ADA), BOB: ("bob", ADA)}


def members(holder: str) -> tuple[str, str]:
    return MEMBERS.get(holder, ("", ""))


def stop(kind: Kind, value: str = "", name: str = "1", **changes: Any) -> NewSuspension:
    """Ada stops something at 5, until somebody lifts it."""
    values: dict[str, Any] = {
        "tenant": TENANT,
        "id": f"susp-{name}",
        "request_id": f"stop-{name}",
        "request_digest": f"{kind} {value}",
        "kind": kind,
        "value": value,
        "reason": "it went mad",
        "author": ADA,
        "author_name": "Ada",
        "now": at(5),
        "until": None,
    }
    return NewSuspension(**{**values, **changes})


def lift(by: str = ADA, name: str = "1", **changes: Any) -> Lifting:
    values = {"tenant": TENANT, "id": f"susp-{name}", "request_id": f"lift-{by}", "by": by, "name": by[-3:].title()}
    return Lifting(**{**values, "reason": "it is well", "now": at(9), **changes})


COVERING = [
    (Kind.AGENT, ALICE),
    (Kind.ENTRY, "alice"),
    (Kind.OWNER, ADA),
    (Kind.TASK, TASK),
    (Kind.TEMPLATE, "orders-readonly"),
    (Kind.CONNECTOR, "bao"),
    (Kind.ACCOUNT, "acme"),
    (Kind.TRUST_DOMAIN, "example.org"),
    (Kind.EVERYTHING, ""),
]
ELSEWHERE = [
    (Kind.AGENT, BOB),
    (Kind.ENTRY, "bob"),
    (Kind.OWNER, EVE),
    (Kind.TASK, "task-2"),
    (Kind.TEMPLATE, "orders"),
    (Kind.CONNECTOR, "ba"),
    (Kind.ACCOUNT, "acme2"),
    (Kind.TRUST_DOMAIN, "example.or"),
]


class SuspensionContract:
    """The kill switch."""

    @pytest.mark.parametrize(("kind", "value"), COVERING)
    async def test_it_ends_what_it_covers_and_refuses_what_comes(
        self, store: LeaseStore, kind: Kind, value: str
    ) -> None:
        await store.start_task(new_task())
        active, opened = await grant(store, "active"), await store.open_intent(intent("issuing"))
        suspension, ended = await store.suspend(stop(kind, value), members)
        assert (ended.attempts, ended.connectors, ended.more) == (2, {"bao"}, False)
        assert suspension.in_force(at(6))
        for lease_id in (active.id, opened.lease_id):
            lease = await store.get_lease(TENANT, lease_id, ALICE)
            assert (lease.state, lease.cause, lease.next_due) == (State.REVOKING, EndCause.SUSPENDED, at(5))
        error = await refused(store, store.open_intent(intent("later", now=6)), Denied, Reason.SUSPENDED)
        assert "it went mad" in error.message
        assert (error.hint, error.metadata["ask"]) == ("Ask Ada. Asking again is of no use before.", "Ada")
        await refused(store, store.check_intent(intent("later", now=6)), Denied, Reason.SUSPENDED)
        assert (await store.get_task(TENANT, TASK)).cause is None

    @pytest.mark.parametrize(("kind", "value"), ELSEWHERE)
    async def test_it_leaves_alone_what_it_does_not_cover(self, store: LeaseStore, kind: Kind, value: str) -> None:
        await store.start_task(new_task())
        await grant(store, "active")
        _, ended = await store.suspend(stop(kind, value), members)
        assert ended.attempts == 0
        later = await grant(store, "later", now=6)
        assert [lease.state for lease in await store.task_leases(TENANT, TASK)] == [State.ACTIVE] * 2
        assert later.state is State.ACTIVE

    async def test_another_tenant_is_not_touched(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.suspend(stop(Kind.EVERYTHING, tenant="other"), members)
        assert (await grant(store, "2", now=6)).state is State.ACTIVE

    async def test_what_was_in_flight_cannot_become_active(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent())
        await store.suspend(stop(Kind.CONNECTOR, "bao"), members)
        await refused(store, activate(store, opened, now=6), Denied, Reason.SUSPENDED)
        late = store.checkpoint(TENANT, opened.attempt.id, 1, {"attempt": "x"}, "up", at(6))
        await refused(store, late, Denied, Reason.SUSPENDED)
        assert [each.state for each in await store.living_attempts(TENANT, opened.lease_id)] == [State.REVOKING]

    async def test_no_intent_commits_after_it_whatever_the_order(self, store: LeaseStore) -> None:
        """Forty intents and a suspension race: each that was committed is ended, each other is refused."""
        await store.start_task(new_task())

        async def one(number: int) -> str | None:
            try:
                opened = await store.open_intent(intent(str(number), now=6))
                await activate(store, opened, now=7)
            except Denied as error:
                assert error.reason is Reason.SUSPENDED
                return None
            return opened.lease_id

        racing = [asyncio.create_task(one(number)) for number in range(20)]
        await asyncio.sleep(0)
        stopping = asyncio.create_task(store.suspend(stop(Kind.EVERYTHING), members))
        racing += [asyncio.create_task(one(number)) for number in range(20, 40)]
        _, ended = await stopping
        await asyncio.gather(*racing)
        leases = await store.task_leases(TENANT, TASK)
        assert {(lease.state, lease.cause) for lease in leases} <= {(State.REVOKING, EndCause.SUSPENDED)}
        assert ended.attempts == len(leases)
        seen = await types(store)
        assert "lease.intent" not in seen[seen.index("suspension.suspended") :]

    async def test_a_retry_of_what_it_ended_is_refused_too(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.suspend(stop(Kind.TASK, TASK), members)
        again = intent("again", request_id="request-1", now=6)
        await refused(store, store.open_intent(again), Denied, Reason.SUSPENDED)

    async def test_the_event_says_who_what_and_why(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.suspend(stop(Kind.AGENT, ALICE, until=at(60)), members)
        (event,) = [record for record in await records(store) if record.type == "suspension.suspended"]
        assert event.actor == ADA
        assert event.data == {
            "suspension": "susp-1",
            "kind": "AGENT",
            "value": ALICE,
            "reason": "it went mad",
            "until_ms": int(at(60).timestamp() * 1000),
            "attempts_ended": 1,
        }
        (ending,) = [record for record in await records(store) if record.type == "lease.revoking"]
        assert (ending.actor, ending.data["cause"]) == (ADA, "SUSPENDED")

    @pytest.mark.parametrize(("kind", "value"), [*COVERING, *ELSEWHERE])
    async def test_what_is_not_proven_dead_is_told_by_connector(
        self, store: LeaseStore, kind: Kind, value: str
    ) -> None:
        """Also what was being ended before the suspension came, and of nobody whom it does not cover."""
        await store.start_task(new_task())
        before = await grant(store)
        await grant(store, "2", connector="sts", expires_at=at(90))
        await store.end_leases(Selector(TENANT, lease_id=before.id), EndCause.RELEASED, ALICE, at(4))
        suspension, ended = await store.suspend(stop(kind, value), members)
        told = [(each.connector, each.attempts, each.last_end) for each in await store.still_alive(suspension, members)]
        both = [("bao", 1, at(61)), ("sts", 1, at(90))]
        if (kind, value) in ELSEWHERE:
            assert told == []
        elif kind is Kind.CONNECTOR:
            assert (ended.attempts, told) == (0, both[:1])
        else:
            assert (ended.attempts, told) == (1, both)
        await revoke_all(store, now=6)
        assert "bao" not in {each.connector for each in await store.still_alive(suspension, members)}

    async def test_whose_delivery_was_not_confirmed_hears_of_it(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        lease = await grant(store)
        await store.suspend(stop(Kind.AGENT, ALICE), members)
        confirmed = store.confirm_delivery(TENANT, lease.id, ALICE, "attempt-1", at(6))
        await refused(store, confirmed, Denied, Reason.SUSPENDED)

    # -- the same again

    async def test_repeating_it_changes_nothing(self, store: LeaseStore) -> None:
        first, _ = await store.suspend(stop(Kind.AGENT, ALICE), members)
        before = await types(store)
        again, ended = await store.suspend(stop(Kind.AGENT, ALICE, id="susp-other", now=at(8)), members)
        assert (again, ended.attempts) == (first, 0)
        assert await types(store) == before
        other = stop(Kind.AGENT, BOB, request_digest="something else")
        await refused(store, store.suspend(other, members), Conflict, Reason.REQUEST_ID_REUSED)
        theirs, _ = await store.suspend(stop(Kind.AGENT, BOB, "2", author=EVE, request_id="stop-1"), members)
        assert theirs.id == "susp-2"

    # -- ending

    async def test_it_is_lifted_and_nothing_comes_back(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.suspend(stop(Kind.AGENT, ALICE), members)
        lifted = await store.resume(lift(EVE))
        assert lifted.lifted is not None
        assert (lifted.lifted.by, lifted.lifted.reason, lifted.in_force(at(9))) == (EVE, "it is well", False)
        assert [lease.state for lease in await store.task_leases(TENANT, TASK)] == [State.REVOKING]
        assert (await grant(store, "2", now=10)).state is State.ACTIVE
        assert await store.resume(lift(EVE)) == lifted  # the same word again
        await refused(store, store.resume(lift(ADA)), WrongState, Reason.SUSPENSION_ENDED)
        await refused(store, store.resume(lift(name="none")), NotFound, Reason.SUSPENSION_NOT_FOUND)
        await refused(store, store.resume(lift(tenant="other")), NotFound, Reason.SUSPENSION_NOT_FOUND)

    async def test_a_fresh_login_lifts_one_thing(self, store: LeaseStore) -> None:
        for name in ("1", "2"):
            await store.suspend(stop(Kind.AGENT, ALICE, name), members)
        lifted = await store.resume(lift(EVE, proof=proof("a")))
        assert await store.resume(lift(EVE, proof=proof("a"))) == lifted  # the same word again
        used = lift(EVE, "2", request_id="other", proof=proof("a"))
        await refused(store, store.resume(used), Denied, Reason.FRESH_LOGIN_USED)
        await store.resume(lift(EVE, "2", request_id="other", proof=proof("b")))
        told = [each.data["fresh_login"] for each in await records(store) if each.type == "suspension.resumed"]
        assert told == [proof("a").digest, proof("b").digest]

    async def test_another_one_about_the_same_stays(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.suspend(stop(Kind.AGENT, ALICE), members)
        await store.suspend(stop(Kind.OWNER, ADA, "2"), members)
        await store.resume(lift())
        error = await refused(store, store.open_intent(intent(now=10)), Denied, Reason.SUSPENDED)
        assert error.metadata["suspensionId"] == "susp-2"

    async def test_everything_takes_two_people(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.suspend(stop(Kind.EVERYTHING), members)
        begun = await store.resume(lift(ADA))
        assert begun.in_force(at(9))
        assert begun.first is not None
        assert begun.first.by == ADA
        await refused(store, store.open_intent(intent(now=10)), Denied, Reason.SUSPENDED)
        assert await store.resume(lift(ADA)) == begun
        again = lift(ADA, request_id="another")
        await refused(store, store.resume(again), Denied, Reason.SECOND_PERSON_REQUIRED)
        lifted = await store.resume(lift(EVE, now=at(11)))
        assert lifted.lifted is not None
        assert (lifted.lifted.by, lifted.in_force(at(11))) == (EVE, False)
        assert (await grant(store, now=12)).state is State.ACTIVE
        told = [(record.type, record.actor) for record in await records(store) if record.type.startswith("suspension")]
        assert told == [
            ("suspension.suspended", ADA),
            ("suspension.resume_begun", ADA),
            ("suspension.resumed", EVE),
        ]

    async def test_of_two_who_lift_everything_at_once_one_is_the_first(self, store: LeaseStore) -> None:
        await store.suspend(stop(Kind.EVERYTHING), members)
        one, other = await asyncio.gather(store.resume(lift(ADA)), store.resume(lift(EVE)))
        assert sorted(each.lifted is not None for each in (one, other)) == [False, True]

    async def test_its_time_ends_it_without_anybody(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.suspend(stop(Kind.EVERYTHING, until=at(20)), members)
        await refused(store, store.open_intent(intent(now=19.999)), Denied, Reason.SUSPENDED)
        assert (await grant(store, now=20)).state is State.ACTIVE
        await store.tend_suspensions(TENANT, members, at(19))
        assert "suspension.expired" not in await types(store)
        await store.tend_suspensions(TENANT, members, at(21))
        await store.tend_suspensions(TENANT, members, at(22))
        assert (await types(store)).count("suspension.expired") == 1
        (ended,) = await store.suspensions(TENANT, True, "", 10)
        assert ended.lifted is not None
        assert (ended.lifted.by, ended.lifted.at) == ("broker", at(20))
        await refused(store, store.resume(lift(now=at(30))), WrongState, Reason.SUSPENSION_ENDED)

    async def test_one_that_is_over_cannot_be_lifted_before_it_was_tended(self, store: LeaseStore) -> None:
        await store.suspend(stop(Kind.AGENT, ALICE, until=at(20)), members)
        await refused(store, store.resume(lift(now=at(21))), WrongState, Reason.SUSPENSION_ENDED)

    # -- reading

    async def test_pages_newest_first(self, store: LeaseStore) -> None:
        for number in range(5):
            await store.suspend(stop(Kind.AGENT, ALICE, str(number), now=at(number)), members)
        await store.resume(lift(name="3"))

        async def ids(ended: bool, after: str = "", limit: int = 10) -> list[str]:
            return [each.id for each in await store.suspensions(TENANT, ended, after, limit)]

        assert await ids(False) == ["susp-4", "susp-2", "susp-1", "susp-0"]
        assert await ids(True, limit=2) == ["susp-4", "susp-3"]
        assert await ids(True, after="susp-3", limit=2) == ["susp-2", "susp-1"]
        with pytest.raises(InvalidInput) as caught:
            await ids(True, after="susp-9")
        assert caught.value.reason is Reason.PAGE_TOKEN_INVALID

    async def test_the_question_alone(self, store: LeaseStore) -> None:
        alice = Subject(agent=ALICE, entry="alice", owner=ADA)
        await store.check_suspended(TENANT, alice, at(6))
        await store.suspend(stop(Kind.ENTRY, "alice"), members)
        with pytest.raises(Denied):
            await store.check_suspended(TENANT, alice, at(6))
        await store.check_suspended(TENANT, Subject(agent=BOB, entry="bob", owner=ADA), at(6))

    async def test_figures(self, store: LeaseStore) -> None:
        await store.suspend(stop(Kind.AGENT, ALICE), members)
        await store.suspend(stop(Kind.AGENT, BOB, "2"), members)
        await store.suspend(stop(Kind.EVERYTHING, "", "3", until=at(9)), members)
        assert dict((await store.figures(at(8))).suspensions) == {"AGENT": 2, "EVERYTHING": 1}
        figures = await store.figures(at(9))
        assert (dict(figures.suspensions), figures.suspensions_tampered) == ({"AGENT": 2}, 0)

    # -- what is left to be done

    async def test_tending_ends_what_came_to_be_covered(self, store: LeaseStore) -> None:
        """A reload gave Bob to Ada, who is suspended."""
        await store.start_task(new_task())
        lease = await grant(store, holder=BOB, owner=EVE, entry="bob")
        before: Callable[[str], tuple[str, str]] = lambda holder: ("bob", EVE)  # noqa: E731
        _, ended = await store.suspend(stop(Kind.OWNER, ADA), before)
        assert ended.attempts == 0
        assert (await store.tend_suspensions(TENANT, before, at(6))).attempts == 0
        assert (await store.tend_suspensions(TENANT, members, at(7))).attempts == 1
        assert (await store.get_lease(TENANT, lease.id, BOB)).cause is EndCause.SUSPENDED
        written = await types(store)
        assert (await store.tend_suspensions(TENANT, members, at(8))).attempts == 0
        assert await types(store) == written

    async def test_values_are_compared_whole(self, store: LeaseStore) -> None:
        for number, value in enumerate((" ", ALICE + "/", ALICE[:-1], "%", "_", "*")):
            await store.suspend(stop(Kind.AGENT, value, str(number)), members)
        await store.start_task(new_task())
        assert (await grant(store, now=6)).state is State.ACTIVE
