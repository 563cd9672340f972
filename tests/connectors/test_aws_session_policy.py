"""The session policy as a document: what it says, what it refuses, and that nobody can talk it into more."""

from __future__ import annotations

import json
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from broker.connectors.aws_session_policy import LONGEST_POLICY, session_policy
from broker.errors import InvalidInput, Reason
from broker.scope.canonical import JsonValue
from tests.connectors.harness import aws_grant
from tests.connectors.support import NOW, make_scope

DEADLINE = NOW + timedelta(minutes=5)


def statement(**parts: JsonValue) -> dict[str, JsonValue]:
    stated: dict[str, JsonValue] = {"actions": ["s3:GetObject"], "resources": [[{"text": "arn:aws:s3:::orders/*"}]]}
    return {"policy": [{**stated, **parts}]}


def built(grant: dict[str, JsonValue], **scope: object) -> list[dict[str, object]]:
    document = json.loads(session_policy(make_scope(grant, **scope), DEADLINE))
    assert document["Version"] == "2012-10-17"
    statements: list[dict[str, object]] = document["Statement"]
    return statements


def test_the_whole_document() -> None:
    assert built(aws_grant(), parameters={"prefix": "2031/05"}) == [
        {
            "Sid": "Read",
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": ["arn:aws:s3:::orders/2031/05/*"],
        },
        {
            "Sid": "BrokerDeadline",
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            # 12:00:00.250 + 5 min, rounded down: from this very second on.
            "Condition": {"DateGreaterThanEquals": {"aws:CurrentTime": "2031-05-01T12:05:00Z"}},
        },
        {"Sid": "BrokerNoOtherSessions", "Effect": "Deny", "Action": "sts:*", "Resource": "*"},
    ]


def test_the_deadline_is_told_in_utc_whatever_zone_it_came_in() -> None:
    there = DEADLINE.astimezone(ZoneInfo("Asia/Tokyo"))
    scope = make_scope(statement())
    assert session_policy(scope, there) == session_policy(scope, DEADLINE)


@pytest.mark.parametrize(
    ("stated", "becomes"),
    [
        ("arn:aws:s3:::a/*", "arn:aws:s3:::a/*"),
        ([{"text": "arn:aws:s3:::"}, {"resource": True}], "arn:aws:s3:::orders"),
        ({"resource": True}, "orders"),
        ([{"text": "arn:aws:s3:::a/${aws:userid}/"}, {"parameter": "day"}], "arn:aws:s3:::a/${aws:userid}/7"),
        (["arn:aws:s3:::", {"parameter": "day"}, "/", {"parameter": "day"}], "arn:aws:s3:::7/7"),
        ([{"parameter": "quote"}], 'a"],"Action":"b'),  # stays one text inside the JSON string
    ],
)
def test_a_text_is_joined_from_its_segments(stated: JsonValue, becomes: str) -> None:
    allow = built(statement(resources=[stated]), parameters={"day": "7", "quote": 'a"],"Action":"b'})[0]
    assert allow["Resource"] == [becomes]
    assert allow["Action"] == ["s3:GetObject"]


def test_condition_values_are_texts_too() -> None:
    conditions = {"StringLike": {"s3:prefix": [[{"parameter": "prefix"}, {"text": "/*"}], "public/*"]}}
    allow = built(statement(conditions=conditions), parameters={"prefix": "mine"})[0]  # type: ignore[arg-type]
    assert allow["Condition"] == {"StringLike": {"s3:prefix": ["mine/*", "public/*"]}}


@pytest.mark.parametrize(
    "value", ["*", "a*", "a?", "${aws:username}", "$", "a\nb", "a\x00", "a\x7f", "a\x85", ""], ids=ascii
)
@pytest.mark.parametrize("where", ["parameter", "resource"])
@pytest.mark.parametrize("place", ["resources", "conditions"])
def test_what_iam_would_expand_is_refused_wherever_it_comes_from(value: str, where: str, place: str) -> None:
    segment: JsonValue = {"parameter": "prefix"} if where == "parameter" else {"resource": True}
    text: JsonValue = [{"text": "arn:aws:s3:::orders/"}, segment]
    parts: dict[str, JsonValue] = {"resources": [text]}
    if place == "conditions":
        parts = {"conditions": {"StringEquals": {"s3:prefix": [text]}}}
    scope = {"parameters": {"prefix": value}} if where == "parameter" else {"resource": value}
    with pytest.raises(InvalidInput) as caught:
        built(statement(**parts), **scope)
    assert caught.value.reason is Reason.PARAMETER_INVALID
    assert where in caught.value.metadata["field"]


def test_a_policy_that_is_too_long_is_refused_with_the_figure() -> None:
    fits = len(session_policy(make_scope(statement(), resource="x"), DEADLINE))
    # One more resource costs its text, two quotes and a comma.
    spare = LONGEST_POLICY - fits - 3
    resources: JsonValue = [[{"text": "arn:aws:s3:::orders/*"}], [{"resource": True}]]
    longest = session_policy(make_scope(statement(resources=resources), resource="x" * spare), DEADLINE)
    assert len(longest) == LONGEST_POLICY
    with pytest.raises(InvalidInput) as caught:
        session_policy(make_scope(statement(resources=resources), resource="x" * (spare + 1)), DEADLINE)
    assert caught.value.reason is Reason.SCOPE_TOO_LARGE
    assert "2049 characters" in caught.value.message
    assert caught.value.metadata == {"template": "orders-read", "characters": "2049", "limit": "2048"}


def test_characters_are_counted_as_they_are_sent() -> None:
    """Six for one outside ASCII: ``\\u00e4``."""
    plain = session_policy(make_scope(statement(resources=[{"resource": True}]), resource="a"), DEADLINE)
    umlaut = session_policy(make_scope(statement(resources=[{"resource": True}]), resource="ä"), DEADLINE)
    assert len(umlaut) == len(plain) + 5
    assert umlaut.isascii()


@pytest.mark.parametrize(
    "grant",
    [
        {},
        {"policy": None},
        {"policy": []},
        {"policy": "arn"},
        {"policy": [{}]},
        {"policy": ["Allow"]},
        statement(actions=[]),
        statement(actions="s3:GetObject"),
        statement(actions=[7]),
        statement(actions=[""]),
        statement(resources=[]),
        statement(resources=None),
        statement(resources=[[]]),
        statement(resources=[{"parameter": "absent"}]),
        statement(resources=[{"parameter": 7}]),
        statement(resources=[{"resource": False}]),
        statement(resources=[{"resource": 1}]),
        statement(resources=[{"text": "a", "parameter": "b"}]),
        statement(resources=[None]),
        statement(conditions={}),
        statement(conditions={"StringEquals": {}}),
        statement(conditions={"StringEquals": {"s3:prefix": "a"}}),
        statement(conditions=["StringEquals"]),
        statement(sid=""),
        statement(effect="Allow"),
        statement(notActions=["s3:*"]),
    ],
    ids=str,
)
def test_a_grant_that_is_none_is_refused(grant: dict[str, JsonValue]) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(grant)
    assert caught.value.reason is Reason.CONFIG_INVALID
