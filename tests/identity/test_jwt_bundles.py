"""JWT bundles: what may sign for a trust domain, and what is refused when it is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

from broker.errors import InvalidInput
from broker.identity.jwt_bundle import JwtBundle, JwtBundles
from tests.forge_jwt import ec_key, jwk, rsa_key, token_authority

DOMAIN = "example.org"


def document(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


GOOD = jwk(ec_key(DOMAIN), "one")


def test_a_spiffe_bundle_gives_its_jwt_keys_only() -> None:
    bundle = JwtBundle.from_jwks(DOMAIN, token_authority(DOMAIN).bundle())
    assert set(bundle.keys) == {"ec", "rsa", "p384", "p521"}
    assert bundle.keys["p384"].algorithms == {"ES384"}
    assert bundle.keys["rsa"].algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def test_a_key_that_names_its_algorithm_has_only_that_one() -> None:
    bundle = JwtBundle.from_jwks(DOMAIN, document(jwk(rsa_key(DOMAIN), "one", alg="PS256")))
    assert bundle.keys["one"].algorithms == {"PS256"}


def test_the_workload_api_does_not_mark_its_keys() -> None:
    unmarked = document(jwk(ec_key(DOMAIN), "one", use=None))
    assert set(JwtBundle.from_jwks(DOMAIN, unmarked, workload_api=True).keys) == {"one"}
    with pytest.raises(InvalidInput, match="no key"):
        JwtBundle.from_jwks(DOMAIN, unmarked)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"[]", "object"),
        (b'{"keys":[],"keys":[]}', "twice"),
        (b"{}", "no list"),
        (b'{"keys":{}}', "no list"),
        (b'{"keys":["x"]}', "no list"),
        (b'{"keys":[]}', "no key"),
        (document(jwk(ec_key(DOMAIN), "one", use="x509-svid")), "no key"),
        (document(jwk(ec_key(DOMAIN), "one", use="sig")), "no key"),
        (document(jwk(ec_key(DOMAIN), None)), "without a key id"),
        (document(jwk(ec_key(DOMAIN), "")), "without a key id"),
        (document(jwk(ec_key(DOMAIN), "k" * 257)), "without a key id"),
        (document(GOOD, {**jwk(rsa_key(DOMAIN), "one")}), "twice"),
        (document({**GOOD, "d": "AAAA"}), "private"),
        (document({"kty": "oct", "k": "AAAA", "kid": "one", "use": "jwt-svid"}), "symmetric"),
        (document({"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "one", "use": "jwt-svid"}), "neither"),
        (document({"kid": "one", "use": "jwt-svid"}), "cannot be read"),
        (document({**GOOD, "x": "AAAA"}), "cannot be read"),
        (document({**GOOD, "x": 5}), "cannot be read"),
        (document({**GOOD, "x": GOOD["y"]}), "cannot be read"),  # not a point of the curve
        (document({**GOOD, "crv": "P-384"}), "cannot be read"),
        (document({**GOOD, "crv": ["P-256"]}), "cannot be read"),
        (document({**GOOD, "alg": "RS256"}), "does not fit"),
        (document({**GOOD, "alg": "none"}), "does not fit"),
        (document({**GOOD, "alg": ["ES256"]}), "does not fit"),
        (
            document(
                {
                    **ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True),
                    "kid": "one",
                    "use": "jwt-svid",
                }
            ),
            "neither",
        ),
        (document(jwk(rsa_key("weak", 1024), "one")), "1024 bits"),
        (document(jwk(rsa.generate_private_key(public_exponent=3, key_size=2048), "one")), "exponent"),
        (document(*({**GOOD, "kid": str(n)} for n in range(65))), "at most 64"),
    ],
)
def test_what_is_no_bundle_is_refused_whole(data: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        JwtBundle.from_jwks(DOMAIN, data)
    assert refused.value.reason == "CONFIG_INVALID"
    assert GOOD["x"] not in str(refused.value)


def test_one_bad_key_beside_a_good_one_refuses_the_bundle() -> None:
    with pytest.raises(InvalidInput):
        JwtBundle.from_jwks(DOMAIN, document(GOOD, jwk(rsa_key("weak", 1024), "two")))


def test_there_is_always_a_bundle_and_never_two_that_could_stand_for_each_other() -> None:
    one = JwtBundle.from_jwks(DOMAIN, document(GOOD))
    with pytest.raises(InvalidInput, match="no JWT bundle"):
        JwtBundles([])
    with pytest.raises(InvalidInput, match="given twice"):
        JwtBundles([one, one])
    with pytest.raises(InvalidInput, match="shares a key"):
        JwtBundles([one, JwtBundle.from_jwks("other.example", document({**GOOD, "kid": "another name"}))])
    with pytest.raises(InvalidInput, match="not the name"):
        JwtBundle.from_jwks("Example.org", document(GOOD))


def test_the_version_is_of_the_keys_and_their_names() -> None:
    def version(*keys: dict[str, Any]) -> str:
        return JwtBundles([JwtBundle.from_jwks(DOMAIN, document(*keys))]).version

    other = jwk(ec_key("other"), "two")
    assert version(GOOD, other) == version(other, GOOD)
    assert version(GOOD) != version(GOOD, other)
    assert version(GOOD) != version({**GOOD, "kid": "two"})
