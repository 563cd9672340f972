"""A person who has just logged in, for exactly one thing: the proof that an act of weight takes.

Belongs here: what makes a login fresh and strong enough, and whose it must be. Being logged in is no proof that
somebody is at the keyboard: a cached token is a bearer secret that whatever runs on the person's machine can read.
So approving, resuming, breaking glass and reviewing each take a login of their own, whose ``nonce`` is the digest
of what is agreed to (``broker/approval/intent_digest.py``); the provider's signature is then over both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.errors import Denied, Reason
from broker.identity.id_token import LEEWAY, IdToken, Issuer, verify
from broker.identity.oidc_keys import KeySet
from broker.secret import Secret

# How long ago the login may be, and how old the token that tells of it.
FRESH = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class FreshProof:
    """A verified fresh login. ``raw`` is the signed token, which is kept as the record of the act."""

    id_token: IdToken
    raw: Secret = field(repr=False)


def prove(
    token: str,
    issuer: Issuer,
    keys: KeySet,
    now: datetime,
    *,
    audience: str,
    nonce: str,
    not_before: datetime | None,
    person: tuple[str, str],
) -> FreshProof:
    """The proof that ``person`` (issuer, subject) logged in at ``issuer`` for what ``nonce`` says.

    ``not_before`` is when the thing came to be that is agreed to: nobody can have logged in for it earlier. None
    where it comes to be with the act itself.

    Raises :class:`Unauthenticated` as :func:`verify` does, and :class:`Denied` (FRESH_LOGIN_OF_ANOTHER,
    FRESH_LOGIN_TOO_WEAK, FRESH_LOGIN_TOO_EARLY).
    """
    proven = verify(token, issuer, keys, now, audience=audience, nonce=nonce, max_age=FRESH)
    if proven.person_id != person:
        raise Denied(
            Reason.FRESH_LOGIN_OF_ANOTHER,
            "The fresh login is another person's than the one who calls.",
            hint="Whoever acts logs in; nobody can do it for somebody else.",
            metadata={"issuer": proven.issuer, "subject": proven.subject},
        )
    _check_strength(proven, issuer)
    _check_order(proven, not_before)
    return FreshProof(proven, Secret(token))


def _check_strength(proven: IdToken, issuer: Issuer) -> None:
    """``acr`` is one of those configured, ``amr`` has all of those configured (Core, section 2; RFC 8176)."""
    missing = issuer.amr - proven.amr
    if not missing and (not issuer.acr or proven.acr in issuer.acr):
        return
    raise Denied(
        Reason.FRESH_LOGIN_TOO_WEAK,
        "The fresh login is not as strong as this issuer's must be: "
        f"it has acr {proven.acr!a} and amr {sorted(proven.amr)!a}.",
        hint=f"Needed: acr one of {sorted(issuer.acr)}, amr all of {sorted(issuer.amr)}.",
        metadata={"acr": ",".join(sorted(issuer.acr)), "amr": ",".join(sorted(issuer.amr))},
    )


def _check_order(proven: IdToken, not_before: datetime | None) -> None:
    # A login's time has no fraction of a second, and the provider's clock may be behind.
    if not_before is None or proven.auth_time is None or proven.auth_time >= not_before - LEEWAY:
        return
    raise Denied(
        Reason.FRESH_LOGIN_TOO_EARLY,
        f"The login was at {proven.auth_time.isoformat()}, before there was anything to agree to "
        f"({not_before.isoformat()}).",
        hint="Log in after having seen it, with max_age=0.",
        metadata={"authTime": proven.auth_time.isoformat(), "notBefore": not_before.isoformat()},
    )
