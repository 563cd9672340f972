"""What an examination of a MinIO connector finds: who the broker's own user is, and what it may do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from broker.connectors.minio_admin import MinioFailure
from broker.ports.connectors import Doubt, Severity

_ARN = "arn:aws:s3:::"
# Every administrator of MinIO may do these; a broker's user may do none.
_ADMINISTRATION = ("admin:", "kms:", "*")


def unreachable(node: str, failure: MinioFailure) -> Doubt:
    """A node gave no usable answer, or refuses the broker's own user."""
    return Doubt(
        Severity.ERROR,
        f"MinIO at {node}: {failure.what}.",
        "Check endpoint_url, nodes, ca_file, user and secret_key in the connector's settings, that the user is enabled,"
        " and that the clocks of both machines agree.",
    )


def doubts_of_account(account: Mapping[str, Any], user: str, buckets: Sequence[str]) -> Iterator[Doubt]:
    """By the answer of ``accountinfo``; ``buckets`` are those that the connector's settings declare."""
    policy = account.get("Policy")
    statements = policy.get("Statement") if isinstance(policy, Mapping) else None
    if account.get("AccountName") != user or not isinstance(statements, list | None):
        yield Doubt(
            Severity.ERROR,
            "MinIO said success, but not who the broker is and what it may do.",
            "Is the connector's endpoint really MinIO, or a proxy in front of it?",
        )
        return
    allowed = [each for each in statements or () if isinstance(each, Mapping) and each.get("Effect") == "Allow"]
    if not allowed:
        yield Doubt(
            Severity.ERROR,
            f"The user {user} has no policy that allows anything: neither have its sessions.",
            "Attach a policy that allows what the templates of this connector give, and no more.",
        )
    yield from _administration(allowed, user)
    yield from _other_buckets(allowed, user, buckets)


def _administration(allowed: Sequence[Mapping[str, Any]], user: str) -> Iterator[Doubt]:
    """MinIO's root user is among these: it is told with a policy that allows all of ``admin:*``."""
    found = sorted({each for one in allowed for each in _texts(one.get("Action")) if each.startswith(_ADMINISTRATION)})
    if found or any("NotAction" in each for each in allowed):
        yield Doubt(
            Severity.ERROR,
            f"The user {user} may administer MinIO ({', '.join(found) or 'NotAction'}): it is MinIO's root user or an"
            " administrator.",
            "Give the broker a user of its own with a policy of s3: actions only. Issuing and revoking need no admin"
            " right.",
        )


def _other_buckets(allowed: Sequence[Mapping[str, Any]], user: str, buckets: Sequence[str]) -> Iterator[Doubt]:
    resources = {each for one in allowed for each in _texts(one.get("Resource"))}
    other = sorted(each for each in resources if not _within(each, buckets))
    if other or any("NotResource" in each for each in allowed):
        yield Doubt(
            Severity.ERROR,
            f"The user {user} may reach more than the declared buckets ({', '.join(buckets)}):"
            f" {', '.join(other[:5]) or 'NotResource'}.",
            "Narrow the user's policy, or declare the buckets in the connector's settings.",
        )


def _within(resource: str, buckets: Sequence[str]) -> bool:
    """``arn:aws:s3:::BUCKET`` itself, or something below it. A wildcard in the bucket's name is more than declared."""
    return resource.startswith(_ARN) and resource.removeprefix(_ARN).partition("/")[0] in buckets


def _texts(stated: object) -> list[str]:
    return [each for each in (stated if isinstance(stated, list) else [stated]) if isinstance(each, str)]
