"""What STS answered, compared with what was asked: a session that is half there, or another's, is not delivered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.connectors.aws_failures import half_answered
from broker.connectors.refusals import grant_mismatch
from broker.errors import UpstreamFailed
from broker.lease.credential import AwsSession
from broker.ports.connectors import Issued, Returned
from broker.scope.canonical import JsonValue
from broker.secret import Secret


def issued_of(
    name: str,
    region: str,
    answer: Mapping[str, Any],
    request: Mapping[str, Any],
    deadline: datetime,
    begun: datetime,
) -> Issued:
    """The session that STS answered ``request`` with, whole and as asked. Raises UpstreamFailed where it is not.

    ``name``: the connector's. ``deadline``: of the session's own policy. ``begun``: when it was asked.
    """
    asked_end = begun + timedelta(seconds=request["DurationSeconds"])
    keys, user = answer.get("Credentials"), answer.get("AssumedRoleUser")
    if not isinstance(keys, dict) or not isinstance(user, dict):
        raise half_answered(name, "Credentials or AssumedRoleUser")
    ends = keys.get("Expiration")
    if not isinstance(ends, datetime) or ends.tzinfo is None:
        raise half_answered(name, "Expiration")
    arn, assumed_id = _text(name, user, "Arn"), _text(name, user, "AssumedRoleId")
    credential = AwsSession(
        access_key_id=_text(name, keys, "AccessKeyId"),
        secret_access_key=Secret(_text(name, keys, "SecretAccessKey")),
        session_token=Secret(_text(name, keys, "SessionToken")),
        region=region,
        assumed_role_arn=arn,
        session_policy=request["Policy"],
    )
    attempt = request["RoleSessionName"]
    if arn != _session_arn(request["RoleArn"], attempt) or not assumed_id.endswith(f":{attempt}"):
        raise _mismatch(name, "the session is not one of the role and the name that were asked for")
    if answer.get("SourceIdentity", attempt) != attempt:  # an absent one: some doubles do not know it
        raise _mismatch(name, "the session has another source identity than was asked for")
    if ends > asked_end + timedelta(minutes=1):  # our clock and theirs differ
        raise _mismatch(name, "the session lives longer than was asked for")
    observed: dict[str, JsonValue] = {
        "assumed_role_arn": arn,
        "assumed_role_id": assumed_id,
        "native_expiration": ends.astimezone(UTC).isoformat(),
        "session_policy_characters": len(request["Policy"]),
    }
    packed = answer.get("PackedPolicySize")
    if isinstance(packed, int):
        observed["packed_policy_percent"] = packed
    # Where STS gave less than was asked, that is what there is.
    return Issued(credential, expires_at=min(deadline, ends), observed=observed, returned=_returned(arn))


def _text(connector: str, part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    if not isinstance(value, str) or not value:
        raise half_answered(connector, name)
    return value


def _mismatch(connector: str, what: str) -> UpstreamFailed:
    return grant_mismatch(connector, what, "Operators: is the endpoint really AWS STS?")


def _session_arn(role_arn: str, session: str) -> str:
    """``arn:P:iam::A:role/path/R`` as STS names its session: ``arn:P:sts::A:assumed-role/R/S``, without the path."""
    head, _, role = role_arn.partition(":role/")
    return f"{head.replace(':iam::', ':sts::')}:assumed-role/{role.rpartition('/')[2]}/{session}"


def _returned(session_arn: str) -> Returned:
    """What ``arn:P:sts::A:assumed-role/R/S`` says. Not the role: its path is not in it."""
    account, _, session = session_arn.partition(":sts::")[2].partition(":")
    return Returned(account=account, name=session.rpartition("/")[2])
