"""Rows that come as one JSON text: read as any other, and believed by the text itself where it is as it was sealed."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.filled import _attempt, _lease
from broker.stores.queries import packed
from broker.stores.rows import (
    AttemptRow,
    LeaseRow,
    attempt_values,
    lease_values,
    packed_attempt,
    packed_lease,
    read_attempt,
    read_lease,
)
from broker.stores.seal import RowSeal
from tests.stores.make import Keys

SEAL = RowSeal(Keys())
# What a column of the ledger can hold: Unicode, and no end of a C string.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def lease(resource: str = "orders") -> LeaseRow:
    row = _lease(7, "bao", 1_000, 2_000)
    row.resource = resource
    return row


def attempt(error: str = "") -> AttemptRow:
    row = _attempt(lease())
    row.last_error = error
    return row


def sealed(row: LeaseRow | AttemptRow) -> tuple[Any, ...]:
    values = lease_values(row) if isinstance(row, LeaseRow) else attempt_values(row)
    return (*values, *SEAL.make(row.TABLE, values))


def by_sqlite(raw: tuple[Any, ...]) -> str:
    """As the ledger's queries have it."""
    names = [f"x.c{n}" for n in range(len(raw) - 2)] + ["x.mac", "x.mac_key_id"]
    columns = ", ".join(f"? AS {name[2:]}" for name in names)
    query = f"SELECT {packed(', '.join(names))} FROM (SELECT {columns}) AS x"
    (text,) = sqlite3.connect(":memory:").execute(query, raw).fetchone()
    return str(text)


def by_postgres(raw: tuple[Any, ...]) -> str:
    """Its ``json_build_array`` puts spaces after commas, and its ``encode`` small letters."""
    *values, mac, key_id = raw
    return json.dumps([*values, mac.hex(), key_id], ensure_ascii=False)


@given(TEXTS)
def test_either_database_s_text_is_the_row(text: str) -> None:
    for spelt in (by_sqlite, by_postgres):
        raw = sealed(lease(text))
        assert packed_lease(spelt(raw), SEAL) == read_lease(raw, SEAL) == lease(text)
        raw = sealed(attempt(text))
        read = packed_attempt(spelt(raw), SEAL)
        assert read == read_attempt(raw, SEAL)
        assert read.trusted
        assert read.seen_epoch == read.epoch == 1


def test_no_lease_is_none() -> None:
    nothing = (None,) * (len(sealed(lease())) - 2)
    assert packed_lease(by_sqlite((*nothing, None, None)), SEAL) is None
    assert packed_lease(json.dumps([*nothing, None, None]), SEAL) is None


@given(TEXTS)
def test_what_sqlite_spells_is_not_spelt_again(text: str) -> None:
    class Spelling(RowSeal):
        def holds(self, *_: object) -> bool:
            raise AssertionError("spelt again")

    seal = Spelling(Keys())
    row = packed_lease(by_sqlite(sealed(lease(text))), seal)
    assert row is not None
    assert row.trusted
    assert packed_attempt(by_sqlite(sealed(attempt(text))), seal).trusted


@pytest.mark.parametrize("spelt", [by_sqlite, by_postgres])
def test_no_letter_can_be_changed(spelt: Any) -> None:
    """Each letter in turn: what is still a row is the same row, or is not believed."""
    raw, believed = sealed(lease()), 0
    text = spelt(raw)
    for place, letter in enumerate(text):
        for other in {"x", "1", " ", '"', ","} - {letter}:
            try:
                row = packed_lease(text[:place] + other + text[place + 1 :], SEAL)
            except (ValueError, TypeError):
                continue  # no JSON, or not as many values
            assert row is not None
            believed += row.trusted
            assert not row.trusted or lease_values(row) == raw[:-2]
    assert believed == 0


def test_a_row_of_another_table_is_not_believed() -> None:
    values = lease_values(lease())
    row = packed_lease(by_sqlite((*values, *SEAL.make("attempts", values))), SEAL)
    assert row is not None
    assert not row.trusted


def test_a_key_that_is_not_there_proves_nothing() -> None:
    values = lease_values(lease())
    mac, _ = SEAL.make("leases", values)
    row = packed_lease(by_sqlite((*values, mac, "nobody's")), SEAL)
    assert row is not None
    assert not row.trusted
