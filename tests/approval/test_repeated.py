"""A vote sent again is the same vote; the other word by the same request is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from broker.approval.repeated import repeats
from broker.errors import Conflict, Reason


@dataclass(frozen=True)
class Vote:
    issuer: str
    subject: str
    yes: bool
    request_id: str


VOTES = (Vote("i", "ada", True, "r1"), Vote("i", "bob", False, "r1"), Vote("i", "cy", True, ""))


@pytest.mark.parametrize(
    ("issuer", "subject", "request_id", "yes", "again"),
    [
        ("i", "ada", "r1", True, True),
        ("i", "bob", "r1", False, True),  # behind somebody else's vote by a request of the same name
        ("i", "ada", "r2", True, False),
        ("i", "ada", "r2", False, False),
        ("j", "ada", "r1", True, False),
        ("j", "ada", "r1", False, False),
        ("i", "dan", "r1", False, False),
        ("i", "cy", "", True, False),  # by which request was not kept: nothing to go by
        ("i", "cy", "", False, False),
    ],
)
def test_a_vote_is_repeated_by_its_giver_by_its_request(
    issuer: str, subject: str, request_id: str, yes: bool, again: bool
) -> None:
    assert repeats(issuer, subject, request_id, yes, VOTES, "areq-1") is again


@pytest.mark.parametrize(("subject", "yes", "was"), [("ada", False, "a yes"), ("bob", True, "a no")])
def test_one_request_is_not_both_answers(subject: str, yes: bool, was: str) -> None:
    with pytest.raises(Conflict, match=f"'r1' already is {was} to access request areq-1") as refused:
        repeats("i", subject, "r1", yes, VOTES, "areq-1")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert refused.value.metadata == {"requestId": "r1", "accessRequestId": "areq-1"}
