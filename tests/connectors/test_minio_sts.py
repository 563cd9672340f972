"""The MinIO connector: what it asks, what it takes for an answer and for a proof, what it says of failures.

Against a double that enforces nothing. That the real one holds sessions to their policies is ``integration/minio``'s.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.connectors.minio_examine import doubts_of_account
from broker.connectors.minio_sts import MinioSts, MinioStsSettings
from broker.dev.minio import BROKER_USER, BUCKET, ROOT_USER, MinioFacts, reading
from broker.errors import BrokerError, InvalidInput, NotReady, Reason, UpstreamFailed
from broker.lease.credential import AwsSession
from broker.ports.connectors import NotYet, Refused, Revoked, RevokeOutcome, Severity
from broker.secret import Secret
from tests.connectors.harness_minio import DAY, minio_connector, reading_one_day
from tests.connectors.minio_double import STS_ANSWER, STS_ERROR, MinioDouble, minio_double
from tests.connectors.support import HOLDER, NOW, Ledger, assert_tells_no_secret, make_scope, new_attempt
from tests.patience import PATIENCE

CLOCK = SystemClock()
CANARY = "canary-5up3r-s3cr3t"
TTL = timedelta(minutes=5)


def facts(address: str) -> MinioFacts:
    return MinioFacts(address, Secret("root-password"), Secret("secret-of-the-broker"))


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[MinioDouble, MinioSts]]:
    """Once for all tests here: loading the SDK's models takes a while."""
    with minio_double() as double:
        connector = minio_connector(facts(double.address))
        yield double, connector
        asyncio.run(connector.close())


@pytest.fixture
def double(running: tuple[MinioDouble, MinioSts]) -> MinioDouble:
    running[0].reset()
    return running[0]


@pytest.fixture
def connector(running: tuple[MinioDouble, MinioSts]) -> MinioSts:
    return running[1]


async def issue(connector: MinioSts, ledger: Ledger, ttl: timedelta = TTL) -> Any:
    expires_at = CLOCK.now() + ttl
    ledger.handle = connector.prepare(reading_one_day(), new_attempt(), HOLDER, expires_at)
    return await connector.issue(ledger.handle, reading_one_day(), expires_at, ledger.checkpoint)


async def end(connector: MinioSts, ledger: Ledger, **context: Any) -> RevokeOutcome:
    return await connector.revoke(ledger.handle, ledger.context(CLOCK.now(), **context))


# --------------------------------------------------------------------------- issuing


async def test_what_is_asked_and_what_is_delivered(double: MinioDouble, connector: MinioSts) -> None:
    ledger = Ledger()
    issued = await issue(connector, ledger)
    (form,) = double.asked
    attempt = ledger.handle["attempt"]
    assert (form["Action"], form["RoleSessionName"], form["TokenRevokeType"]) == ("AssumeRole", attempt, attempt)
    assert form["DurationSeconds"] == "900"  # 300 asked, MinIO's floor
    allow, deny = json.loads(form["Policy"])["Statement"]
    assert allow["Resource"] == [f"arn:aws:s3:::{BUCKET}/{DAY}/*"]
    assert (deny["Effect"], deny["Action"], deny["Resource"]) == ("Deny", ["s3:*"], ["arn:aws:s3:::*"])
    at = f"{issued.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    assert deny["Condition"] == {"DateGreaterThanEquals": {"aws:CurrentTime": [at]}}
    session = issued.credential
    assert isinstance(session, AwsSession)
    assert session.endpoint_url == double.address
    assert session.session_policy == form["Policy"]
    # Noted before it is delivered: the access key names the session, and opens nothing.
    assert ledger.handles == [{**ledger.handle, "access_key": session.access_key_id}]
    assert session.access_key_id in ledger.names


async def test_a_longer_life_is_asked_for_where_it_is_needed(double: MinioDouble, connector: MinioSts) -> None:
    await issue(connector, Ledger(), timedelta(hours=2))
    assert 7199 <= int(double.asked[0]["DurationSeconds"]) <= 7200


async def test_a_session_that_lives_longer_than_was_asked_for_is_not_delivered(
    double: MinioDouble, connector: MinioSts
) -> None:
    double.lives, ledger = timedelta(hours=1), Ledger()
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, ledger)
    assert caught.value.reason is Reason.UPSTREAM_GRANT_MISMATCH
    assert not caught.value.outcome_known
    # It is noted all the same, so that it is ended, and proven so.
    assert "access_key" in ledger.handle
    assert isinstance(await end(connector, ledger, outcome_known=False), Revoked)
    assert double.sessions == {}


GOOD = STS_ANSWER.format(key="K", ends="2031-05-01T12:15:00Z")
HALVES = [
    "<html>welcome</html>",
    GOOD[: len(GOOD) // 2],
    GOOD.replace("<AccessKeyId>K</AccessKeyId>", ""),
    GOOD.replace("<AccessKeyId>K</AccessKeyId>", "<AccessKeyId></AccessKeyId>"),
    GOOD.replace("session-secret-K", ""),
    GOOD.replace("session-token-K", ""),
    GOOD.replace("2031-05-01T12:15:00Z", ""),
    GOOD.replace("2031-05-01T12:15:00Z", "soon"),
    GOOD.partition("<Credentials>")[0] + "</AssumeRoleResult></AssumeRoleResponse>",
]


@pytest.mark.parametrize("answer", HALVES)
async def test_half_an_answer_is_not_delivered(double: MinioDouble, connector: MinioSts, answer: str) -> None:
    double.instead[""] = (200, answer)
    ledger = Ledger()
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, ledger)
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE
    assert not caught.value.outcome_known
    assert ledger.handles == []
    assert_tells_no_secret(caught.value, "session-secret", "session-token", "secret-of-the-broker")


@pytest.mark.parametrize(
    ("status", "code", "reason", "known"),
    [
        (403, "AccessDenied", Reason.UPSTREAM_ROOT_REFUSED, True),
        (400, "InvalidParameterValue", Reason.UPSTREAM_REFUSED, True),
        (400, "MissingParameter", Reason.UPSTREAM_REFUSED, True),
        (500, "InternalError", Reason.UPSTREAM_UNAVAILABLE, False),
        (503, "STSNotInitialized", Reason.UPSTREAM_UNAVAILABLE, False),
    ],
)
async def test_failures_are_told_in_the_ports_words(
    double: MinioDouble, connector: MinioSts, status: int, code: str, reason: Reason, known: bool
) -> None:
    double.instead[""] = (status, STS_ERROR.format(code=code))
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, Ledger())
    assert (caught.value.reason, caught.value.outcome_known) == (reason, known)
    assert_tells_no_secret(caught.value, CANARY)


async def test_a_secret_that_cannot_be_had_is_the_root_credential_refused(double: MinioDouble) -> None:
    def absent() -> Secret:
        raise NotReady(Reason.CONFIG_INVALID, CANARY)

    settings = MinioStsSettings(endpoint_url=double.address, user=BROKER_USER, buckets=(BUCKET,), timeout=PATIENCE)
    connector, ledger = MinioSts("minio", settings, absent, CLOCK), Ledger()
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, ledger)
    assert (caught.value.reason, caught.value.outcome_known) == (Reason.UPSTREAM_ROOT_REFUSED, True)
    assert isinstance(await end(connector, ledger), Refused)
    assert double.seen == []
    await connector.close()


@pytest.mark.parametrize(
    ("changes", "attempt", "reason", "figure"),
    [
        ({"parameters": {"day": "d" * 2000}}, "jb-a", Reason.SCOPE_TOO_LARGE, "limit"),
        ({"parameters": {"day": "${aws:username}"}}, "jb-a", Reason.PARAMETER_INVALID, "value"),
        ({"parameters": {"day": "*"}}, "jb-a", Reason.PARAMETER_INVALID, "value"),
        ({"grant": {"role_name": "r"}}, "jb-a", Reason.CONFIG_INVALID, "template"),
        ({}, "a" * 65, Reason.SCOPE_TOO_LARGE, "limit"),
        ({}, "jb&a", Reason.SCOPE_TOO_LARGE, "limit"),
    ],
)
def test_what_minio_would_refuse_is_refused_before_any_call(
    changes: dict[str, Any], attempt: str, reason: Reason, figure: str
) -> None:
    scope = reading_one_day()
    wanted = make_scope(**{"grant": scope.grant, "parameters": scope.parameters, **changes})
    with pytest.raises(InvalidInput) as caught:
        minio_connector(facts("http://127.0.0.1:9")).prepare(wanted, attempt, HOLDER, NOW)
    assert caught.value.reason is reason
    assert figure in caught.value.metadata


# --------------------------------------------------------------------------- ending


async def test_it_is_told_to_end_and_looked_for(double: MinioDouble, connector: MinioSts) -> None:
    ledger = Ledger()
    await issue(connector, ledger)
    double.seen.clear()
    assert isinstance(await end(connector, ledger), Revoked)
    assert double.seen == ["POST builtin", "GET info-access-key"]
    assert double.sessions == {}


async def test_a_session_that_minio_had_forgotten_is_told_to_end_again(
    double: MinioDouble, connector: MinioSts
) -> None:
    ledger = Ledger()
    await issue(connector, ledger)
    double.forgets = True
    double.seen.clear()
    assert isinstance(await end(connector, ledger), Revoked)
    assert double.seen == ["POST builtin", "GET info-access-key"] * 2
    assert double.sessions == {}


async def test_every_node_is_told_and_one_that_does_not_answer_is_no_proof(
    double: MinioDouble, dead_address: str
) -> None:
    with minio_double() as other:
        whole = minio_connector(facts(double.address), nodes=(double.address, other.address))
        broken = minio_connector(facts(double.address), nodes=(double.address, dead_address))
        ledger = Ledger()
        await issue(whole, ledger)
        other.sessions.update(double.sessions)  # as MinIO tells its nodes of a new one
        outcome = await end(broken, ledger)
        assert isinstance(outcome, NotYet)
        assert outcome.failed
        assert isinstance(await end(whole, ledger), Revoked)
        assert double.sessions == other.sessions == {}
        await whole.close()
        await broken.close()


@pytest.mark.parametrize(
    ("call", "answer", "expected"),
    [
        ("builtin", (204, ""), NotYet),  # said, and not done
        ("builtin", (200, "<html>"), NotYet),
        ("builtin", (403, json.dumps({"Code": "AccessDenied"})), Refused),
        ("builtin", (403, "<html>"), Refused),
        ("builtin", (404, json.dumps({"Code": "XMinioAdminNoSuchUser", "Message": CANARY})), NotYet),
        ("builtin", (429, ""), NotYet),
        ("builtin", (500, json.dumps({"Code": 7})), NotYet),
        ("builtin", (302, ""), NotYet),
        ("info-access-key", (500, CANARY), NotYet),
        ("info-access-key", (403, json.dumps({"Code": "InvalidAccessKeyId"})), Refused),
        ("info-access-key", (404, "<html>no such page"), NotYet),
    ],
)
async def test_without_proof_it_is_not_ended(
    double: MinioDouble, connector: MinioSts, call: str, answer: tuple[int, str], expected: type
) -> None:
    ledger = Ledger()
    await issue(connector, ledger)
    double.instead[call] = answer
    outcome = await end(connector, ledger)
    assert type(outcome) is expected
    assert CANARY not in repr(outcome)
    double.instead.clear()
    assert isinstance(await end(connector, ledger), Revoked)


async def test_what_was_never_noted_is_ended_until_nothing_can_come_late(
    double: MinioDouble, connector: MinioSts
) -> None:
    ledger, now = Ledger(), CLOCK.now()
    ledger.handle = connector.prepare(reading_one_day(), new_attempt(), HOLDER, now + TTL)
    # Begun 15 s ago with 10 s for the call: one may land until 5 s from now.
    young = ledger.context(now, created_at=now - timedelta(seconds=15), outcome_known=False)
    double.sessions["LATE"] = str(ledger.handle["attempt"])
    assert await connector.revoke(ledger.handle, young) == NotYet(
        "a session may still be made late; it is ended again.", timedelta(seconds=5), failed=False
    )
    assert double.sessions == {}
    double.sessions["LATER"] = str(ledger.handle["attempt"])
    old = ledger.context(now, created_at=now - timedelta(seconds=20), outcome_known=False)
    assert isinstance(await connector.revoke(ledger.handle, old), Revoked)
    assert double.sessions == {}
    assert "GET info-access-key" not in double.seen


async def test_a_session_of_a_former_user_is_ended_on_minios_word(double: MinioDouble, connector: MinioSts) -> None:
    ledger = Ledger()
    await issue(connector, ledger)
    ledger.handle = {**ledger.handle, "user": "former"}
    double.seen.clear()
    assert isinstance(await end(connector, ledger), Revoked)
    assert double.seen == ["POST builtin"]  # of another's session MinIO would say nothing to us


async def test_one_that_is_being_replaced_takes_no_calls(double: MinioDouble) -> None:
    connector, ledger = minio_connector(facts(double.address)), Ledger()
    await issue(connector, ledger)
    await connector.close()
    double.seen.clear()
    with pytest.raises(BrokerError):
        await issue(connector, Ledger())
    assert await end(connector, ledger) == NotYet("minio is being replaced.", failed=False)
    assert [each.severity for each in await connector.examine()] == [Severity.WARNING]
    assert double.seen == []


# --------------------------------------------------------------------------- examining


async def test_what_is_set_up_has_no_doubt(double: MinioDouble, connector: MinioSts) -> None:
    assert await connector.examine() == []
    assert double.seen == ["GET accountinfo"]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ((403, json.dumps({"Code": "SignatureDoesNotMatch"})), "SignatureDoesNotMatch"),
        ((503, ""), "busy"),
        ((200, "<html>"), "who the broker is"),
        ((200, "[]"), "who the broker is"),
    ],
)
async def test_what_does_not_answer_as_minio_is_an_error(
    double: MinioDouble, connector: MinioSts, answer: tuple[int, str], word: str
) -> None:
    double.instead["accountinfo"] = answer
    [found] = await connector.examine()
    assert found.severity is Severity.ERROR
    assert word in found.what


@pytest.mark.parametrize(
    ("user", "statements", "words"),
    [
        (BROKER_USER, reading(BUCKET), []),
        ("another", reading(BUCKET), ["who the broker is"]),
        (BROKER_USER, [], ["no policy"]),
        (BROKER_USER, None, ["no policy"]),
        (BROKER_USER, "all", ["who the broker is"]),
        (BROKER_USER, [{"Effect": "Allow", "Action": ["admin:*"]}], ["administer"]),
        (BROKER_USER, [{"Effect": "Allow", "Action": "*", "Resource": f"arn:aws:s3:::{BUCKET}"}], ["administer"]),
        (BROKER_USER, [{"Effect": "Allow", "NotAction": ["s3:PutObject"]}], ["administer"]),
        (BROKER_USER, [*reading(BUCKET), *reading("payroll")], ["arn:aws:s3:::payroll"]),
        (BROKER_USER, [{"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::*"]}], ["declared"]),
        (BROKER_USER, [{"Effect": "Allow", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{BUCKET}*"]}], ["declared"]),
        (BROKER_USER, [{"Effect": "Allow", "Action": "s3:*", "NotResource": ["arn:aws:s3:::x"]}], ["NotResource"]),
        # A Deny makes nothing wider.
        (
            BROKER_USER,
            [*reading(BUCKET), {"Effect": "Deny", "Action": ["admin:*"], "Resource": ["arn:aws:s3:::*"]}],
            [],
        ),
    ],
)
def test_what_its_user_may_do(user: str, statements: object, words: list[str]) -> None:
    account = {"AccountName": user, "Policy": {"Version": "2012-10-17", "Statement": statements}}
    found = list(doubts_of_account(account, BROKER_USER, (BUCKET,)))
    assert [each.severity for each in found] == [Severity.ERROR] * len(words)
    assert all(word in each.what for word, each in zip(words, found, strict=True))


def test_the_root_user_is_found_by_what_it_may() -> None:
    everything = [
        {"Effect": "Allow", "Action": ["admin:*"]},
        {"Effect": "Allow", "Action": ["kms:*"]},
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]},
    ]
    account = {"AccountName": ROOT_USER, "Policy": {"Statement": everything}}
    administers, reaches = doubts_of_account(account, ROOT_USER, (BUCKET,))
    assert "admin:*, kms:*" in administers.what
    assert "arn:aws:s3:::*" in reaches.what
