"""MinIO holds a session to the policy that the broker made: its scope, its deadline, its network."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from broker.connectors.aws_session_policy import LONGEST_POLICY, session_policy
from broker.connectors.minio_sts import MinioSts, minio_ends
from broker.dev.minio import BROKER_USER, BUCKET, REPORTS, MinioFacts
from broker.errors import InvalidInput, Reason
from broker.lease.credential import AwsSession
from broker.ports.connectors import Revoked, Use
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from integration.minio.admin_calls import Key, make_service_account
from integration.minio.sessions import CLOCK, ended, held, wait_for
from tests.connectors.harness_minio import DAY, OTHER_DAY, REPORT, reading_one_day, said_to
from tests.connectors.support import make_scope
from tests.patience import PATIENCE

DENIED = "AccessDenied"


def refusal(minio: MinioFacts, session: AwsSession, call: str, **arguments: object) -> str:
    client = minio.client(session.access_key_id, session.secret_access_key, session.session_token)
    with pytest.raises(ClientError) as caught:
        getattr(client, call)(**arguments)
    return str(caught.value.response["Error"]["Code"])


async def test_in_scope_works_and_out_of_scope_is_refused(minio: MinioFacts, connector: MinioSts) -> None:
    session = (await held(connector)).session
    assert said_to(minio, session) == REPORTS[REPORT]
    # All of this the broker's own user may: what refuses it is the session policy.
    its_own = minio.client(BROKER_USER, minio.broker_secret)
    assert its_own.get_object(Bucket=BUCKET, Key=OTHER_DAY)["Body"].read() == REPORTS[OTHER_DAY]
    assert its_own.list_objects_v2(Bucket=BUCKET)["KeyCount"] == len(REPORTS)
    assert said_to(minio, session, OTHER_DAY) == DENIED
    assert refusal(minio, session, "put_object", Bucket=BUCKET, Key=REPORT, Body=b"other") == DENIED
    assert refusal(minio, session, "delete_object", Bucket=BUCKET, Key=REPORT) == DENIED
    assert refusal(minio, session, "list_objects_v2", Bucket=BUCKET) == DENIED
    assert refusal(minio, session, "list_objects_v2", Bucket=BUCKET, Prefix="daily/2026-01-31/") == DENIED
    assert said_to(minio, session) == REPORTS[REPORT]


@pytest.mark.parametrize("seconds", [2, 4])
async def test_at_its_deadline_it_is_refused(minio: MinioFacts, connector: MinioSts, seconds: int) -> None:
    made = await held(connector, timedelta(seconds=seconds))
    wait_for(made.expires_at - timedelta(milliseconds=300))
    before = said_to(minio, made.session)
    assert before == REPORTS[REPORT] or made.expires_at <= made.ledger.context().now
    wait_for(made.expires_at)
    assert said_to(minio, made.session) == DENIED


async def test_a_session_makes_no_keys(minio: MinioFacts, connector: MinioSts) -> None:
    """Neither another session, nor a service account, which would outlive this one."""
    session = (await held(connector)).session
    with pytest.raises(ClientError) as caught:
        _sts(minio, session).assume_role(RoleArn="arn:aws:iam::000000000000:role/any", RoleSessionName="again")
    assert caught.value.response["Error"]["Code"] == DENIED
    assert make_service_account(minio.endpoint, Key.of(session)) == (403, DENIED)
    # The call is a right one: the user itself may make one, as every user of MinIO.
    assert make_service_account(minio.endpoint, Key(BROKER_USER, minio.broker_secret.reveal())) == (200, "")


async def test_bound_to_a_network(minio: MinioFacts, connector: MinioSts) -> None:
    here, elsewhere = "127.0.0.0/8", "203.0.113.0/24"
    bound = reading_one_day({"IpAddress": {"aws:SourceIp": [[{"text": here}]]}})
    away = reading_one_day({"IpAddress": {"aws:SourceIp": [[{"text": elsewhere}]]}})
    assert said_to(minio, (await held(connector, scope=bound)).session) == REPORTS[REPORT]
    refused = (await held(connector, scope=away)).session
    assert said_to(minio, refused) == DENIED
    # What the page warns of: MinIO believes whoever says where a request comes from, unless a proxy says it first.
    for header in ({"X-Forwarded-For": "203.0.113.9"}, {"X-Real-IP": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}):
        assert _get(minio, refused, header) == REPORTS[REPORT], header


async def test_a_canary_uses_it_as_its_holder_would(minio: MinioFacts, connector: MinioSts) -> None:
    listing: dict[str, JsonValue] = {"actions": ["s3:ListBucket"], "resources": [f"arn:aws:s3:::{BUCKET}"]}
    scope = make_scope({"policy": [listing]}, account="dev", resource=BUCKET)
    made = await held(connector, scope=scope)
    assert await connector.use(made.session, scope) is Use.WORKS
    assert isinstance(await ended(connector, made), Revoked)
    assert await connector.use(made.session, scope) is Use.REFUSED


async def test_the_longest_policy_that_we_send_is_taken(minio: MinioFacts, connector: MinioSts) -> None:
    """MinIO counts its own form of it: ours must not be the shorter one."""
    room = LONGEST_POLICY - len(session_policy(_with_prefix(""), CLOCK.now(), minio_ends))
    assert said_to(minio, (await held(connector, scope=_with_prefix("x" * room))).session) == REPORTS[REPORT]
    with pytest.raises(InvalidInput) as caught:
        await held(connector, scope=_with_prefix("x" * (room + 1)))
    assert caught.value.reason is Reason.SCOPE_TOO_LARGE
    assert caught.value.metadata["characters"] == str(LONGEST_POLICY + 1)


def _with_prefix(more: str) -> Scope:
    resources: list[JsonValue] = [f"arn:aws:s3:::{BUCKET}/{DAY}/*", f"arn:aws:s3:::{BUCKET}/a{more}"]
    return make_scope({"policy": [{"sid": "Read", "actions": ["s3:GetObject"], "resources": resources}]}, account="dev")


def _sts(minio: MinioFacts, session: AwsSession) -> Any:
    return boto3.client(
        "sts",
        region_name=session.region,
        endpoint_url=minio.endpoint,
        aws_access_key_id=session.access_key_id,
        aws_secret_access_key=session.secret_access_key.reveal(),
        aws_session_token=session.session_token.reveal(),
    )


def _get(minio: MinioFacts, session: AwsSession, headers: dict[str, str]) -> bytes:
    """Read the report by a URL that the session signs; what is in ``headers`` is not signed."""
    client = minio.client(session.access_key_id, session.secret_access_key, session.session_token)
    url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": REPORT})
    return requests.get(url, headers=headers, timeout=PATIENCE).content
