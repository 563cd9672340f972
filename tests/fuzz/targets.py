"""What is fuzzed: each target takes any bytes and raises if one of our readers breaks its promise.

The promise is always the same. A stranger's bytes are refused with :class:`Unauthenticated` and a reason about the
identity, or they are a result in its one spelling, on which a second reader (py-spiffe, or the bytes themselves)
agrees. Anything else that comes out is a finding. Belongs here: the promises. How inputs are made is
``__main__.py``; what they start from is ``seeds.py``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeVar

import jwt
import spiffe

from broker.errors import Unauthenticated
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.certificate import Facts
from broker.identity.doctor import explain_svid
from broker.identity.id_token import LEEWAY as SKEW
from broker.identity.id_token import MAX_LIFE as LONGEST
from broker.identity.id_token import Issuer, verify
from broker.identity.jwt_bundle import JwtBundle, JwtBundles
from broker.identity.jwt_svid import LEEWAY, MAX_LIFE, validate_jwt_svid
from broker.identity.oidc_keys import KeySet
from broker.identity.spiffe_id import MAX_BYTES, SpiffeId
from broker.identity.svid import LEAF_RULES, one_canonical_id, read_intermediates, read_leaf, validate_x509_svid
from tests.forge import NOW, authority
from tests.forge_jwt import compact, ec_key, token_authority
from tests.forge_oidc import ForgedProvider

T = TypeVar("T")
DOMAIN = "example.org"
ID = f"spiffe://{DOMAIN}/agent/one"
AUDIENCE = f"spiffe://{DOMAIN}/broker"
CA = authority(DOMAIN)
LEAF = CA.svid(ID)
TOKENS = token_authority(DOMAIN)
CLIENT = "jit-broker"
PROVIDER = ForgedProvider("https://idp.example.org")
_ISSUER = Issuer(PROVIDER.url, groups_claim="groups")
_KEYS = KeySet.from_jwks(PROVIDER.document())
_BUNDLES = Bundles([TrustBundle.from_pem(DOMAIN, CA.pem)])
_JWT_BUNDLES = JwtBundles([JwtBundle.from_jwks(DOMAIN, TOKENS.bundle())])

# SPIFFE-ID.md section 2, in one piece.
_GRAMMAR = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|\Z))[a-zA-Z0-9._-]+)+", re.ASCII)

# Some inputs have serial numbers that `cryptography` will refuse one day, and says so now.
warnings.filterwarnings("ignore", message="Parsed a serial number")


def spiffe_id(data: bytes) -> None:
    """``SpiffeId.parse`` accepts exactly the grammar, and changes nothing."""
    text = data.decode("utf-8", "surrogateescape")
    allowed = bool(_GRAMMAR.fullmatch(text)) and len(data) <= MAX_BYTES
    parsed = _refused_or(lambda: SpiffeId.parse(text))
    assert (parsed is not None) is allowed
    if parsed is not None:
        _check_id(parsed)
        assert str(parsed) == text


def x509_leaf(data: bytes) -> None:
    """Reading a certificate, and each rule about a leaf."""
    facts = _refused_or(lambda: read_leaf(data))
    if facts is None:
        return
    passed = [_refused_or(partial(_holds, rule, facts)) is not None for rule in LEAF_RULES]
    if all(passed):
        _check_leaf(facts)
    # The doctor asks the same rules, and the bundle after them.
    assert explain_svid(data, b"", _BUNDLES, NOW) or all(passed)


def x509_names(data: bytes) -> None:
    """Subject alternative names in a certificate that our authority did sign."""
    leaf = CA.svid(raw_san=data)
    peer = _refused_or(lambda: validate_x509_svid(leaf.der, b"", _BUNDLES, NOW))
    if peer is not None:
        _check_id(peer.spiffe_id)
        assert str(peer.spiffe_id).encode() in data


def x509_chain(data: bytes) -> None:
    """What is sent beside a good leaf: it may spoil it, and never makes it somebody else."""
    _refused_or(lambda: read_intermediates(data))
    peer = _refused_or(lambda: validate_x509_svid(LEAF.der, data, _BUNDLES, NOW))
    assert peer is None or str(peer.spiffe_id) == ID


def jwt_token(data: bytes) -> None:
    """Whole tokens: without a key nobody makes another that passes."""
    _check_token(data.decode("utf-8", "surrogateescape"))


def jwt_signed(data: bytes) -> None:
    """A header and, behind the first newline, a payload that our authority did sign."""
    header, _, payload = data.partition(b"\n")
    _check_token(compact(header, payload, "ES256", ec_key(DOMAIN)))


def id_token(data: bytes) -> None:
    """Whole ID tokens of people: without a key nobody makes another that passes."""
    _check_id_token(data.decode("utf-8", "surrogateescape"))


def id_signed(data: bytes) -> None:
    """A header and, behind the first newline, claims that the provider did sign."""
    header, _, payload = data.partition(b"\n")
    _check_id_token(compact(header, payload, "ES256", ec_key(PROVIDER.url)))


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (spiffe_id, x509_leaf, x509_names, x509_chain, jwt_token, jwt_signed, id_token, id_signed)
}


def _refused_or(ask: Callable[[], T]) -> T | None:
    """What ``ask`` answers; None if it refused as it should."""
    try:
        return ask()
    except Unauthenticated as refused:
        assert refused.reason.startswith(("SVID_", "JWT_SVID_", "ID_TOKEN_"))
        assert refused.message and refused.hint
        told = f"{refused} {refused.metadata}"
        # It can stand in a log line and in the details of a status.
        assert told.isascii() and told.isprintable() and len(told) < 4096
        return None


def _holds(rule: Callable[[Facts, datetime], None], facts: Facts) -> bool:
    rule(facts, NOW)
    return True


def _check_id(accepted: SpiffeId) -> None:
    text = str(accepted)
    assert _GRAMMAR.fullmatch(text) and len(text) <= MAX_BYTES
    assert str(spiffe.SpiffeId(text)) == text


def _check_leaf(facts: Facts) -> None:
    accepted = one_canonical_id(facts)
    _check_id(accepted)
    assert str(accepted).encode() in facts.certificate.tbs_certificate_bytes
    assert facts.serial > 0 and not facts.is_ca
    assert facts.not_before <= NOW <= facts.not_after


def _check_token(token: str) -> None:
    svid = _refused_or(lambda: validate_jwt_svid(token, _JWT_BUNDLES, AUDIENCE, NOW))
    if svid is None:
        return
    _check_id(svid.spiffe_id)
    assert svid.not_before - LEEWAY <= NOW < svid.not_after <= NOW + MAX_LIFE
    other = spiffe.JwtSvid.parse_insecure(token, {AUDIENCE})
    assert str(other.spiffe_id) == str(svid.spiffe_id)
    assert set(other.audience) == {AUDIENCE}


def _check_id_token(token: str) -> None:
    proven = _refused_or(lambda: verify(token, _ISSUER, _KEYS, NOW, audience=CLIENT, nonce=None, max_age=None))
    if proven is None:
        return
    assert (proven.issuer, proven.audience) == (PROVIDER.url, CLIENT)
    assert proven.subject.isascii() and proven.subject.isprintable() and proven.groups is not None
    assert proven.issued_at - SKEW <= NOW < proven.expires_at <= proven.issued_at + LONGEST
    # The whole of it is read by PyJWT's own rules, too.
    key_id = jwt.get_unverified_header(token)["kid"]
    key = _KEYS.keys[key_id]
    options = {f"verify_{claim}": False for claim in ("exp", "iat", "nbf", "jti")}
    other = jwt.decode(
        token, key.key, algorithms=sorted(key.algorithms), options=options, audience=CLIENT, issuer=PROVIDER.url
    )
    assert other["sub"] == proven.subject and set(other["groups"]) == proven.groups
