"""Checkpoints are written when they are due, over everything, and verify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.event import EventType
from broker.audit.offline import Audit
from broker.audit.record import decode
from broker.audit.witnessed import Witnessed
from broker.errors import InvalidInput
from broker.ports.trail import Evidence, TrailEnd
from broker.references import resolve
from broker.stores.sqlite import SqliteStore
from broker.witnesses.checkpointer import Checkpointer
from broker.witnesses.signing import CheckpointKeys
from tests.audit.trail import KEY, NEXT_KEY, ORIGIN
from tests.stores.contract_trail import event
from tests.stores.make import TENANT, Keys, at
from tests.witnesses.fake import keys, signing_key

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    tmp_path.chmod(0o700)
    opened = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), writer="w")
    yield opened
    await opened.close()


@pytest.fixture
def checkpointer(store: SqliteStore, tmp_path: Path) -> Checkpointer:
    return made(store, keys(tmp_path))


def made(store: SqliteStore, keys: CheckpointKeys, newest: bool = True) -> Checkpointer:
    async def asked(end: TrailEnd) -> bool:
        return newest

    return Checkpointer(store, keys, origin=ORIGIN, tenant=TENANT, writer="w", newest=asked)


async def notes(store: SqliteStore) -> list[int]:
    return [each.count for each in await store.checkpoints_since(0, 100)]


async def test_nothing_is_signed_where_a_witness_has_seen_more(store: SqliteStore, tmp_path: Path) -> None:
    await store.append([event()], at(0))
    assert not await made(store, keys(tmp_path), newest=False).write(at(0))
    assert await notes(store) == []


async def test_by_time_and_only_where_something_happened(store: SqliteStore, checkpointer: Checkpointer) -> None:
    async def due(seconds: float) -> bool:
        return await checkpointer.if_due(at(seconds), MINUTE, 1000)

    assert not await due(0)  # an empty trail
    await store.append([event()], at(0))
    assert await due(0)  # the first is due at once
    assert not await due(3600)  # nothing happened
    await store.append([event()], at(30))
    assert not await due(59)
    assert await due(60)
    assert await notes(store) == [1, 3]


async def test_by_size(store: SqliteStore, checkpointer: Checkpointer) -> None:
    await store.append([event()], at(0))
    await checkpointer.if_due(at(0), MINUTE, 10)
    await store.append([event()] * 9, at(1))
    assert not await checkpointer.if_due(at(1), MINUTE, 10)
    await store.append([event()], at(1))
    assert await checkpointer.if_due(at(1), MINUTE, 10)
    assert await notes(store) == [1, 12]


async def test_what_was_written_while_it_was_signed_is_covered_by_the_next(
    store: SqliteStore, checkpointer: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append([event()], at(0))
    add = store.add_checkpoint

    async def late(*arguments: object) -> bool:
        await store.append([event()], at(0))
        return await add(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "add_checkpoint", late)
    assert await checkpointer.write(at(0))
    monkeypatch.undo()
    assert await notes(store) == [1]  # in record 3
    assert await checkpointer.if_due(at(60), MINUTE, 1000)
    assert not await checkpointer.if_due(at(600), MINUTE, 1000)
    assert await notes(store) == [1, 3]
    audit = Audit([KEY.public_key()], closed=True)
    assert list(audit.verify(await store.audit_since(0, 100))) == []


async def test_two_that_are_due_at_once_make_one_trail_that_verifies(
    store: SqliteStore, checkpointer: Checkpointer
) -> None:
    for second in range(5):
        await store.append([event()], at(second))
        await asyncio.gather(*(checkpointer.write(at(second)) for _ in range(4)))
    assert await notes(store) == [1, 3, 5, 7, 9]
    audit = Audit([KEY.public_key()], closed=True)
    assert list(audit.verify(await store.audit_since(0, 100))) == []


async def test_a_trail_of_a_real_ledger_verifies_without_its_keys(
    store: SqliteStore, checkpointer: Checkpointer
) -> None:
    for second in range(5):
        await store.append([event()] * 3, at(second))
        await checkpointer.write(at(second))
    shown = [each.note for each in await store.checkpoints_since(0, 100)]
    witness = Witnessed("w", shown, [KEY.public_key()])
    audit = Audit([KEY.public_key()], [witness], closed=True)
    assert list(audit.verify(await store.audit_since(0, 100))) == []
    assert (audit.signed, audit.witnessed, audit.checkpoints) == (19, 19, 5)


async def test_its_time_goes_forward_whatever_the_clock_does(store: SqliteStore, checkpointer: Checkpointer) -> None:
    for second in (100, 50, 50, 101):
        await store.append([event()], at(second))
        await checkpointer.write(at(second))
    times = [each.at_ms for each in await store.checkpoints_since(0, 100)]
    assert times == sorted(set(times))
    assert times[1] == times[0] + 1


async def test_it_is_later_than_what_a_witness_had_seen_before_a_recovery(
    store: SqliteStore, checkpointer: Checkpointer
) -> None:
    seen_ms = 4_000_000_000_000
    await store.enter_recovery(TENANT, "rec-1", Evidence("w", "why", "note", 9, seen_ms), at(0))
    await checkpointer.write(at(0))
    (made,) = await store.checkpoints_since(0, 100)
    assert made.at_ms == seen_ms + 1


async def test_each_key_signs(store: SqliteStore, tmp_path: Path) -> None:
    references = [signing_key(tmp_path / "a"), signing_key(tmp_path / "b", NEXT_KEY)]
    both = CheckpointKeys(references, resolve)
    await store.append([event()], at(0))
    await made(store, both).write(at(0))
    bodies = await store.audit_since(0, 100)
    assert decode(bodies[1]).type == EventType.AUDIT_CHECKPOINT
    for key in (KEY, NEXT_KEY):
        assert list(Audit([key.public_key()], closed=True).verify(bodies)) == []


@pytest.mark.parametrize("pem", ["", "-----BEGIN PRIVATE KEY-----\n", "c2VjcmV0"])
def test_what_is_no_key_is_refused(tmp_path: Path, pem: str) -> None:
    path = tmp_path / "key"
    path.write_text(pem)
    path.chmod(0o600)
    with pytest.raises(InvalidInput):
        CheckpointKeys([f"file:{path}"], resolve)


def test_a_key_twice_is_refused_and_a_bad_reload_changes_nothing(tmp_path: Path) -> None:
    one, other = signing_key(tmp_path / "a"), signing_key(tmp_path / "b")
    with pytest.raises(InvalidInput):
        CheckpointKeys([one, other], resolve)
    loaded = CheckpointKeys([one], resolve)
    before = loaded.sign("x\n", "n")
    (tmp_path / "a").write_text("nothing")
    with pytest.raises(InvalidInput):
        loaded.reload()
    assert loaded.sign("x\n", "n") == before
