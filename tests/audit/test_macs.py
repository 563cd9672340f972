"""MACs are made from prepared ones, and are what the standards say."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import link, record_mac
from broker.scope.canonical import canonical_row
from broker.stores.seal import RowSeal
from tests.stores.make import Keys

KEYS = st.binary(min_size=32, max_size=200)  # around the blocks of both: 64 and 128 bytes


@given(KEYS, st.binary(min_size=32, max_size=32))
def test_a_records_is_hmac_sha256(key: bytes, digest: bytes) -> None:
    for _ in range(2):  # what was prepared is not used up
        assert record_mac(key, digest) == hmac.digest(key, b"audit-record\0" + digest, "sha256")


@given(st.binary(min_size=32, max_size=32), st.binary())
def test_a_link_is_sha256(prev: bytes, body: bytes) -> None:
    for _ in range(2):
        assert link(prev, body) == hashlib.sha256(prev + body).digest()


@given(KEYS, st.lists(st.none() | st.integers(0, 2**53) | st.text(max_size=20)))
def test_a_rows_is_keyed_blake2b(key: bytes, fields: list[str | int | None]) -> None:
    short = key if len(key) <= 64 else hashlib.blake2b(key).digest()
    row = canonical_row(("leases", *fields))
    expected = hashlib.blake2b(row, key=short, digest_size=32, person=b"jit-broker row").digest()
    seal = RowSeal(Keys(k=key))
    for _ in range(2):
        assert seal.make("leases", fields) == (expected, "k")
    assert seal.holds("leases", fields, expected, "k")
    assert not seal.holds("tasks", fields, expected, "k")
