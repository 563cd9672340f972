"""Every checkpoint reaches its witness, in order, however long that is down; and how far behind it is, is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.stores.sqlite import SqliteStore
from broker.witnesses.pump import WitnessPump
from tests.clock import CountingRng, ManualClock
from tests.stores.contract_trail import checkpoint, event
from tests.stores.make import T0, TENANT, Keys, at
from tests.witnesses.fake import FakeWitness


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    tmp_path.chmod(0o700)
    opened = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), writer="w")
    for count, after in ((1, None), (3, 1), (5, 3)):
        await opened.append([event()], at(count))
        assert await opened.add_checkpoint(TENANT, checkpoint(count, after), at(count))
    yield opened
    await opened.close()


def pump(store: SqliteStore, witness: FakeWitness, *, may_send: bool = True) -> WitnessPump:
    return WitnessPump("w", witness, store, ManualClock(T0), CountingRng(), TENANT, lambda: may_send)


async def test_what_waits_is_sent_once_and_in_order(store: SqliteStore) -> None:
    witness = FakeWitness()
    assert await pump(store, witness).step()
    assert witness.notes == ["note 1", "note 3", "note 5"]
    assert await pump(store, witness).step()  # as after a restart
    assert witness.asked == 3


async def test_one_that_is_down_is_tried_again_and_alarmed(store: SqliteStore) -> None:
    witness = FakeWitness()
    witness.down = OSError("No space left on device")
    carrying = pump(store, witness)
    for failures in (1, 2, 3):
        assert not await carrying.step()
        assert carrying.tally.failed == failures
    assert carrying.tally.failing_since == T0
    lag = await carrying.measure()
    assert (lag.records, await store.witness_position(TENANT, "w")) == (6, 0)
    witness.down = None
    assert await carrying.step()
    assert witness.notes == ["note 1", "note 3", "note 5"]
    assert carrying.tally.failing_since is None
    lag = await carrying.measure()
    assert (lag.records, lag.age) == (0, timedelta(0))


async def test_where_nothing_may_go_out_nothing_does(store: SqliteStore) -> None:
    witness = FakeWitness()
    assert await pump(store, witness, may_send=False).step()
    assert (witness.notes, await store.witness_position(TENANT, "w")) == ([], 0)
