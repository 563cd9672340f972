"""How the contract suite drives ``minio-sts``, on a real MinIO; run from ``integration/minio``."""

from __future__ import annotations

from collections.abc import Mapping

from botocore.exceptions import ClientError

from broker.clock import SystemClock
from broker.connectors.minio_sts import MinioSts, MinioStsSettings
from broker.dev.minio import BROKER_USER, BUCKET, MinioFacts
from broker.lease.credential import AwsSession, Credential
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from tests.connectors.harness import NO_LIST, Harness
from tests.connectors.misbehaving import behind_proxy, lying
from tests.connectors.mishap_proxy import Reply, Rule
from tests.connectors.support import make_scope
from tests.patience import PATIENCE

DAY = "daily/2026-01-31"
REVOKE = "/minio/admin/v3/revoke-tokens/"
REPORT, OTHER_DAY = f"{DAY}/orders.csv", "daily/2026-01-30/orders.csv"


def reading_one_day(conditions: Mapping[str, JsonValue] | None = None) -> Scope:
    """A template that lets the objects of one day be read."""
    statement: dict[str, JsonValue] = {
        "sid": "ReadOneDay",
        "actions": ["s3:GetObject"],
        "resources": [[{"text": f"arn:aws:s3:::{BUCKET}/"}, {"parameter": "day"}, {"text": "/*"}]],
        "conditions": conditions,
    }
    return make_scope({"policy": [statement]}, account="dev", resource=BUCKET, parameters={"day": DAY})


def minio_connector(facts: MinioFacts, endpoint: str | None = None, **settings: object) -> MinioSts:
    """A connector to this MinIO, or to something else at ``endpoint``."""
    options = {
        "endpoint_url": endpoint or facts.endpoint,
        "user": BROKER_USER,
        "buckets": (BUCKET,),
        "canary_bucket": BUCKET,
        "timeout": PATIENCE,
        "threads": 4,
        **settings,
    }
    return MinioSts("minio", MinioStsSettings(**options), lambda: facts.broker_secret, SystemClock())  # type: ignore[arg-type]


def said_to(facts: MinioFacts, session: Credential, key: str = REPORT) -> bytes | str:
    """What S3 says to a session that reads ``key``: the object, or the code of the refusal."""
    assert isinstance(session, AwsSession)
    client = facts.client(session.access_key_id, session.secret_access_key, session.session_token)
    try:
        body: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    except ClientError as refused:
        return str(refused.response["Error"]["Code"])
    return body


def minio_harness(facts: MinioFacts, dead_address: str) -> Harness:
    def at(address: str, timeout: float) -> MinioSts:
        return minio_connector(facts, address, timeout=timeout)

    return Harness(
        clock=SystemClock(),
        make=lambda: minio_connector(facts),
        make_unreachable=lambda: minio_connector(facts, dead_address),
        scope=reading_one_day(),
        works=lambda credential: isinstance(said_to(facts, credential), bytes),
        notes_last=True,
        secrets=(facts.broker_secret.reveal(),),
        cannot=NO_LIST,
        misbehaving=behind_proxy(facts.endpoint, at, _refusal, keeps_host=True),
        lying=lying(facts.endpoint, at, Rule(f"POST {REVOKE}", instead=Reply(204))),
    )


def _refusal(status: int) -> Reply:
    """As MinIO's STS says it; its admin API is understood by the status alone."""
    code = {403: "AccessDenied", 429: "SlowDown"}.get(status, "InternalError")
    body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
    return Reply(status, body.encode(), {"Content-Type": "text/xml"})
