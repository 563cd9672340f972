"""The documents that the broker sends to AWS, judged by an evaluator that knows conditions, which moto does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.connectors.aws_deny import Contents, Older, document
from broker.connectors.aws_session_policy import Network, session_policy
from integration.aws.evaluator import ALLOWED, DENIED, NOT_ALLOWED, ROLE_ID, Request, judged
from tests.connectors.harness import aws_grant
from tests.connectors.support import make_scope

pytestmark = pytest.mark.usefixtures("installed")

DEADLINE = datetime(2031, 5, 1, 12, 5, tzinfo=UTC)
ROLE: Any = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*", "dynamodb:*", "sts:*"], "Resource": "*"}],
}
INSIDE = {"aws:SourceIp": "203.0.113.9"}


def policy(bound_to: Network | None = None, **grant: Any) -> Any:
    scope = make_scope({**aws_grant(), **grant}, parameters={"prefix": "2031/05"})
    return json.loads(session_policy(scope, DEADLINE, network=bound_to))


def denying(*names: str, older: Older | None = None) -> Any:
    return json.loads(document(Contents({f"{ROLE_ID}:{name}": DEADLINE for name in names}, older)))


def verdict(*identity: Any, **request: Any) -> str:
    asked = Request(**{"session_name": "jb-1", "identity": [ROLE, *identity], "session": policy(), **request})
    (told,) = judged([asked])
    return told


# ------------------------------------------------------------------ one session


def test_one_session_is_denied_and_its_siblings_are_not() -> None:
    deny = denying("jb-1", "jb-2")
    assert verdict() == ALLOWED
    assert verdict(deny) == DENIED
    assert verdict(deny, session_name="jb-2") == DENIED
    assert verdict(deny, session_name="jb-3") == ALLOWED
    assert verdict(deny, session_name="jb-11") == ALLOWED
    assert verdict(deny, session_name="JB-1") == ALLOWED  # StringEquals minds the case


def test_a_session_of_another_role_of_the_same_name_is_not_denied() -> None:
    other = {"aws:userid": "AROAANOTHERROLE000000:jb-1"}
    assert verdict(denying("jb-1"), context=other) == ALLOWED


def test_a_resource_that_names_the_session_does_not_bypass_the_deny() -> None:
    named = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": "arn:aws:sts::123456789012:assumed-role/orders-reader/jb-1"},
                "Action": "s3:*",
                "Resource": "*",
            }
        ],
    }
    assert verdict(denying("jb-1"), on_resource=named) == DENIED
    assert verdict(on_resource=named, at="2031-05-01T12:05:00Z") == DENIED


def test_several_writers_denies_add_up_and_a_late_one_takes_nothing() -> None:
    first, late = denying("jb-1"), denying("jb-2")
    assert verdict(first, late) == DENIED
    assert verdict(late, first, session_name="jb-2") == DENIED
    assert verdict(late, first, session_name="jb-3") == ALLOWED


@pytest.mark.parametrize(
    ("issued", "expected"),
    [
        ("2031-05-01T12:00:59Z", DENIED),
        ("2031-05-01T12:01:00Z", ALLOWED),
        ("2031-05-01T12:01:01Z", ALLOWED),
    ],
)
def test_when_the_role_is_full_all_that_was_issued_before_is_denied(issued: str, expected: str) -> None:
    deny = denying(older=Older(datetime(2031, 5, 1, 12, 1, tzinfo=UTC), DEADLINE + timedelta(hours=1)))
    assert verdict(deny, session_name="whoever", issued=issued) == expected


def test_a_chained_session_is_reached_by_source_identity_where_its_role_has_such_a_deny() -> None:
    deny = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:SourceIdentity": ["jb-1"]}},
            }
        ],
    }
    chained = {"role": "further", "session_name": "chosen-by-the-agent"}
    assert verdict(deny, **chained, context={"aws:SourceIdentity": "jb-1"}) == DENIED
    assert verdict(denying("jb-1"), **chained, context={"aws:SourceIdentity": "jb-1"}) == ALLOWED
    # Therefore no session of ours may make another one.
    assert verdict(action="sts:AssumeRole", resource="arn:aws:iam::123456789012:role/further") == DENIED


# ------------------------------------------------------------------ the session's own policy


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, ALLOWED),
        ({"resource": "arn:aws:s3:::orders/2031/06/a.csv"}, NOT_ALLOWED),
        ({"resource": "arn:aws:s3:::others/2031/05/a.csv"}, NOT_ALLOWED),
        ({"action": "s3:PutObject"}, NOT_ALLOWED),
        (
            {"action": "dynamodb:GetItem", "resource": "arn:aws:dynamodb:eu-central-1:123456789012:table/t"},
            NOT_ALLOWED,
        ),
        ({"at": "2031-05-01T12:04:59Z"}, ALLOWED),
        ({"at": "2031-05-01T12:05:00Z"}, DENIED),
        ({"at": "2031-05-01T12:05:01Z"}, DENIED),
    ],
    ids=str,
)
def test_scope_and_deadline(request_: dict[str, Any], expected: str) -> None:
    assert verdict(**request_) == expected


NETWORK = Network(("203.0.113.0/24", "2001:db8::/32"), ("vpce-0123456789abcdef0",))


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"aws:SourceIp": "203.0.113.9"}, ALLOWED),
        ({"aws:SourceIp": "2001:db8::1"}, ALLOWED),
        ({"aws:SourceIp": "198.51.100.1"}, DENIED),
        ({"aws:SourceVpce": "vpce-0123456789abcdef0"}, ALLOWED),
        ({"aws:SourceVpce": "vpce-fedcba98765432100"}, DENIED),
        ({}, DENIED),
        ({"aws:SourceIp": "198.51.100.1", "aws:ViaAWSService": "true"}, ALLOWED),
        ({"aws:SourceIp": "198.51.100.1", "aws:ViaAWSService": "false"}, DENIED),
    ],
    ids=str,
)
def test_network(context: dict[str, str], expected: str) -> None:
    assert verdict(session=policy(NETWORK), context=context) == expected


def test_a_grants_network_narrows_the_connectors_and_never_widens_it() -> None:
    both = policy(NETWORK, network={"source_ips": ["203.0.113.7/32", "198.51.100.1/32"]})
    assert verdict(session=both, context={"aws:SourceIp": "203.0.113.7"}) == ALLOWED
    assert verdict(session=both, context={"aws:SourceIp": "203.0.113.9"}) == DENIED
    assert verdict(session=both, context={"aws:SourceIp": "198.51.100.1"}) == DENIED
