"""The names of one session of an AWS role, and the request for it: STS AssumeRole (API reference)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from broker.connectors.aws_contract import AwsStsSettings
from broker.connectors.aws_session_policy import managed_policies, session_policy
from broker.errors import InvalidInput, Reason
from broker.ports.connectors import Handle
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}\Z", re.ASCII)
_ROLE_NAME = re.compile(r"([\w+=,.@-]+/)*[\w+=,.@-]{1,64}\Z", re.ASCII)
_ACCOUNT = re.compile(r"[0-9]{12}\Z", re.ASCII)
_TAG_VALUE = re.compile(r"[\w .:/=+@-]*\Z")
_NOT_IN_TAG = re.compile(r"[^\w .:/=+@-]")
_LONGEST_TAG = 256


def named(scope: Scope, attempt_id: str, holder: str, task_id: str) -> Handle:
    """The attempt, and for whom. Raises InvalidInput for what STS would refuse for size or form."""
    _within("the role session name", attempt_id, _SESSION_NAME, 64)
    about = {"holder": holder, **({"task": task_id} if task_id else {})}
    for key, value in _tags(scope, about).items():
        _within(f"session tag {key}", value, _TAG_VALUE, _LONGEST_TAG)
    return {"attempt": attempt_id, **about}


def role_arn(scope: Scope, partition: str) -> str:
    """Of the role that the template grants. Raises InvalidInput (CONFIG_INVALID)."""
    role = scope.grant.get("role_name")
    for what, value, form in (("role_name", role, _ROLE_NAME), ("account", scope.account, _ACCOUNT)):
        if not isinstance(value, str) or not form.match(value):
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"{what} of template {scope.template} is not one of AWS: {ascii(value)[:100]}.",
                hint="Operators: an account is 12 digits; a role name has letters, digits and +=,.@_-.",
                metadata={"template": scope.template, "field": what},
            )
    return f"arn:{partition}:iam::{scope.account}:role/{role}"


def request_of(
    handle: Handle, scope: Scope, settings: AwsStsSettings, deadline: datetime, seconds: int
) -> dict[str, Any]:
    """The arguments of AssumeRole; ``seconds``: how long the session lives by itself. Raises InvalidInput."""
    attempt = str(handle["attempt"])
    request: dict[str, Any] = {
        "RoleArn": str(handle["role_arn"]),
        "RoleSessionName": attempt,
        "SourceIdentity": attempt,
        "DurationSeconds": seconds,
        "Policy": session_policy(scope, deadline, network=settings.network),
        "Tags": [{"Key": key, "Value": value} for key, value in _tags(scope, handle).items()],
    }
    if managed := managed_policies(scope, settings.partition):
        request["PolicyArns"] = [{"arn": arn} for arn in managed]
    if settings.external_id is not None:
        request["ExternalId"] = settings.external_id
    return request


def _tags(scope: Scope, about: Mapping[str, JsonValue]) -> dict[str, str]:
    """What CloudTrail shows of every call that the session makes: for whom, for which task, and what."""
    holder = str(about["holder"])
    if not holder.startswith("spiffe://"):
        holder = _NOT_IN_TAG.sub("_", holder)[:_LONGEST_TAG]  # a person: issuer#subject, in characters that AWS takes
    task = {"jit-task": str(about["task"])} if "task" in about else {}
    return {"jit-holder": holder, **task, "jit-template": scope.template, "jit-environment": scope.environment}


def _within(what: str, value: str, form: re.Pattern[str], limit: int) -> None:
    if len(value) > limit:
        raise InvalidInput(
            Reason.SCOPE_TOO_LARGE,
            f"{what} has {len(value)} characters; AWS takes {limit}.",
            metadata={"field": what, "characters": str(len(value)), "limit": str(limit)},
        )
    if not form.match(value):
        raise InvalidInput(
            Reason.FIELD_INVALID,
            f"{what} holds a character that AWS does not take: {ascii(value)[:200]}.",
            metadata={"field": what, "value": ascii(value)[:200]},
        )
