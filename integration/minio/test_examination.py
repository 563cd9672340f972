"""What an examination finds of the real MinIO, and how wrong keys are refused: each by making it come true."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.clock import SystemClock
from broker.connectors.minio_sts import MinioSts, MinioStsSettings
from broker.dev.minio import BROKER_USER, BUCKET, ROOT_USER, MinioFacts, call_as_root, make_user, reading
from broker.errors import Reason, UpstreamFailed
from broker.ports.connectors import Doubt, Refused, Severity
from broker.scope.canonical import JsonValue
from broker.secret import Secret
from integration.minio.sessions import CLOCK, ended, held
from tests.connectors.harness_minio import minio_connector, reading_one_day
from tests.connectors.support import HOLDER, Ledger, assert_tells_no_secret, make_scope, new_attempt
from tests.patience import PATIENCE

WRONG = Secret("canary-wr0ng-s3cr3t")


def as_user(minio: MinioFacts, user: str, secret: Secret) -> MinioSts:
    settings = MinioStsSettings(endpoint_url=minio.endpoint, user=user, buckets=(BUCKET,), timeout=PATIENCE, threads=2)
    return MinioSts("minio", settings, lambda: secret, SystemClock())


async def examined(connector: MinioSts) -> list[Doubt]:
    try:
        return list(await connector.examine())
    finally:
        await connector.close()


async def test_what_is_set_up_by_the_page_has_no_doubt(minio: MinioFacts) -> None:
    assert await examined(minio_connector(minio)) == []


async def test_the_root_user_is_an_error(minio: MinioFacts) -> None:
    found = await examined(as_user(minio, ROOT_USER, minio.root_password))
    assert {each.severity for each in found} == {Severity.ERROR}
    assert "admin:*" in found[0].what


@pytest.mark.parametrize(
    ("statements", "word"),
    [
        ([*reading(BUCKET), *reading("payroll")], "payroll"),
        ([{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::*"]}], "declared"),
        ([*reading(BUCKET), {"Effect": "Allow", "Action": ["admin:ListUsers"]}], "administer"),
    ],
)
async def test_a_user_that_may_do_more_is_an_error(
    minio: MinioFacts, statements: list[dict[str, object]], word: str
) -> None:
    make_user(minio, "wide", Secret("wide-open-secret"), statements)
    found = await examined(as_user(minio, "wide", Secret("wide-open-secret")))
    assert [each.severity for each in found] == [Severity.ERROR]
    assert word in found[0].what


async def test_a_wrong_secret_is_an_error_that_does_not_show_it(minio: MinioFacts) -> None:
    found = await examined(as_user(minio, BROKER_USER, WRONG))
    assert [each.severity for each in found] == [Severity.ERROR]
    assert "SignatureDoesNotMatch" in found[0].what
    assert "canary" not in repr(found)


async def test_wrong_keys_and_a_disabled_user_are_the_root_credential_refused(minio: MinioFacts) -> None:
    make_user(minio, "disabled", Secret("disabled-secret"), reading(BUCKET))
    call_as_root(minio, "PUT", "set-user-status", {"accessKey": "disabled", "status": "disabled"})
    for user, secret in [(BROKER_USER, WRONG), ("nobody", WRONG), ("disabled", Secret("disabled-secret"))]:
        connector, ledger, expires_at = as_user(minio, user, secret), Ledger(), CLOCK.now() + timedelta(minutes=5)
        ledger.handle = connector.prepare(reading_one_day(), new_attempt(), HOLDER, expires_at)
        with pytest.raises(UpstreamFailed) as caught:
            await connector.issue(ledger.handle, reading_one_day(), expires_at, ledger.checkpoint)
        assert caught.value.reason is Reason.UPSTREAM_ROOT_REFUSED
        assert caught.value.outcome_known
        assert ledger.handles == []
        assert_tells_no_secret(caught.value, WRONG.reveal())
        assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Refused)
        await connector.close()


async def test_a_policy_that_minio_does_not_know_is_refused_in_words(minio: MinioFacts) -> None:
    unknown: dict[str, JsonValue] = {
        "actions": ["s3:GetObject"],
        "resources": [f"arn:aws:s3:::{BUCKET}/*"],
        "conditions": {"StringEquals": {"aws:PrincipalOrgID": ["o-1"]}},
    }
    connector = minio_connector(minio)
    with pytest.raises(UpstreamFailed) as caught:
        await held(connector, scope=make_scope({"policy": [unknown]}))
    assert caught.value.reason is Reason.UPSTREAM_REFUSED
    assert caught.value.outcome_known
    assert "a condition" in caught.value.hint
    await connector.close()


async def test_a_session_of_a_user_that_was_replaced_is_not_called_ended(minio: MinioFacts) -> None:
    """The settings name another user now, who may not end what the former one's sessions are."""
    connector = minio_connector(minio)
    made = await held(connector)
    make_user(minio, "successor", Secret("successor-secret"), reading(BUCKET))
    successor = as_user(minio, "successor", Secret("successor-secret"))
    assert isinstance(await ended(successor, made), Refused)
    for each in (connector, successor):
        await each.close()
