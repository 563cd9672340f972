"""The nonce of a fresh login: of one act with its fields, and of no other."""

from __future__ import annotations

import pytest

from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST, ON_BEHALF_OF, nonce_of, task_nonce


def test_the_nonce_is_what_clients_of_every_version_compute() -> None:
    """An older client and a newer broker agree only while this stays as it is."""
    given = nonce_of(APPROVE_ACCESS_REQUEST, {"access_request_id": "areq-1", "digest": "d" * 64})
    assert given == "y1Qx7-GgsXhCPGmHK4I1Pdu8hh1Vnn8yv3KgqafmlSU"
    assert task_nonce("spiffe://x/a", "r1") == "iyg6ZuoewHzKPe2hLpsWsaB0KVIWTGCrlBbFa2M1kVM"
    assert task_nonce("spiffe://x/a", "r1") == nonce_of(ON_BEHALF_OF, {"request_id": "r1", "agent": "spiffe://x/a"})


def test_no_two_acts_have_one_nonce() -> None:
    acts = [("a", {}), ("b", {}), ("a", {"x": ""}), ("a", {"x": "y"}), ("a", {"y": "x"}), ("a", {"x": "y", "y": ""})]
    assert len({nonce_of(action, fields) for action, fields in acts}) == len(acts)


@pytest.mark.parametrize(
    ("action", "fields"), [("", {"x": "y"}), ("", {}), ("a", {"": "y"}), ("a", {"x": "y", "": ""})]
)
def test_what_has_no_name_has_no_nonce(action: str, fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="have names"):
        nonce_of(action, fields)


def test_what_is_not_unicode_has_no_nonce() -> None:
    with pytest.raises(ValueError):
        nonce_of("a", {"x": "\ud800"})
