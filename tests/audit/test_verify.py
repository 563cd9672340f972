"""Damage of an audit chain is found, and found where it is."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import GENESIS, head_mac, link, record_mac
from broker.audit.verify import StoredHead, StoredRecord
from broker.scope.canonical import canonical_json
from tests.audit.chain import KEYS, chain, event, findings, found, stored


def head(seq: int, digest: bytes) -> StoredHead:
    """A head of ours that stands there."""
    return StoredHead(seq, digest, head_mac(KEYS["k1"], seq, digest), "k1")


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


ROWS, HEAD = chain(6)


def row(seq: int, **changes: Any) -> list[StoredRecord]:
    """The chain with another record ``seq``."""
    return [replace(each, **changes) if each.seq == seq else each for each in ROWS]


def other_body(seq: int, **changes: Any) -> list[StoredRecord]:
    return row(seq, body=canonical_json({**json.loads(ROWS[seq - 1].body), **changes}))


@pytest.mark.parametrize(
    ("rows", "head", "told"),
    [
        (other_body(3, actor="x"), HEAD, ["record 3: BODY: its bytes do not have its hash"]),
        (
            row(3, hash=bytes(32)),
            HEAD,
            ["record 3: HASH: its bytes are right (the next record says so), its stored hash is not"],
        ),
        (
            row(6, hash=bytes(32)),
            HEAD,
            [
                "record 6: BODY: its bytes do not have its hash",
                "record 6: MAC: its MAC is not ours",
                "record 6: HEAD: the head's hash is not the last record's",
            ],
        ),
        (row(3, body=b"{}"), HEAD, ["record 3: BODY: its bytes are no record any more"]),
        (
            other_body(3, prev="z" * 64),
            HEAD,
            [
                "record 3: BODY: its bytes are no record any more",
                "record 3: LINK: it is whole, but does not follow the record before it",
            ],
        ),
        (ROWS[1:], HEAD, ["record 2: GAP: record 1 is missing before it"]),
        ([*ROWS[:1], *ROWS[2:]], HEAD, ["record 3: GAP: record 2 is missing before it"]),
        ([*ROWS[:1], *ROWS[3:]], HEAD, ["record 4: GAP: records 2 to 3 are missing before it"]),
        ([*ROWS[:2], *ROWS[1:]], HEAD, ["record 2: ORDER: it comes after record 2"]),
        (
            [*ROWS[:3], replace(ROWS[1], seq=4), *ROWS[4:]],
            HEAD,
            [
                "record 4: INDEX: it says that it is record 2",
                "record 4: LINK: it is whole, but does not follow the record before it",
                "record 5: LINK: it is whole, but does not follow the record before it",
            ],
        ),
        (row(3, tenant="x"), HEAD, ["record 3: INDEX: column tenant is not what the record says"]),
        (row(3, holder="x"), HEAD, ["record 3: INDEX: column holder is not what the record says"]),
        (row(3, lease_id="x"), HEAD, ["record 3: INDEX: column lease_id is not what the record says"]),
        (row(3, mac=bytes(32)), HEAD, ["record 3: MAC: its MAC is not ours"]),
        (row(3, mac_key_id="k'9"), HEAD, ['record 3: KEY: no key "k\'9" at hand']),
        (ROWS, None, ["record 6: HEAD: the ledger has records and no head"]),
        ([], None, []),
        ([], HEAD, ["record 1: TRUNCATED: the head stands at record 6: 6 are missing"]),
        (ROWS[:4], HEAD, ["record 5: TRUNCATED: the head stands at record 6: 2 are missing"]),
        (ROWS, head(4, ROWS[3].hash), ["record 4: HEAD: the head stands here, the records go on to 6"]),
        (ROWS, head(6, ROWS[3].hash), ["record 6: HEAD: the head's hash is not the last record's"]),
        ([], head(0, bytes(32)), []),
        ([], head(0, bytes(31)), ["record 0: HEAD: the head's hash is not the last record's"]),
        (ROWS, replace(HEAD, mac=bytes(32)), ["record 6: MAC: the head's MAC is not ours"]),
        (ROWS, replace(HEAD, mac_key_id="k9"), ["record 6: KEY: no key 'k9' of the head at hand"]),
    ],
)
def test_what_is_told_of_it(rows: list[StoredRecord], head: StoredHead | None, told: list[str]) -> None:
    assert [str(each) for each in found(rows, head)] == told
    # Without keys all is told but what takes one.
    keyless = [each for each in told if ": MAC: " not in each and ": KEY: " not in each]
    assert [str(each) for each in found(rows, head, keys=False)] == keyless


def test_macs_are_kept_apart_by_what_they_are_of() -> None:
    """They are part of the stored form: old ledgers must verify for ever."""
    digest = hashlib.sha256(bytes(32) + ROWS[0].body).digest()
    assert (ROWS[0].hash, link(GENESIS, ROWS[0].body)) == (digest, digest)
    for key in (b"", b"k", KEYS["k1"], b"k" * 63, b"k" * 64, b"k" * 65, bytes(range(256))):
        for _ in range(2):  # what is prepared of a key is kept
            assert record_mac(key, digest) == hmac.digest(key, b"audit-record\0" + digest, "sha256")
            assert record_mac(key, bytes(32)) == hmac.digest(key, b"audit-record\0" + bytes(32), "sha256")
    assert head_mac(b"k", 17, digest) == hmac.digest(b"k", b"audit-head\x0017\0" + digest, "sha256")


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4))
def test_several_damages_are_all_located(places: list[tuple[int, int, int]]) -> None:
    rows, head = chain(8)
    damaged = [*rows]
    for place, index, mask in places:
        body = damaged[place].body
        damaged[place] = replace(damaged[place], body=flipped(body, index % len(body), mask))
    really = {row.seq for row, before in zip(damaged, rows, strict=True) if row.body != before.body}
    assert {sequence for sequence, problem in findings(damaged, head) if problem == "BODY"} == really
