"""Audit records: there and back, byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.record import decode, encode
from broker.errors import Reason, Tampered

EVENT = AuditEvent(
    EventType.LEASE_INTENT,
    "spiffe://example.org/a",
    Vouch.AGENT,
    tenant="default",
    task_id="t",
    lease_id="l",
    attempt_id="x",
    holder="spiffe://example.org/a",
    data={"b": [1, "two"], "a": None},
)
BODY = encode(EVENT, seq=7, at_ms=1234, writer="w", prev=bytes(32))


def test_the_bytes() -> None:
    assert BODY == (
        b'{"actor":"spiffe://example.org/a","at_ms":1234,"attempt_id":"x","data":{"a":null,"b":[1,"two"]},'
        b'"holder":"spiffe://example.org/a","lease_id":"l","prev":"' + b"0" * 64 + b'","seq":7,"task_id":"t",'
        b'"tenant":"default","type":"lease.intent","vouched_by":"agent","writer":"w"}'
    )


def test_there_and_back() -> None:
    record = decode(BODY)
    assert (record.seq, record.at_ms, record.writer, record.prev) == (7, 1234, "w", "0" * 64)
    assert (record.type, record.actor, record.vouched_by) == ("lease.intent", "spiffe://example.org/a", "agent")
    assert (record.task_id, record.lease_id, record.attempt_id) == ("t", "l", "x")
    assert record.data == {"a": None, "b": [1, "two"]}


def changed(**fields: object) -> bytes:
    values = {**json.loads(BODY), **fields}
    kept = {key: value for key, value in values.items() if value is not ...}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        BODY[:-1],
        BODY + b" ",
        BODY.replace(b'":', b'": ', 1),  # JSON, but not canonical
        BODY.replace(b'"actor"', b'"actor":"x","actor"', 1),  # a key twice
        changed(extra=1),
        changed(holder=...),
        changed(seq="7"),
        changed(seq=True),
        changed(seq=7.0),
        changed(at_ms=None),
        changed(data=[]),
        changed(prev="0"),
        changed(tenant=None),
        b"\xff" + BODY,
        b"[" * 100_000,
    ],
)
def test_what_is_no_record(body: bytes) -> None:
    with pytest.raises(Tampered, match=r"^the stored bytes are not a canonical audit record\.") as caught:
        decode(body)
    assert caught.value.reason is Reason.AUDIT_CHAIN_BROKEN


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        decode(body)
    except Tampered as refusal:
        assert refusal.reason is Reason.AUDIT_CHAIN_BROKEN
    else:
        pytest.fail("300 random bytes made a whole record")


def test_data_without_canonical_form_never_becomes_a_record() -> None:
    for data in ({"a": 0.5}, {"a": {1: 2}}):
        with pytest.raises(TypeError):
            encode(
                AuditEvent(EventType.LEASE_VOID, "broker", Vouch.BROKER, data=data),
                seq=1,
                at_ms=1,
                writer="w",
                prev=bytes(32),
            )  # type: ignore[arg-type]
