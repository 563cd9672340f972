"""Is this token the JWT-SVID of a workload, meant for this broker, now, under these bundles?

Belongs here: the rules of the SPIFFE JWT-SVID standard (sections 3 to 5), as a pure function of (token,
bundles, audience, time). Order: whom it claims to be, whose key that takes, the signature; claims are
judged only once somebody is known to have made them. Where the standard says SHOULD and the safe
reading is stricter, the safe reading is taken: one audience, a life of at most :data:`MAX_LIFE`.

The signature is PyJWT's work. Does not belong here: the form of a token (``jwt_token.py``), who may
deliver it (``token_bindings.py``), who is registered (``agent.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from broker.errors import Reason, Unauthenticated
from broker.identity.jwk import SigningKey
from broker.identity.jwt_bundle import JwtBundles
from broker.identity.jwt_token import Token
from broker.identity.spiffe_id import SpiffeId

# SPIRE's default. A bearer token is as good to a thief as to its owner, so what lives longer is refused:
# measured from now, and from iat with a minute for authorities that backdate it.
MAX_LIFE = timedelta(minutes=5)
BACKDATED = timedelta(minutes=1)
# How far the authority's clock may be ahead of ours. It only ever helps a token that has just begun: an
# expiry is an expiry.
LEEWAY = timedelta(seconds=5)

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A validated JWT-SVID: what it proves, without the token."""

    spiffe_id: SpiffeId
    not_before: datetime  # the later of iat and nbf; MAX_LIFE before its end where neither is told
    not_after: datetime
    digest: str  # SHA-256 of what is signed, hex; the same for every spelling of the signature
    key_id: str


def validate_jwt_svid(token: str, bundles: JwtBundles, audience: str, now: datetime) -> JwtSvid:
    """The workload that ``token`` proves, if ``bundles``, ``audience`` and ``now`` (timezone-aware) allow.

    ``audience`` is this broker's own; the token must be for it and nobody else.

    Raises :class:`Unauthenticated`, for any text whatever: one of the ``JWT_SVID_*`` reasons,
    SVID_ID_NOT_CANONICAL or SVID_TRUST_DOMAIN_UNKNOWN. No message quotes the token.
    """
    parsed = Token.parse(token)
    spiffe_id = _subject(parsed.claims)
    _check_signature(parsed, _key_of(parsed, spiffe_id, bundles))
    _check_audience(parsed.claims, audience)
    not_before, not_after = _validity(parsed.claims, now)
    return JwtSvid(spiffe_id, not_before, not_after, parsed.digest, parsed.key_id)


def _subject(claims: Mapping[str, Any]) -> SpiffeId:
    """``sub`` is the workload's SPIFFE ID in its one spelling (section 3.1)."""
    subject = claims.get("sub")
    if not isinstance(subject, str):
        _refuse(Reason.JWT_SVID_CLAIM_INVALID, "has no sub", "The claim sub is the workload's SPIFFE ID.", claim="sub")
    return SpiffeId.parse(subject)


def _key_of(token: Token, spiffe_id: SpiffeId, bundles: JwtBundles) -> SigningKey:
    """The named key in the bundle of the trust domain that is *claimed*, and in no other (section 5)."""
    bundle = bundles.get(spiffe_id.trust_domain)
    if bundle is None:
        raise Unauthenticated(
            Reason.SVID_TRUST_DOMAIN_UNKNOWN,
            f"The broker has no JWT bundle for the trust domain {spiffe_id.trust_domain}.",
            hint="An operator adds the JWT bundle of each trust domain whose agents come through proxies.",
            metadata={"trustDomain": spiffe_id.trust_domain},
        )
    key = bundle.keys.get(token.key_id)
    shown = ascii(token.key_id)[1:-1][:80]
    if key is None:
        _refuse(
            Reason.JWT_SVID_KEY_UNKNOWN,
            f"names the key {shown}, which is not in the JWT bundle of {spiffe_id.trust_domain}",
            "Fetch a fresh JWT-SVID; if the authority's keys rotated, the broker's bundle must have the new one.",
            keyId=shown,
            trustDomain=spiffe_id.trust_domain,
        )
    if token.algorithm not in key.algorithms:
        _refuse(
            Reason.JWT_SVID_ALGORITHM,
            f"has the alg {token.algorithm}, which does not fit the key {shown}",
            f"This key signs with {', '.join(sorted(key.algorithms))}.",
            keyId=shown,
            algorithm=token.algorithm,
        )
    return key


def _check_signature(token: Token, key: SigningKey) -> None:
    if not token.jws.is_signed_by(key.key, token.algorithm):
        _refuse(
            Reason.JWT_SVID_SIGNATURE,
            "has a signature that is not its authority's",
            "Send the token unchanged, as the SPIFFE Workload API gave it.",
            keyId=ascii(token.key_id)[1:-1][:80],
        )


def _check_audience(claims: Mapping[str, Any], audience: str) -> None:
    """This broker and only it (section 3.2; it says SHOULD of the one): what others hold too, others can replay."""
    named = claims.get("aud")
    values = named if isinstance(named, list) else [named]
    if values != [audience] or not isinstance(values[0], str):
        _refuse(
            Reason.JWT_SVID_AUDIENCE,
            f"is not for this broker alone: aud is {ascii(named)[:200]}",
            f"Fetch a JWT-SVID for exactly one audience, {audience}.",
            audience=audience,
        )


def _validity(claims: Mapping[str, Any], now: datetime) -> tuple[datetime, datetime]:
    """``exp`` (section 3.3) is there, not over and not far; ``iat`` and ``nbf`` (RFC 7519), where told, have come."""
    not_after = _date(claims, "exp")
    if not_after is None:
        _refuse(Reason.JWT_SVID_CLAIM_INVALID, "has no exp", "A JWT-SVID says when it ends.", claim="exp")
    issued, begins = _date(claims, "iat"), _date(claims, "nbf")
    if now >= not_after:
        _refuse(
            Reason.JWT_SVID_EXPIRED,
            f"was valid until {not_after.isoformat()}; it is {now.isoformat()}",
            "Fetch a fresh JWT-SVID from the SPIFFE Workload API.",
            notAfter=not_after.isoformat(),
            now=now.isoformat(),
        )
    if not_after - now > MAX_LIFE or (issued is not None and not_after - issued > MAX_LIFE + BACKDATED):
        _refuse(
            Reason.JWT_SVID_LIFE_TOO_LONG,
            f"lives too long: until {not_after.isoformat()}, and it is {now.isoformat()}",
            "The authority issues JWT-SVIDs of at most five minutes (SPIRE: default_jwt_svid_ttl, jwt_svid_ttl), less "
            "where its clock is ahead of the broker's.",
            notAfter=not_after.isoformat(),
            now=now.isoformat(),
        )
    not_before = max((date for date in (issued, begins) if date is not None), default=not_after - MAX_LIFE)
    if not_before > now + LEEWAY:
        _refuse(
            Reason.JWT_SVID_NOT_YET_VALID,
            f"is valid from {not_before.isoformat()}; it is {now.isoformat()}",
            "Compare the clocks of the broker and of the trust domain's authority.",
            notBefore=not_before.isoformat(),
            now=now.isoformat(),
        )
    if not_before >= not_after:
        _refuse(Reason.JWT_SVID_CLAIM_INVALID, "ends before it begins", "Fetch a fresh JWT-SVID.", claim="exp")
    return not_before, not_after


def _date(claims: Mapping[str, Any], name: str) -> datetime | None:
    """A NumericDate (RFC 7519, section 2): seconds since 1970, perhaps with a fraction. None where absent."""
    if name not in claims:
        return None
    value = claims[name]
    # A bool is an int to Python, and to nobody else.
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(Reason.JWT_SVID_CLAIM_INVALID, f"has an {name} that is no number", "See RFC 7519.", claim=name)
    if not _EARLIEST <= value <= _LATEST:  # also for 1e999, which is read as infinity
        _refuse(
            Reason.JWT_SVID_CLAIM_INVALID,
            f"has an {name} that is no date from 2000 on",
            "Dates are seconds since 1970 (RFC 7519, section 2), not milliseconds.",
            claim=name,
        )
    return datetime.fromtimestamp(value, UTC)


def _refuse(reason: Reason, why: str, hint: str, **metadata: str) -> NoReturn:
    raise Unauthenticated(reason, f"The JWT-SVID {why}.", hint=hint, metadata=metadata)
