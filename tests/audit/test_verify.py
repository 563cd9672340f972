"""Damage of an audit chain is found, and found where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import GENESIS, head_mac
from broker.audit.verify import StoredRecord
from tests.audit.chain import KEYS, chain, event, findings, stored


def flipped(data: bytes, index: int, mask: int = 1) -> bytes:
    return data[:index] + bytes([data[index] ^ mask]) + data[index + 1 :]


@pytest.mark.parametrize("length", [0, 1, 2, 10])
@pytest.mark.parametrize("keys", [True, False])
def test_a_whole_chain_has_no_findings(length: int, keys: bool) -> None:
    rows, head = chain(length)
    if length == 0:
        assert findings([], None, keys=keys) == []
    else:
        assert findings(rows, head, keys=keys) == []


@pytest.mark.parametrize("keys", [True, False])
def test_every_byte_of_every_body(keys: bool) -> None:
    rows, head = chain(4)
    for place, row in enumerate(rows):
        for index in range(len(row.body)):
            damaged = [*rows]
            damaged[place] = replace(row, body=flipped(row.body, index))
            found = findings(damaged, head, keys=keys)
            # Exactly one damage, in exactly that record. (A changed digit of a quoted hash breaks the link as well.)
            assert {sequence for sequence, _ in found} == {row.seq}, (row.seq, index, found)
            assert (row.seq, "BODY") in found, (row.seq, index, found)


@given(st.integers(0, 5), st.integers(0, 31), st.integers(1, 255))
def test_every_byte_of_hash_and_mac(place: int, index: int, mask: int) -> None:
    rows, head = chain(6)
    row = rows[place]
    in_hash = [*rows]
    in_hash[place] = replace(row, hash=flipped(row.hash, index, mask))
    found = findings(in_hash, head)
    assert found[0][0] == row.seq
    # The next record's quotation tells hash from body; the last record has none, and its own MAC speaks.
    assert (row.seq, "HASH" if place < 5 else "BODY") in found
    assert all(sequence == row.seq for sequence, _ in found)
    in_mac = [*rows]
    in_mac[place] = replace(row, mac=flipped(row.mac, index, mask))
    assert findings(in_mac, head) == [(row.seq, "MAC")]
    assert findings(in_mac, head, keys=False) == []


def test_a_missing_record_in_the_middle() -> None:
    rows, head = chain(6)
    assert findings([*rows[:2], *rows[3:]], head) == [(4, "GAP")]
    assert findings([*rows[:1], *rows[4:]], head) == [(5, "GAP")]
    assert findings(rows[1:], head) == [(2, "GAP")]


@pytest.mark.parametrize("kept", [0, 1, 5])
@pytest.mark.parametrize("keys", [True, False])
def test_a_cut_tail(kept: int, keys: bool) -> None:
    rows, head = chain(6)
    assert findings(rows[:kept], head, keys=keys) == [(kept + 1, "TRUNCATED")]


def test_a_cut_tail_with_a_forged_head() -> None:
    rows, head = chain(6)
    forged = replace(head, seq=4, hash=rows[3].hash)
    assert findings(rows[:4], forged) == [(4, "MAC")]
    assert findings(rows[:4], forged, keys=False) == []  # without keys this cannot be seen


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seq": 5}, [(5, "HEAD"), (5, "MAC")]),
        ({"seq": 7}, [(7, "TRUNCATED"), (7, "MAC")]),
        ({"hash": bytes(32)}, [(6, "HEAD"), (6, "MAC")]),
        ({"mac": bytes(32)}, [(6, "MAC")]),
        ({"mac_key_id": "k9"}, [(6, "KEY")]),
    ],
)
def test_a_damaged_head(change: dict[str, object], expected: list[tuple[int, str]]) -> None:
    rows, head = chain(6)
    assert findings(rows, replace(head, **change)) == expected  # type: ignore[arg-type]


def test_no_head() -> None:
    rows, _ = chain(6)
    assert findings(rows, None) == [(6, "HEAD")]


def test_a_chain_computed_anew_without_the_key() -> None:
    # Whoever can write the database changes record 3 and makes every later hash fit; the MACs do not.
    rows, head = chain(6)
    forged: list[StoredRecord] = rows[:2]
    prev = rows[1].hash
    for seq in range(3, 7):
        row = stored(event(99 if seq == 3 else seq), seq, prev, "k2")
        forged.append(replace(row, mac=rows[seq - 1].mac))
        prev = row.hash
    fitting = replace(head, hash=prev)
    assert findings(forged, fitting, keys=False) == []
    assert findings(forged, fitting) == [(3, "MAC"), (4, "MAC"), (5, "MAC"), (6, "MAC"), (6, "MAC")]


def test_a_record_of_ours_in_another_place() -> None:
    rows, head = chain(6)
    stranger = stored(event(4), 4, GENESIS, "k2")  # whole in itself, and with our key
    assert findings([*rows[:3], stranger, *rows[4:]], head) == [(4, "LINK"), (5, "LINK")]
    renumbered = replace(rows[1], seq=4)
    found = findings([*rows[:3], renumbered, *rows[4:]], head)
    assert found[:1] == [(4, "INDEX")]
    assert (4, "LINK") in found


def test_records_out_of_order() -> None:
    rows, head = chain(4)
    assert (2, "ORDER") in findings([rows[0], rows[2], rows[1], rows[3]], head)
    assert findings([rows[0], rows[0], *rows[1:]], head)[0] == (1, "ORDER")


@pytest.mark.parametrize("column", ["tenant", "holder", "lease_id"])
def test_columns_that_contradict_the_record(column: str) -> None:
    rows, head = chain(4)
    rows[2] = replace(rows[2], **{column: "else"})  # type: ignore[arg-type]
    assert findings(rows, head) == [(3, "INDEX")]


def test_a_key_that_is_not_at_hand() -> None:
    rows, head = chain(4)
    rows[1] = replace(rows[1], mac_key_id="gone")
    assert findings(rows, head) == [(2, "KEY")]


def test_the_key_decides_not_its_name() -> None:
    rows, head = chain(4)
    rows[1] = replace(rows[1], mac_key_id="k2")  # made with k1
    assert findings(rows, head) == [(2, "MAC")]
    assert findings(rows, replace(head, mac=head_mac(KEYS["k1"], 4, head.hash))) == [(2, "MAC"), (4, "MAC")]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4))
def test_several_damages_are_all_located(places: list[tuple[int, int, int]]) -> None:
    rows, head = chain(8)
    damaged = [*rows]
    for place, index, mask in places:
        body = damaged[place].body
        damaged[place] = replace(damaged[place], body=flipped(body, index % len(body), mask))
    really = {row.seq for row, before in zip(damaged, rows, strict=True) if row.body != before.body}
    assert {sequence for sequence, problem in findings(damaged, head) if problem == "BODY"} == really
