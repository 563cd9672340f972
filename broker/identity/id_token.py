"""Is this the ID token of a person, from this provider, meant for this broker, now?

Belongs here: the rules of OpenID Connect Core (section 3.1.3.7) and RFC 8725, as a pure function of (token,
issuer, keys, audience, nonce, time). Order: which key, the signature; claims are judged only once somebody is
known to have made them. Where the standards leave a choice the safe reading is taken: one audience, and the
algorithm is the key's.

Does not belong here: the form of a token (``jws.py``) and of a claim (``id_claims.py``), where keys come from
(``oidc_keys.py``), who the subject is to the broker (people.yaml), and when a login must be fresh
(``fresh_proof.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from broker.errors import Reason
from broker.identity.id_claims import MAX_METHODS, MAX_TEXT, date, groups, refuse, shown, subject, text, texts
from broker.identity.jwk import MAX_KEY_ID, SigningKey
from broker.identity.jws import CompactJws, NotCompactJws
from broker.identity.oidc_keys import ALGORITHMS, KeySet

# 200 groups with names like UUIDs are about 11 KiB, which is where large providers stop listing them.
MAX_TOKEN_BYTES = 12 * 1024
# Nobody works longer than that on one login; what claims to live for weeks is no ID token but a mistake.
MAX_LIFE = timedelta(hours=24)
# How far the provider's clock may be ahead of ours. An expiry is an expiry.
LEEWAY = timedelta(seconds=5)

# Thumbprints of certificates name a key and bring none; everything else could ask for rules of its own.
_HEADERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})


@dataclass(frozen=True, slots=True)
class Issuer:
    """One OpenID provider, as operators configured it."""

    url: str  # exactly as in the claim iss
    groups_claim: str = ""  # the claim that lists a person's groups; empty: the provider says nothing about groups
    acr: frozenset[str] = frozenset()  # a fresh login has one of these; empty: any
    amr: frozenset[str] = frozenset()  # a fresh login has all of these; empty: any
    known_as: str = ""  # how people.yaml names it, where that is not its URL

    @property
    def name(self) -> str:
        """As in people.yaml, and in everything that is told of people."""
        return self.known_as or self.url


@dataclass(frozen=True, slots=True)
class IdToken:
    """A verified ID token: what it proves, without the token."""

    issuer: str  # as people.yaml names it
    subject: str
    audience: str
    issued_at: datetime
    expires_at: datetime
    auth_time: datetime | None  # when the person logged in, where the provider says so
    nonce: str
    groups: frozenset[str] | None  # None: the issuer is configured without a groups claim
    amr: frozenset[str]
    acr: str
    digest: str = field(kw_only=True)  # SHA-256 of what is signed, hex; the same for every spelling of the signature

    @property
    def person_id(self) -> tuple[str, str]:
        """(issuer, subject)."""
        return (self.issuer, self.subject)


def claimed_issuer(token: str) -> str:
    """Which provider ``token`` claims to be from, with nothing verified: to choose whose keys to ask.

    Raises :class:`Unauthenticated` (ID_TOKEN_MALFORMED, ID_TOKEN_CLAIM_INVALID), for any text whatever.
    """
    issuer = _parsed(token).claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        refuse(Reason.ID_TOKEN_CLAIM_INVALID, "has no iss", "The claim iss names the provider.", claim="iss")
    return issuer


def claimed_key(token: str) -> str:
    """The key id in the header, with nothing verified; empty where there is none that could be published."""
    key_id = _parsed(token).header.get("kid")
    return key_id if isinstance(key_id, str) and len(key_id) <= MAX_KEY_ID else ""


def verify(
    token: str,
    issuer: Issuer,
    keys: KeySet,
    now: datetime,
    *,
    audience: str,
    nonce: str | None,
    max_age: timedelta | None,
) -> IdToken:
    """The person that ``token`` proves, if ``issuer``, its ``keys``, ``audience`` and ``now`` (timezone-aware) allow.

    ``nonce`` None: any, or none. ``max_age`` None: any login that has not expired; else the person must have logged
    in, and the token been made, at most so long ago.

    Raises :class:`Unauthenticated`, for any text whatever: one of the ``ID_TOKEN_*`` reasons. No message quotes the
    token.
    """
    jws = _parsed(token)
    _check_header(jws.header)
    algorithm, key = _key_of(jws.header, issuer, keys)
    if not jws.is_signed_by(key.key, algorithm):
        refuse(
            Reason.ID_TOKEN_SIGNATURE,
            f"has a signature that is not of {shown(issuer.url)}",
            "Send the token unchanged, as the provider gave it; log in again.",
            issuer=issuer.url,
        )
    claims = jws.claims
    _check_issuer(claims, issuer)
    _check_audience(claims, audience)
    issued_at, expires_at = _validity(claims, now)
    auth_time = date(claims, "auth_time")
    if max_age is not None:
        _check_age(auth_time, issued_at, now, max_age)
    return IdToken(
        issuer=issuer.name,
        subject=subject(claims),
        audience=audience,
        issued_at=issued_at,
        expires_at=expires_at,
        auth_time=auth_time,
        nonce=_nonce(claims, nonce),
        groups=groups(claims, issuer.groups_claim) if issuer.groups_claim else None,
        amr=texts(claims, "amr", MAX_METHODS) if "amr" in claims else frozenset(),
        acr=text(claims, "acr") if "acr" in claims else "",
        digest=jws.digest,
    )


def _parsed(token: str) -> CompactJws:
    try:
        return CompactJws.parse(token, MAX_TOKEN_BYTES)
    except NotCompactJws as error:
        refuse(Reason.ID_TOKEN_MALFORMED, str(error), "Send the ID token as the provider gave it; log in again.")


def _check_header(members: Mapping[str, Any]) -> None:
    """Neither a key nor a rule of its own (RFC 8725, section 3.10), and no other kind of token (section 3.11)."""
    others = sorted(set(members) - _HEADERS)
    if others:
        refuse(
            Reason.ID_TOKEN_HEADER,
            f"has headers that are not allowed: {shown(others)}",
            "An ID token has the headers alg, kid and typ; keys come from the provider's published set only.",
        )
    kind = members.get("typ", "JWT")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        refuse(
            Reason.ID_TOKEN_HEADER,
            f"is of the type {shown(kind)}",
            "Send the ID token of the login, no access token or other token of the same provider.",
        )


def _key_of(members: Mapping[str, Any], issuer: Issuer, keys: KeySet) -> tuple[str, SigningKey]:
    """The algorithm and the named key, which fit each other."""
    algorithm, key_id = members.get("alg"), members.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        refuse(
            Reason.ID_TOKEN_ALGORITHM,
            f"has the alg {shown(algorithm)}",
            f"Allowed are {', '.join(sorted(ALGORITHMS))}; unsigned tokens and shared secrets never are.",
        )
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        refuse(Reason.ID_TOKEN_KEY_UNKNOWN, "does not name its key", "The header kid names one key of the provider.")
    key = keys.keys.get(key_id)
    if key is None:
        refuse(
            Reason.ID_TOKEN_KEY_UNKNOWN,
            f"names the key {shown(key_id)}, which {shown(issuer.url)} does not publish",
            "Log in again. A key that the provider has withdrawn proves nothing any more.",
            keyId=shown(key_id),
            issuer=issuer.url,
        )
    if algorithm not in key.algorithms:
        refuse(
            Reason.ID_TOKEN_ALGORITHM,
            f"has the alg {algorithm}, which does not fit the key {shown(key_id)}",
            f"This key signs with {', '.join(sorted(key.algorithms))}.",
            keyId=shown(key_id),
            algorithm=algorithm,
        )
    return algorithm, key


def _check_issuer(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """Exactly as configured: a slash more is another issuer (Core, section 3.1.3.7, 2)."""
    if claims.get("iss") != issuer.url:
        refuse(
            Reason.ID_TOKEN_ISSUER_UNKNOWN,
            f"is from {shown(claims.get('iss'))}, signed by a key of {shown(issuer.url)}",
            "The claim iss is the issuer exactly as brokerd's configuration has it.",
            issuer=issuer.url,
        )


def _check_audience(claims: Mapping[str, Any], audience: str) -> None:
    """This broker and only it: what others hold too, others can show here (Core, section 3.1.3.7, 3 to 5)."""
    named = claims.get("aud")
    values = named if isinstance(named, list) else [named]
    if values != [audience] or not isinstance(values[0], str):
        refuse(
            Reason.ID_TOKEN_AUDIENCE,
            f"is not for this broker alone: aud is {shown(named)}",
            f"Log in as the client {shown(audience)}; a token for anything else opens nothing here.",
            audience=audience,
        )
    if claims.get("azp", audience) != audience:
        refuse(
            Reason.ID_TOKEN_AUDIENCE,
            f"was given to another party: azp is {shown(claims['azp'])}",
            f"Log in as the client {shown(audience)}.",
            audience=audience,
        )


def _validity(claims: Mapping[str, Any], now: datetime) -> tuple[datetime, datetime]:
    """``iat`` and ``exp`` are there and fit together and now; ``nbf``, where told, has come."""
    issued, ends, begins = date(claims, "iat"), date(claims, "exp"), date(claims, "nbf")
    if issued is None or ends is None:
        absent = "iat" if issued is None else "exp"
        refuse(Reason.ID_TOKEN_CLAIM_INVALID, f"has no {absent}", "An ID token has iat and exp.", claim=absent)
    told = {"issuedAt": issued.isoformat(), "expiresAt": ends.isoformat(), "now": now.isoformat()}
    if now >= ends:
        refuse(
            Reason.ID_TOKEN_EXPIRED,
            f"was valid until {ends.isoformat()}; it is {now.isoformat()}",
            "Log in again.",
            **told,
        )
    if max(issued, begins or issued) > now + LEEWAY:
        refuse(
            Reason.ID_TOKEN_NOT_YET_VALID,
            f"is valid from {max(issued, begins or issued).isoformat()}; it is {now.isoformat()}",
            "Compare the clocks of the broker and of the provider.",
            **told,
        )
    if ends <= issued or ends - issued > MAX_LIFE:
        refuse(
            Reason.ID_TOKEN_LIFE_TOO_LONG if ends > issued else Reason.ID_TOKEN_CLAIM_INVALID,
            f"lives from {issued.isoformat()} to {ends.isoformat()}",
            f"Configure the provider's ID tokens for the broker to live at most {MAX_LIFE}; minutes are enough.",
            **told,
        )
    return issued, ends


def _check_age(auth_time: datetime | None, issued_at: datetime, now: datetime, max_age: timedelta) -> None:
    """The login itself is young (Core, section 3.1.3.7, 13), and so is the token that tells of it."""
    if auth_time is None:
        refuse(
            Reason.ID_TOKEN_TOO_OLD,
            "does not say when its person logged in (auth_time)",
            "Ask the provider with max_age=0, and let it send auth_time to this client.",
        )
    if auth_time > now + LEEWAY or auth_time > issued_at + LEEWAY:
        refuse(
            Reason.ID_TOKEN_NOT_YET_VALID,
            f"tells of a login at {auth_time.isoformat()}, which is later than itself or than now",
            "Compare the clocks of the broker and of the provider.",
            authTime=auth_time.isoformat(),
            now=now.isoformat(),
        )
    if now - min(auth_time, issued_at) > max_age:
        refuse(
            Reason.ID_TOKEN_TOO_OLD,
            f"is of {issued_at.isoformat()}, from a login at {auth_time.isoformat()}; it is {now.isoformat()}",
            f"What this asks for takes a login of the last {max_age}, with max_age=0.",
            authTime=auth_time.isoformat(),
            now=now.isoformat(),
        )


def _nonce(claims: Mapping[str, Any], expected: str | None) -> str:
    nonce = claims.get("nonce", "")
    if not isinstance(nonce, str) or len(nonce) > MAX_TEXT:
        refuse(Reason.ID_TOKEN_CLAIM_INVALID, "has a nonce that is no short text", "Log in again.", claim="nonce")
    if expected is not None and nonce != expected:
        refuse(
            Reason.ID_TOKEN_NONCE,
            "is of a login for something else: its nonce is " + (shown(nonce) if nonce else "missing"),
            "Log in for exactly this: the provider repeats the nonce it is asked with.",
            nonce=expected,
        )
    return nonce
