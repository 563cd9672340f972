"""What an examination of an AWS connector finds: whether STS answers, and as whom the broker asks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from broker.errors import UpstreamFailed
from broker.ports.connectors import Doubt, Severity

# IAM User Guide, "IAM identifiers": ``arn:P:iam::A:root``, ``arn:P:iam::A:user/path/NAME``,
# ``arn:P:sts::A:assumed-role/R/S``.
_ROOT = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:root\Z", re.ASCII)
_USER = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:user/", re.ASCII)


def unreachable(failure: UpstreamFailed) -> Doubt:
    """STS gave no answer, or refuses the broker."""
    return Doubt(
        Severity.ERROR,
        failure.message,
        "Check region, endpoint_url and the references to keys in the connector's settings; without keys, what boto3's"
        " default chain finds in brokerd's environment.",
    )


def doubts_of_identity(identity: Mapping[str, Any]) -> Iterator[Doubt]:
    """By the answer of GetCallerIdentity."""
    arn = identity.get("Arn")
    if not isinstance(arn, str) or not arn.startswith("arn:"):
        yield Doubt(
            Severity.ERROR,
            "STS said success, but not who the broker is.",
            "Is the connector's endpoint really AWS STS, or a proxy in front of it?",
        )
    elif _ROOT.match(arn):
        yield Doubt(
            Severity.ERROR,
            "The broker asks with keys of the account's root user, which no policy bounds.",
            "Delete the root user's access keys; give the broker a role with sts:AssumeRole, sts:TagSession and"
            " sts:SetSourceIdentity on the roles of its templates, and nothing else.",
        )
    elif _USER.match(arn):
        yield Doubt(
            Severity.WARNING,
            f"The broker asks as the IAM user {arn!a}, whose keys have no end.",
            "Give the machine that brokerd runs on a role, and leave access_key_id and secret_access_key away;"
            " or rotate the keys often.",
        )
