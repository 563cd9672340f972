"""The event as CloudEvents 1.0 asks for it, and its signature as Standard Webhooks does."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook as Verifier

from broker.audit.cloud_event import cloud_event, source, wanted
from broker.audit.record import Record
from broker.errors import InvalidInput
from broker.secret import Secret
from broker.webhooks.signing import check_secret, headers

RECORD = Record(
    seq=17,
    at_ms=1_767_225_600_042,  # 2026-01-01T00:00:00.042Z
    writer="w1",
    tenant="acme",
    type="lease.issued",
    actor="spiffe://example.org/agent/a",
    vouched_by="broker",
    task_id="task-1",
    lease_id="lease-1",
    attempt_id="jb-1",
    holder="spiffe://example.org/agent/a",
    data={"ticket": "OPS-1", "expires_ms": 5},
    prev="0" * 64,
)


def test_the_whole_event() -> None:
    event = cloud_event(RECORD, source("prod.example.org", "acme"))
    assert event.id == "w1-17"
    assert json.loads(event.body) == {
        "specversion": "1.0",
        "id": "w1-17",
        "source": "//prod.example.org/jit-broker/acme",
        "type": "broker.jit.lease.issued",
        "time": "2026-01-01T00:00:00.042Z",
        "subject": "lease-1",
        "datacontenttype": "application/json",
        "sequence": "00000000000000000017",
        "data": {
            "seq": 17,
            "tenant": "acme",
            "actor": "spiffe://example.org/agent/a",
            "vouched_by": "broker",
            "task_id": "task-1",
            "lease_id": "lease-1",
            "attempt_id": "jb-1",
            "holder": "spiffe://example.org/agent/a",
            "details": {"ticket": "OPS-1", "expires_ms": 5},
        },
    }


@pytest.mark.parametrize(
    ("patterns", "type_", "meant"),
    [
        (("lease.issued",), "lease.issued", True),
        (("lease.issued",), "lease.issued2", False),
        (("lease.*",), "lease.issued", True),
        (("lease.*",), "leases.issued", False),
        (("*",), "anything", True),
        (("deploy.*", "escalation.detected"), "escalation.detected", True),
        (("deploy.*",), "lease.issued", False),
    ],
)
def test_which_events_are_wanted(patterns: tuple[str, ...], type_: str, meant: bool) -> None:
    assert wanted(patterns, type_) is meant


def whsec(count: int) -> Secret:
    return Secret("whsec_" + base64.b64encode(bytes(range(count))).decode())


def test_the_signature_by_hand() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = headers([("env:A", whsec(32))], "w1-17", b'{"a":1}', now)
    stamp = "1767225600"
    expected = hmac.new(bytes(range(32)), b"w1-17." + stamp.encode() + b'.{"a":1}', hashlib.sha256).digest()
    assert made == {
        "webhook-id": "w1-17",
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(expected).decode(),
    }


def test_while_secrets_are_exchanged_either_verifies() -> None:
    old, new = whsec(24), whsec(64)
    body = b'{"a":1}'
    made = headers([("env:NEW", new), ("env:OLD", old)], "id", body, datetime.now(UTC))
    for secret in (old, new):
        Verifier(secret.reveal()).verify(body, made)


@pytest.mark.parametrize(
    "secret",
    [
        whsec(23),
        whsec(65),
        Secret("whsec_"),
        Secret("whsec_not base64"),
        Secret("whsec_" + "A" * 31),
        Secret(base64.b64encode(bytes(32)).decode()),
        Secret("hunter2"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_quoted(secret: Secret) -> None:
    with pytest.raises(InvalidInput, match="env:HOOK is no webhook secret") as refused:
        check_secret(secret, "env:HOOK")
    assert secret.reveal().removeprefix("whsec_") not in str(refused.value) or secret.reveal() == "whsec_"
