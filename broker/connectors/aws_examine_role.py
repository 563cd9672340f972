"""What an examination finds of a target role: who may assume it, what bounds it, what the broker may do to it. Pure.

The broker may write inline policies of a role that it revokes on, so what bounds the role must be out of its reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from broker.ports.connectors import Doubt, Severity

TRUSTED = ("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity")
NEEDED = ("iam:GetRole", "iam:ListRolePolicies", "iam:GetRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy")
# With one of these on the role, or on the policy that is its boundary, the broker could widen it.
ON_ROLE = (
    "iam:PutRolePermissionsBoundary",
    "iam:DeleteRolePermissionsBoundary",
    "iam:UpdateAssumeRolePolicy",
    "iam:AttachRolePolicy",
)
ON_BOUNDARY = ("iam:CreatePolicyVersion", "iam:SetDefaultPolicyVersion", "iam:DeletePolicy")
_LONGEST = 3600


def doubts_of_role(role: Mapping[str, Any], broker: str, *, external_id: str | None, revokes: bool) -> Iterator[Doubt]:
    """By the answer of GetRole. ``broker``: the ARN of the role or user that the broker asks STS as."""
    arn = str(role.get("Arn", "the role"))
    yield from _of_trust(arn, role.get("AssumeRolePolicyDocument"), broker, external_id)
    longest = role.get("MaxSessionDuration", _LONGEST)
    if not isinstance(longest, int) or longest < _LONGEST:
        yield Doubt(
            Severity.ERROR,
            f"{arn} lets sessions live {longest!a} s, and the broker asks for up to {_LONGEST}.",
            f"Set its MaxSessionDuration to {_LONGEST}.",
        )
    if revokes and boundary_of(role) is None:
        yield Doubt(
            Severity.ERROR,
            f"{arn} has no permissions boundary, and the broker may write its inline policies: it could give itself"
            " whatever it likes.",
            "Set a permissions boundary on the role, and keep iam:PutRolePermissionsBoundary and the boundary's own"
            " policy from the broker (deploy/aws/).",
        )


def boundary_of(role: Mapping[str, Any]) -> str | None:
    """The ARN of the policy that is its permissions boundary."""
    boundary = role.get("PermissionsBoundary")
    arn = boundary.get("PermissionsBoundaryArn") if isinstance(boundary, Mapping) else None
    return arn if isinstance(arn, str) and arn else None


def doubts_of_rights(arn: str, who: str, allowed: Mapping[str, bool], widening: Sequence[str]) -> Iterator[Doubt]:
    """By IAM's simulation of what ``who`` may do to it."""
    if missing := [action for action in NEEDED if not allowed.get(action, False)]:
        yield Doubt(
            Severity.ERROR,
            f"{who} may not do {', '.join(missing)} on {arn}: sessions cannot be revoked.",
            "Allow these actions on the role (deploy/aws/).",
        )
    if widening:
        yield Doubt(
            Severity.ERROR,
            f"{who} may do {', '.join(widening)}: it can lift what bounds {arn}.",
            "Take these rights away; whoever keeps the boundary must be somebody else.",
        )


def not_told(arn: str, why: str) -> Doubt:
    """The simulation was refused, or failed."""
    return Doubt(
        Severity.WARNING,
        f"Whether the broker could change what bounds {arn} could not be found out: {why}",
        "Allow it iam:SimulatePrincipalPolicy on its own role, or look at its policies yourself.",
    )


def unreadable(arn: str, why: str) -> Doubt:
    """GetRole was refused, or failed."""
    return Doubt(Severity.ERROR, f"{arn} could not be looked at: {why}", "Is it there? Allow the broker iam:GetRole.")


def nothing_named() -> Doubt:
    """No role to look at."""
    return Doubt(
        Severity.WARNING,
        "No role was examined: none is named, and none was used since brokerd started.",
        "Name the roles of its templates under examined_roles.",
    )


def _of_trust(arn: str, policy: Any, broker: str, external_id: str | None) -> Iterator[Doubt]:
    statements = policy.get("Statement") if isinstance(policy, Mapping) else None
    statements = [statements] if isinstance(statements, Mapping) else statements
    if not isinstance(statements, list) or not all(isinstance(each, Mapping) for each in statements):
        yield Doubt(Severity.ERROR, f"The trust policy of {arn} cannot be read.", "Look at it in IAM.")
        return
    allows = [each for each in statements if each.get("Effect") == "Allow"]
    ours = [each for each in allows if _principals(each) & {broker, _account_of(broker)}]
    granted = {action for each in ours for action in _texts(each.get("Action"))}
    if not granted & {"*", "sts:*"} and (missing := [each for each in TRUSTED if each not in granted]):
        yield Doubt(
            Severity.ERROR,
            f"The trust policy of {arn} does not let {broker} do {', '.join(missing)}.",
            "Allow the broker's role these three actions there.",
        )
    if external_id is not None and not any("sts:ExternalId" in str(each.get("Condition")) for each in ours):
        yield Doubt(
            Severity.WARNING,
            f"The trust policy of {arn} demands no sts:ExternalId, although the connector sends one.",
            "Add a StringEquals on sts:ExternalId to the statement that names the broker.",
        )
    for each in allows:
        yield from _of_others(arn, each, broker)


def _of_others(arn: str, statement: Mapping[str, Any], broker: str) -> Iterator[Doubt]:
    principals = _principals(statement)
    if "*" in principals:
        conditional = bool(statement.get("Condition"))
        yield Doubt(
            Severity.WARNING if conditional else Severity.ERROR,
            f"The trust policy of {arn} names everybody (*)" + (", under conditions." if conditional else "."),
            "Name the broker's role as the only principal.",
        )
    elif others := sorted(principals - {broker, _account_of(broker)}):
        yield Doubt(
            Severity.WARNING,
            f"The trust policy of {arn} also lets {', '.join(others)} assume it: those sessions are not the broker's.",
            "Give others a role of their own.",
        )
    elif _account_of(broker) in principals:
        yield Doubt(
            Severity.WARNING,
            f"The trust policy of {arn} names the broker's whole account, not its role.",
            "Name the broker's role as the only principal.",
        )


def _principals(statement: Mapping[str, Any]) -> set[str]:
    if "NotPrincipal" in statement:
        return {"*"}
    principal = statement.get("Principal")
    if isinstance(principal, Mapping):
        return {text for each in principal.values() for text in _texts(each)}
    return set(_texts(principal))


def _account_of(broker: str) -> str:
    partition, account = broker.split(":")[1], broker.split(":")[4]
    return f"arn:{partition}:iam::{account}:root"


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
