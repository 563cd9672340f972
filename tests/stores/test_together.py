"""Many rows are changed in few statements, and come out as if each had been changed by itself."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.errors import Conflict, Reason
from broker.lease.machine import Event, State
from broker.ports.leases import EndCause, Tried
from broker.stores.end_ops import find_attempt
from broker.stores.moves import move
from broker.stores.sqlite import SqliteStore
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from tests.stores.contract import grant, types
from tests.stores.make import TENANT, Keys, at, new_task
from tests.stores.test_images import contents, outcome, step

MANY = 40


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "w")
    await made.start_task(new_task())
    for number in range(MANY):
        await grant(made, str(number), ttl=9, max_live_leases=1000)
    yield made
    await made.close()


def ended(tx: Transaction, name: str) -> bool:
    """What most operations do with a row."""
    attempt, lease = find_attempt(tx, TENANT, f"attempt-{name}")
    return move(tx, attempt, lease, Event.END, EndCause.RELEASED, to_ms(at(5)))


async def states(store: SqliteStore) -> Counter[str]:
    rows = await store._writer.submit(lambda tx: tx.connection.execute("SELECT state FROM attempts").fetchall())
    return Counter(state for (state,) in rows)


def overtaken(tx: Transaction, name: str) -> bool:
    """The same, by who has read another epoch than the one that is there."""
    attempt, lease = find_attempt(tx, TENANT, f"attempt-{name}")
    attempt.seen_epoch += name == "7"
    return move(tx, attempt, lease, Event.END, EndCause.RELEASED, to_ms(at(5)))


@pytest.mark.parametrize("seed", range(4))
async def test_one_by_one_or_together_the_same_bytes(tmp_path: Path, seed: int) -> None:
    one = await SqliteStore.open(tmp_path / "one.sqlite3", Keys(), "w")
    two = await SqliteStore.open(tmp_path / "two.sqlite3", Keys(), "w")
    rngs = random.Random(seed), random.Random(seed)
    for number in range(150):
        now = 1 + number / 4
        two._writer._transaction.careful = True  # until a batch is run again
        told, asked = [await outcome(step(store, rng, now)) for store, rng in zip((one, two), rngs, strict=True)]
        assert told == asked
    assert contents(one) == contents(two)
    await one.close()
    await two.close()


async def test_a_portion_takes_a_statement_for_each_kind_of_change(store: SqliteStore) -> None:
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    claimed = await store.claim_due("bao", at(20), 100, timedelta(seconds=30))
    tried = [Tried(each, Event.REVOKE_CONFIRMED, at(20), at(20)) for each in claimed]
    assert all(await store.record_revocations(tried))
    store._connection.set_trace_callback(None)
    assert len(claimed) == MANY
    kinds = [" ".join(each.split()[:2]) for each in statements if each.startswith(("UPDATE", "SELECT"))]
    # Each row's own run of a prepared statement, kind after kind; what is due is read, and what hangs under it.
    runs = [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]
    assert [kind for kind in runs if kind.startswith("UPDATE")] == ["UPDATE attempts", "UPDATE leases"] * 2
    assert sum(kind.startswith("SELECT") for kind in kinds) == 2


async def test_who_was_overtaken_changes_nothing_and_holds_up_nobody(store: SqliteStore) -> None:
    before = Counter(await types(store))
    names = [str(number) for number in range(MANY)]
    done = await store._writer.submit(lambda tx: tx.each(lambda name: overtaken(tx, name), names))
    assert done == [name != "7" for name in names]
    assert await states(store) == Counter({State.REVOKING: MANY - 1, State.ACTIVE: 1})
    assert Counter(await types(store)) - before == Counter({"lease.revoking": MANY - 1})


async def test_together_it_is_noticed_that_one_was_overtaken(store: SqliteStore) -> None:
    """The same where all that is changed waits for one statement."""
    names = [str(number) for number in range(MANY)]

    def portion(tx: Transaction) -> list[bool]:
        pairs = [find_attempt(tx, TENANT, f"attempt-{name}") for name in names]
        pairs[7][0].seen_epoch += 1
        end, cause, now = Event.END, EndCause.RELEASED, to_ms(at(5))
        return tx.each(lambda pair: move(tx, pair[0], pair[1], end, cause, now), pairs)

    before = Counter(await types(store))
    assert await store._writer.submit(portion) == [name != "7" for name in names]
    assert await states(store) == Counter({State.REVOKING: MANY - 1, State.ACTIVE: 1})
    assert Counter(await types(store)) - before == Counter({"lease.revoking": MANY - 1})


async def test_what_is_refused_half_way_has_changed_nothing(store: SqliteStore) -> None:
    refusal = Conflict(Reason.REQUEST_IN_FLIGHT, "not now")

    def portion(tx: Transaction, name: str) -> bool:
        if name == "3":
            raise refusal
        return ended(tx, name)

    def operation(tx: Transaction) -> Any:
        pairs = [find_attempt(tx, TENANT, f"attempt-{number}") for number in range(3)]

        def act(number: int) -> bool:
            if number == 2:
                raise refusal
            return move(tx, *pairs[number], Event.END, EndCause.RELEASED, to_ms(at(5)))

        return tx.each(act, range(3))

    before = contents(store)
    for each in (lambda tx: tx.each(lambda name: portion(tx, name), ["1", "2", "3"]), operation):
        with pytest.raises(Conflict):
            await store._writer.submit(each)
        assert contents(store) == before
    # What the writer remembers is what is there.
    await store._writer.submit(lambda tx: tx.each(lambda name: ended(tx, name), ["1", "2"]))
    assert await states(store) == Counter({State.REVOKING: 2, State.ACTIVE: MANY - 2})


async def test_what_is_read_meanwhile_is_what_was_said(store: SqliteStore) -> None:
    def read(tx: Transaction) -> list[str]:
        seen: list[str] = []

        def act(number: int) -> bool:
            seen.append(find_attempt(tx, TENANT, "attempt-0")[0].state)
            return ended(tx, str(number))

        tx.each(act, range(2))
        return seen

    assert await store._writer.submit(read) == ["ACTIVE", "REVOKING"]
