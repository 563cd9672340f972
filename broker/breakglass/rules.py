"""Who may break glass on a template, for how long, and how well they must have logged in.

Belongs here: what an operator writes in a template's ``break_glass`` section, and whether one person's asking fits
it. Does not belong here: what is owed afterwards (``reviews.py``), and everything a grant is held to that no
emergency passes over (scope, contract, intent, audit), which is the ordinary path's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from broker.errors import Denied, InvalidInput, Reason
from broker.scope.blank import blank

# How a person had proven who they are, as it is recorded.
BY_LOGIN, BY_CODE = "login", "code"


@dataclass(frozen=True, slots=True)
class BreakGlassRule:
    """The ``break_glass`` section of one template. ``max_uses`` within ``per`` is the cap of each of its groups."""

    groups: frozenset[str]
    max_ttl: timedelta
    review_within: timedelta = timedelta(hours=24)
    max_uses: int = 3
    per: timedelta = timedelta(hours=24)
    acr: frozenset[str] = frozenset()  # one of these, if there are any
    amr: frozenset[str] = frozenset()  # all of these

    def __post_init__(self) -> None:
        if not self.groups or self.max_uses < 1:
            raise ValueError("break-glass is for at least one group, at least once")
        if min(self.max_ttl, self.review_within, self.per) <= timedelta(0):
            raise ValueError("the spans of a break-glass section are longer than nothing")


def check_words(reason: str, incident: str) -> None:
    """Raises :class:`InvalidInput` for an emergency that says nothing about itself."""
    if blank(reason):
        raise InvalidInput(
            Reason.BREAK_GLASS_REASON_MISSING,
            "break-glass takes a reason, and there is none.",
            hint="Say in a sentence what is broken: --reason 'checkout is down, orders table locked'.",
            metadata={"field": "reason"},
        )
    if blank(incident):
        raise InvalidInput(
            Reason.BREAK_GLASS_INCIDENT_MISSING,
            "break-glass takes the reference of an incident, and there is none.",
            hint="Open an incident first, and give its id: --incident INC-4711.",
            metadata={"field": "incident"},
        )


def groups_for(rule: BreakGlassRule | None, template: str, person: str, groups: Collection[str]) -> frozenset[str]:
    """Of a person's ``groups``, those that ``rule`` pre-authorises: all of them answer for the use.

    Raises :class:`Denied` (BREAK_GLASS_NOT_ALLOWED) where there is none.
    """
    found = frozenset() if rule is None else rule.groups & frozenset(groups)
    if found and rule is not None:
        return found
    told = "nobody" if rule is None else ", ".join(sorted(rule.groups))
    raise Denied(
        Reason.BREAK_GLASS_NOT_ALLOWED,
        f"{person} is in no group that may break glass on {template!a}; its template pre-authorises {told}.",
        hint="`broker break-glass list` shows what you may. Else page somebody of that group.",
        metadata={"template": template, "groups": told},
    )


def check_ttl(rule: BreakGlassRule, template: str, ttl: timedelta) -> None:
    """Raises :class:`InvalidInput` (TTL_INVALID, TTL_TOO_LONG) for a span that is none or above the maximum."""
    longest = f"{rule.max_ttl.total_seconds():g}"
    metadata = {"template": template, "ttlSeconds": f"{ttl.total_seconds():g}", "maxTtlSeconds": longest}
    if ttl <= timedelta(0):
        raise InvalidInput(
            Reason.TTL_INVALID,
            f"a TTL of {ttl.total_seconds():g} s is none.",
            hint=f"Ask for more than 0 s and at most {longest} s.",
            metadata=metadata,
        )
    if ttl > rule.max_ttl:
        raise InvalidInput(
            Reason.TTL_TOO_LONG,
            f"break-glass on {template} is for {longest} s at most, not {ttl.total_seconds():g} s.",
            hint=f"Ask for {longest} s or less.",
            metadata=metadata,
        )


def check_strength(rule: BreakGlassRule, acr: str, amr: Collection[str]) -> None:
    """Raises :class:`Denied` (FRESH_LOGIN_TOO_WEAK) where the login is not as strong as the template demands."""
    lacking = [f"acr {' or '.join(sorted(rule.acr))}"] if rule.acr and acr not in rule.acr else []
    lacking += [f"amr {each}" for each in sorted(rule.amr - frozenset(amr))]
    if lacking:
        told = ", ".join(lacking)
        raise Denied(
            Reason.FRESH_LOGIN_TOO_WEAK,
            f"this template's break-glass takes a stronger login: it lacks {told}.",
            hint="Log in again with the second factor that your identity provider asks for.",
            metadata={"lacking": told},
        )


def unfit(field: str, what: str, hint: str) -> InvalidInput:
    """The refusal (BREAK_GLASS_VALUE_INVALID) of what stands in a ``field``."""
    return InvalidInput(Reason.BREAK_GLASS_VALUE_INVALID, f"{field}: {what}.", hint=hint, metadata={"field": field})
