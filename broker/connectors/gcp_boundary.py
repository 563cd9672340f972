"""The Credential Access Boundary of one token, built as data from a template's grant. Pure.

A boundary is what is left of the service account's rights: up to ten rules, each one bucket, the roles whose
permissions are available there, and, where the grant says so, only for some of its objects. Only Cloud Storage takes
one ("Other Google Cloud services don't support this feature": IAM documentation, "Downscope credentials").

The grant::

    {"boundary": [{"bucket": "orders-exports", "roles": ["roles/storage.objectViewer"],
                   "below": [{"parameter": "customer"}, {"text": "/"}]}]}

``below`` are the objects whose names begin so, and the listing of these; it ends in ``/``, because what begins with
``acme`` is ``acme-2`` too. ``object`` is one object instead. Both, like ``bucket``, are texts of segments: literal,
``{"parameter": NAME}``, ``{"resource": true}``. A value from a request enters an expression of the Common Expression
Language only as a whole string literal, and never with a character that could end one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.auth.downscoped import AccessBoundaryRule, AvailabilityCondition, CredentialAccessBoundary

from broker.connectors.segments import Segments
from broker.errors import InvalidInput, Reason
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

# IAM documentation, "Downscope credentials": "up to 10 rules". google-auth raises above it, but in its own words.
MOST_RULES = 10
_NOT_IN_CEL = re.compile(r"['\"`\\\x00-\x1f\x7f-\x9f]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]\Z", re.ASCII)
_ROLE = re.compile(r"(roles|projects/[a-z0-9:.-]+/roles|organizations/[0-9]+/roles)/[A-Za-z0-9_.]{1,64}\Z", re.ASCII)
_LONGEST_OBJECT = 1024  # bytes of UTF-8: Cloud Storage documentation, "Objects"


@dataclass(frozen=True, slots=True)
class Boundary:
    """What is sent to STS, and the same as text, for people and for the trail."""

    rules: CredentialAccessBoundary
    text: str  # compact JSON


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere in Cloud Storage: one object, or what lies below."""

    bucket: str
    below: str = ""
    object: str = ""


def first_place(scope: Scope) -> Place | None:
    """Where the first rule of the boundary is about; None where there is no boundary. Raises InvalidInput."""
    stated = scope.grant.get("boundary")
    if access_boundary(scope) is None or not isinstance(stated, Sequence) or not isinstance(stated[0], Mapping):
        return None
    rule = stated[0]
    texts = {name: _text(scope, rule[name], name) for name in ("below", "object") if rule.get(name) is not None}
    return Place(_text(scope, rule.get("bucket"), "bucket"), **texts)


def access_boundary(scope: Scope) -> Boundary | None:
    """The boundary of the scope's grant, None where it has none.

    Raises InvalidInput (SCOPE_TOO_LARGE with the figure, PARAMETER_INVALID, CONFIG_INVALID).
    """
    stated = scope.grant.get("boundary")
    if stated is None:
        return None
    if not isinstance(stated, Sequence) or isinstance(stated, str) or not stated:
        raise _malformed(scope, "boundary is a list with at least one rule")
    if len(stated) > MOST_RULES:
        raise InvalidInput(
            Reason.SCOPE_TOO_LARGE,
            f"the access boundary of template {scope.template} has {len(stated)} rules; Google takes {MOST_RULES}.",
            hint="Operators: split the template.",
            metadata={"template": scope.template, "rules": str(len(stated)), "limit": str(MOST_RULES)},
        )
    rules = CredentialAccessBoundary([_rule(scope, each) for each in stated])
    return Boundary(rules, json.dumps(rules.to_json(), separators=(",", ":"), sort_keys=True))


def _rule(scope: Scope, stated: JsonValue) -> AccessBoundaryRule:
    if not isinstance(stated, Mapping) or stated.keys() - {"bucket", "roles", "below", "object"}:
        raise _malformed(scope, "a rule is an object of bucket, roles, below, object")
    bucket = _text(scope, stated.get("bucket"), "bucket")
    if not _BUCKET.match(bucket):
        raise _not_one(scope, "bucket", bucket, "3 to 222 lower-case letters, digits, '.', '_' and '-'")
    roles = stated.get("roles")
    if not isinstance(roles, Sequence) or isinstance(roles, str) or not roles:
        raise _malformed(scope, "roles is a list with at least one role")
    for role in roles:
        if not isinstance(role, str) or not _ROLE.match(role):
            raise _malformed(scope, f"{ascii(role)[:100]} is no role")
    return AccessBoundaryRule(
        available_resource=f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        available_permissions=[f"inRole:{role}" for role in roles],
        availability_condition=_condition(scope, stated, bucket),
    )


def _condition(scope: Scope, stated: Mapping[str, JsonValue], bucket: str) -> AvailabilityCondition | None:
    below, one = stated.get("below"), stated.get("object")
    if below is not None and one is not None:
        raise _malformed(scope, "a rule has below or object, not both")
    if one is not None:
        name = _name(scope, one, "object")
        return AvailabilityCondition(f"resource.name == 'projects/_/buckets/{bucket}/objects/{name}'", "one object")
    if below is None:
        return None
    prefix = _name(scope, below, "below")
    if not prefix.endswith("/"):
        raise _not_one(scope, "below", prefix, "what ends in '/': it is a beginning of names, and 'a' begins 'ab' too")
    return AvailabilityCondition(
        f"resource.name.startsWith('projects/_/buckets/{bucket}/objects/{prefix}') ||"
        # Listing is a request about the bucket; this is the prefix that it asks for.
        f" api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('{prefix}')",
        "objects below a prefix",
    )


def _name(scope: Scope, stated: JsonValue, where: str) -> str:
    name = _text(scope, stated, where)
    if len(size := name.encode()) > _LONGEST_OBJECT:
        raise InvalidInput(
            Reason.SCOPE_TOO_LARGE,
            f"{where} of template {scope.template} comes to {len(size)} bytes; Cloud Storage takes {_LONGEST_OBJECT}.",
            metadata={"template": scope.template, "bytes": str(len(size)), "limit": str(_LONGEST_OBJECT)},
        )
    return name


def _text(scope: Scope, stated: JsonValue, where: str) -> str:
    def written(scope: Scope, text: JsonValue) -> str:
        if not isinstance(text, str):
            raise _malformed(scope, f"{where} holds something that is no text")
        return _plain(scope, where, text)

    return Segments(_plain, written, _malformed).joined(scope, stated, where)


def _plain(scope: Scope, where: str, value: str) -> str:
    """Defence in depth: parameters have passed their types, but what would end a string literal never gets in."""
    found = _NOT_IN_CEL.search(value)
    if found is None and value:
        return value
    what = f"holds {found[0]!a}, which a condition does not take literally" if found else "is empty"
    raise InvalidInput(
        Reason.PARAMETER_INVALID,
        f"{where} of template {scope.template} {what}.",
        hint="Name one thing exactly: no quotes, backslashes or control characters.",
        metadata={"template": scope.template, "field": where, "value": ascii(value)[:200]},
    )


def _not_one(scope: Scope, where: str, value: str, right: str) -> InvalidInput:
    return InvalidInput(
        Reason.PARAMETER_INVALID,
        f"{where} of template {scope.template} comes to {ascii(value)[:200]}; it must be {right}.",
        metadata={"template": scope.template, "field": where, "value": ascii(value)[:200]},
    )


def _malformed(scope: Scope, what: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} is not one for Google Cloud: {what}.",
        hint="Operators: `broker check` tells file and line.",
        metadata={"template": scope.template},
    )
