"""The session policy of one STS session, built as data from a template's grant. Pure.

Every value an agent chose enters as a *segment* of a text that ends up inside a JSON string, never by
substitution into JSON, and never with a character that IAM would read as more than itself (``*``,
``?``, ``$``: IAM User Guide, "IAM JSON policy elements: Resource" and "Variables and tags").

The grant::

    {"role_name": "orders-reader",
     "policy": [{"sid": "Read", "actions": ["s3:GetObject"],
                 "resources": [[{"text": "arn:aws:s3:::orders/"}, {"parameter": "prefix"}, {"text": "/*"}]],
                 "conditions": {"StringEquals": {"s3:ExistingObjectTag/team": [[{"text": "orders"}]]}}}]}

A *text* is a list of segments: literal, ``{"parameter": NAME}``, ``{"resource": true}`` (a literal may
be written plainly, and one segment without its list). Only literals, the operator's own, may hold
wildcards and policy variables. Condition values are texts.

Two statements are always added. *Deadline*: an explicit Deny on everything once it has passed, which
makes the real life as short as was asked although STS does not go below 900 s; a Deny rather than a
condition on the Allow, because a resource policy that names the session would bypass the latter.
``DateGreaterThanEquals`` on a whole second not after the deadline: never later than asked, whether or
not AWS compares fractions. *No other sessions*: a Deny on all of STS, because each of its calls
that is not a mere question makes credentials with a life and rights of their own (AssumeRole*,
AssumeRoot, GetFederationToken, GetSessionToken, GetWebIdentityToken, GetServiceBearerToken, ...).
GetCallerIdentity cannot be denied, by AWS's own rule. Tokens of other services (ECR, CodeArtifact)
are a matter of the grant: what it does not allow, nobody gets. *Network*, where the connector or the grant names
one: a Deny on whatever comes from anywhere else. An absent key counts as another one (IAM User Guide, "negated
matching condition operators"), so a request through a VPC endpoint, which has no ``aws:SourceIp``, must come through
one that is named. What an AWS service does with the session on its own (``aws:ViaAWSService``) comes from AWS's
addresses, after a request that came from ours.

A grant's ``managed_policies`` add to what is allowed; every Deny here holds against them, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from broker.connectors.segments import Segments
from broker.errors import InvalidInput, Reason
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

# STS API reference, AssumeRole: "The plaintext ... can't exceed 2,048 characters." botocore does not check it.
LONGEST_POLICY = 2048
# The same: "You can provide up to 10 managed policy ARNs."
_MANAGED = 10
_NOT_PLAIN = re.compile(r"[*?$\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Network:
    """Where requests must come from: one of these addresses (CIDR), or through one of these VPC endpoints."""

    source_ips: tuple[str, ...] = ()
    source_vpces: tuple[str, ...] = ()


def aws_ends(deadline: datetime) -> list[dict[str, object]]:
    """The two statements that are always added, as AWS reads them."""
    return [
        {
            "Sid": "BrokerDeadline",
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateGreaterThanEquals": {"aws:CurrentTime": policy_time(deadline)}},
        },
        {"Sid": "BrokerNoOtherSessions", "Effect": "Deny", "Action": "sts:*", "Resource": "*"},
    ]


def policy_time(moment: datetime) -> str:
    """As conditions have it, in whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def session_policy(
    scope: Scope,
    deadline: datetime,
    ends: Callable[[datetime], list[dict[str, object]]] = aws_ends,
    *,
    network: Network | None = None,
) -> str:
    """The policy as compact JSON. Raises InvalidInput (SCOPE_TOO_LARGE, PARAMETER_INVALID, CONFIG_INVALID).

    ``ends`` makes the statements that end it, where the upstream is not AWS itself.
    """
    stated = scope.grant.get("policy")
    managed_alone = bool(scope.grant.get("managed_policies")) and not stated
    allowed = [] if managed_alone else [_allow(scope, each) for each in _list(scope, stated, "policy")]
    denied = [*ends(deadline), *_elsewhere(network, "BrokerNetwork"), *_elsewhere(_network(scope), "GrantNetwork")]
    document = {"Version": "2012-10-17", "Statement": [*allowed, *denied]}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    if len(text) > LONGEST_POLICY:
        raise InvalidInput(
            Reason.SCOPE_TOO_LARGE,
            f"the session policy of template {scope.template} comes to {len(text)} characters;"
            f" STS takes {LONGEST_POLICY}.",
            hint="Ask for shorter parameters; operators: fewer resources per template.",
            metadata={"template": scope.template, "characters": str(len(text)), "limit": str(LONGEST_POLICY)},
        )
    return text


def managed_policies(scope: Scope, partition: str) -> list[str]:
    """The ARNs of the grant's managed policies: in full, or as names in the request's account.

    Raises InvalidInput (CONFIG_INVALID).
    """
    stated = scope.grant.get("managed_policies")
    if stated is None or stated == []:
        return []
    names = [_literal(scope, each, "managed_policies") for each in _list(scope, stated, "managed_policies")]
    if len(names) > _MANAGED:
        raise _malformed(scope, f"managed_policies has {len(names)} entries; STS takes {_MANAGED}")
    return [
        name if name.startswith("arn:") else f"arn:{partition}:iam::{scope.account}:policy/{name}" for name in names
    ]


def _network(scope: Scope) -> Network | None:
    stated = scope.grant.get("network")
    if stated is None:
        return None
    if not isinstance(stated, Mapping) or stated.keys() - {"source_ips", "source_vpces"}:
        raise _malformed(scope, "network is an object of source_ips, source_vpces")
    ips, vpces = (
        tuple(_literal(scope, each, name) for each in _list(scope, stated[name], name)) if stated.get(name) else ()
        for name in ("source_ips", "source_vpces")
    )
    if not ips and not vpces:
        raise _malformed(scope, "network names at least one address or VPC endpoint")
    return Network(ips, vpces)


def _elsewhere(network: Network | None, sid: str) -> list[dict[str, Any]]:
    if network is None:
        return []
    condition: dict[str, Any] = {"BoolIfExists": {"aws:ViaAWSService": "false"}}
    if network.source_ips:
        condition["NotIpAddress"] = {"aws:SourceIp": list(network.source_ips)}
    if network.source_vpces:
        condition["StringNotEquals"] = {"aws:SourceVpce": list(network.source_vpces)}
    return [{"Sid": sid, "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}]


def _allow(scope: Scope, stated: JsonValue) -> dict[str, object]:
    if not isinstance(stated, Mapping) or stated.keys() - {"sid", "actions", "resources", "conditions"}:
        raise _malformed(scope, "a statement is an object of sid, actions, resources, conditions")
    statement: dict[str, object] = {"Effect": "Allow"}
    if stated.get("sid") is not None:
        statement["Sid"] = _literal(scope, stated["sid"], "sid")
    statement["Action"] = [_literal(scope, each, "actions") for each in _list(scope, stated.get("actions"), "actions")]
    statement["Resource"] = [_text(scope, each) for each in _list(scope, stated.get("resources"), "resources")]
    if stated.get("conditions") is not None:
        statement["Condition"] = _conditions(scope, stated["conditions"])
    return statement


def _conditions(scope: Scope, stated: JsonValue) -> dict[str, dict[str, list[str]]]:
    if not isinstance(stated, Mapping) or not stated:
        raise _malformed(scope, "conditions is an object of operators")
    built = {}
    for operator, keys in stated.items():
        if not isinstance(keys, Mapping) or not keys:
            raise _malformed(scope, "a condition operator holds an object of keys")
        built[operator] = {key: [_text(scope, each) for each in _list(scope, of, key)] for key, of in keys.items()}
    return built


def _text(scope: Scope, stated: JsonValue) -> str:
    return Segments(_plain, partial(_literal, where="a segment"), _malformed).joined(scope, stated, "a text")


def _plain(scope: Scope, where: str, value: str) -> str:
    """Defence in depth: parameters have passed their types, but what IAM would expand never gets in."""
    found = _NOT_PLAIN.search(value)
    if found is None and value:
        return value
    what = f"holds {found[0]!a}, which an IAM policy does not take literally" if found else "is empty"
    raise InvalidInput(
        Reason.PARAMETER_INVALID,
        f"{where} of template {scope.template} {what}.",
        hint="Name one thing exactly: no '*', '?', '$' or control characters.",
        metadata={"template": scope.template, "field": where, "value": ascii(value)[:200]},
    )


def _literal(scope: Scope, stated: JsonValue, where: str) -> str:
    if isinstance(stated, str) and stated:
        return stated
    raise _malformed(scope, f"{where} holds something that is no text")


def _list(scope: Scope, stated: JsonValue, where: str) -> Sequence[JsonValue]:
    if isinstance(stated, Sequence) and not isinstance(stated, str) and stated:
        return stated
    raise _malformed(scope, f"{where} is a list with at least one entry")


def _malformed(scope: Scope, what: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} is not one of aws-sts: {what}.",
        hint="Operators: `broker check` tells file and line.",
        metadata={"template": scope.template},
    )
