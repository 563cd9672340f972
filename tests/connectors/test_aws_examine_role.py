"""What an examination finds of a target role: each doubt by making it come true, and none where all is well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import botocore.exceptions
import pytest

from broker.connectors.aws_examination import Examiner
from broker.connectors.aws_examine_role import NEEDED
from broker.connectors.aws_iam import Role
from broker.ports.connectors import Doubt, Severity
from tests.connectors.iam_fake import client_error

BROKER = "arn:aws:iam::111122223333:role/platform/jit-broker"
ARN = "arn:aws:iam::123456789012:role/orders-reader"
BOUNDARY = "arn:aws:iam::123456789012:policy/jit-boundary"
OURS = {
    "Effect": "Allow",
    "Principal": {"AWS": BROKER},
    "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
    "Condition": {"StringEquals": {"sts:ExternalId": "tenant-7"}},
}
GOOD: Mapping[str, Any] = {
    "Arn": ARN,
    "MaxSessionDuration": 3600,
    "PermissionsBoundary": {"PermissionsBoundaryArn": BOUNDARY},
    "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [OURS]},
}


class Iam:
    def __init__(self, role: Mapping[str, Any] | Exception, allowed: Sequence[str], refused: Exception | None) -> None:
        self.answer, self.allowed, self.refused = role, set(allowed), refused
        self.asked: list[tuple[str, str]] = []

    async def role(self, role: Role) -> Mapping[str, Any]:
        if role.name == "jit-broker":
            return {"Arn": BROKER}
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def simulated(self, role: Role, who: str, actions: Sequence[str], resource: str) -> Mapping[str, bool]:
        self.asked.append((who, resource))
        if self.refused is not None:
            raise self.refused
        return {action: action in self.allowed for action in actions}


async def examined(
    role: Mapping[str, Any] | Exception = GOOD,
    allowed: Sequence[str] = NEEDED,
    refused: Exception | None = None,
    *,
    revokes: bool = True,
    revoker: str | None = None,
) -> list[Doubt]:
    iam = Iam(role, allowed, refused)
    examiner = Examiner("aws", iam, "aws", "tenant-7", revokes, revoker)  # type: ignore[arg-type]
    identity = {"Arn": "arn:aws:sts::111122223333:assumed-role/jit-broker/i-0abc"}
    found = [*await examiner.examine({Role(ARN)}, identity)]
    if iam.asked:
        who = BROKER if revoker is None else f"arn:aws:iam::123456789012:role/{revoker}"
        assert iam.asked[0] == (who, ARN)
    return found


async def test_a_role_as_terraform_makes_it_has_no_doubt() -> None:
    assert await examined() == []
    assert await examined(revoker="jit-broker-revoker") == []


def trust(*statements: Any) -> dict[str, Any]:
    return {**GOOD, "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": list(statements)}}


ERROR, WARNING = Severity.ERROR, Severity.WARNING


@pytest.mark.parametrize(
    ("role", "severity", "words"),
    [
        ({**GOOD, "PermissionsBoundary": None}, ERROR, "no permissions boundary"),
        ({each: GOOD[each] for each in GOOD if each != "PermissionsBoundary"}, ERROR, "no permissions boundary"),
        ({**GOOD, "PermissionsBoundary": {"PermissionsBoundaryArn": ""}}, ERROR, "no permissions boundary"),
        ({**GOOD, "MaxSessionDuration": 900}, ERROR, "900 s"),
        ({**GOOD, "MaxSessionDuration": None}, ERROR, "None s"),
        ({**GOOD, "AssumeRolePolicyDocument": None}, ERROR, "cannot be read"),
        ({**GOOD, "AssumeRolePolicyDocument": {"Statement": ["Allow"]}}, ERROR, "cannot be read"),
        (trust({**OURS, "Action": "sts:AssumeRole"}), ERROR, "sts:TagSession, sts:SetSourceIdentity"),
        (trust({**OURS, "Effect": "Deny"}), ERROR, "does not let"),
        (trust({**OURS, "Condition": {}}), WARNING, "sts:ExternalId"),
        (trust(OURS, {**OURS, "Principal": "*", "Condition": {}}), ERROR, "names everybody"),
        (trust(OURS, {**OURS, "Principal": {"AWS": ["*"]}}), WARNING, "under conditions"),
        (trust(OURS, {"Effect": "Allow", "NotPrincipal": {"AWS": "x"}, "Action": "*"}), ERROR, "names everybody"),
        (trust({**OURS, "Principal": {"AWS": "arn:aws:iam::111122223333:root"}}), WARNING, "whole account"),
        (
            trust(OURS, {**OURS, "Principal": {"AWS": "arn:aws:iam::111122223333:role/other"}}),
            WARNING,
            "also lets arn:aws:iam::111122223333:role/other",
        ),
        (trust(OURS, {**OURS, "Principal": {"Service": "ec2.amazonaws.com"}}), WARNING, "ec2.amazonaws.com"),
    ],
)
async def test_what_is_wrong_with_a_role(role: Mapping[str, Any], severity: Severity, words: str) -> None:
    found = await examined(role)
    assert any(each.severity is severity and words in each.what for each in found), found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("iam:PutRolePermissionsBoundary", "lift what bounds"),
        ("iam:DeleteRolePermissionsBoundary", "lift what bounds"),
        ("iam:UpdateAssumeRolePolicy", "lift what bounds"),
        ("iam:CreatePolicyVersion", "iam:CreatePolicyVersion"),
        ("iam:SetDefaultPolicyVersion", "iam:SetDefaultPolicyVersion"),
    ],
)
async def test_a_broker_that_can_change_the_boundary_is_refused(more: str, words: str) -> None:
    (found,) = await examined(allowed=[*NEEDED, more])
    assert found.severity is ERROR
    assert words in found.what


@pytest.mark.parametrize("missing", NEEDED)
async def test_each_right_that_is_missing_is_named(missing: str) -> None:
    (found,) = await examined(allowed=[each for each in NEEDED if each != missing])
    assert found.severity is ERROR
    assert missing in found.what


async def test_what_cannot_be_found_out_is_said_and_not_taken_for_well() -> None:
    (found,) = await examined(refused=client_error("AccessDenied", 403))
    assert (found.severity, "AccessDenied" in found.what) == (WARNING, True)
    for error in (client_error("NoSuchEntity", 404), botocore.exceptions.EndpointConnectionError(endpoint_url="x")):
        (found,) = await examined(error)
        assert found.severity is ERROR
        assert "canary" not in found.what


async def test_without_a_revocation_the_broker_writes_nothing_and_needs_no_boundary() -> None:
    assert await examined({**GOOD, "PermissionsBoundary": None}, allowed=(), revokes=False) == []


async def test_where_no_role_is_named_that_is_a_doubt() -> None:
    examiner = Examiner("aws", Iam(GOOD, NEEDED, None), "aws", None, True, None)  # type: ignore[arg-type]
    (found,) = await examiner.examine(set(), {"Arn": BROKER})
    assert found.severity is WARNING


async def test_an_examination_ends_where_the_connector_is_being_replaced() -> None:
    iam = Iam(GOOD, NEEDED, None)
    examiner = Examiner("aws", iam, "aws", None, True, None, lambda: True)  # type: ignore[arg-type]
    (found,) = await examiner.examine({Role(ARN)}, {"Arn": BROKER})
    assert "being replaced" in found.what
    assert iam.asked == []
