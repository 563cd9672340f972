"""What an agent tells of its task: as the trail has it, and its digest."""

from __future__ import annotations

import hashlib
import json

from broker.audit.report import Artifact, Mutation, TaskReport

FULL = TaskReport(
    (Artifact("s3://a", "ab" * 32, "text/csv", "the list"), Artifact("s3://b")),
    (Mutation("orders", "UPDATED", "prices", 7, "lease-1"), Mutation("users", "DELETED")),
)


def test_what_is_told_stands_there_in_its_order_and_what_is_empty_does_not() -> None:
    assert FULL.canonical() == {
        "artifacts": [
            {"uri": "s3://a", "sha256": "ab" * 32, "media_type": "text/csv", "description": "the list"},
            {"uri": "s3://b"},
        ],
        "mutations": [
            {
                "resource": "orders",
                "action": "UPDATED",
                "description": "prices",
                "count": 7,
                "lease_id": "lease-1",
            },
            {"resource": "users", "action": "DELETED"},
        ],
    }


def test_the_digest_is_of_the_canonical_form() -> None:
    told = json.dumps(FULL.canonical(), sort_keys=True, separators=(",", ":"))
    assert FULL.digest() == hashlib.sha256(told.encode()).hexdigest()
    assert TaskReport().digest() == hashlib.sha256(b'{"artifacts":[],"mutations":[]}').hexdigest()


def test_a_report_of_either_is_one_and_of_nothing_is_none() -> None:
    assert TaskReport(artifacts=FULL.artifacts) and TaskReport(mutations=FULL.mutations)
    assert not TaskReport()
