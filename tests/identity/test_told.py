"""What a refusal tells programs: exactly these details beside its reason, so that nobody has to read its message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from broker.errors import BrokerError, Denied, InvalidInput
from broker.identity.agent import May, Person
from broker.identity.behalf import Wanted, check_within, person_behind
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.id_token import Issuer, claimed_issuer, verify
from broker.identity.jwt_bundle import JwtBundle, JwtBundles
from broker.identity.jwt_svid import JwtSvid, validate_jwt_svid
from broker.identity.oidc_keys import KeySet
from broker.identity.own import canary_agent, refuse_own
from broker.identity.spiffe_id import SpiffeId
from broker.identity.svid import validate_x509_svid
from broker.identity.token_bindings import TokenBindings
from tests import hostile_id_tokens, hostile_jwts
from tests.forge import NOW, authority
from tests.forge import rsa_key as forge_rsa_key
from tests.forge_jwt import ec_key, jwk, rsa_key

IDP = "https://idp.example.org"
CLIENT = "jit-broker"
PEOPLE = hostile_id_tokens.World.of(IDP, "https://other.example.org", CLIENT, "anna", NOW)
BROKER, AGENT = "spiffe://example.org/broker", "spiffe://example.org/agent/one"
AGENTS = hostile_jwts.World.of("example.org", "federated.example", BROKER, AGENT, NOW)
AT = NOW.isoformat()


def later(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def told(ask: Callable[[], object]) -> tuple[str, Mapping[str, str]]:
    """Reason and details; what people read says nothing of a None."""
    with pytest.raises(BrokerError) as refused:
        ask()
    error = refused.value
    assert error.hint and "None" not in f"{error.message} {error.hint} {error.metadata}"
    return error.reason, error.metadata


def person(token: str, nonce: str | None = None, max_age: timedelta | None = None) -> None:
    issuer = Issuer(IDP, groups_claim="groups")
    verify(token, issuer, KeySet.from_jwks(PEOPLE.own.document()), NOW, audience=CLIENT, nonce=nonce, max_age=max_age)


def agent(token: str) -> None:
    validate_jwt_svid(token, JwtBundles([JwtBundle.from_jwks("example.org", AGENTS.own.bundle())]), BROKER, NOW)


TIMES = {"issuedAt": AT, "now": AT}
START, AGE = PEOPLE.now, timedelta(minutes=5)
LOST = {"keyId": "lost", "issuer": IDP}


@pytest.mark.parametrize(
    ("token", "details"),
    [
        (PEOPLE.token(header={"kid": "lost"}), LOST),
        (PEOPLE.token(header={"alg": "RS256"}), {"keyId": "ec", "algorithm": "RS256"}),
        (PEOPLE.token(header={"kid": ""}), {}),
        (PEOPLE.token(key=ec_key("attacker")), {"issuer": IDP}),
        (PEOPLE.token(iss="https://attacker.example"), {"issuer": IDP}),
        (PEOPLE.token(aud="wiki"), {"audience": CLIENT}),
        (PEOPLE.token(azp="wiki"), {"audience": CLIENT}),
        (PEOPLE.token(sub=None), {"claim": "sub"}),
        (PEOPLE.token(iat=None), {"claim": "iat"}),
        (PEOPLE.token(exp=None), {"claim": "exp"}),
        (PEOPLE.token(exp="soon"), {"claim": "exp"}),
        (PEOPLE.token(nonce=5), {"claim": "nonce"}),
        (PEOPLE.token(acr=["phr"]), {"claim": "acr"}),
        (PEOPLE.token(amr="mfa"), {"claim": "amr"}),
        (PEOPLE.token(groups=None), {"claim": "groups"}),
        (PEOPLE.token(groups=["g"] * 257), {"claim": "groups"}),
        (PEOPLE.token(exp=START - 1, iat=START - 9), {**TIMES, "issuedAt": later(-9), "expiresAt": later(-1)}),
        (PEOPLE.token(nbf=START + 60), {**TIMES, "expiresAt": later(300)}),
        (PEOPLE.token(exp=START + 86_401), {**TIMES, "expiresAt": later(86_401)}),
    ],
)
def test_of_an_id_token(token: str, details: Mapping[str, str]) -> None:
    reason, metadata = told(partial(person, token))
    assert (reason.startswith("ID_TOKEN_"), metadata) == (True, details)


@pytest.mark.parametrize(
    ("token", "asked", "details"),
    [
        (PEOPLE.token(nonce="that"), {"nonce": "this"}, {"nonce": "this"}),
        (PEOPLE.token(), {"nonce": "this"}, {"nonce": "this"}),
        (PEOPLE.token(auth_time=None), {"max_age": AGE}, {}),
        (PEOPLE.token(auth_time=START + 6), {"max_age": AGE}, {"authTime": later(6), "now": AT}),
        (PEOPLE.token(auth_time=START - 301), {"max_age": AGE}, {"authTime": later(-301), "now": AT}),
    ],
)
def test_of_a_login_that_is_not_for_this(token: str, asked: dict[str, object], details: Mapping[str, str]) -> None:
    assert told(partial(person, token, **asked))[1] == details


def test_of_another_nonce_what_it_is() -> None:
    """Both texts are the caller's own: it asked with one, and was given the other."""
    for given, shown in ({"nonce": "that"}, "its nonce is that"), ({}, "its nonce is missing"):
        with pytest.raises(BrokerError, match=shown):
            person(PEOPLE.token(**given), nonce="this")


def test_of_a_token_that_is_from_nobody() -> None:
    assert told(lambda: claimed_issuer(PEOPLE.token(iss=None))) == ("ID_TOKEN_CLAIM_INVALID", {"claim": "iss"})


@pytest.mark.parametrize(
    ("token", "reason", "details"),
    [
        (AGENTS.token(sub=None), "JWT_SVID_CLAIM_INVALID", {"claim": "sub"}),
        (AGENTS.sub("spiffe://x.org/a"), "SVID_TRUST_DOMAIN_UNKNOWN", {"trustDomain": "x.org"}),
        (
            AGENTS.token(header={"kid": "lost"}),
            "JWT_SVID_KEY_UNKNOWN",
            {"keyId": "lost", "trustDomain": "example.org"},
        ),
        (AGENTS.token(header={"kid": ""}), "JWT_SVID_KEY_UNKNOWN", {}),
        (
            AGENTS.token(header={"kid": "k" * 81}),
            "JWT_SVID_KEY_UNKNOWN",
            {"keyId": "k" * 80, "trustDomain": "example.org"},
        ),
        (AGENTS.token(header={"alg": "RS256"}), "JWT_SVID_ALGORITHM", {"keyId": "ec", "algorithm": "RS256"}),
        (AGENTS.token(key=ec_key("attacker")), "JWT_SVID_SIGNATURE", {"keyId": "ec"}),
        (AGENTS.token(aud="wiki"), "JWT_SVID_AUDIENCE", {"audience": BROKER}),
        (AGENTS.token(exp=None), "JWT_SVID_CLAIM_INVALID", {"claim": "exp"}),
        (AGENTS.token(iat="now"), "JWT_SVID_CLAIM_INVALID", {"claim": "iat"}),
        (AGENTS.token(nbf=7), "JWT_SVID_CLAIM_INVALID", {"claim": "nbf"}),
        (AGENTS.token(iat=START - 9, exp=START - 1), "JWT_SVID_EXPIRED", {"notAfter": later(-1), "now": AT}),
        (AGENTS.token(exp=START + 301), "JWT_SVID_LIFE_TOO_LONG", {"notAfter": later(301), "now": AT}),
        (AGENTS.token(nbf=START + 6), "JWT_SVID_NOT_YET_VALID", {"notBefore": later(6), "now": AT}),
        # Both within what clocks may differ.
        (AGENTS.token(nbf=START + 4, exp=START + 3), "JWT_SVID_CLAIM_INVALID", {"claim": "exp"}),
        (AGENTS.token(nbf=START + 4, exp=START + 4), "JWT_SVID_CLAIM_INVALID", {"claim": "exp"}),
    ],
)
def test_of_a_jwt_svid(token: str, reason: str, details: Mapping[str, str]) -> None:
    assert told(partial(agent, token)) == (reason, details)


def test_of_a_key_with_a_long_name_its_beginning() -> None:
    bundle = JwtBundle.from_jwks("example.org", json.dumps({"keys": [jwk(ec_key("x"), "k" * 81)]}).encode())
    token = AGENTS.token(header={"kid": "k" * 81})
    refused = told(lambda: validate_jwt_svid(token, JwtBundles([bundle]), BROKER, NOW))
    assert refused == ("JWT_SVID_SIGNATURE", {"keyId": "k" * 80})


def test_of_a_jwt_svid_what_it_says_it_is() -> None:
    for header, shown in (
        ({"alg": None}, "alg is missing"),
        ({"alg": 7}, "alg is 7"),
        ({"alg": "n" * 200}, "alg is '" + "n" * 79 + r"\."),
        ({"typ": ["JWT"]}, r"typ is \['JWT'\]"),
    ):
        with pytest.raises(BrokerError, match=shown):
            agent(AGENTS.token(header=header))


def test_of_a_certificate() -> None:
    home = authority("example.org")
    bundles = Bundles([TrustBundle.from_pem("example.org", home.pem)])

    def judged(leaf: bytes, beside: bytes = b"") -> tuple[str, Mapping[str, str]]:
        return told(lambda: validate_x509_svid(leaf, beside, bundles, NOW))

    expired = home.svid(AGENT, begins=timedelta(hours=-2), ends=timedelta(hours=-1))
    of_it = {"fingerprint": _fingerprint(expired.der)}
    assert judged(expired.pem) == ("SVID_EXPIRED", {**of_it, "notAfter": later(-3600), "now": AT})
    early = home.svid(AGENT, begins=timedelta(seconds=1))
    of_it = {"fingerprint": _fingerprint(early.der)}
    assert judged(early.pem) == ("SVID_NOT_YET_VALID", {**of_it, "notBefore": later(1), "now": AT})
    two = home.svid(AGENT, f"{AGENT}/two")
    assert judged(two.pem) == ("SVID_URI_COUNT", {"fingerprint": _fingerprint(two.der), "uriCount": "2"})
    stranger = authority("example.org").svid(AGENT)
    assert judged(stranger.pem) == ("SVID_CHAIN_INVALID", {"trustDomain": "example.org"})
    leaf = home.svid(AGENT)
    assert judged(leaf.pem, leaf.pem) == (
        "SVID_CHAIN_INVALID",
        {"trustDomain": "example.org", "fingerprint": _fingerprint(leaf.der)},
    )
    for key, told_of_it in (
        (forge_rsa_key(1024), "RSA with 1024 bits"),
        (ec.generate_private_key(ec.SECP256K1()), "on the curve secp256k1"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ):
        weak = home.svid(AGENT, key=key)
        assert judged(weak.pem) == ("SVID_KEY_WEAK", {"fingerprint": _fingerprint(weak.der), "key": told_of_it})
    elsewhere = home.svid("spiffe://elsewhere.org/a")
    assert judged(elsewhere.pem) == ("SVID_TRUST_DOMAIN_UNKNOWN", {"trustDomain": "elsewhere.org"})


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def test_of_a_bundle() -> None:
    home, one = authority("example.org"), jwk(ec_key("x"), "one")
    bundle = TrustBundle.from_pem("example.org", home.pem)
    jwks = JwtBundle.from_jwks("example.org", json.dumps({"keys": [one]}).encode())
    shared = TrustBundle.from_pem("partner.org", authority("partner.org", uris=(), key=home.key).pem)
    also = JwtBundle.from_jwks("partner.org", json.dumps({"keys": [one]}).encode())
    asked: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: TrustBundle("Example.org", []), "Example.org"),
        (lambda: TrustBundle("example.org", []), "example.org"),
        (lambda: Bundles([bundle, bundle]), "example.org"),
        (lambda: Bundles([bundle, shared]), "partner.org"),
        (lambda: JwtBundle("Example.org", []), "Example.org"),
        (lambda: JwtBundle("example.org", []), "example.org"),
        (lambda: JwtBundle("example.org", [*jwks.keys.values()] * 2), "example.org"),
        (lambda: JwtBundle.from_jwks("example.org", b"[]"), "example.org"),
        (lambda: JwtBundle.from_jwks("example.org", b"{}"), "example.org"),
        (lambda: JwtBundle.from_jwks("example.org", json.dumps({"keys": [{**one, "x": 5}]}).encode()), "example.org"),
        (lambda: JwtBundles([jwks, jwks]), "example.org"),
        (lambda: JwtBundles([jwks, also]), "partner.org"),
        # What is no name is shown as text that can stand in a log line, cut where names end.
        (lambda: TrustBundle("é\n" + "x" * 300, []), r"\xe9\n" + "x" * 249),
        (lambda: JwtBundle("é\n" + "x" * 300, []), r"\xe9\n" + "x" * 249),
    )
    for ask, named in asked:
        assert told(ask) == ("CONFIG_INVALID", {"trustDomain": named})


def test_of_a_root_whose_it_is() -> None:
    for root, shown in ((authority("partner.org"), "partner.org"), (authority("example.org", ca=False), "no CA")):
        with pytest.raises(InvalidInput) as refused:
            TrustBundle.from_pem("example.org", root.pem)
        assert f"sha256 {_fingerprint(root.der)[:16]}..." in refused.value.message
        assert shown in refused.value.message


def test_of_a_key_which_it_is() -> None:
    for changes, shown in (
        ({"kid": "weak", **_weak()}, "1024 bits ('weak')"),
        ({"kid": "k" * 200, "x": 5}, "('" + "k" * 79 + ")"),
    ):
        document = json.dumps({"keys": [{**jwk(ec_key("x"), "one"), **changes}]}).encode()
        with pytest.raises(InvalidInput) as refused:
            JwtBundle.from_jwks("example.org", document)
        assert shown in refused.value.message


def _weak() -> dict[str, object]:
    return {name: value for name, value in jwk(rsa_key("weak", 1024), "weak").items() if name in ("kty", "n", "e")}


def test_of_whom_an_agent_may_not_act_for() -> None:
    ada = Person(IDP, "ada", "Ada", may=May(frozenset({"write", "read"}), frozenset({"dev"})))
    details = {"person": f"{IDP}#ada", "template": "orders", "environment": "dev", "access": "admin"}
    wanted = Wanted("orders", "dev", "admin")
    refused = told(partial(check_within, ada, wanted))
    assert refused == ("ON_BEHALF_OF_EXCEEDED", {**details, "allowed": "read,write"})
    assert told(partial(check_within, replace(ada, may=None), wanted))[1] == {**details, "allowed": ""}


def test_of_whom_an_agent_does_not_know() -> None:
    for subject, shown in (("é\n", r"\xe9\n"), ("s" * 300, "s" * (200 - len(IDP) - 1))):
        reason, details = told(partial(person_behind, IDP, subject, {}, NOW))
        assert (reason, details) == ("ON_BEHALF_OF_NOBODY", {"person": f"{IDP}#{shown}"})


def test_of_tokens_in_use_how_many_there_may_be() -> None:
    for bindings in (TokenBindings(max_tokens=1), TokenBindings(max_tokens_of_one=1)):
        proxy, one = SpiffeId("example.org", "/proxy"), SpiffeId("example.org", "/one")
        bindings.bind(JwtSvid(one, NOW, NOW + AGE, "a", "key"), proxy, NOW)
        second = JwtSvid(one, NOW, NOW + AGE, "b", "key")
        assert told(partial(bindings.bind, second, proxy, NOW)) == ("TOO_MANY_PROXIED_TOKENS", {"limit": "1"})


def test_of_who_comes_as_the_broker_itself() -> None:
    own = canary_agent("example.org").spiffe_id
    assert told(lambda: refuse_own(own)) == ("AGENT_NOT_REGISTERED", {"spiffeId": str(own)})
    refuse_own(SpiffeId("example.org", "/agent/one"))
    with pytest.raises(Denied):
        refuse_own(SpiffeId("partner.org", own.path))
