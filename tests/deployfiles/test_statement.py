"""One statement, one spelling."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.deployfiles.statement import FORMAT, MAX_SERIAL, Statement, Unsound

DIGEST = "ab" * 32
STATEMENTS = st.builds(
    Statement,
    digest=st.binary(min_size=32, max_size=32).map(bytes.hex),
    author=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    serial=st.integers(1, MAX_SERIAL),
)


@given(STATEMENTS, STATEMENTS)
def test_it_reads_back_and_two_never_have_the_same_bytes(one: Statement, other: Statement) -> None:
    assert Statement.decode(one.encode()) == one
    assert (one.encode() == other.encode()) == (one == other)


@given(st.binary(max_size=200))
def test_no_other_bytes_are_a_statement(data: bytes) -> None:
    with pytest.raises(Unsound):
        Statement.decode(data)


RIGHT = {"author": "dana", "digest": f"sha256:{DIGEST}", "format": FORMAT, "serial": 1}


def spelled(**changes: object) -> bytes:
    told = {name: value for name, value in {**RIGHT, **changes}.items() if value is not None}
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def test_the_right_spelling() -> None:
    assert Statement.decode(spelled()) == Statement(DIGEST, "dana", 1)


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (spelled(author=None), "author"),
        (spelled(author=""), "author"),
        (spelled(author="Dana"), "author"),
        (spelled(author="dana\n"), "author"),
        (spelled(author=7), "author"),
        (spelled(serial=None), "serial"),
        (spelled(serial=0), "serial"),
        (spelled(serial=-1), "serial"),
        (spelled(serial=True), "serial"),
        (spelled(serial="1"), "serial"),
        (spelled(serial=1.0), "serial"),
        (spelled(serial=MAX_SERIAL + 1), "serial"),
        (spelled(digest=None), "digest"),
        (spelled(digest=DIGEST), ""),
        (spelled(digest=f"sha256:{DIGEST.upper()}"), "digest"),
        (spelled(digest=f"sha256:{DIGEST[2:]}"), "digest"),
        (spelled(format=None), "format"),
        (spelled(format="jit-broker deploy set, version 2"), "format"),
        (spelled(more=1), ""),
        (spelled() + b"\n", ""),
        (b" " + spelled(), ""),
        (spelled().replace(b',"', b', "'), ""),
        (spelled().replace(b'"serial":1', b'"serial":1,"serial":1'), ""),
        (b"[]", ""),
        (b"", ""),
    ],
)
def test_every_other_spelling_is_refused(payload: bytes, field: str) -> None:
    with pytest.raises(Unsound) as caught:
        Statement.decode(payload)
    assert caught.value.field == field
