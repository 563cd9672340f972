"""A forger of JWT-SVIDs, good and hostile, for every test that needs one.

``token_authority("example.org").token("spiffe://example.org/agent/one", "audience")`` is a good JWT-SVID; every
further argument is one defect. Nothing here checks anything: checking is what is under test.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.forge import NOW

CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_COORDINATE_BYTES = {"ES256": 32, "ES384": 48, "ES512": 66}
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes


@cache
def rsa_key(name: str = "", bits: int = 2048) -> rsa.RSAPrivateKey:
    """Made once per test process: it takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str = "", curve: str = "ES256") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(CURVES[curve])


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(signed: str, algorithm: str, key: Key) -> str:
    """The signature part, by PyJWT; ``none`` is an empty one."""
    if algorithm == "none":
        return ""
    made = jwt.PyJWS().get_algorithm_by_name(algorithm)
    return b64(
        made.sign(signed.encode(), key if isinstance(made, jwt.algorithms.HMACAlgorithm) else made.prepare_key(key))
    )


def compact(header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes, algorithm: str, key: Key) -> str:
    """A compact JWS of exactly this; bytes stand as they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = ".".join(map(b64, parts))
    return f"{signed}.{sign(signed, algorithm, key)}"


@dataclass(frozen=True)
class TokenAuthority:
    """One trust domain's JWT authority: key ``ec`` on P-256, ``rsa``, ``p384`` and ``p521``."""

    trust_domain: str
    at: datetime = NOW

    @property
    def keys(self) -> dict[str, tuple[str, Any]]:
        name = self.trust_domain
        return {
            "ec": ("ES256", ec_key(name)),
            "rsa": ("RS256", rsa_key(name)),
            "p384": ("ES384", ec_key(name, "ES384")),
            "p521": ("ES512", ec_key(name, "ES512")),
        }

    def claims(self, subject: str, audience: str, **changes: Any) -> dict[str, Any]:
        """Good claims; ``changes`` replace some (None removes one)."""
        start = int(self.at.timestamp())
        claims = {"sub": subject, "aud": [audience], "iat": start, "exp": start + 300, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        subject: str,
        audience: str,
        *,
        kid: str = "ec",
        algorithm: str = "",
        key: Key | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token signed by the key ``kid``; ``header`` adds to, or (None) takes from, a good header."""
        usual, own = self.keys[kid]
        algorithm = algorithm or usual
        members = {"alg": algorithm, "kid": kid, "typ": "JWT", **(header or {})}
        members = {name: value for name, value in members.items() if value is not None}
        return compact(members, self.claims(subject, audience, **claims), algorithm, own if key is None else key)

    def jwks(self) -> dict[str, Any]:
        """Its SPIFFE bundle, with an X.509 root that is not ours to read."""
        keys = [jwk(key, kid) for kid, (_, key) in self.keys.items()]
        return {"keys": [*keys, {"use": "x509-svid", "kty": "EC", "x5c": ["AA=="]}], "spiffe_sequence": 1}

    def bundle(self) -> bytes:
        return json.dumps(self.jwks()).encode()


def jwk(key: Any, kid: str | None, **changes: Any) -> dict[str, Any]:
    """The public half of ``key`` as a SPIFFE bundle has it; ``changes`` replace members (None removes one)."""
    public = key.public_key()
    made = jwt.algorithms.RSAAlgorithm if isinstance(public, rsa.RSAPublicKey) else jwt.algorithms.ECAlgorithm
    members = {**made.to_jwk(public, as_dict=True), "kid": kid, "use": "jwt-svid", **changes}
    members.pop("key_ops", None)
    return {name: value for name, value in members.items() if value is not None}


def other_signature(token: str, algorithm: str = "ES256") -> str:
    """The same ECDSA token with the signature's other spelling, (r, n - s): made without any key."""
    order = {"ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551}[algorithm]
    signed, _, signature = token.rpartition(".")
    data, half = base64.urlsafe_b64decode(signature + "=="), _COORDINATE_BYTES[algorithm]
    s = order - int.from_bytes(data[half:], "big")
    return f"{signed}.{b64(data[:half] + s.to_bytes(half, 'big'))}"


def token_authority(trust_domain: str, *, at: datetime = NOW) -> TokenAuthority:
    """The JWT authority of ``trust_domain``; its keys are the same wherever the name is."""
    return TokenAuthority(trust_domain, at)
