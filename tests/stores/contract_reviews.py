"""Reviews of living leases: what every store does about them, as tests; see ``contract.py``."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import pytest

from broker.audit.event import EventType
from broker.errors import BrokerError, InvalidInput, Reason
from broker.lease.machine import State
from broker.policy.standing import Standing
from broker.ports.leases import EndCause, Granted, Lease, LeaseFilter, Selector, Tightened
from broker.ports.ledger import Ledger
from tests.stores.contract import grant, records, refused, revoke_all, types
from tests.stores.contract_holdings import writing
from tests.stores.make import ALICE, BOB, TENANT, at, filing, intent, new_task, redeeming, vote

ADA = "https://idp.test#ada"


def tightened(**changes: Any) -> Tightened:
    """At 5, the set ``d2`` denies it by ``night``."""
    values: dict[str, Any] = {
        "outcome": Standing.DENY,
        "reason": "POLICY_DENIED",
        "policies": ("night",),
        "why": "Not at night.",
        "deploy_digest": "d2",
        "policy_digest": "p2",
        "at": at(5),
    }
    return Tightened(**{**values, **changes})


async def review(
    store: Ledger, lease: Lease, found: Tightened | None, *, end: bool = False, by: str = "broker"
) -> bool:
    return await store.record_review(TENANT, lease.id, lease.attempt_id, found, end, by, at(6))


class Meanwhile:
    """Agents that ask, ask again and give back, and a revoker, in the order of a seed."""

    def __init__(self, store: Ledger, seed: int) -> None:
        self._store, self._random = store, Random(seed)
        self._asked: list[tuple[str, str]] = []  # lease, holder
        self._attempts = 0

    async def something(self) -> None:
        await self._random.choice([*[self._ask] * 4, self._ask_again, self._give_back, self._revoke])()

    async def _ask(self) -> None:
        # Not in the order of their names: what is new is before, on and after the page that a walk is at.
        name, holder = f"{self._random.randrange(10**6):06}", self._random.choice([ALICE, ALICE, BOB])
        kind = writing if self._random.random() < 0.5 else intent
        await self._store.open_intent(kind(name, holder=holder, max_live_leases=1000))
        self._asked.append((name, holder))

    async def _ask_again(self) -> None:
        for name, holder in self._random.sample(self._asked, min(1, len(self._asked))):
            self._attempts += 1
            attempt = f"attempt-{name}-{self._attempts}"
            made = intent(name, holder=holder, attempt_id=attempt, max_live_leases=1000, audit={"reason": attempt})
            with suppress(BrokerError):  # of a lease that was of another kind, or is over
                await self._store.open_intent(made)

    async def _give_back(self) -> None:
        for name, _ in self._random.sample(self._asked, min(1, len(self._asked))):
            chosen = Selector(TENANT, lease_id=f"lease-{name}")
            await self._store.end_leases(chosen, EndCause.RELEASED, ALICE, at(4))

    async def _revoke(self) -> None:
        await revoke_all(self._store, now=5)


async def looked_at(store: Ledger, lease: Lease) -> tuple[Any, ...]:
    """What a walk should tell of one, read from all there is."""
    beside = await store.holdings(TENANT, lease.holder, lease.request_id)
    intents = [each for each in await records(store) if each.type == EventType.LEASE_INTENT]
    (own,) = [each for each in intents if each.attempt_id == lease.attempt_id]
    return sorted(beside.grants), beside.count, own.data, own.at_ms


def told(granted: Granted) -> tuple[Any, ...]:
    present = granted.present
    return present["active_grants"], present["active_count"], granted.facts, round(granted.at.timestamp() * 1000)


class ReviewContract:
    """How living leases are found, with what they were granted on; and how what is found out is kept."""

    async def test_living_leases_come_page_by_page_with_what_they_were_granted_on(self, store: Ledger) -> None:
        await store.start_task(new_task(task_type="report"))
        made = [await grant(store, f"{number}", audit={"reason": f"why {number}"}) for number in range(5)]
        made.append(await grant(store, "b", holder=BOB, now=2))
        await store.end_leases(Selector(TENANT, lease_id=made[1].id), EndCause.RELEASED, ALICE, at(4))
        found, after = list[Granted](), ""
        while page := await store.living_grants(TENANT, after, 2):
            assert len(page) <= 2
            found, after = [*found, *page], page[-1].lease.id
        living = [lease for lease in made if lease.id != made[1].id]
        assert {each.lease.id for each in found} == {lease.id for lease in living}
        assert len(found) == len(living)
        for each in found:
            assert each.facts is not None
            assert each.facts["template"] == "orders-readonly"
            if each.lease.holder == ALICE:
                assert each.facts["reason"] == f"why {each.lease.id[-1]}"
        bobs = next(each for each in found if each.lease.holder == BOB)
        assert (bobs.at, bobs.present["task_type"], bobs.present["active_count"]) == (at(2), "report", 0)
        alices = next(each for each in found if each.lease.id == made[0].id)
        assert alices.present["active_count"] == 4  # the others that are not ended yet, the released one included

    async def test_each_is_told_what_its_holder_has_beside_it(self, store: Ledger) -> None:
        await store.start_task(new_task())
        for name in ("1", "2"):
            await grant(store, name)
        await store.open_intent(writing("3"))
        await grant(store, "b", holder=BOB)
        for each in await store.living_grants(TENANT, "", 10):
            beside = await store.holdings(TENANT, each.lease.holder, each.lease.request_id)
            assert each.present["active_grants"] == sorted(beside.grants)
            assert each.present["active_count"] == beside.count

    @pytest.mark.parametrize("seed", range(6))
    async def test_a_walk_tells_of_each_what_was_so_when_its_page_was_read(self, store: Ledger, seed: int) -> None:
        """Whatever is remembered from page to page, and whatever happens between them."""
        await store.start_task(new_task())
        meanwhile, pages = Meanwhile(store, seed), Random(seed)
        for _ in range(40):
            await meanwhile.something()
        for _ in range(2):
            after, seen = "", list[str]()
            while page := await store.living_grants(TENANT, after, pages.randint(1, 4)):
                assert [told(each) for each in page] == [await looked_at(store, each.lease) for each in page]
                after, seen = page[-1].lease.id, [*seen, *(each.lease.id for each in page)]
                for _ in range(pages.randint(0, 3)):
                    await meanwhile.something()
            assert len(seen) == len(set(seen)) > 10

    async def test_two_walks_at_a_time_do_not_mislead_each_other(self, store: Ledger) -> None:
        await store.start_task(new_task())
        for number in range(4):
            await grant(store, f"a{number}")
            await grant(store, f"b{number}", holder=BOB)
        found, after = list[Granted](), {False: "", True: ""}
        for turn in [False, True, False, False, True, True, False, True]:
            page = await store.living_grants(TENANT, after[turn], 2)
            found, after[turn] = [*found, *page], page[-1].lease.id
        assert [told(each) for each in found] == [await looked_at(store, each.lease) for each in found]
        assert len({each.lease.id for each in found}) == 8

    async def test_what_was_granted_on_is_found_below_many_other_events(self, store: Ledger) -> None:
        await store.start_task(new_task())
        kept = await grant(store, "kept")
        for number in range(80):
            other = await grant(store, f"{number}", now=2)
            await store.end_leases(Selector(TENANT, lease_id=other.id), EndCause.RELEASED, ALICE, at(3))
        (found,) = await store.living_grants(TENANT, "", 10)
        assert (found.lease.id, found.facts is not None) == (kept.id, True)

    async def test_of_a_retried_lease_the_latest_intent_counts(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await grant(store)
        again = await store.open_intent(intent("1", now=9, attempt_id="attempt-again", audit={"reason": "again"}))
        (found,) = await store.living_grants(TENANT, "", 10)
        assert found.facts is not None
        assert (found.lease.attempt_id, found.facts["reason"], found.at) == (again.attempt.id, "again", at(9))

    async def test_a_page_token_that_is_none_is_refused(self, store: Ledger) -> None:
        await refused(store, store.living_grants(TENANT, "lease-none", 1), InvalidInput, Reason.PAGE_TOKEN_INVALID)

    async def test_another_tenants_leases_are_not_reviewed(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await grant(store)
        assert await store.living_grants("other", "", 10) == []

    async def test_it_is_told_once_for_each_deploy_set_and_shown_with_the_lease(self, store: Ledger) -> None:
        await store.start_task(new_task())
        lease = await grant(store)
        assert await review(store, lease, tightened())
        shown = await store.get_lease(TENANT, lease.id, ALICE)
        assert (shown.policy_tightened, shown.state) == (tightened(), State.ACTIVE)
        event = (await records(store))[-1]
        assert (event.type, event.actor, event.holder, event.lease_id) == (
            "lease.policy_tightened",
            "broker",
            ALICE,
            lease.id,
        )
        assert {name: event.data[name] for name in ("policies", "policies_now", "deploy_digest", "revoked")} == {
            "policies": ["dev-read"],
            "policies_now": ["night"],
            "deploy_digest": "d2",
            "revoked": False,
        }
        head = len(await records(store))
        assert not await review(store, lease, tightened())
        assert len(await records(store)) == head
        assert (await store.figures(at(6))).tightened == {"DENY": 1}
        assert await review(store, lease, tightened(deploy_digest="d3"))
        assert (await types(store))[head:] == ["lease.policy_tightened"]

    async def test_what_stands_again_is_told_once_and_shown_no_more(self, store: Ledger) -> None:
        await store.start_task(new_task())
        lease = await grant(store)
        head = len(await records(store))
        assert not await review(store, lease, None)
        assert len(await records(store)) == head
        await review(store, lease, tightened())
        assert await review(store, lease, None)
        assert not await review(store, lease, None)
        assert (await types(store))[head:] == ["lease.policy_tightened", "lease.policy_loosened"]
        assert (await store.get_lease(TENANT, lease.id, ALICE)).policy_tightened is None
        assert (await store.figures(at(6))).tightened == {}

    @pytest.mark.parametrize("issuing", [False, True])
    async def test_it_ends_what_it_is_told_to_end_also_where_that_is_no_news(
        self, store: Ledger, issuing: bool
    ) -> None:
        await store.start_task(new_task())
        lease = await grant(store)
        if issuing:
            opened = await store.open_intent(intent("1", now=4, attempt_id="attempt-again"))
            lease = await store.get_lease(TENANT, opened.lease_id, ALICE)
        await review(store, lease, tightened())
        assert not await review(store, lease, tightened(), end=True, by=ADA)
        ended = await store.get_lease(TENANT, lease.id, ALICE)
        assert (ended.state, ended.cause) == (State.REVOKING, EndCause.POLICY_TIGHTENED)
        event = (await records(store))[-1]
        assert (event.type, event.actor, event.data["cause"]) == ("lease.revoking", ADA, "POLICY_TIGHTENED")

    async def test_a_lease_that_moved_on_meanwhile_is_left_alone(self, store: Ledger) -> None:
        await store.start_task(new_task())
        lease, other = await grant(store), await grant(store, "2")
        await store.open_intent(intent("1", now=4, attempt_id="attempt-again"))
        await store.end_leases(Selector(TENANT, lease_id=other.id), EndCause.RELEASED, ALICE, at(4))
        head = len(await records(store))
        assert not await review(store, lease, tightened(), end=True)
        assert not await review(store, other, tightened(), end=True)
        assert not await store.record_review(TENANT, "lease-none", "attempt-none", tightened(), True, "broker", at(6))
        assert len(await records(store)) == head
        assert (await store.get_lease(TENANT, lease.id, ALICE)).state is State.ISSUING

    async def test_the_access_request_that_approved_it_is_shown_with_the_lease(self, store: Ledger) -> None:
        await store.start_task(new_task())
        filed = filing()
        await store.open_access_request(filed)
        await store.vote(TENANT, filed.id, filed.digest, vote(), lambda request: True)
        opened = await store.open_intent(redeeming(filed))
        plain = await grant(store, "plain")
        assert (await store.get_lease(TENANT, opened.lease_id, ALICE)).access_request_id == filed.id
        assert (await store.get_lease(TENANT, plain.id, ALICE)).access_request_id == ""
        listed = await store.list_leases(LeaseFilter(TENANT, ALICE), "", 10)
        assert {lease.id: lease.access_request_id for lease in listed} == {opened.lease_id: filed.id, plain.id: ""}
