"""A recovery whose row somebody else has changed stays open, and both people say so anew."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from broker.errors import Denied
from broker.stores.sqlite import SqliteStore
from tests.stores.contract_trail import EVIDENCE, word
from tests.stores.make import TENANT, Keys, at


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as other:
        other.execute(statement)
    other.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE recoveries SET first_by = 'm', first_at = 1, released_by = 'n', released_at = 1",
        "UPDATE recoveries SET first_by = 'mallory', first_name = 'M', first_reason = '', first_at = 1",
        "UPDATE recoveries SET evidence_at = 0",
        "UPDATE recoveries SET mac = zeroblob(32)",
    ],
)
async def test_a_changed_row_releases_nothing(tmp_path: Path, statement: str) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), writer="w")
    await store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(10))
    change(path, statement)
    found = await store.recovery(TENANT)
    assert found is not None
    assert (found.open, found.trusted) == (True, False)
    begun = await store.release_recovery(word("rec-1", "dana"))
    assert (begun.open, begun.first is not None and begun.first.by) == (True, "dana")
    with pytest.raises(Denied):
        await store.release_recovery(word("rec-1", "dana", request_id="r2"))
    assert not (await store.release_recovery(word("rec-1", "erin"))).open
    await store.close()
