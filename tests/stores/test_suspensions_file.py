"""Suspensions in a SQLite file: what somebody with a database client can do to them, restarts, and portions."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from broker.errors import Denied, Reason
from broker.lease.machine import State
from broker.ports.leases import EndCause
from broker.stores import suspension_ops
from broker.stores.sqlite import SqliteStore
from broker.suspension.suspension import Kind
from tests.stores.contract import activate, grant, records, types
from tests.stores.contract_suspensions import ADA, EVE, lift, members, stop
from tests.stores.make import ALICE, BOB, TASK, TENANT, Keys, at, intent, new_task


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path / "ledger.sqlite3", Keys(), "writer-1")


def edit(path: Path, statement: str, *values: Any) -> None:
    """What an intruder does."""
    connection = sqlite3.connect(path / "ledger.sqlite3")
    with connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


async def refused_for(store: SqliteStore, asked: Any) -> str:
    with pytest.raises(Denied) as caught:
        await store.open_intent(asked)
    assert caught.value.reason is Reason.SUSPENDED
    return caught.value.message


async def test_it_survives_a_restart(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.start_task(new_task())
    await store.suspend(stop(Kind.OWNER, ADA), members)
    await store.close()
    store = await opened(tmp_path)
    assert "it went mad" in await refused_for(store, intent(now=6))
    await store.close()


TAMPERINGS = [
    ("UPDATE suspensions SET value = ?", (BOB,)),
    ("UPDATE suspensions SET until = ?", (int(at(6).timestamp() * 1000),)),
    ("UPDATE suspensions SET kind = 'ENTRY'", ()),
    ("UPDATE suspensions SET reason = 'never mind'", ()),
    ("UPDATE suspensions SET mac = zeroblob(32)", ()),
    ("UPDATE suspensions SET mac_key_id = 'k9'", ()),
    ("UPDATE suspensions SET lifted_by = ?, lifted_at = ?, value = 'x'", (EVE, int(at(6).timestamp() * 1000))),
]


@pytest.mark.parametrize(("statement", "values"), TAMPERINGS)
async def test_one_that_was_changed_stops_everybody_until_two_people_lift_it(
    tmp_path: Path, statement: str, values: tuple[Any, ...]
) -> None:
    store = await opened(tmp_path)
    await store.start_task(new_task())
    await store.suspend(stop(Kind.AGENT, ALICE), members)
    edit(tmp_path, statement, *values)
    for _ in range(3):
        await store.tend_suspensions(TENANT, members, at(7))
    for holder in (ALICE, BOB):
        told = await refused_for(store, intent(holder, now=8, holder=holder, entry="x", owner="y"))
        assert "changed by something other than the broker" in told
    assert (await types(store)).count("suspension.tampered") == 1
    figures = await store.figures(at(8))
    assert (sum(figures.suspensions.values()), figures.suspensions_tampered) == (1, 1)
    (listed,) = await store.suspensions(TENANT, False, "", 10)
    assert not listed.trusted

    begun = await store.resume(lift(ADA))
    assert begun.in_force(at(9))
    with pytest.raises(Denied) as caught:
        await store.resume(lift(ADA, request_id="again"))
    assert caught.value.reason is Reason.SECOND_PERSON_REQUIRED
    await refused_for(store, intent("a", now=10))
    assert not (await store.resume(lift(EVE))).in_force(at(11))
    assert (await grant(store, "b", now=11)).state is State.ACTIVE
    (event,) = [record for record in await records(store) if record.type == "suspension.resumed"]
    assert event.data["untrusted_row"] is True
    assert not await _needs_tending(store)
    await store.close()


async def test_one_that_an_intruder_lifted_is_in_force_again(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.start_task(new_task())
    await store.suspend(stop(Kind.AGENT, ALICE), members)
    edit(tmp_path, "UPDATE suspensions SET lifted_by = ?, lifted_at = 1", EVE)
    await store.tend_suspensions(TENANT, members, at(7))
    assert "it went mad" in await refused_for(store, intent(now=8))
    assert (await types(store)).count("suspension.tampered") == 1
    await store.close()


async def _needs_tending(store: SqliteStore) -> bool:
    look = suspension_ops.Look(TENANT)
    needed, _ = await store._readers.scan(lambda view: suspension_ops.needs_tending(view, look, members, at(12)))
    return needed


async def test_an_intruder_cannot_be_the_first_of_two(tmp_path: Path) -> None:
    """Whoever writes himself in as the first breaks the MAC; then the first in the row is not believed."""
    store = await opened(tmp_path)
    await store.suspend(stop(Kind.EVERYTHING), members)
    edit(tmp_path, "UPDATE suspensions SET first_by = 'x', first_at = 1")
    assert (await store.resume(lift(ADA))).in_force(at(9))
    assert not (await store.resume(lift(EVE))).in_force(at(9))
    await store.close()


async def test_a_changed_row_that_says_it_is_over_is_found_at_the_start(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.start_task(new_task())
    await store.suspend(stop(Kind.AGENT, ALICE), members)
    await store.close()
    edit(tmp_path, "UPDATE suspensions SET lifted_by = 'x', lifted_at = 1")
    store = await opened(tmp_path)
    await store.tend_suspensions(TENANT, members, at(6))  # what the daemon does before it serves
    await refused_for(store, intent(now=7))
    await store.close()


async def test_a_large_one_goes_in_portions_and_what_is_being_issued_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspension_ops, "PORTION", 4)
    monkeypatch.setattr(suspension_ops, "CHUNK", 3)
    store = await opened(tmp_path)
    await store.start_task(new_task())
    for number in range(9):
        await grant(store, f"active-{number}")
    issuing = [await store.open_intent(intent(f"issuing-{number}")) for number in range(2)]
    # Of the first transaction alone, as a crash right after it would leave things.
    _, ended = await store._writer.submit(lambda tx: suspension_ops.suspend(tx, stop(Kind.EVERYTHING), members))
    assert (ended.attempts, ended.more) == (4, True)
    for each in issuing:
        with pytest.raises(Denied):
            await activate(store, each, now=6)
    leases = await store.task_leases(TENANT, TASK)
    assert sum(lease.state is State.ACTIVE for lease in leases) == 7
    # The ticks go on where it broke off.
    while (await store.tend_suspensions(TENANT, members, at(7))).attempts:
        pass
    leases = await store.task_leases(TENANT, TASK)
    assert {(lease.state, lease.cause) for lease in leases} == {(State.REVOKING, EndCause.SUSPENDED)}
    await store.close()


async def test_a_large_one_is_complete_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspension_ops, "PORTION", 4)
    store = await opened(tmp_path)
    await store.start_task(new_task())
    for number in range(9):
        await grant(store, str(number))
    _, ended = await store.suspend(stop(Kind.OWNER, ADA), members)
    assert (ended.attempts, ended.more) == (9, False)
    assert {lease.state for lease in await store.task_leases(TENANT, TASK)} == {State.REVOKING}
    await store.close()


async def test_whoever_asks_meanwhile_does_not_wait_for_all_of_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspension_ops, "PORTION", 2)
    store = await opened(tmp_path)
    await store.start_task(new_task())
    for number in range(12):
        await grant(store, str(number))
    order: list[str] = []

    async def suspend() -> None:
        await store.suspend(stop(Kind.EVERYTHING), members)
        order.append("all ended")

    async def ask(name: str) -> None:
        await refused_for(store, intent(name, now=6))
        order.append(name)

    # The writer takes them in this order.
    await asyncio.gather(suspend(), ask("asked"), ask("asked too"))
    assert order == ["asked", "asked too", "all ended"]
    assert {lease.state for lease in await store.task_leases(TENANT, TASK)} == {State.REVOKING}
    await store.close()


async def test_each_tick_looks_at_a_few_of_those_that_are_over_and_comes_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspension_ops.Look, "__init__", _of_two(suspension_ops.Look.__init__))
    store = await opened(tmp_path)
    await store.start_task(new_task())
    for number in range(7):
        await store.suspend(stop(Kind.AGENT, BOB, name=str(number)), members)
        await store.resume(lift(ADA, name=str(number)))
    await store.tend_suspensions(TENANT, members, at(10))  # the first one, of all
    edit(tmp_path, "UPDATE suspensions SET lifted_at = 1 WHERE id = 'susp-5'")
    ticks = 0
    while not (await store.figures(at(11))).suspensions_tampered:
        await store.tend_suspensions(TENANT, members, at(11))
        ticks += 1
    # Seven by twos, from wherever it stood; and the alarm is there with it.
    assert 1 < ticks <= 5
    assert (await types(store)).count("suspension.tampered") == 1
    await refused_for(store, intent(now=12))
    await store.close()


def _of_two(init: Any) -> Any:
    def made(self: Any, tenant: str, after: str = "", limit: int = 2) -> None:
        init(self, tenant, after, limit)

    return made
