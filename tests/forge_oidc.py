"""A forger of ID tokens, good and hostile, for every test that needs one.

``PROVIDER.token("anna", AUDIENCE)`` is a good ID token; every further argument is one defect. Nothing here checks
anything: checking is what is under test.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.forge import NOW
from tests.forge_jwt import Key, compact, ec_key, jwk, rsa_key


@cache
def ed_key(name: str = "") -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def ed_jwk(key: ed25519.Ed25519PrivateKey, kid: str) -> dict[str, Any]:
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig"}


@dataclass(frozen=True)
class ForgedProvider:
    """One provider with the keys ``ec``, ``rsa``, ``p384`` and ``ed``; they are the same wherever the name is."""

    url: str
    at: datetime = NOW

    @property
    def keys(self) -> dict[str, tuple[str, Any]]:
        return {
            "rsa": ("RS256", rsa_key(self.url)),
            "ec": ("ES256", ec_key(self.url)),
            "p384": ("ES384", ec_key(self.url, "ES384")),
            "ed": ("EdDSA", ed_key(self.url)),
        }

    def claims(self, subject: str, audience: str, **changes: Any) -> dict[str, Any]:
        """Good claims; ``changes`` replace some (None removes one)."""
        start = int(self.at.timestamp())
        good = {"iss": self.url, "sub": subject, "aud": audience, "iat": start, "exp": start + 300, "auth_time": start}
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

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

    def jwks(self, *kids: str) -> dict[str, Any]:
        """As a provider publishes it; of all keys, or of ``kids`` only."""
        listed = []
        for kid in kids or self.keys:
            key = self.keys[kid][1]
            listed.append(ed_jwk(key, kid) if kid == "ed" else jwk(key, kid, use="sig"))
        return {"keys": listed}

    def document(self, *kids: str) -> bytes:
        return json.dumps(self.jwks(*kids)).encode()
