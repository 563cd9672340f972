"""The documents that deny sessions: exactly what they say, what they take, and what is not taken for one of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.connectors.aws_deny import Contents, Older, Session, document, epoch_of, name_of, read, rounded, size

END = datetime(2031, 5, 1, 12, 20, tzinfo=UTC)
TIMES = st.integers(0, 10**8).map(lambda seconds: datetime.fromtimestamp(1_900_000_000 + seconds, UTC)).map(rounded)
USER_IDS = st.from_regex(r"AROA[A-Z0-9]{17}:jb-[a-z0-9]{4,26}", fullmatch=True)


def test_a_document_is_a_deny_for_each_end_and_says_when_it_may_go() -> None:
    contents = Contents({"AROAEXAMPLE:jb-2": END, "AROAEXAMPLE:jb-1": END}, Older(END, END + timedelta(hours=1)))
    assert json.loads(document(contents)) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Until20310501T122000Z",
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:userid": ["AROAEXAMPLE:jb-1", "AROAEXAMPLE:jb-2"]}},
            },
            {
                "Sid": "OlderUntil20310501T132000Z",
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {"DateLessThan": {"aws:TokenIssueTime": "2031-05-01T12:20:00Z"}},
            },
        ],
    }


@given(sessions=st.dictionaries(USER_IDS, TIMES, max_size=20), before=st.none() | TIMES)
def test_reading_is_the_inverse_of_writing(sessions: dict[str, datetime], before: datetime | None) -> None:
    contents = Contents(sessions, None if before is None else Older(before, before + timedelta(hours=1)))
    assert read(json.loads(document(contents))) == contents
    assert size(document(contents)) == len(document(contents))


@pytest.mark.parametrize(
    "name", ["*", "AROAEXAMPLE:*", "AROAEXAMPLE:${aws:username}", "AROAEXAMPLE:a?", "AROAEXAMPLE:jb-1\n", "jb-1", ""]
)
def test_nothing_that_iam_would_expand_gets_into_a_document(name: str) -> None:
    with pytest.raises(ValueError, match="aws:userid"):
        document(Contents({name: END}))


GOOD = json.loads(document(Contents({"AROAEXAMPLE:jb-1": END})))["Statement"][0]


@pytest.mark.parametrize(
    "statement",
    [
        {**GOOD, "Effect": "Allow"},
        {**GOOD, "Action": "s3:*"},
        {**GOOD, "Resource": "arn:aws:s3:::b"},
        {**GOOD, "Sid": "Mine"},
        {**GOOD, "Sid": None},
        {**GOOD, "Sid": "Until20319901T122000Z"},
        {**GOOD, "Condition": {}},
        {**GOOD, "Condition": {"StringLike": {"aws:userid": ["AROAEXAMPLE:*"]}}},
        {**GOOD, "Condition": {"StringEquals": {"aws:userid": "AROAEXAMPLE:jb-1"}}},
        {**GOOD, "Condition": {"StringEquals": {"aws:userid": ["AROAEXAMPLE:jb-1"], "aws:x": ["y"]}}},
        {**GOOD, "Condition": {**GOOD["Condition"], "Bool": {"aws:SecureTransport": "false"}}},
        "Deny",
        None,
    ],
)
def test_a_statement_that_denies_less_than_ours_makes_the_whole_policy_count_for_nothing(statement: object) -> None:
    assert read({"Version": "2012-10-17", "Statement": [GOOD, statement]}) is None


@pytest.mark.parametrize("policy", [None, "", [], {}, {"Statement": {}}, {"Statement": GOOD}])
def test_what_is_no_policy_of_ours_counts_for_nothing(policy: object) -> None:
    assert read(policy) is None


def test_a_session_is_denied_by_name_or_by_having_been_issued_before() -> None:
    session = Session("AROAEXAMPLE:jb-1", END, END + timedelta(minutes=15))
    assert Contents({"AROAEXAMPLE:jb-1": END}).denies(session)
    assert not Contents({"AROAEXAMPLE:jb-11": END}).denies(session)
    assert Contents(older=Older(END + timedelta(seconds=1), END)).denies(session)
    assert not Contents(older=Older(END, END)).denies(session)  # at that very second: perhaps not


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        (name_of("20310501T1200Zab", 7), "20310501T1200Zab"),
        ("jit-broker-deny--1", None),
        ("jit-broker-deny-a-b", None),
        ("jit-broker-deny-a-1\n", None),
        ("jit-broker-denya-1", None),
        ("AWSRevokeOlderSessions", None),
    ],
)
def test_whose_a_policy_is_stands_in_its_name(name: str, epoch: str | None) -> None:
    assert epoch_of(name) == epoch
