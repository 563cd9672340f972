"""What MinIO's STS answered, and what its failures prove, as the port's own values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from broker.connectors import aws_failures
from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import AwsSession
from broker.secret import Secret


def session_of(
    answer: Mapping[str, Any], connector: str, *, endpoint_url: str, region: str, policy: str
) -> tuple[AwsSession, datetime]:
    """The session, and when MinIO itself ends it. Raises UpstreamFailed for half an answer."""
    keys = answer.get("Credentials")
    if not isinstance(keys, dict):
        raise aws_failures.half_answered(connector, "Credentials")
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"):
        if not isinstance(keys.get(name), str) or not keys[name]:
            raise aws_failures.half_answered(connector, name)
    ends = keys.get("Expiration")
    if not isinstance(ends, datetime) or ends.tzinfo is None:
        raise aws_failures.half_answered(connector, "Expiration")
    session = AwsSession(
        access_key_id=keys["AccessKeyId"],
        secret_access_key=Secret(keys["SecretAccessKey"]),
        session_token=Secret(keys["SessionToken"]),
        region=region,
        assumed_role_arn="",
        session_policy=policy,
        endpoint_url=endpoint_url,
    )
    return session, ends


def told(error: Exception, connector: str, policy_characters: int) -> UpstreamFailed:
    """The failure in the port's words. MinIO says AccessDenied of its STS only where it refuses who asks."""
    failure = aws_failures.told(error, connector, "get a session")
    code = failure.metadata.get("code")
    reason, hint = failure.reason, failure.hint
    if code == "AccessDenied":
        reason = Reason.UPSTREAM_ROOT_REFUSED
        hint = (
            "Operators: the broker's own user or its secret is wrong, or it is disabled, or it is a service account;"
            " or the clocks of both machines differ."
        )
    elif code == "InvalidParameterValue":
        hint = (
            f"Operators: MinIO does not take this session policy of {policy_characters} characters: its own form of it"
            " has more than 2048, or it holds an action, a condition or a resource that MinIO does not know."
        )
    return UpstreamFailed(
        reason, failure.message, outcome_known=failure.outcome_known, hint=hint, metadata=dict(failure.metadata)
    )
