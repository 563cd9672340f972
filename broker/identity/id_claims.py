"""Reading the claims of an ID token: each has the type and size that OpenID Connect gives it, or is refused.

Belongs here: one reader per kind of claim, and the one refusal. What claims must say is ``id_token.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from broker.errors import Reason, Unauthenticated

MAX_GROUPS = 256
MAX_TEXT = 255  # of a subject (Core, section 2), a group, an acr
MAX_METHODS = 32

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def subject(claims: Mapping[str, Any]) -> str:
    """At most 255 ASCII characters (Core, section 2), all printable: it is compared, stored and shown."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_TEXT or not _plain(subject):
        refuse(
            Reason.ID_TOKEN_CLAIM_INVALID,
            "has no sub of 1 to 255 printable ASCII characters",
            "The claim sub names the person at the provider.",
            claim="sub",
        )
    return subject


def groups(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """All of them, listed in the token itself. Raises ID_TOKEN_GROUPS: a list that is cut short is no list."""
    distributed = claims.get("_claim_names")
    if claim not in claims or (isinstance(distributed, dict) and claim in distributed):
        refuse(
            Reason.ID_TOKEN_GROUPS,
            f"does not list its person's groups in the claim {shown(claim)}",
            "Let the provider send only the groups that concern the broker, in the ID token itself.",
            claim=claim,
        )
    return texts(claims, claim, MAX_GROUPS, Reason.ID_TOKEN_GROUPS)


def texts(
    claims: Mapping[str, Any], claim: str, at_most: int, reason: Reason = Reason.ID_TOKEN_CLAIM_INVALID
) -> frozenset[str]:
    """A list of short texts, of at most ``at_most``; the claim is there."""
    values = claims[claim]
    if not isinstance(values, list) or not all(isinstance(each, str) and 0 < len(each) <= MAX_TEXT for each in values):
        refuse(reason, f"has a claim {shown(claim)} that is no list of short texts", "See the claim.", claim=claim)
    if len(values) > at_most:
        refuse(
            reason,
            f"lists {len(values)} values in the claim {shown(claim)}; at most {at_most} are read",
            "Let the provider send only what concerns the broker.",
            claim=claim,
        )
    return frozenset(values)


def text(claims: Mapping[str, Any], claim: str) -> str:
    """One short text; the claim is there."""
    value = claims[claim]
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        refuse(Reason.ID_TOKEN_CLAIM_INVALID, f"has an {claim} that is no short text", "Log in again.", claim=claim)
    return value


def date(claims: Mapping[str, Any], name: str) -> datetime | None:
    """A NumericDate (RFC 7519, section 2): seconds since 1970, perhaps with a fraction. None where absent."""
    if name not in claims:
        return None
    value = claims[name]
    # A bool is an int to Python, and to nobody else.
    if isinstance(value, bool) or not isinstance(value, int | float) or not _EARLIEST <= value <= _LATEST:
        refuse(
            Reason.ID_TOKEN_CLAIM_INVALID,
            f"has an {name} that is no date from 2000 on",
            "Dates are seconds since 1970 (RFC 7519, section 2), not milliseconds and not texts.",
            claim=name,
        )
    return datetime.fromtimestamp(value, UTC)


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def shown(value: object) -> str:
    """Somebody else's value, as it can be shown: one line, ASCII, short."""
    if value is None:
        return "missing"
    return (ascii(value)[1:-1] if isinstance(value, str) else ascii(value))[:200]


def refuse(reason: Reason, why: str, hint: str, **metadata: str) -> NoReturn:
    """Every refusal of an ID token. Neither ``why`` nor ``hint`` quotes it."""
    raise Unauthenticated(reason, f"The ID token {why}.", hint=hint, metadata=metadata)
