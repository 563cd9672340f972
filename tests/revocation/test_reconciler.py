"""What an upstream holds and the ledger does not: found, ended, told; and what is left alone. A whole broker inside."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.audit.record import decode
from broker.issuance.recovering import Recovering
from broker.lease.machine import State
from broker.lease.mark import Mark
from broker.ports.orphans import OrphanEnd, OrphanWhy
from broker.ports.trail import Evidence
from broker.revocation.reconciler import EVERY, PORTION, RETRY, Reconciled, Reconciler
from broker.revocation.sweep_limit import SweepLimit
from broker.stores.sqlite import SqliteStore
from tests.connectors.fake import InventoryMishap, RevokeMishap
from tests.issuance.world import ISSUE_TIMEOUT, MARK, TENANT, TTL, StaticKeys, World
from tests.patience import PATIENCE, eventually

# Old enough: twice what an issue may take, and a little.
SETTLED = 2 * ISSUE_TIMEOUT + timedelta(seconds=6)
LIFE = timedelta(minutes=30)
THEIRS = Mark("theirone")
NO_ANSWER = "no answer within 0.5 s"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


def plant(world: World, name: str, age: timedelta = SETTLED, mark: Mark = MARK) -> str:
    """It lives upstream since then, and no ledger of ours has made it."""
    attempt, now = mark.attempt(name), world.clock.now()
    assert mark.owns(attempt), "a name of another form is nobody's"
    world.upstream.plant(attempt, now + LIFE, born=now - age)
    return attempt


async def told(world: World, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    records = [decode(body) for body in await world.store.audit_since(0, 1_000)]
    return [(record.type, dict(record.data)) for record in records if record.type.startswith(prefix)]


async def types(world: World) -> list[str]:
    return [type_ for type_, _ in await told(world, "upstream.")]


async def reconcile(world: World) -> Reconciled:
    (done,) = await world.reconciler.run(["fake"], "https://idp.test#ada")
    assert not done.problem
    return done


async def ended(world: World) -> None:
    async def none_left() -> bool:
        return not await world.store.orphans(TENANT, "", 100, living_only=True)

    await eventually(none_left)


async def confirmed(world: World, name: str = "r1") -> str:
    """An ACTIVE lease that its holder has; its attempt."""
    task = await world.task(name=f"task-{name}")
    grant = await world.grant(task, name=name)
    assert grant.lease is not None
    await world.leases.confirm(world.caller(), grant.lease.id, grant.lease.attempt_id)
    return grant.lease.attempt_id


# ------------------------------------------------------------------ found and ended


async def test_what_no_ledger_knows_is_told_then_ended_then_told(world: World) -> None:
    attempt = plant(world, "lost")
    seen: list[list[str]] = []
    revoke = world.upstream.revoke

    async def looking(*args: Any) -> Any:
        seen.append(await types(world))
        return await revoke(*args)

    world.upstream.revoke = looking  # type: ignore[method-assign]
    done = await reconcile(world)
    await ended(world)
    assert (done.listed, done.found, done.missing) == (1, 1, 0)
    assert seen[0][0] == "upstream.unknown_found"  # durable before the upstream was touched
    assert "upstream.unknown_ended" not in seen[0]
    assert attempt not in world.upstream.alive
    (orphan,) = await world.store.orphans(TENANT, "", 10, living_only=False)
    assert (orphan.why, orphan.outcome, orphan.due_at) == (OrphanWhy.UNKNOWN, OrphanEnd.REVOKED, None)
    found, gone = await told(world, "upstream.unknown")
    assert found[1]["attempt_id"] == gone[1]["attempt_id"] == attempt
    assert found[1]["orphan"] == gone[1]["orphan"] == orphan.id


async def test_it_adopts_nothing(world: World) -> None:
    plant(world, "lost")
    await reconcile(world)
    await ended(world)
    assert not await told(world, "lease.")
    assert await world.store.connectors_in_use() == frozenset()
    assert (await world.store.figures(world.clock.now())).live_by_class == {}


async def test_what_a_lying_revocation_left_alive_is_ended_again(world: World) -> None:
    world.upstream.revoke_mishaps.append(RevokeMishap.LIES)
    task = await world.task()
    grant = await world.grant(task)
    assert grant.lease is not None
    await world.tasks.complete(world.caller(), task.id, timedelta(0))

    async def over() -> bool:
        assert grant.lease is not None
        return (await world.lease(grant.lease.id)).state is State.REVOKED

    await world.settle(over)
    assert grant.lease.attempt_id in world.upstream.alive
    done = await reconcile(world)
    await ended(world)
    assert done.found == 1
    assert (await told(world, "upstream.unknown_found"))[0][1]["why"] == "ENDED"
    assert grant.lease.attempt_id not in world.upstream.alive
    assert (await world.lease(grant.lease.id)).state is State.REVOKED


async def test_a_late_create_after_a_crash_of_the_ledger_is_ended(world: World, tmp_path: Path) -> None:
    """A restored backup: what was issued after it was taken is upstream, and nobody can vouch for it any more."""
    backup = tmp_path / "backup"
    backup.mkdir(mode=0o700)
    await world.task(name="before")
    await asyncio.to_thread(_copy, tmp_path / "ledger.sqlite3", backup / "ledger.sqlite3")
    attempt = await confirmed(world, "after-the-backup")
    await world.issuer.drain()
    world.clock.advance(SETTLED)
    store = await SqliteStore.open(backup / "ledger.sqlite3", StaticKeys(), writer="w2")
    try:
        restored = _reconciler(world, store)
        (done,) = await restored.run(["fake"], "broker")
        (orphan,) = await store.orphans(TENANT, "", 10, living_only=True)
    finally:
        await store.close()
    assert (done.found, done.foreign) == (1, 0)
    assert orphan.attempt_id == attempt


def _copy(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as live, contextlib.closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
    target.chmod(0o600)


def _reconciler(world: World, store: SqliteStore, mark: Mark = MARK, kick: Any = lambda name: None) -> Reconciler:
    return Reconciler(
        *(store, lambda name: world.upstream, lambda: ["fake"], kick, world.clock, world.issuer._rng, TENANT, mark),
        issue_timeout=ISSUE_TIMEOUT,
    )


# ------------------------------------------------------------------ left alone


async def test_a_living_lease_is_left_alone_and_not_missing(world: World) -> None:
    attempt = await confirmed(world)
    world.later(SETTLED)
    done = await reconcile(world)
    assert (done.listed, done.found, done.young, done.foreign, done.missing) == (1, 0, 0, 0, 0)
    assert attempt in world.upstream.alive
    assert await types(world) == ["upstream.reconciled"]


async def test_a_create_in_flight_is_not_touched(world: World) -> None:
    attempt = plant(world, "young", age=SETTLED - timedelta(seconds=2))
    done = await reconcile(world)
    assert (done.found, done.young) == (0, 1)
    assert attempt in world.upstream.alive
    assert not await world.store.orphans(TENANT, "", 10, living_only=False)
    world.clock.advance(timedelta(seconds=2))
    assert (await reconcile(world)).found == 1


async def test_without_times_it_is_counted_from_when_it_was_seen_first(world: World) -> None:
    plant(world, "old", age=LIFE)
    world.upstream.inventory_mishaps.extend([InventoryMishap.NO_TIMES] * 3)
    assert (await reconcile(world)).young == 1
    world.clock.advance(SETTLED)
    assert (await reconcile(world)).found == 1


async def test_anothers_mark_is_left_alone(world: World) -> None:
    theirs = plant(world, "x", mark=THEIRS)
    done = await reconcile(world)
    assert (done.listed, done.found, done.foreign) == (1, 0, 1)
    assert theirs in world.upstream.alive
    assert not await world.store.orphans(TENANT, "", 10, living_only=False)


async def test_two_brokers_on_one_upstream_do_not_touch_each_other(world: World, tmp_path: Path) -> None:
    ours = await confirmed(world)
    world.later(SETTLED)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    store = await SqliteStore.open(other / "ledger.sqlite3", StaticKeys(), writer="w2")
    try:
        (done,) = await _reconciler(world, store, THEIRS).run(["fake"], "broker")
    finally:
        await store.close()
    assert (done.found, done.foreign) == (0, 1)
    assert ours in world.upstream.alive


async def test_two_connectors_on_one_upstream_know_each_others(world: World) -> None:
    """The ledger knows it by its name, under whatever connector it was made."""
    attempt = await confirmed(world)
    world.later(SETTLED)
    world.upstream.inventory_mishaps.extend([InventoryMishap.NO_ATTEMPTS] * 2)
    twin = _reconciler(world, world.store)
    (done,) = await twin.run(["twin"], "broker")
    assert done.found == 0
    assert attempt in world.upstream.alive


# ------------------------------------------------------------------ missing


async def test_what_is_missing_is_told_once_and_not_ended(world: World) -> None:
    attempt = await confirmed(world)
    del world.upstream.alive[attempt]
    assert (await reconcile(world)).missing == 1
    assert (await reconcile(world)).missing == 1
    ((_, data),) = await told(world, "upstream.missing")
    assert data["name"] == f"up-{attempt}"
    (held,) = await world.store.active_attempts("fake", world.clock.now())
    assert held.attempt_id == attempt  # an absence is no proof
    world.upstream.plant(attempt, world.clock.now() + TTL)
    assert (await reconcile(world)).missing == 0
    del world.upstream.alive[attempt]
    await reconcile(world)
    assert len(await told(world, "upstream.missing")) == 2  # it is news again


# ------------------------------------------------------------------ for ever


async def test_it_is_tried_for_ever_with_an_alarm(world: World) -> None:
    plant(world, "lost")
    world.upstream.revoke_mishaps.extend([RevokeMishap.BROKEN] * 3)
    await reconcile(world)

    async def failures(count: int) -> bool:
        (orphan,) = await world.store.orphans(TENANT, "", 10, living_only=True)
        return orphan.failures == count

    for count in (1, 2, 3):
        await eventually(lambda count=count: failures(count))  # type: ignore[misc]
        if count < 3:
            await world.pass_time(timedelta(minutes=1))
    assert "upstream.unknown_stuck" in await types(world)
    assert (await world.store.orphan_figures())["fake"].stuck == 1
    await world.pass_time(timedelta(minutes=1))
    await ended(world)
    assert (await told(world, "upstream.unknown_ended"))[0][1]["failures"] == 3


async def test_it_survives_a_restart(world: World) -> None:
    attempt = plant(world, "lost")
    await world.revoker.close()  # as if the broker had died before anything was asked
    await reconcile(world)
    assert attempt in world.upstream.alive
    assert await world.store.connectors_in_use() == {"fake"}  # so the connector cannot be taken out of the set
    again = type(world.revoker)(world.store, lambda name: world.upstream, world.clock, world.issuer._rng, workers=2)
    try:
        for name in await world.store.orphan_connectors(world.clock.now()):
            again.kick_orphans(name)
        await ended(world)
    finally:
        await again.close()
    assert attempt not in world.upstream.alive


async def test_more_than_there_are_workers_are_all_ended(world: World) -> None:
    for number in range(25):
        plant(world, f"n{number}")
    assert (await reconcile(world)).found == 25
    await ended(world)
    assert world.upstream.alive == {}


async def test_a_flood_is_kept_in_portions(world: World) -> None:
    world.reconciler.limit = SweepLimit(at_most=PORTION + 1)
    for number in range(PORTION + 1):
        plant(world, f"n{number}")
    assert (await reconcile(world)).found == PORTION + 1


async def test_found_again_while_it_is_being_ended_is_found_once(world: World) -> None:
    plant(world, "lost")
    world.upstream.revoke_mishaps.append(RevokeMishap.BROKEN)
    await reconcile(world)
    assert (await reconcile(world)).found == 0
    assert len(await told(world, "upstream.unknown_found")) == 1


async def test_what_ends_between_the_looks_is_no_alarm(world: World) -> None:
    attempt = plant(world, "fleeting")
    inventory = world.upstream.inventory

    async def once() -> Any:
        listed = await inventory()
        world.upstream.alive.pop(attempt, None)
        return listed

    world.upstream.inventory = once  # type: ignore[method-assign]
    assert (await reconcile(world)).found == 0
    assert await types(world) == ["upstream.reconciled"]


# ------------------------------------------------------------------ the brake

ADA = "https://idp.test#ada"


async def braked(world: World, living: int = 2, unknown: int = 3) -> set[str]:
    """More than the limit is unknown; the attempts of those."""
    for number in range(living):
        await confirmed(world, f"r{number}")
    world.later(SETTLED)
    world.reconciler.limit = SweepLimit(at_most=2, share=0.5)
    return {plant(world, f"n{number}") for number in range(unknown)}


async def test_where_most_is_unknown_nothing_of_it_is_ended_and_that_is_an_alarm(world: World) -> None:
    lost = await braked(world)
    before = set(world.upstream.alive)
    await world.reconciler.tick()
    await world.reconciler.tick()
    done = world.reconciler.last["fake"]
    assert (done.listed, done.found, done.braked) == (5, 0, 3)
    assert set(world.upstream.alive) == before >= lost
    assert not await world.store.orphans(TENANT, "", 10, living_only=False)
    assert not any(name == "revoke" for name, _ in world.upstream.calls)
    assert len(await world.store.active_attempts("fake", world.clock.now())) == 2  # nothing is adopted either
    assert await told(world, "upstream.") == [
        ("upstream.sweep_braked", {"connector": "fake", "unknown": 3, "listed": 5})
    ]
    world.clock.advance(RETRY)
    await world.reconciler.tick()
    assert len(await told(world, "upstream.sweep_braked")) == 1  # once, for as long as it stands


@pytest.mark.parametrize(("living", "unknown"), [(0, 2), (3, 3)], ids=["no more than the number", "half, and not more"])
async def test_the_brake_needs_both_the_number_and_the_share(world: World, living: int, unknown: int) -> None:
    await braked(world, living, unknown)
    done = await reconcile(world)
    assert (done.found, done.braked) == (unknown, 0)


async def test_what_the_ledger_itself_has_ended_is_ended_behind_the_brake(world: World) -> None:
    world.upstream.revoke_mishaps.append(RevokeMishap.LIES)
    task = await world.task()
    grant = await world.grant(task)
    assert grant.lease is not None
    await world.tasks.complete(world.caller(), task.id, timedelta(0))

    async def over() -> bool:
        assert grant.lease is not None
        return (await world.lease(grant.lease.id)).state is State.REVOKED

    await world.settle(over)
    lost = await braked(world, living=0)
    done = await reconcile(world)
    await ended(world)
    assert (done.found, done.braked) == (1, 3)
    assert set(world.upstream.alive) == lost


async def test_a_person_names_how_many_and_they_are_ended(world: World) -> None:
    lost = await braked(world)
    assert (await reconcile(world)).braked == 3
    (short,) = await world.reconciler.run(["fake"], ADA, sweep=2)
    assert (short.found, short.braked) == (0, 3)  # there are more than was named
    assert lost <= world.upstream.alive.keys()
    (done,) = await world.reconciler.run(["fake"], ADA, sweep=3)
    await ended(world)
    assert (done.found, done.braked) == (3, 0)
    assert not lost & world.upstream.alive.keys()
    assert len(world.upstream.alive) == 2
    order = await types(world)
    assert order.index("upstream.sweep_allowed") < order.index("upstream.unknown_found")
    assert [data for _, data in await told(world, "upstream.sweep_allowed")] == [
        {"connector": "fake", "at_most": 2},
        {"connector": "fake", "at_most": 3},
    ]


async def test_what_is_being_ended_already_does_not_hold_the_next_one_up(world: World) -> None:
    lost = await braked(world, living=0)
    world.upstream.revoke_mishaps.extend([RevokeMishap.BROKEN] * 50)
    await world.reconciler.run(["fake"], ADA, sweep=3)
    assert lost <= world.upstream.alive.keys()
    plant(world, "another")
    done = await reconcile(world)
    assert (done.found, done.braked) == (1, 0)


async def test_the_brake_holds_across_a_restart(world: World) -> None:
    lost = await braked(world)
    await reconcile(world)
    again = _reconciler(world, world.store)
    again.limit = world.reconciler.limit
    await again.tick()
    assert again.last["fake"].braked == 3
    assert lost <= world.upstream.alive.keys()


# ------------------------------------------------------------------ when it cannot be done


@pytest.mark.parametrize("mishap", [InventoryMishap.BROKEN, InventoryMishap.FORBIDDEN, InventoryMishap.DEFECT])
async def test_a_failed_inventory_changes_nothing_and_is_told(world: World, mishap: InventoryMishap) -> None:
    attempt = await confirmed(world)
    lost = plant(world, "lost")
    world.upstream.inventory_mishaps.append(mishap)
    (done,) = await world.reconciler.run(["fake"], "https://idp.test#ada")
    assert done.problem
    assert (done.listed, done.found, done.missing) == (None, 0, 0)
    assert {attempt, lost} <= world.upstream.alive.keys()
    assert [data["problem"] for _, data in await told(world, "upstream.reconciled")] == [done.problem]


async def test_one_that_hangs_is_given_up_and_tried_again_soon(world: World) -> None:
    answers = world.upstream.inventory

    async def hangs() -> Any:
        await asyncio.Event().wait()

    world.upstream.inventory = hangs  # type: ignore[method-assign]
    world.reconciler._timeout = timedelta(milliseconds=10)
    await world.reconciler.tick()
    assert "no answer" in world.reconciler.last["fake"].problem
    world.upstream.inventory = answers  # type: ignore[method-assign]
    world.reconciler._timeout = timedelta(seconds=PATIENCE)
    world.clock.advance(RETRY - timedelta(seconds=1))
    await world.reconciler.tick()
    assert world.upstream.calls == []
    world.clock.advance(timedelta(seconds=1))
    await world.reconciler.tick()
    assert not world.reconciler.last["fake"].problem


async def test_who_asks_while_one_hangs_waits_for_that_one_and_for_no_others(world: World) -> None:
    """Or `broker connectors reconcile` gives up, and what came of it is nowhere recorded."""

    async def hangs() -> Any:
        await asyncio.Event().wait()

    world.upstream.inventory = hangs  # type: ignore[method-assign]
    world.reconciler._timeout = timedelta(seconds=0.5)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    ticking = asyncio.ensure_future(world.reconciler.tick())
    await asyncio.sleep(0.1)
    asked = [asyncio.ensure_future(world.reconciler.run(["fake"], f"https://idp.test#{who}")) for who in "abcd"]
    await asyncio.gather(ticking, *asked)
    assert loop.time() - begun < 1.5  # two times; one after the other they took five
    problems = [data["problem"] for _, data in await told(world, "upstream.reconciled")]
    assert sorted(problems) == [*["it is being compared already, and that takes long; ask again later"] * 3, NO_ANSWER]


async def test_an_upstream_that_cannot_tell_is_no_failure(world: World) -> None:
    await confirmed(world)
    world.upstream.inventory_mishaps.append(InventoryMishap.CANNOT_TELL)
    done = await reconcile(world)
    assert (done.listed, done.missing, done.problem) == (None, 0, "")


async def test_a_connector_that_is_not_running_is_told(world: World) -> None:
    absent = Reconciler(
        *(world.store, lambda name: None, list, lambda name: None, world.clock, world.issuer._rng, TENANT, MARK),
        issue_timeout=ISSUE_TIMEOUT,
    )
    (done,) = await absent.run(["gone"], "broker")
    assert "not running" in done.problem


# ------------------------------------------------------------------ when it is done


async def test_at_the_start_hourly_sooner_for_the_young_and_at_once_after_recovery(world: World) -> None:
    def inventories() -> int:
        return world.upstream.calls.count(("inventory", ""))

    await world.reconciler.tick()
    assert inventories() == 1
    await world.reconciler.tick()
    assert inventories() == 1
    world.clock.advance(EVERY)
    await world.reconciler.tick()
    assert inventories() == 2
    world.reconciler.soon()
    plant(world, "young", age=timedelta(0))
    await world.reconciler.tick()
    assert inventories() == 3
    world.clock.advance(SETTLED)
    await world.reconciler.tick()  # by the young one, long before the hour
    await ended(world)
    assert world.upstream.alive == {}


# ------------------------------------------------------------------ hands in the ledger


async def test_a_row_of_somebody_else_ends_nothing(world: World, tmp_path: Path) -> None:
    victim = await confirmed(world)
    plant(world, "lost")
    await world.revoker.close()
    await reconcile(world)
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as theirs:
        theirs.execute("UPDATE upstream_orphans SET handle = ?", (f'{{"attempt":"{victim}"}}',))
    claimed = await world.store.claim_orphans("fake", world.clock.now(), 10, timedelta(seconds=30))
    assert claimed == []
    assert victim in world.upstream.alive
    assert (await told(world, "upstream.unknown_stuck"))[0][1]["untrusted_row"] is True
    assert (await reconcile(world)).found == 1  # what is really there is found again


async def test_a_stale_claim_changes_nothing(world: World) -> None:
    plant(world, "lost")
    await world.revoker.close()
    await reconcile(world)
    now = world.clock.now()
    (first,) = await world.store.claim_orphans("fake", now, 10, timedelta(seconds=30))
    assert await world.store.claim_orphans("fake", now, 10, timedelta(seconds=30)) == []
    (second,) = await world.store.claim_orphans("fake", now + timedelta(seconds=30), 10, timedelta(seconds=30))
    assert not await world.store.record_orphan(first, OrphanEnd.REVOKED, now, now, "", stuck=False)
    assert await world.store.record_orphan(second, OrphanEnd.REVOKED, now, now, "", stuck=False)
    assert not await world.store.record_orphan(second, OrphanEnd.REVOKED, now, now, "", stuck=False)


async def test_in_recovery_nothing_is_granted_and_the_unknown_is_ended(world: World) -> None:
    """The ledger may be old: what it does not know is ended all the same, at once and again at the release."""
    await world.reconciler.tick()  # nothing is due for an hour
    soon: list[str] = []

    def reconcile() -> None:
        soon.append("soon")
        world.reconciler.soon()

    recovering = Recovering(world.store, world.gate, world.clock, world.issuer._rng, TENANT, reconcile=reconcile)
    attempt = plant(world, "issued")
    await recovering.enter(Evidence("bucket", "it has seen more", "a note", 99, 5_000))
    assert world.gate.why_closed(world.clock.now()) is not None
    assert soon
    await world.reconciler.tick()
    await ended(world)
    assert attempt not in world.upstream.alive
