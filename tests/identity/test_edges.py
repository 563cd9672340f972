"""The last value that is taken and the first that is not: sizes, numbers and instants of what proves an identity."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.errors import Unauthenticated
from broker.identity.bundle import MAX_ROOTS, Bundles, TrustBundle
from broker.identity.certificate import MAX_CERTIFICATE_BYTES, CertificateUnreadable, Facts, brief, read_certificates
from broker.identity.id_claims import shown
from broker.identity.id_token import Issuer, verify
from broker.identity.jwk import UnfitKey, signing_key
from broker.identity.jws import CompactJws, NotCompactJws
from broker.identity.jwt_bundle import ALGORITHMS, MAX_KEYS, JwtBundle, JwtBundles
from broker.identity.jwt_svid import validate_jwt_svid
from broker.identity.oidc_keys import KeySet, UnfitKeySet
from broker.identity.pattern import MAX_LISTED, IdPattern, OneOf, Step
from broker.identity.peer_cache import PeerCache
from broker.identity.spiffe_id import MAX_BYTES, SpiffeId
from broker.identity.svid import validate_x509_svid
from broker.identity.token_cache import TokenCache
from tests import hostile_id_tokens, hostile_jwts
from tests.forge import NOW, authority
from tests.forge_jwt import ec_key, jwk, rsa_key
from tests.forge_oidc import ed_jwk, ed_key

IDP, CLIENT = "https://idp.example.org", "jit-broker"
PEOPLE = hostile_id_tokens.World.of(IDP, "https://other.example.org", CLIENT, "anna", NOW)
BROKER, AGENT = "spiffe://example.org/broker", "spiffe://example.org/agent/one"
AGENTS = hostile_jwts.World.of("example.org", "federated.example", BROKER, AGENT, NOW)
MOMENT = timedelta(microseconds=1)


def person(token: str, now: datetime = NOW, nonce: str | None = None) -> str:
    """Who it is, or the reason why it is nobody."""
    keys = KeySet.from_jwks(PEOPLE.own.document())
    try:
        return verify(
            token, Issuer(IDP, groups_claim="groups"), keys, now, audience=CLIENT, nonce=nonce, max_age=None
        ).subject
    except Unauthenticated as refused:
        return refused.reason


def agent(token: str, now: datetime = NOW) -> str:
    """Whose key signed it, or the reason why nobody's did."""
    bundles = JwtBundles([JwtBundle.from_jwks("example.org", AGENTS.own.bundle())])
    try:
        return validate_jwt_svid(token, bundles, BROKER, now).key_id
    except Unauthenticated as refused:
        return refused.reason


START = PEOPLE.now
EARLIEST = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (PEOPLE.token(sub="s"), "s"),
        (PEOPLE.token(sub="s" * 255), "s" * 255),
        (PEOPLE.token(nonce="n" * 255), "anna"),
        (PEOPLE.token(acr="a" * 255), "anna"),
        (PEOPLE.token(acr="a" * 256), "ID_TOKEN_CLAIM_INVALID"),
        (PEOPLE.token(groups=["g" * 255]), "anna"),
        (PEOPLE.token(auth_time=EARLIEST), "anna"),
        (PEOPLE.token(auth_time=EARLIEST - 1), "ID_TOKEN_CLAIM_INVALID"),
        (PEOPLE.token(header={"kid": ""}), "ID_TOKEN_KEY_UNKNOWN"),
        (PEOPLE.token(header={"kid": "k" * 256}), "ID_TOKEN_KEY_UNKNOWN"),
        (PEOPLE.token(iat=START + 5), "anna"),
        (PEOPLE.token(iat=START + 6), "ID_TOKEN_NOT_YET_VALID"),
        (PEOPLE.token(exp=START + 86_400), "anna"),
        (PEOPLE.token(exp=START + 86_401), "ID_TOKEN_LIFE_TOO_LONG"),
        # Both are ahead by less than clocks may differ, and it has no time at all.
        (PEOPLE.token(iat=START + 4, exp=START + 4), "ID_TOKEN_CLAIM_INVALID"),
        (PEOPLE.token(iat=START + 4, exp=START + 3), "ID_TOKEN_CLAIM_INVALID"),
    ],
)
def test_of_an_id_token(token: str, expected: str) -> None:
    assert person(token) == expected


def test_a_year_that_no_calendar_has_is_no_date() -> None:
    """The year 9999 is the last one; what is later is no instant here, and one of 9999 only lives too long."""
    last = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())
    assert person(PEOPLE.token(exp=last)) == "ID_TOKEN_LIFE_TOO_LONG"
    assert person(PEOPLE.token(exp=last + 1)) == "ID_TOKEN_CLAIM_INVALID"
    assert agent(AGENTS.token(exp=last)) == "JWT_SVID_LIFE_TOO_LONG"
    assert agent(AGENTS.token(exp=last + 1)) == "JWT_SVID_CLAIM_INVALID"
    assert agent(AGENTS.token(iat=EARLIEST, exp=START + 9)) == "JWT_SVID_LIFE_TOO_LONG"
    assert agent(AGENTS.token(nbf=EARLIEST)) == "ec"


def test_no_nonce_is_the_empty_one_and_no_other() -> None:
    assert person(PEOPLE.token(), nonce="") == "anna"
    assert person(PEOPLE.token(nonce="XXXX"), nonce="") == "ID_TOKEN_NONCE"


@pytest.mark.parametrize("key_id", ["k", "k" * 256])
def test_of_a_key_id(key_id: str) -> None:
    key = jwk(ec_key("x"), key_id)
    assert signing_key(key, ALGORITHMS).key_id == key_id
    for none in ("", "k" * 257, 7, None):
        with pytest.raises(UnfitKey, match="kid"):
            signing_key({**key, "kid": none}, ALGORITHMS)


def test_a_key_id_of_one_character_or_of_256_is_looked_up() -> None:
    for key_id in ("k", "k" * 256):
        bundle = JwtBundle("example.org", [signing_key(jwk(ec_key("example.org"), key_id), ALGORITHMS)])
        token = AGENTS.token(header={"kid": key_id})
        assert validate_jwt_svid(token, JwtBundles([bundle]), BROKER, NOW).key_id == key_id
        keys = KeySet.from_jwks(json.dumps({"keys": [jwk(ec_key(IDP), key_id, use="sig")]}).encode())
        proven = verify(
            PEOPLE.token(header={"kid": key_id}), Issuer(IDP), keys, NOW, audience=CLIENT, nonce=None, max_age=None
        )
        assert proven.subject == "anna"


def test_a_read_key_verifies_with_the_algorithms_of_its_type_and_has_a_digest() -> None:
    key = signing_key(jwk(ec_key("x"), "one"), ALGORITHMS)
    assert key.key.public_numbers() == ec_key("x").public_key().public_numbers()  # type: ignore[union-attr]
    assert len(key.digest) == 64 and int(key.digest, 16)
    assert key.digest != signing_key(jwk(ec_key("y"), "one"), ALGORITHMS).digest
    assert signing_key(ed_jwk(ed_key(), "ed"), frozenset({"EdDSA"})).algorithms == {"EdDSA"}


def test_of_rsa_keys() -> None:
    """Making a key of 8192 bits takes a minute; a number of that size is a key to whoever only reads it."""
    for bits, taken in ((2047, False), (2048, True), (8192, True), (8193, False)):
        modulus = (1 << (bits - 1)) | 1
        public = rsa.RSAPublicNumbers(65537, modulus).public_key()
        key = {**jwk(rsa_key("x"), "one"), "n": jwk(_Public(public), "one")["n"]}
        if taken:
            assert signing_key(key, ALGORITHMS).algorithms >= {"RS256"}
        else:
            with pytest.raises(UnfitKey, match=f"{bits} bits"):
                signing_key(key, ALGORITHMS)


class _Public:
    """As the forger takes keys."""

    def __init__(self, public: rsa.RSAPublicKey) -> None:
        self.public_key = lambda: public


def test_of_sets_of_keys() -> None:
    key = jwk(ec_key("x"), "one", use="sig")
    many = [{**key, "kid": str(number)} for number in range(MAX_KEYS)]
    assert len(KeySet.from_jwks(json.dumps({"keys": many}).encode()).keys) == MAX_KEYS
    filled = [key, *({"kty": "?"} for _ in range(255))]
    assert set(KeySet.from_jwks(json.dumps({"keys": filled}).encode()).keys) == {"one"}
    with pytest.raises(UnfitKeySet, match="at most 256"):
        KeySet.from_jwks(json.dumps({"keys": [*filled, {}]}).encode())
    marked = [{**each, "use": "jwt-svid"} for each in many]
    assert len(JwtBundle.from_jwks("example.org", json.dumps({"keys": marked}).encode()).keys) == MAX_KEYS
    bundles = JwtBundles([JwtBundle.from_jwks("example.org", json.dumps({"keys": marked}).encode())])
    assert list(bundles) == ["example.org"] and len(bundles) == 1


def test_of_a_bundle_of_roots() -> None:
    """As many roots as are read; the chain of each is verified."""
    home, other = authority("example.org"), authority("example.org", name="other")
    bundle = TrustBundle.from_pem("example.org", home.pem * (MAX_ROOTS - 1) + other.pem)
    assert len(bundle.roots) == 2
    for root in (home, other):
        peer = validate_x509_svid(root.svid(AGENT).pem, b"", Bundles([bundle]), NOW)
        assert (str(peer.spiffe_id), peer.issuer) == (AGENT, root.certificate.issuer.rfc4514_string())
        assert peer.issuer.startswith("CN=")


def test_of_the_bytes_of_a_certificate() -> None:
    leaf = authority("example.org").svid(AGENT, dns=["agent.example.org"], usage=None)
    (facts,) = read_certificates(leaf.pem.ljust(MAX_CERTIFICATE_BYTES, b"\n"), at_most=1)
    assert facts.dns_names == ("agent.example.org",)
    assert read_certificates(leaf.der, at_most=1) == (facts,)
    assert (facts.key_usage, facts.key_usage_critical) == (None, False)
    with pytest.raises(CertificateUnreadable, match="bytes"):
        read_certificates(leaf.pem.ljust(MAX_CERTIFICATE_BYTES + 1, b"\n"), at_most=1)
    assert Facts.of(authority("example.org", uris=()).certificate).dns_names == ()


def test_what_a_library_says_is_shown_short_and_on_one_line() -> None:
    for error, told in (
        (ValueError("\xe9\n"), r"\xe9\n"),
        (ValueError("x" * 201), "x" * 200),
        (OverflowError(), "OverflowError"),
    ):
        assert brief(error) == told


def test_of_serial_numbers() -> None:
    home = authority("example.org")
    bundles = Bundles([TrustBundle.from_pem("example.org", home.pem)])
    assert validate_x509_svid(home.svid(AGENT, serial=1).pem, b"", bundles, NOW).serial == 1


def test_of_a_compact_jws() -> None:
    token = AGENTS.token()
    assert CompactJws.parse(token, len(token)).claims["sub"] == AGENT
    with pytest.raises(NotCompactJws, match="bytes"):
        CompactJws.parse(token, len(token) - 1)
    assert CompactJws.parse("e30.e30.AAAX", 12).signature == b"\x00\x00\x17"
    for part, name in ((0, "header"), (1, "payload")):
        parts = token.split(".")
        parts[part] = "AAAA"
        with pytest.raises(NotCompactJws, match=f"^has a {name} that is not"):
            CompactJws.parse(".".join(parts), 9_999)


def test_what_no_library_can_verify_is_not_signed() -> None:
    """Whoever allows an algorithm that does not fit the key gets a no."""
    parsed = CompactJws.parse(AGENTS.token(), 9_999)
    assert parsed.is_signed_by(ec_key("example.org").public_key(), "ES256")
    assert parsed.is_signed_by(ec_key("example.org").public_key(), "RS256") is False


def test_of_a_spiffe_id() -> None:
    longest = "spiffe://example.org/" + "a" * (MAX_BYTES - 21)
    assert len(longest) == MAX_BYTES and str(SpiffeId.parse(longest)) == longest
    for text, cut in ((longest + "a", f"'{longest[:64]}...'"), ("x" * 300, "'" + "x" * 199), ("é", r"'\xe9'")):
        with pytest.raises(Unauthenticated) as refused:
            SpiffeId.parse(text)
        assert refused.value.metadata == {"spiffeId": cut}
        assert refused.value.message.startswith(f"{cut} is not")
    for empty in ("spiffe://example.org", "spiffe://example.org/"):
        with pytest.raises(Unauthenticated, match="the path is empty"):
            SpiffeId.parse(empty)


def test_of_a_pattern() -> None:
    values = frozenset(str(number) for number in range(MAX_LISTED))
    assert OneOf(values).accepts("255")
    with pytest.raises(ValueError, match="257 values"):
        OneOf(values | {"256"})
    longest = "spiffe://example.org/ns/{n}/" + "a" * 255 + "/"
    longest += "/".join(["a" * 200] * 8)
    longest += "/" + "a" * (MAX_BYTES - len(longest) - 1)
    pattern = IdPattern.parse(longest)
    assert len(longest) == MAX_BYTES and str(pattern) == longest
    assert pattern.steps[0] == Step("", OneOf(frozenset({"ns"})))
    with pytest.raises(ValueError, match="longer than"):
        IdPattern.parse(longest + "a")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "missing"),
        ("é\n", r"\xe9\n"),
        ("", ""),
        (["é"], r"['\xe9']"),
        (7, "7"),
        ("x" * 201, "x" * 200),
    ],
)
def test_somebody_elses_value_is_shown_short_and_on_one_line(value: object, told: str) -> None:
    assert shown(value) == told


HOME = authority("example.org")
LEAF = HOME.svid(AGENT)


@pytest.mark.parametrize("at", [LEAF.certificate.not_valid_before_utc, LEAF.certificate.not_valid_after_utc])
def test_a_proven_peer_is_remembered_from_its_first_moment_to_its_last(at: datetime) -> None:
    cache, bundles = PeerCache(), Bundles([TrustBundle.from_pem("example.org", HOME.pem)])
    peer = cache.validate(LEAF.pem, b"", bundles, NOW)
    assert cache.validate(LEAF.pem, b"", bundles, at) is peer


def test_the_memory_of_peers_is_full_when_it_is_and_not_before() -> None:
    bundles = Bundles([TrustBundle.from_pem("example.org", HOME.pem)])
    leaf, other = LEAF.pem, HOME.svid(AGENT).pem
    cache = PeerCache(max_bytes=len(leaf) + len(other))
    peer = cache.validate(leaf, b"", bundles, NOW)
    cache.validate(other, b"", bundles, NOW)
    assert cache.validate(leaf, b"", bundles, NOW) is peer
    small = PeerCache(max_bytes=len(leaf) - 1)
    small.validate(leaf, b"", bundles, NOW)
    assert len(small) == 0


def test_a_proven_token_is_remembered_for_as_long_as_it_is_good() -> None:
    bundles = JwtBundles([JwtBundle.from_jwks("example.org", AGENTS.own.bundle())])
    cache = TokenCache(BROKER)
    token = AGENTS.token(nbf=START + 5)
    first = cache.validate(token, bundles, NOW)  # at the edge of what clocks may differ
    assert cache.validate(token, bundles, NOW) is first
    assert cache.validate(token, bundles, NOW + timedelta(seconds=300) - MOMENT) is first
    with pytest.raises(Unauthenticated):
        cache.validate(token, bundles, NOW + timedelta(seconds=300))
    # While the time is doubted, another clock is asked next, again and again.
    assert cache.validate(token, bundles, NOW) is first


def test_the_oldest_token_is_forgotten_first() -> None:
    bundles = JwtBundles([JwtBundle.from_jwks("example.org", AGENTS.own.bundle())])
    cache = TokenCache(BROKER, max_entries=2)
    one, two, three = (AGENTS.token(jti=name) for name in "abc")
    first, second = (cache.validate(token, bundles, NOW) for token in (one, two))
    cache.validate(three, bundles, NOW)
    assert cache.validate(two, bundles, NOW) is second
    assert cache.validate(one, bundles, NOW) is not first
