"""What every ledger does for what is upstream and not in it; an adapter gives the ``store`` fixture.

Times are seconds after T0, as in ``contract.py``: an intent at 1 lives until 61.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.audit.record import decode
from broker.errors import InvalidInput, Reason
from broker.lease.machine import State
from broker.ports.connectors import Carried
from broker.ports.leases import EndCause
from broker.ports.ledger import Ledger
from broker.ports.orphans import Orphan, OrphanEnd, OrphanWhy
from broker.ports.tasks import TaskState
from broker.ports.trail import HighWater
from tests.stores.contract import grant, revoke_all
from tests.stores.make import ALICE, TASK, TENANT, at, intent, new_task

CLAIM = timedelta(seconds=30)


def orphan(name: str = "1", *, found: float = 100, **changes: Any) -> Orphan:
    made = Orphan(
        tenant=TENANT,
        id=f"orphan-{name}",
        connector="bao",
        name=f"up-{name}",
        attempt_id="",
        handle={"lease": f"up-{name}"},
        why=OrphanWhy.UNKNOWN,
        created_at=at(found - 60),
        expires_at=at(found + 3600),
        found_at=at(found),
    )
    return replace(made, **changes)


def carried(name: str, attempt_id: str | None = None) -> Carried:
    return Carried(name, attempt_id, None, {})


async def told(store: Ledger) -> list[tuple[str, dict[str, Any]]]:
    records = [decode(body) for body in await store.audit_since(0, 1_000)]
    return [(each.type, dict(each.data)) for each in records if each.type.startswith("upstream.")]


class OrphanContract:
    """One test per promise of OrphanStore."""

    # -- marks

    async def test_a_mark_is_chosen_once_for_each_tenant(self, store: Ledger) -> None:
        assert await store.mark(TENANT, "aaaaaaaa", at(0)) == "aaaaaaaa"
        assert await store.mark(TENANT, "bbbbbbbb", at(1)) == "aaaaaaaa"
        assert await store.mark("other", "bbbbbbbb", at(1)) == "bbbbbbbb"

    # -- what the ledger holds

    async def test_what_is_held_by_name_and_by_id(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.open_intent(intent("2", request_id="r2"))
        await store.checkpoint(TENANT, "attempt-2", 1, {"a": 1}, "up-2", at(2))
        asked = [carried("up-2"), carried("other-name", "attempt-1"), carried("up-9", "attempt-9"), carried("up-8")]
        assert await store.held(TENANT, asked) == {"up-2": State.ISSUING, "other-name": State.ACTIVE}
        assert await store.held("other", [carried("x", "attempt-1")]) == {}  # ids are a tenant's own
        assert await store.held(TENANT, []) == {}

    async def test_what_has_ended_is_held_as_that(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(3))
        assert await store.held(TENANT, [carried("x", "attempt-1")]) == {"x": State.REVOKING}
        await revoke_all(store, now=4)
        assert await store.held(TENANT, [carried("x", "attempt-1")]) == {"x": State.REVOKED}

    async def test_active_attempts_are_those_of_a_connector_and_of_a_time(self, store: Ledger) -> None:
        await store.start_task(new_task())
        lease = await grant(store)
        await store.open_intent(intent("2", request_id="r2"))
        (held,) = await store.active_attempts("bao", at(3))
        assert (held.lease_id, held.attempt_id, held.number, held.upstream) == (lease.id, "attempt-1", 1, "")
        assert await store.active_attempts("other", at(3)) == []
        assert await store.active_attempts("bao", at(61)) == []  # its time is over: it is the revoker's

    # -- keeping

    async def test_what_is_found_is_kept_due_at_once_and_told(self, store: Ledger) -> None:
        (kept,) = await store.add_orphans([orphan()])
        assert kept.due_at in (None, at(100))  # as it was given
        (listed,) = await store.orphans(TENANT, "", 10, living_only=True)
        assert (listed.name, listed.due_at, listed.epoch, listed.handle) == ("up-1", at(100), 1, {"lease": "up-1"})
        ((type_, data),) = await told(store)
        assert (type_, data["orphan"], data["name"], data["why"]) == (
            *("upstream.unknown_found", "orphan-1", "up-1"),
            "UNKNOWN",
        )

    async def test_it_is_kept_once_until_it_has_ended(self, store: Ledger) -> None:
        await store.add_orphans([orphan()])
        assert await store.add_orphans([orphan(id="orphan-2")]) == []
        assert len(await told(store)) == 1
        (claimed,) = await store.claim_orphans("bao", at(100), 10, CLAIM)
        assert await store.record_orphan(claimed, OrphanEnd.REVOKED, at(101), at(101), "", stuck=False)
        assert len(await store.add_orphans([orphan(id="orphan-2", found=200)])) == 1  # it is there again

    async def test_what_has_become_known_is_not_kept(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent())
        await store.checkpoint(TENANT, "attempt-1", 1, {"a": 1}, "up-1", at(2))
        assert await store.add_orphans([orphan(), orphan("x", attempt_id="attempt-1")]) == []
        assert await told(store) == []
        assert await store.orphans(TENANT, "", 10, living_only=False) == []

    # -- working off

    async def test_a_connector_is_in_use_for_as_long_as_one_lives(self, store: Ledger) -> None:
        await store.add_orphans([orphan()])
        assert await store.connectors_in_use() == {"bao"}
        assert await store.orphan_connectors(at(99)) == frozenset()
        assert await store.orphan_connectors(at(100)) == {"bao"}
        (claimed,) = await store.claim_orphans("bao", at(100), 10, CLAIM)
        assert await store.orphan_connectors(at(100)) == frozenset()  # somebody is at it
        await store.record_orphan(claimed, OrphanEnd.REVOKED, at(101), at(101), "", stuck=False)
        assert await store.connectors_in_use() == frozenset()

    async def test_a_claim_is_fenced_and_runs_out(self, store: Ledger) -> None:
        await store.add_orphans([orphan()])
        (first,) = await store.claim_orphans("bao", at(100), 10, CLAIM)
        assert await store.claim_orphans("bao", at(129.999), 10, CLAIM) == []
        (second,) = await store.claim_orphans("bao", at(130), 10, CLAIM)
        assert await store.high_water() == HighWater(at(130))  # F39: a restart is not before what it waits for
        assert second.epoch == first.epoch + 1
        before = await told(store)
        assert not await store.record_orphan(first, OrphanEnd.REVOKED, at(131), at(131), "", stuck=False)
        assert not await store.record_orphan(first, None, at(131), at(140), "no", stuck=True)
        assert await told(store) == before
        assert await store.record_orphan(second, OrphanEnd.EXPIRED, at(131), at(131), "", stuck=False)
        (ended,) = await store.orphans(TENANT, "", 10, living_only=False)
        assert (ended.outcome, ended.ended_at, ended.due_at) == (OrphanEnd.EXPIRED, at(131), None)

    async def test_no_claim_outlives_who_made_it(self, store: Ledger) -> None:
        """F42: what was being ended at a kill is due at the next start, not when its claim ends."""
        await store.add_orphans([orphan("claimed"), orphan("failing")])
        claimed, failing = sorted(await store.claim_orphans("bao", at(100), 10, CLAIM), key=lambda each: each.name)
        assert await store.record_orphan(failing, None, at(101), at(150), "down", stuck=False)
        assert await store.recover(at(102)) == 0
        due = {each.name: each.due_at for each in await store.orphans(TENANT, "", 10, living_only=True)}
        assert due == {"up-claimed": at(102), "up-failing": at(150)}
        assert not await store.record_orphan(claimed, OrphanEnd.REVOKED, at(103), at(103), "", stuck=False)
        (again,) = await store.claim_orphans("bao", at(103), 10, CLAIM)
        assert (again.name, again.epoch) == ("up-claimed", claimed.epoch + 2)
        assert await store.record_orphan(again, OrphanEnd.REVOKED, at(104), at(104), "", stuck=False)

    async def test_claims_are_the_connectors_own_earliest_first_and_limited(self, store: Ledger) -> None:
        found = [orphan("2", found=120), orphan("1", found=110), orphan("3", connector="other"), orphan("4", found=130)]
        await store.add_orphans(found)
        claimed = await store.claim_orphans("bao", at(200), 2, CLAIM)
        assert [each.name for each in claimed] == ["up-1", "up-2"]

    async def test_failures_are_counted_and_alarmed_once(self, store: Ledger) -> None:
        await store.add_orphans([orphan()])
        for count, stuck in ((1, False), (2, True), (3, True)):
            (claimed,) = await store.claim_orphans("bao", at(100 + 40 * count), 10, CLAIM)
            assert claimed.failures == count - 1
            now = at(101 + 40 * count)
            assert await store.record_orphan(claimed, None, now, now + CLAIM, f"no {count}", stuck=stuck)
        (listed,) = await store.orphans(TENANT, "", 10, living_only=True)
        assert (listed.failures, listed.last_error, listed.stuck) == (3, "no 3", True)
        assert [type_ for type_, _ in await told(store)].count("upstream.unknown_stuck") == 1
        figures = (await store.orphan_figures())["bao"]
        assert (figures.living, figures.stuck) == (1, 1)
        (claimed,) = await store.claim_orphans("bao", at(500), 10, CLAIM)
        assert await store.record_orphan(claimed, None, at(501), at(600), "", stuck=False)  # merely waiting
        (listed,) = await store.orphans(TENANT, "", 10, living_only=True)
        assert (listed.failures, listed.last_error, listed.stuck) == (0, "", False)

    # -- listing

    async def test_pages_are_of_a_tenant_newest_first(self, store: Ledger) -> None:
        await store.add_orphans([orphan(str(number), found=100 + number) for number in range(5)])
        await store.add_orphans([orphan("theirs", tenant="other")])
        pages, after = [], ""
        while page := await store.orphans(TENANT, after, 2, living_only=True):
            pages.append([each.name for each in page])
            after = page[-1].id
        assert pages == [["up-4", "up-3"], ["up-2", "up-1"], ["up-0"]]
        with pytest.raises(InvalidInput) as wrong:
            await store.orphans(TENANT, "orphan-theirs", 2, living_only=True)
        assert wrong.value.reason is Reason.PAGE_TOKEN_INVALID

    async def test_what_ended_long_ago_is_deleted_and_nothing_else(self, store: Ledger) -> None:
        await store.add_orphans([orphan("old"), orphan("young"), orphan("living")])
        claimed = {each.name: each for each in await store.claim_orphans("bao", at(100), 10, CLAIM)}
        for name, seconds in (("up-old", 110), ("up-young", 120)):
            ended = at(seconds)
            assert await store.record_orphan(claimed[name], OrphanEnd.REVOKED, ended, ended, "", stuck=False)
        await store.delete_ended(at(120), at(1000))
        listed = await store.orphans(TENANT, "", 10, living_only=False)
        assert sorted(each.name for each in listed) == ["up-living", "up-young"]
