"""What every LeaseStore does with access requests: the docstrings of the port, as tests.

Times are seconds after T0 (:mod:`tests.stores.make`): a request is filed at 1, lapses at 101 unless it is
decided, and within 50 s of its approval unless it is redeemed. Here one yes is enough.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.approval.machine import RequestState
from broker.errors import BrokerError, Conflict, Denied, Exhausted, InvalidInput, NotFound, Reason, WrongState
from broker.lease.machine import Event, State
from broker.ports.access_requests import FiledRequest, Filing, RequestFilter
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause
from broker.ports.tasks import TaskState
from tests.stores.contract import records, refused, types
from tests.stores.make import ALICE, BOB, TASK, TENANT, at, filing, intent, new_task, proof, redeeming, vote


def enough(filed: FiledRequest) -> bool:
    """One yes carries it."""
    return any(each.yes for each in filed.votes)


def never(filed: FiledRequest) -> bool:
    return False


async def approved(store: LeaseStore, asked: Filing, *, now: float = 5) -> FiledRequest:
    await store.open_access_request(asked)
    return await store.vote(TENANT, asked.id, asked.digest, vote(now=now), enough)


PROOFS = [("bea", "a"), ("cyd", "b")]


class FilingContract:
    """Asking people."""

    async def test_what_is_filed_can_be_read_and_waits(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        asked = filing(request={"plan": "1. look", "prompt": "do it", "tool_call": "psql"})
        filed = await store.open_access_request(asked)
        assert filed.state is RequestState.AWAITING_APPROVAL
        assert await store.get_access_request(TENANT, "areq-1") == filed
        assert await store.get_access_request(TENANT, "areq-1", ALICE) == filed
        assert (filed.expires_at, filed.approvals, filed.interests) == (at(101), ("sre",), asked.interests)
        assert (filed.plan, filed.tool_call) == ("1. look", "psql")
        assert filed.request.digest() == asked.request.digest()
        assert str(filed.request.prompt).startswith("sha256:")
        assert await types(store) == ["task.started", "access.requested"]
        assert await store.pending_access_requests(TENANT, ALICE) == 1

    async def test_the_same_again_is_the_first_and_other_content_a_conflict(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        first = await store.open_access_request(filing())
        assert await store.open_access_request(filing(id="areq-2")) == first
        other = filing(id="areq-2", request_digest="another")
        await refused(store, store.open_access_request(other), Conflict, Reason.REQUEST_ID_REUSED)
        assert (await types(store)).count("access.requested") == 1

    async def test_only_under_an_open_task_of_ones_own_that_lasts(self, store: LeaseStore) -> None:
        unknown = store.open_access_request(filing())
        await refused(store, unknown, NotFound, Reason.TASK_NOT_FOUND)
        await store.start_task(new_task())
        for asked, family, reason in (
            (filing(holder="spiffe://example.org/agent/eve"), NotFound, Reason.TASK_NOT_FOUND),
            (filing(ttl=600), WrongState, Reason.TASK_ENDS_TOO_SOON),
            (filing(now=600), WrongState, Reason.TASK_ENDED),
        ):
            await refused(store, store.open_access_request(asked), family, reason)
            await refused(store, store.check_access_request(asked), family, reason)

    async def test_it_lapses_with_its_task_at_the_latest(self, store: LeaseStore) -> None:
        await store.start_task(new_task(deadline=at(90)))
        assert (await store.open_access_request(filing())).expires_at == at(90)

    async def test_the_quota_counts_what_waits(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        for name in ("1", "2", "3"):
            await store.open_access_request(filing(name))
        for call in (store.open_access_request(filing("4")), store.check_access_request(filing("4"))):
            await refused(store, call, Exhausted, Reason.QUOTA_PENDING_REQUESTS)
        await store.open_access_request(filing("b", holder=BOB))
        await store.vote(TENANT, "areq-1", filing("1").digest, vote(), enough)
        await store.open_access_request(filing("4"))

    async def test_what_was_denied_is_not_asked_again_at_once(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        await store.vote(TENANT, "areq-1", filing().digest, vote(yes=False, now=5), never)
        again = filing("2", now=34, ask_digest=filing().ask_digest)
        error = await refused(store, store.open_access_request(again), Denied, Reason.DENIED_BEFORE)
        assert error.metadata["askAgain"] == at(35).isoformat()
        await refused(store, store.check_access_request(again), Denied, Reason.DENIED_BEFORE)
        # A second more or less is no other request; half of the time is, and so is something else.
        for ttl in (59, 61, 31):
            near = filing("2", now=34, ttl=ttl, ask_digest=filing().ask_digest)
            await refused(store, store.open_access_request(near), Denied, Reason.DENIED_BEFORE)
        await store.open_access_request(filing("4", now=34, ttl=30, ask_digest=filing().ask_digest))
        await store.open_access_request(filing("3", now=34))
        await store.open_access_request(filing("2", now=35, ask_digest=filing().ask_digest))

    async def test_a_no_is_to_whatever_waits_for_the_same(self, store: LeaseStore) -> None:
        """Asked five times at once, people say no once. What asks for much less, or for something else, waits on."""
        await store.start_task(new_task())
        asked = filing().ask_digest
        await store.open_access_request(filing("1", max_pending=9))
        for name, ttl, digest in (("2", 60, asked), ("3", 59, asked), ("4", 30, asked), ("5", 60, None)):
            changes = {} if digest is None else {"ask_digest": digest}
            await store.open_access_request(filing(name, ttl=ttl, max_pending=9, **changes))
        await store.open_access_request(filing("6", max_pending=9, ask_digest=asked))
        await store.vote(TENANT, "areq-6", filing("6").digest, vote(), enough)
        await store.vote(TENANT, "areq-1", filing().digest, vote(yes=False, note="no"), never)
        found = {name: await store.get_access_request(TENANT, f"areq-{name}") for name in "123456"}
        waiting, denied = RequestState.AWAITING_APPROVAL, RequestState.DENIED
        # What had its yes keeps it: each no is to one approval, and this one was another's to give.
        states = [denied, denied, denied, waiting, waiting, RequestState.APPROVED]
        assert [each.state for each in found.values()] == states
        assert found["2"].note == "no"
        assert (await types(store)).count("access.denied") == 3
        assert (await types(store)).count("access.voted") == 2

    async def test_less_and_less_is_denied_each_by_its_own_time(self, store: LeaseStore) -> None:
        """The latest denial, of the least, does not let through what the first one was about."""
        await store.start_task(new_task())
        asked = filing().ask_digest
        for number, (name, ttl) in enumerate((("1", 60), ("2", 30))):
            one = filing(name, ttl=ttl, now=1 + number, ask_digest=asked)
            await store.open_access_request(one)
            await store.vote(TENANT, f"areq-{name}", one.digest, vote(yes=False, now=5 + number), never)
        for ttl in (60, 40, 30, 16):
            again = filing("3", now=9, ttl=ttl, ask_digest=asked)
            await refused(store, store.open_access_request(again), Denied, Reason.DENIED_BEFORE)
        await store.open_access_request(filing("3", now=9, ttl=15, ask_digest=asked))


class VotingContract:
    """Deciding."""

    async def test_the_yes_that_is_enough_approves(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        after = await store.vote(TENANT, "areq-1", filing().digest, vote("bea"), never)
        assert (after.state, after.redeem_by) == (RequestState.AWAITING_APPROVAL, None)
        after = await store.vote(TENANT, "areq-1", filing().digest, vote("cyd", now=7), enough)
        assert (after.state, after.approved_at, after.redeem_by) == (RequestState.APPROVED, at(7), at(57))
        assert [each.subject for each in after.votes] == ["bea", "cyd"]
        assert await store.get_access_request(TENANT, "areq-1") == after
        assert (await types(store))[-3:] == ["access.voted", "access.voted", "access.approved"]
        assert (await records(store))[-1].data["people"] == ["https://idp.test#bea", "https://idp.test#cyd"]

    async def test_whether_it_is_enough_is_asked_with_the_vote_and_before_anything_is_written(
        self, store: LeaseStore
    ) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())

        def objects(filed: FiledRequest) -> bool:
            assert [each.subject for each in filed.votes] == ["bea"]
            raise Denied(Reason.NOT_AN_APPROVER, "no")

        call = store.vote(TENANT, "areq-1", filing().digest, vote(), objects)
        await refused(store, call, Denied, Reason.NOT_AN_APPROVER)
        assert (await store.get_access_request(TENANT, "areq-1")).votes == ()

    async def test_a_fresh_login_is_for_one_yes(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        await store.vote(TENANT, "areq-1", filing().digest, vote(proof=proof("a")), never)
        used = store.vote(TENANT, "areq-1", filing().digest, vote("cyd", proof=proof("a", "cyd")), enough)
        await refused(store, used, Denied, Reason.FRESH_LOGIN_USED)
        filed = await store.get_access_request(TENANT, "areq-1")
        assert [each.subject for each in filed.votes] == ["bea"]
        await store.vote(TENANT, "areq-1", filing().digest, vote("cyd", proof=proof("b", "cyd")), enough)
        told = [each.data["fresh_login"] for each in await records(store) if each.type == "access.voted"]
        assert told == [proof("a").digest, proof("b").digest]
        kept = await store.fresh_logins(TENANT, "about")
        assert sorted(kept) == [("https://idp.test", who, f"header.{name}.signature") for who, name in PROOFS]
        assert await store.fresh_logins("other", "about") == []

    async def test_one_vote_for_each_person(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        await store.vote(TENANT, "areq-1", filing().digest, vote(), never)
        again = store.vote(TENANT, "areq-1", filing().digest, vote(rule="security"), enough)
        await refused(store, again, Conflict, Reason.VOTE_ALREADY_CAST)
        elsewhere = vote(issuer="https://other.test")
        assert len((await store.vote(TENANT, "areq-1", filing().digest, elsewhere, never)).votes) == 2

    @pytest.mark.parametrize("yes", [True, False])
    async def test_the_same_vote_again_by_its_request_id_changes_nothing(self, store: LeaseStore, yes: bool) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        first = await store.vote(TENANT, "areq-1", filing().digest, vote(yes=yes, request_id="v1"), enough)
        head = len(await types(store))
        again = await store.vote(TENANT, "areq-1", filing().digest, vote(yes=yes, request_id="v1", now=7), never)
        assert again == first
        assert len(await types(store)) == head
        other = store.vote(TENANT, "areq-1", filing().digest, vote(yes=not yes, request_id="v1", now=7), enough)
        await refused(store, other, Conflict, Reason.REQUEST_ID_REUSED)
        elsewhere = store.vote(TENANT, "areq-1", "0" * 64, vote(yes=yes, request_id="v1", now=7), enough)
        await refused(store, elsewhere, Conflict, Reason.APPROVAL_DIGEST_MISMATCH)

    async def test_a_request_id_is_its_givers_own(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        await store.vote(TENANT, "areq-1", filing().digest, vote(request_id="v1"), never)
        others = await store.vote(TENANT, "areq-1", filing().digest, vote("cyd", request_id="v1", now=6), never)
        assert [each.subject for each in others.votes] == ["bea", "cyd"]
        nameless = store.vote(TENANT, "areq-1", filing().digest, vote(now=7), never)
        await refused(store, nameless, Conflict, Reason.VOTE_ALREADY_CAST)

    async def test_a_no_takes_the_place_of_a_yes_and_ends_it(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await approved(store, filing())
        after = await store.vote(TENANT, "areq-1", filing().digest, vote(yes=False, note="no", now=6), never)
        assert (after.state, after.note, after.ended_by) == (RequestState.DENIED, "no", "https://idp.test#bea")
        assert [each.yes for each in after.votes] == [False]
        assert (await types(store))[-1] == "access.denied"

    async def test_another_digest_is_another_request(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        for digest in ("", "0" * 64, filing().digest.upper(), filing("2").digest):
            for yes in (True, False):
                call = store.vote(TENANT, "areq-1", digest, vote(yes=yes), enough)
                await refused(store, call, Conflict, Reason.APPROVAL_DIGEST_MISMATCH)

    async def test_nobody_decides_from_the_deadline_on(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        for now in (101, 500):
            for yes in (True, False):
                call = store.vote(TENANT, "areq-1", filing().digest, vote(yes=yes, now=now), enough)
                await refused(store, call, WrongState, Reason.ACCESS_REQUEST_LAPSED)
        assert (await store.vote(TENANT, "areq-1", filing().digest, vote(now=100.999), enough)).state == "APPROVED"

    async def test_what_is_over_takes_no_vote(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        await store.withdraw_access_request(TENANT, "areq-1", ALICE, at(2))
        for yes in (True, False):
            call = store.vote(TENANT, "areq-1", filing().digest, vote(yes=yes), enough)
            await refused(store, call, WrongState, Reason.ACCESS_REQUEST_WITHDRAWN)
        missing = store.vote(TENANT, "areq-0", filing().digest, vote(), enough)
        await refused(store, missing, NotFound, Reason.ACCESS_REQUEST_NOT_FOUND)
        other = store.vote("other", "areq-1", filing().digest, vote(), enough)
        await refused(store, other, NotFound, Reason.ACCESS_REQUEST_NOT_FOUND)


class OverContract:
    """Withdrawing, lapsing, and what is left of the texts."""

    async def test_its_holder_withdraws_and_nobody_else(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing())
        others = store.withdraw_access_request(TENANT, "areq-1", BOB, at(2))
        await refused(store, others, NotFound, Reason.ACCESS_REQUEST_NOT_FOUND)
        first = await store.withdraw_access_request(TENANT, "areq-1", ALICE, at(2))
        assert (first.state, first.ended_at, first.ended_by) == (RequestState.WITHDRAWN, at(2), ALICE)
        assert await store.withdraw_access_request(TENANT, "areq-1", ALICE, at(3)) == first

    async def test_what_is_due_lapses_and_nothing_else(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_access_request(filing("1"))
        await store.open_access_request(filing("2", now=2))
        await approved(store, filing("3", now=3), now=10)
        assert await store.lapse_access_requests(at(59), 10) == 0
        assert await store.lapse_access_requests(at(60), 10) == 1
        assert await store.lapse_access_requests(at(101), 10) == 1
        assert await store.lapse_access_requests(at(101), 10) == 0
        states = {each.id: each.state.value for each in await store.list_access_requests(RequestFilter(TENANT), "", 10)}
        assert states == {"areq-3": "LAPSED", "areq-2": "AWAITING_APPROVAL", "areq-1": "LAPSED"}
        assert [each.data["why"] for each in await records(store) if each.type == "access.lapsed"] == [
            "nobody redeemed it in time",
            "nobody decided in time",
        ]

    async def test_closing_a_task_ends_what_waits_under_it(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.start_task(new_task("task-2"))
        await approved(store, filing("1"))
        await store.open_access_request(filing("2"))
        await store.open_access_request(filing("3", task="task-2"))
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(8))
        states = [each.state.value for each in await store.list_access_requests(RequestFilter(TENANT), "", 10)]
        assert sorted(states) == ["AWAITING_APPROVAL", "LAPSED", "LAPSED"]

    @pytest.mark.parametrize("end", ["deny", "withdraw", "lapse"])
    async def test_the_texts_are_erased_when_it_is_over(self, store: LeaseStore, end: str) -> None:
        await store.start_task(new_task())
        asked = filing(request={"plan": "1. look", "tool_call": "psql"})
        await store.open_access_request(asked)
        if end == "deny":
            await store.vote(TENANT, "areq-1", asked.digest, vote(yes=False), never)
        elif end == "withdraw":
            await store.withdraw_access_request(TENANT, "areq-1", ALICE, at(2))
        else:
            await store.lapse_access_requests(at(101), 10)
        after = await store.get_access_request(TENANT, "areq-1")
        assert (after.plan, after.tool_call) == ("", "")
        assert after.request.digest() == asked.request.digest()
        assert await store.last_approved_plan(TENANT, "alice", "orders-readonly") == ("", "")

    async def test_the_last_approved_plan_is_kept_and_only_that(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        for number, name in enumerate(("1", "2", "3")):
            asked = filing(name, now=1 + number, request={"plan": f"plan {name}", "tool_call": "psql"})
            await approved(store, asked, now=5 + number)
            assert await store.last_approved_plan(TENANT, "alice", "orders-readonly") == (asked.id, f"plan {name}")
            if name != "3":
                await store.open_intent(redeeming(asked, name, now=10 + number))
        found = {
            each.id: (each.plan, each.tool_call)
            for each in await store.list_access_requests(RequestFilter(TENANT), "", 9)
        }
        assert found == {"areq-1": ("", ""), "areq-2": ("plan 2", ""), "areq-3": ("plan 3", "psql")}
        await store.withdraw_access_request(TENANT, "areq-3", ALICE, at(20))
        assert await store.last_approved_plan(TENANT, "alice", "orders-readonly") == ("areq-2", "plan 2")
        assert await store.last_approved_plan(TENANT, "bob", "orders-readonly") == ("", "")
        assert await store.last_approved_plan("other", "alice", "orders-readonly") == ("", "")


class RedeemingContract:
    """Using an approval up."""

    async def test_the_intent_and_the_end_of_the_request_are_one_transaction(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        asked = filing()
        await approved(store, asked)
        opened = await store.open_intent(redeeming(asked))
        after = await store.get_access_request(TENANT, asked.id)
        assert (after.state, after.lease_id) == (RequestState.REDEEMED, opened.lease_id)
        assert (after.redemption_id, after.ended_by) == ("request-redeem", ALICE)
        assert (await types(store))[-2:] == ["access.redeemed", "lease.intent"]

    async def test_what_refuses_the_intent_leaves_the_approval(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        asked = filing()
        await approved(store, asked)
        for call, family, reason in (
            (redeeming(asked, max_live_leases=0), Exhausted, Reason.QUOTA_LIVE_LEASES),
            (redeeming(asked, ttl=600), WrongState, Reason.TASK_ENDS_TOO_SOON),
        ):
            await refused(store, store.open_intent(call), family, reason)
            await refused(store, store.check_intent(call), family, reason)
        assert (await store.get_access_request(TENANT, asked.id)).state is RequestState.APPROVED

    async def test_only_an_approved_one_in_time_under_its_digest_by_its_holder(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        waiting, ready, late = filing("1"), filing("2"), filing("3", now=2)
        await store.open_access_request(waiting)
        await approved(store, ready)
        await approved(store, late)
        gone = filing("4")
        wrong = redeeming(ready, redeems=redeeming(waiting).redeems)
        for call, family, reason in (
            (redeeming(waiting), WrongState, Reason.ACCESS_REQUEST_PENDING),
            (redeeming(late, now=55), WrongState, Reason.ACCESS_REQUEST_LAPSED),
            (redeeming(gone), NotFound, Reason.ACCESS_REQUEST_NOT_FOUND),
            (redeeming(ready, holder=BOB), NotFound, Reason.ACCESS_REQUEST_NOT_FOUND),
            (wrong, WrongState, Reason.ACCESS_REQUEST_PENDING),
        ):
            await refused(store, store.open_intent(call), family, reason)
        assert (await store.open_intent(redeeming(late, now=54.999))).lease_id == "lease-3"

    async def test_a_retry_adds_an_attempt_and_another_request_id_does_not(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        asked = filing()
        await approved(store, asked)
        first = await store.open_intent(redeeming(asked, now=10))
        again = redeeming(asked, attempt_id="attempt-2", now=21)
        second = await store.open_intent(again)
        assert (second.lease_id, second.attempt.number) == (first.lease_id, 2)
        other = redeeming(asked, "other", now=22)
        await refused(store, store.open_intent(other), WrongState, Reason.ACCESS_REQUEST_REDEEMED)
        assert (await types(store)).count("access.redeemed") == 1

    async def test_once_its_lease_has_ended_it_is_spent(self, store: LeaseStore) -> None:
        """Also where the upstream proved that it issued nothing: one approval, one lease."""
        await store.start_task(new_task())
        asked = filing()
        await approved(store, asked)
        opened = await store.open_intent(redeeming(asked))
        await store.end_attempt(TENANT, opened.attempt.id, Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(11))
        again = redeeming(asked, attempt_id="attempt-2", now=12)
        await refused(store, store.open_intent(again), WrongState, Reason.ACCESS_REQUEST_REDEEMED)
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.VOID

    async def test_a_request_id_of_another_lease(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        asked = filing()
        await approved(store, asked)
        await store.open_intent(intent("mine"))
        call = redeeming(asked, "mine", attempt_id="attempt-2", now=12)
        await refused(store, store.open_intent(call), Conflict, Reason.REQUEST_ID_REUSED)

    @pytest.mark.parametrize("seed", range(6))
    async def test_of_everything_at_once_one_ends_it(self, store: LeaseStore, seed: int) -> None:
        await store.start_task(new_task())
        asked = filing()
        await approved(store, asked)
        calls: list[Any] = [
            store.vote(TENANT, asked.id, asked.digest, vote("cyd", yes=False, now=10), never),
            store.withdraw_access_request(TENANT, asked.id, ALICE, at(10)),
            store.open_intent(redeeming(asked, "a")),
            store.open_intent(redeeming(asked, "b")),
            store.lapse_access_requests(at(10), 10),
        ]
        turned = calls[seed % 5 :] + calls[: seed % 5]
        outcomes = await asyncio.gather(*turned, return_exceptions=True)
        ended = [each for each in await types(store) if each.startswith("access.")][3:]
        assert len([each for each in ended if each != "access.voted"]) == 1
        assert sum(isinstance(each, BrokerError) for each in outcomes) == 3


class ListingContract:
    """Pages and streams."""

    async def test_pages_of_ones_own_and_of_everybody(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        for number in range(1, 4):
            await store.open_access_request(filing(str(number), now=number))
        await store.open_access_request(filing("b", now=4, holder=BOB))
        await store.withdraw_access_request(TENANT, "areq-2", ALICE, at(9))

        async def ids(filter_: RequestFilter, after: str = "", limit: int = 10) -> list[str]:
            return [each.id for each in await store.list_access_requests(filter_, after, limit)]

        assert await ids(RequestFilter(TENANT, ALICE)) == ["areq-3", "areq-2", "areq-1"]
        assert await ids(RequestFilter(TENANT, ALICE), "areq-3", 1) == ["areq-2"]
        assert await ids(RequestFilter(TENANT, ALICE, open_only=True)) == ["areq-3", "areq-1"]
        assert await ids(RequestFilter(TENANT)) == ["areq-b", "areq-3", "areq-2", "areq-1"]
        assert await ids(RequestFilter("other")) == []
        page = store.list_access_requests(RequestFilter(TENANT, ALICE), "areq-b", 1)
        await refused(store, page, InvalidInput, Reason.PAGE_TOKEN_INVALID)

    async def test_a_holders_events_in_order_without_gaps(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        asked = filing()
        await approved(store, asked)
        await store.open_access_request(filing("b", holder=BOB))
        await store.open_intent(redeeming(asked))
        events = await store.access_request_events(TENANT, ALICE, 0, 10)
        assert [each.type for each in events] == [
            "access.requested",
            "access.voted",
            "access.approved",
            "access.redeemed",
        ]
        assert [each.previous for each in events] == [0, *(each.sequence for each in events[:-1])]
        rest = await store.access_request_events(TENANT, ALICE, events[1].sequence, 1)
        assert [(each.type, each.previous) for each in rest] == [("access.approved", events[1].sequence)]
        # None of it is a lease's.
        assert [each.type for each in await store.lease_events(TENANT, ALICE, 0, 10)] == ["lease.intent"]


class AccessContract(FilingContract, VotingContract, OverContract, RedeemingContract, ListingContract):
    """The whole contract. Subclass it and give the fixture ``store``: an open, empty ledger."""
