"""The STS connector: what it asks, what it takes for an answer, and what it says of failures.

Against moto, a double that enforces neither session policies nor trust: it proves the plumbing. What
the policies mean is in ``test_aws_session_policy.py``, as documents that an evaluator can judge.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import boto3
import botocore.exceptions
import pytest
from botocore.parsers import ResponseParserError

from broker.clock import SystemClock
from broker.connectors.aws_client import AwsKeys, WebIdentity
from broker.connectors.aws_contract import AwsStsSettings
from broker.connectors.aws_failures import told
from broker.connectors.aws_sts import AwsSts
from broker.connectors.own_identity import OwnToken
from broker.errors import InvalidInput, NotReady, Reason, UpstreamFailed
from broker.lease.credential import AwsSession
from broker.ports.connectors import Expired, NotYet
from broker.scope.canonical import JsonValue
from broker.secret import Secret
from tests.connectors.harness import aws_connector, aws_grant
from tests.connectors.mishap_proxy import Reply, Rule, lost, mishap_proxy
from tests.connectors.support import HOLDER, NOW, Ledger, SetClock, assert_tells_no_secret, make_scope, new_attempt

CLOCK = SystemClock()
GRANT: Mapping[str, JsonValue] = aws_grant()
SCOPE = make_scope(GRANT, parameters={"prefix": "2031/05"})
CANARY = "canary-5up3r-s3cr3t"


class Recorded(AwsSts):
    """The connector with the SDK cut off: what it would send, and an answer of the test's own."""

    def __init__(self, answer: Mapping[str, Any] | Exception | None = None, **settings: object) -> None:
        options = {"region": "eu-central-1", **settings}
        self.clock = SetClock()
        super().__init__("aws", AwsStsSettings(**options), None, self.clock)  # type: ignore[arg-type]
        self.answer = answer
        self.sent: list[Mapping[str, Any]] = []

    def _assume(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.sent.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or granted(request)


def granted(request: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """What AWS answers."""
    name, role = request["RoleSessionName"], request["RoleArn"].rpartition("/")[2]
    return {
        "Credentials": {
            "AccessKeyId": "ASIAEXAMPLE",
            "SecretAccessKey": "session-secret",
            "SessionToken": "session-token",
            "Expiration": NOW + timedelta(seconds=request["DurationSeconds"]),
        },
        "AssumedRoleUser": {
            "AssumedRoleId": f"AROAEXAMPLE:{name}",
            "Arn": f"arn:aws:sts::123456789012:assumed-role/{role}/{name}",
        },
        "PackedPolicySize": 12,
        "SourceIdentity": request["SourceIdentity"],
        **changes,
    }


async def issue(connector: AwsSts, ttl: timedelta = timedelta(minutes=5), scope: Any = SCOPE, now: Any = NOW) -> Any:
    handle = connector.prepare(scope, "jb-attempt", HOLDER, now + ttl, task_id="task-1")
    try:
        return await connector.issue(handle, scope, now + ttl, Ledger().checkpoint)
    finally:
        await connector.close()


async def test_what_is_asked() -> None:
    connector = Recorded(external_id="tenant-7")
    issued = await issue(connector)
    (request,) = connector.sent
    policy = request["Policy"]
    assert request == {
        "RoleArn": "arn:aws:iam::123456789012:role/orders-reader",
        "RoleSessionName": "jb-attempt",
        "SourceIdentity": "jb-attempt",
        "DurationSeconds": 900,  # 300 asked, STS's floor
        "Policy": policy,
        "Tags": [
            {"Key": "jit-holder", "Value": HOLDER},
            {"Key": "jit-task", "Value": "task-1"},
            {"Key": "jit-template", "Value": "orders-read"},
            {"Key": "jit-environment", "Value": "dev"},
        ],
        "ExternalId": "tenant-7",
    }
    # The lease ends when the policy says, not when STS says: 12:00:00.250 + 5 min, rounded down.
    assert issued.expires_at == datetime(2031, 5, 1, 12, 5, tzinfo=UTC)
    deny = next(each for each in json.loads(policy)["Statement"] if each["Effect"] == "Deny")
    assert deny["Condition"] == {"DateGreaterThanEquals": {"aws:CurrentTime": "2031-05-01T12:05:00Z"}}
    assert issued.credential == AwsSession(
        access_key_id="ASIAEXAMPLE",
        secret_access_key=Secret("session-secret"),
        session_token=Secret("session-token"),
        region="eu-central-1",
        assumed_role_arn="arn:aws:sts::123456789012:assumed-role/orders-reader/jb-attempt",
        session_policy=policy,
    )
    assert issued.observed == {
        "assumed_role_arn": "arn:aws:sts::123456789012:assumed-role/orders-reader/jb-attempt",
        "assumed_role_id": "AROAEXAMPLE:jb-attempt",
        "native_expiration": "2031-05-01T12:15:00.250000+00:00",
        "session_policy_characters": len(policy),
        "packed_policy_percent": 12,
    }


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (2, 900),
        (900, 900),
        # The deadline is rounded down from .250 to .000: 899.75 s are left, 900 asked.
        (901, 901),
        (3600, 3600),
    ],
)
async def test_the_session_is_as_short_as_sts_allows_and_never_shorter_than_the_lease(ttl: int, seconds: int) -> None:
    connector = Recorded()
    await issue(connector, timedelta(seconds=ttl))
    assert connector.sent[0]["DurationSeconds"] == seconds


async def test_a_role_with_a_path_and_another_partition() -> None:
    connector = Recorded(partition="aws-us-gov")
    scope = make_scope({**GRANT, "role_name": "team/a/orders-reader"}, parameters={"prefix": "p"})
    handle = connector.prepare(scope, "jb-attempt", HOLDER, NOW + timedelta(minutes=5))
    assert handle["role_arn"] == "arn:aws-us-gov:iam::123456789012:role/team/a/orders-reader"
    connector.answer = granted(
        {"RoleSessionName": "jb-attempt", "RoleArn": "x/y", "SourceIdentity": "jb-attempt", "DurationSeconds": 900},
        AssumedRoleUser={
            "AssumedRoleId": "AROAEXAMPLE:jb-attempt",
            "Arn": "arn:aws-us-gov:sts::123456789012:assumed-role/orders-reader/jb-attempt",
        },
    )
    issued = await connector.issue(handle, scope, NOW + timedelta(minutes=5), Ledger().checkpoint)
    assert isinstance(issued.credential, AwsSession)
    assert issued.credential.assumed_role_arn.endswith(":assumed-role/orders-reader/jb-attempt")
    await connector.close()


@pytest.mark.parametrize(
    ("changes", "attempt", "holder", "reason", "figure"),
    [
        ({"account": "12345678901"}, "jb-a", HOLDER, Reason.CONFIG_INVALID, ""),
        ({"account": "1234567890123"}, "jb-a", HOLDER, Reason.CONFIG_INVALID, ""),
        ({"account": "12345678901\u0663"}, "jb-a", HOLDER, Reason.CONFIG_INVALID, ""),
        ({"grant": {**GRANT, "role_name": "a:b"}}, "jb-a", HOLDER, Reason.CONFIG_INVALID, ""),
        ({"grant": {**GRANT, "role_name": "a" * 65}}, "jb-a", HOLDER, Reason.CONFIG_INVALID, ""),
        ({"grant": {**GRANT, "role_name": "reader\n"}}, "jb-a", HOLDER, Reason.CONFIG_INVALID, ""),
        ({"grant": {**GRANT, "role_name": None}}, "jb-a", HOLDER, Reason.CONFIG_INVALID, ""),
        ({}, "a" * 65, HOLDER, Reason.SCOPE_TOO_LARGE, "65"),
        ({}, "a", HOLDER, Reason.FIELD_INVALID, ""),
        ({}, "jb/a", HOLDER, Reason.FIELD_INVALID, ""),
        ({}, "jb-a\n", HOLDER, Reason.FIELD_INVALID, ""),
        ({}, "jb-a", "spiffe://td.test/" + "a" * 240, Reason.SCOPE_TOO_LARGE, "257"),  # 17 + 240
        ({"environment": "dev;"}, "jb-a", HOLDER, Reason.FIELD_INVALID, ""),
        ({"parameters": {"prefix": "a" * 2048}}, "jb-a", HOLDER, Reason.SCOPE_TOO_LARGE, ""),
        ({"parameters": {"prefix": "${aws:username}"}}, "jb-a", HOLDER, Reason.PARAMETER_INVALID, ""),
        ({"parameters": {"prefix": "*"}}, "jb-a", HOLDER, Reason.PARAMETER_INVALID, ""),
    ],
)
def test_what_sts_would_refuse_is_refused_before_any_call(
    changes: dict[str, object], attempt: str, holder: str, reason: Reason, figure: str
) -> None:
    scope = make_scope(**{"grant": GRANT, "parameters": {"prefix": "p"}, **changes})  # type: ignore[arg-type]
    connector = Recorded()
    with pytest.raises(InvalidInput) as caught:
        connector.prepare(scope, attempt, holder, NOW)
    assert caught.value.reason is reason
    assert figure in caught.value.metadata.get("characters", "")
    assert connector.sent == []


REQUEST = {
    "RoleSessionName": "jb-attempt",
    "SourceIdentity": "jb-attempt",
    "RoleArn": "arn:aws:iam::123456789012:role/orders-reader",
    "DurationSeconds": 900,
}
GOOD = granted(REQUEST)
KEYS, USER = GOOD["Credentials"], GOOD["AssumedRoleUser"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Credentials": None}, Reason.UPSTREAM_UNAVAILABLE),
        ({"Credentials": {**KEYS, "SecretAccessKey": ""}}, Reason.UPSTREAM_UNAVAILABLE),
        ({"Credentials": {**KEYS, "SessionToken": None}}, Reason.UPSTREAM_UNAVAILABLE),
        ({"Credentials": {**KEYS, "Expiration": "soon"}}, Reason.UPSTREAM_UNAVAILABLE),
        ({"Credentials": {**KEYS, "Expiration": NOW.replace(tzinfo=None)}}, Reason.UPSTREAM_UNAVAILABLE),
        ({"AssumedRoleUser": {}}, Reason.UPSTREAM_UNAVAILABLE),
        ({"AssumedRoleUser": {**USER, "Arn": USER["Arn"] + "x"}}, Reason.UPSTREAM_GRANT_MISMATCH),
        ({"AssumedRoleUser": {**USER, "AssumedRoleId": "AROA:other"}}, Reason.UPSTREAM_GRANT_MISMATCH),
        ({"SourceIdentity": "somebody-else"}, Reason.UPSTREAM_GRANT_MISMATCH),
        # 900 s asked; a minute is left for clocks that differ.
        (
            {"Credentials": {**KEYS, "Expiration": NOW + timedelta(seconds=961)}},
            Reason.UPSTREAM_GRANT_MISMATCH,
        ),
    ],
    ids=str,
)
async def test_half_an_answer_or_another_grant_is_not_delivered(changes: dict[str, Any], reason: Reason) -> None:
    connector = Recorded(granted(REQUEST, **changes))
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector)
    assert caught.value.reason is reason
    assert not caught.value.outcome_known
    assert_tells_no_secret(caught.value, "session-secret", "session-token")


async def test_a_session_that_sts_made_shorter_is_told_as_short_as_it_is() -> None:
    ends = NOW + timedelta(seconds=100)
    issued = await issue(Recorded(granted(REQUEST, Credentials={**KEYS, "Expiration": ends})))
    assert issued.expires_at == ends


def client_error(code: str, status: int, message: str = CANARY) -> botocore.exceptions.ClientError:
    return botocore.exceptions.ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "AssumeRole",
    )


FAILURES: list[tuple[Exception, Reason, bool]] = [
    (client_error("AccessDenied", 403), Reason.UPSTREAM_REFUSED, True),
    (client_error("MalformedPolicyDocument", 400), Reason.UPSTREAM_REFUSED, True),
    (client_error("PackedPolicyTooLarge", 400), Reason.UPSTREAM_REFUSED, True),
    (client_error("RegionDisabledException", 403), Reason.UPSTREAM_REFUSED, True),
    (client_error("ValidationError", 400), Reason.UPSTREAM_REFUSED, True),
    (client_error("InvalidClientTokenId", 403), Reason.UPSTREAM_ROOT_REFUSED, True),
    (client_error("ExpiredToken", 403), Reason.UPSTREAM_ROOT_REFUSED, True),
    (client_error("SignatureDoesNotMatch", 403), Reason.UPSTREAM_ROOT_REFUSED, True),
    (client_error("Throttling", 400), Reason.UPSTREAM_UNAVAILABLE, True),
    (client_error("InternalFailure", 500), Reason.UPSTREAM_UNAVAILABLE, False),
    (client_error("ServiceUnavailable", 503), Reason.UPSTREAM_UNAVAILABLE, False),
    (client_error(f"<b>{CANARY}", 0), Reason.UPSTREAM_UNAVAILABLE, False),
    (botocore.exceptions.NoCredentialsError(), Reason.UPSTREAM_ROOT_REFUSED, True),
    (NotReady(Reason.INTERNAL, CANARY), Reason.UPSTREAM_ROOT_REFUSED, True),
    (botocore.exceptions.EndpointConnectionError(endpoint_url=CANARY), Reason.UPSTREAM_UNAVAILABLE, True),
    (botocore.exceptions.ConnectTimeoutError(endpoint_url=CANARY), Reason.UPSTREAM_UNAVAILABLE, True),
    (botocore.exceptions.ParamValidationError(report=CANARY), Reason.UPSTREAM_UNAVAILABLE, True),
    (botocore.exceptions.ReadTimeoutError(endpoint_url=CANARY), Reason.UPSTREAM_UNAVAILABLE, False),
    (botocore.exceptions.ConnectionClosedError(endpoint_url=CANARY), Reason.UPSTREAM_UNAVAILABLE, False),
    (botocore.exceptions.HTTPClientError(error=CANARY), Reason.UPSTREAM_UNAVAILABLE, False),
    (ResponseParserError(CANARY), Reason.UPSTREAM_UNAVAILABLE, False),
    (OSError(CANARY), Reason.UPSTREAM_UNAVAILABLE, False),
    (ValueError(CANARY), Reason.UPSTREAM_UNAVAILABLE, False),
]


@pytest.mark.parametrize(("error", "reason", "known"), FAILURES, ids=lambda each: type(each).__name__)
async def test_failures_are_told_in_the_ports_words(error: Exception, reason: Reason, known: bool) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await issue(Recorded(error))
    assert caught.value.reason is reason
    assert caught.value.outcome_known is known
    assert_tells_no_secret(caught.value, CANARY)


@pytest.mark.parametrize(
    ("message", "percent"),
    [
        ("Packed policy consumes 112% of allotted space, please use smaller policy.", "112"),
        ("Serialized token too large for session (Packed size: 131)", "131"),
    ],
)
def test_the_packed_size_is_told(message: str, percent: str) -> None:
    failure = told(client_error("PackedPolicyTooLarge", 400, message), "aws")
    assert failure.metadata["packedPercent"] == percent
    assert f"{percent} %" in failure.message


def test_how_long_to_wait_is_told_where_aws_says_so() -> None:
    busy = client_error("Throttling", 400)
    assert told(busy, "aws").retry_after is None
    busy.response["ResponseMetadata"]["HTTPHeaders"] = {"retry-after": "7"}
    assert told(busy, "aws").retry_after == 7


async def test_only_time_ends_it() -> None:
    connector, ledger = Recorded(), Ledger()
    at = {"created_at": NOW, "expires_at": NOW + timedelta(minutes=5)}
    for known in (True, False):
        before = ledger.context(NOW + timedelta(minutes=4), outcome_known=known, **at)  # type: ignore[arg-type]
        outcome = await connector.revoke({}, before)
        assert isinstance(outcome, NotYet)
        assert outcome.retry_after == timedelta(minutes=1)
        assert not outcome.failed
        after = ledger.context(NOW + timedelta(minutes=5), outcome_known=known, **at)  # type: ignore[arg-type]
        assert await connector.revoke({}, after) == Expired()
    await connector.close()


# ------------------------------------------------------------------ against the double


@pytest.fixture
async def connector(aws_double: str) -> AsyncIterator[AwsSts]:
    made = aws_connector(aws_double)
    yield made
    await made.close()


async def test_the_session_is_one_of_the_role_and_the_attempt(connector: AwsSts, aws_double: str) -> None:
    attempt, expires_at = new_attempt(), CLOCK.now() + timedelta(minutes=5)
    handle = connector.prepare(SCOPE, attempt, HOLDER, expires_at)
    session = (await connector.issue(handle, SCOPE, expires_at, Ledger().checkpoint)).credential
    assert isinstance(session, AwsSession)
    caller = boto3.client(
        "sts",
        region_name=session.region,
        endpoint_url=aws_double,
        aws_access_key_id=session.access_key_id,
        aws_secret_access_key=session.secret_access_key.reveal(),
        aws_session_token=session.session_token.reveal(),
    ).get_caller_identity()
    assert caller["Arn"] == session.assumed_role_arn
    assert caller["Arn"].endswith(f":assumed-role/orders-reader/{attempt}")


async def test_lost_and_broken_replies_leave_the_outcome_unknown(aws_double: str) -> None:
    bodies = [(200, b"<html>"), (200, b"<html></html>"), (502, b"no")]
    cases = [Rule("POST /", change=lost), *(Rule("POST /", Reply(*each)) for each in bodies)]
    with mishap_proxy(aws_double) as (proxy, address):
        for rule in cases:
            proxy.rules = [rule]
            proxy.seen.clear()
            expires_at = CLOCK.now() + timedelta(minutes=5)
            connector = aws_connector(address)
            handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
            with pytest.raises(UpstreamFailed) as caught:
                await connector.issue(handle, SCOPE, expires_at, Ledger().checkpoint)
            assert not caught.value.outcome_known
            assert proxy.seen == ["POST /"]  # one try, so that one outcome is one outcome
            assert_tells_no_secret(caught.value, "secret-of-the-broker")
            await connector.close()


async def test_where_to_go_is_said_in_one_place(aws_double: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    keys = AwsKeys(lambda: Secret("AKIAEXAMPLE"), lambda: Secret("secret-of-the-broker"))
    plain = AwsSts("aws", AwsStsSettings(region="us-east-1"), keys, CLOCK)
    assert plain._client().meta.endpoint_url == "https://sts.us-east-1.amazonaws.com"
    await plain.close()


async def test_a_key_that_was_replaced_is_used_at_once(aws_double: str) -> None:
    keys = [Secret("AKIAFIRST"), Secret("AKIASECOND")]
    seen: list[str] = []
    with mishap_proxy(aws_double) as (proxy, address):
        forward = proxy.answer

        def note(method: str, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
            seen.append(headers["Authorization"].partition("Credential=")[2].partition("/")[0])
            return forward(method, path, headers, body)

        proxy.answer = note  # type: ignore[method-assign]
        settings = AwsStsSettings(region="eu-central-1", endpoint_url=address)
        connector = AwsSts("aws", settings, AwsKeys(lambda: keys[0], lambda: Secret("s3cr3t")), CLOCK)
        for _ in range(2):
            expires_at = CLOCK.now() + timedelta(minutes=5)
            handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
            await connector.issue(handle, SCOPE, expires_at, Ledger().checkpoint)
            del keys[: len(keys) - 1]
        await connector.close()
    assert seen == ["AKIAFIRST", "AKIASECOND"]


# ------------------------------------------------------------------ the broker's own session, by its JWT-SVID


class Own:
    """The broker's identity; counts how often it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[str] = []

    def own_token(self, audience: str) -> OwnToken:
        self.asked.append(audience)
        if self.error is not None:
            raise self.error
        return OwnToken(Secret(f"{CANARY}.svid"), CLOCK.now() + timedelta(minutes=5))


def by_web_identity(address: str, own: Own) -> AwsSts:
    base = WebIdentity("arn:aws:iam::123456789012:role/jit-broker", "sts.amazonaws.com", "jit-broker", own)
    return AwsSts("aws", AwsStsSettings(region="eu-central-1", endpoint_url=address), base, CLOCK)


async def test_the_base_session_comes_from_the_brokers_own_svid_unsigned_and_is_used_again(aws_double: str) -> None:
    own, seen = Own(), list[tuple[str, bool, bool]]()
    with mishap_proxy(aws_double) as (proxy, address):
        forward = proxy.answer

        def note(method: str, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
            action = parse_qs(body.decode())["Action"][0]
            seen.append((action, "Authorization" in headers, f"{CANARY}.svid".encode() in body))
            return forward(method, path, headers, body)

        proxy.answer = note  # type: ignore[method-assign]
        connector = by_web_identity(address, own)
        for _ in range(2):
            expires_at = CLOCK.now() + timedelta(minutes=5)
            handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
            await connector.issue(handle, SCOPE, expires_at, Ledger().checkpoint)
        await connector.close()
    assert seen == [
        ("AssumeRoleWithWebIdentity", False, True),
        ("AssumeRole", True, False),
        ("AssumeRole", True, False),
    ]
    assert own.asked == ["sts.amazonaws.com"]


def refusal(code: str, status: int = 400) -> Reply:
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{CANARY}</Message></Error></ErrorResponse>"
    return Reply(status, body.encode())


@pytest.mark.parametrize(
    ("own", "reply", "reason", "words"),
    [
        (Own(), refusal("InvalidIdentityToken"), Reason.UPSTREAM_ROOT_REFUSED, "InvalidIdentityToken"),
        (Own(), refusal("AccessDenied", 403), Reason.UPSTREAM_ROOT_REFUSED, "AccessDenied"),
        (Own(), refusal("IDPCommunicationError"), Reason.UPSTREAM_UNAVAILABLE, "IDPCommunicationError"),
        (Own(NotReady(Reason.JWT_SVID_MISSING, CANARY)), None, Reason.UPSTREAM_ROOT_REFUSED, "cannot be had"),
    ],
)
async def test_no_base_session_no_call_and_whose_fault_it_is(
    aws_double: str, own: Own, reply: Reply | None, reason: Reason, words: str
) -> None:
    with mishap_proxy(aws_double) as (proxy, address):
        proxy.rules = [Rule("POST /", reply)] if reply else []
        connector = by_web_identity(address, own)
        expires_at = CLOCK.now() + timedelta(minutes=5)
        handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
        with pytest.raises(UpstreamFailed) as caught:
            await connector.issue(handle, SCOPE, expires_at, Ledger().checkpoint)
        await connector.close()
        assert len(proxy.seen) == (1 if reply else 0)
    assert caught.value.reason is reason
    assert caught.value.outcome_known
    assert words in caught.value.message
    assert_tells_no_secret(caught.value, CANARY)
