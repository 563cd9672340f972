"""The corpus of hostile JWT-SVIDs, each with the reason that must stop it, and twins that pass.

Run twice: against the pure function (tests/identity/test_jwt_svid.py) and through the proxies' real door
(tests/api/test_proxied_hostile.py). Every case differs from a good token in what its name says.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.forge_jwt import TokenAuthority, b64, compact, ec_key, jwk, other_signature, rsa_key, sign, token_authority


@dataclass(frozen=True)
class World:
    """Two trust domains with JWT authorities, the broker's audience, and an agent of the first."""

    own: TokenAuthority
    federated: TokenAuthority
    audience: str
    agent: str

    @classmethod
    def of(cls, own: str, federated: str, audience: str, agent: str, at: datetime) -> World:
        return cls(token_authority(own, at=at), token_authority(federated, at=at), audience, agent)

    def token(self, **defects: object) -> str:
        return self.own.token(self.agent, self.audience, **defects)  # type: ignore[arg-type]

    def sub(self, sub: object) -> str:
        return self.own.token(self.agent, self.audience, sub=sub)

    @property
    def now(self) -> int:
        return int(self.own.at.timestamp())

    def raw(self, header: bytes | None = None, payload: bytes | None = None) -> str:
        """Signed by the right key, but with these bytes for header or payload."""
        good = {"alg": "ES256", "kid": "ec", "typ": "JWT"}
        return compact(
            good if header is None else header,
            self.own.claims(self.agent, self.audience) if payload is None else payload,
            "ES256",
            ec_key(self.own.trust_domain),
        )

    def parts(self) -> tuple[str, str, str]:
        header, payload, signature = self.token().split(".")
        return header, payload, signature


Make = Callable[[World], str]


@dataclass(frozen=True)
class Hostile:
    """One token that must not pass."""

    name: str
    reason: str
    make: Make


@dataclass(frozen=True)
class Twin:
    """One token that must pass: it differs from a hostile one in one thing."""

    name: str
    make: Make


MALFORMED, HEADER, ALGORITHM = "JWT_SVID_MALFORMED", "JWT_SVID_HEADER", "JWT_SVID_ALGORITHM"
KEY, SIGNATURE, CLAIM = "JWT_SVID_KEY_UNKNOWN", "JWT_SVID_SIGNATURE", "JWT_SVID_CLAIM_INVALID"
AUDIENCE, EXPIRED, LONG = "JWT_SVID_AUDIENCE", "JWT_SVID_EXPIRED", "JWT_SVID_LIFE_TOO_LONG"
EARLY, ID, DOMAIN = "JWT_SVID_NOT_YET_VALID", "SVID_ID_NOT_CANONICAL", "SVID_TRUST_DOMAIN_UNKNOWN"


def _padded(part: str) -> str:
    return part + "=" * (-len(part) % 4 or 4)


def _loose_bits(world: World) -> str:
    """The last character of the signature with an unused bit set: decodes to the same bytes."""
    header, payload, signature = world.parts()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(signature) % 4 == 2
    return f"{header}.{payload}.{signature[:-1]}{alphabet[alphabet.index(signature[-1]) | 1]}"


def _hmac_with_public_key(world: World) -> str:
    """RFC 8725, 2.1: the public key as the HMAC's secret."""
    pem = rsa_key(world.own.trust_domain).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": "rsa", "typ": "JWT"}
    signed = ".".join(
        b64(json.dumps(part).encode()) for part in (header, world.own.claims(world.agent, world.audience))
    )
    return f"{signed}.{b64(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def _changed_payload(world: World) -> str:
    header, _, signature = world.parts()
    payload = b64(json.dumps(world.own.claims(f"{world.agent}/admin", world.audience)).encode())
    return f"{header}.{payload}.{signature}"


def _flipped(world: World, part: int) -> str:
    parts = list(world.parts())
    data = bytearray(base64.urlsafe_b64decode(_padded(parts[part])))
    data[10] ^= 1
    parts[part] = b64(bytes(data))
    return ".".join(parts)


def _der_signature(world: World) -> str:
    """ECDSA's X.509 encoding, where JWS wants r and s side by side (RFC 7518, 3.4)."""
    header, payload, signature = world.parts()
    data = base64.urlsafe_b64decode(_padded(signature))
    der = encode_dss_signature(int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big"))
    return f"{header}.{payload}.{b64(der)}"


def _eddsa(world: World) -> str:
    return world.token(algorithm="EdDSA", key=ed25519.Ed25519PrivateKey.generate())


def _secp256k1(world: World) -> str:
    return world.token(algorithm="ES256K", key=ec.generate_private_key(ec.SECP256K1()))


def _thumbprints(_world: World) -> dict[str, object]:
    return {"x5t": "AAAA", "x5t#S256": "AAAA"}


def _own_key(world: World, **header: object) -> str:
    """Signed by the attacker's key, which the header brings along."""
    return world.token(key=ec_key("attacker"), header=header)


def _json_serialised(world: World) -> str:
    header, payload, signature = world.parts()
    return json.dumps({"payload": payload, "protected": header, "signature": signature})


HOSTILE: tuple[Hostile, ...] = (
    # --- form
    Hostile("two parts", MALFORMED, lambda w: w.token().rpartition(".")[0]),
    Hostile("four parts", MALFORMED, lambda w: w.token() + ".AA"),
    Hostile("five parts, as a JWE has", MALFORMED, lambda w: ".".join([*w.parts(), "AA", "AA"])),
    Hostile("a final dot", MALFORMED, lambda w: w.token() + "."),
    Hostile("only dots", MALFORMED, lambda _: ".."),
    Hostile("8 KiB of dots", MALFORMED, lambda _: "." * 8192),
    Hostile("no token at all, but text", MALFORMED, lambda _: "hello"),
    Hostile("JWS JSON serialisation", MALFORMED, _json_serialised),
    Hostile("empty signature", MALFORMED, lambda w: ".".join([*w.parts()[:2], ""])),
    Hostile("detached payload", MALFORMED, lambda w: f"{w.parts()[0]}..{w.parts()[2]}"),
    Hostile("padding", MALFORMED, lambda w: f"{'.'.join(w.parts()[:2])}.{_padded(w.parts()[2])}"),
    Hostile("standard base64 alphabet", MALFORMED, lambda w: f"+/{w.token()}"),
    Hostile("space inside", MALFORMED, lambda w: w.token().replace(".", ". ", 1)),
    Hostile("unused bits set in the signature", MALFORMED, _loose_bits),
    Hostile("a length base64 does not have", MALFORMED, lambda w: ".".join([*w.parts()[:2], "AAAAA"])),
    Hostile("longer than 8 KiB", MALFORMED, lambda w: w.token(filler="x" * 7000)),
    Hostile("header is no JSON", MALFORMED, lambda w: w.raw(header=b"alg=ES256")),
    Hostile("header is a list", MALFORMED, lambda w: w.raw(header=b'["ES256"]')),
    Hostile("header is not UTF-8", MALFORMED, lambda w: w.raw(header=b'{"alg":"ES256","kid":"\xff"}')),
    Hostile("header with two alg", MALFORMED, lambda w: w.raw(header=b'{"alg":"none","alg":"ES256","kid":"ec"}')),
    Hostile("payload is no JSON", MALFORMED, lambda w: w.raw(payload=b"sub=root")),
    Hostile("payload is null", MALFORMED, lambda w: w.raw(payload=b"null")),
    Hostile("payload nested too deep", MALFORMED, lambda w: w.raw(payload=b"[" * 5000)),
    Hostile(
        "payload with two sub",
        MALFORMED,
        lambda w: w.raw(
            payload=f'{{"sub":"{w.agent}/x","sub":"{w.agent}","aud":"{w.audience}","exp":{w.now + 60}}}'.encode()
        ),
    ),
    Hostile(
        "payload with two exp, one nested deeper",
        MALFORMED,
        lambda w: w.raw(
            payload=f'{{"sub":"{w.agent}","aud":"{w.audience}","exp":{w.now + 60},"x":{{"a":1,"a":2}}}}'.encode()
        ),
    ),
    Hostile(
        "exp is NaN",
        MALFORMED,
        lambda w: w.raw(payload=f'{{"sub":"{w.agent}","aud":"{w.audience}","exp":NaN}}'.encode()),
    ),
    Hostile("byte order mark", MALFORMED, lambda w: w.raw(payload=b"\xef\xbb\xbf{}")),
    # --- header
    Hostile("crit", HEADER, lambda w: w.token(header={"crit": ["exp"]})),
    Hostile("crit with b64", HEADER, lambda w: w.token(header={"crit": ["b64"], "b64": False})),
    Hostile("jwk with the attacker's key", HEADER, lambda w: _own_key(w, jwk=jwk(ec_key("attacker"), "ec"))),
    Hostile("jku", HEADER, lambda w: _own_key(w, jku="https://attacker.example/jwks.json")),
    Hostile("x5u", HEADER, lambda w: _own_key(w, x5u="https://attacker.example/chain.pem")),
    Hostile("x5c", HEADER, lambda w: _own_key(w, x5c=["MIIB"])),
    Hostile("certificate thumbprints", HEADER, lambda w: w.token(header=_thumbprints(w))),
    Hostile("cty JWT, nested", HEADER, lambda w: w.token(header={"cty": "JWT"})),
    Hostile("zip", HEADER, lambda w: w.token(header={"zip": "DEF"})),
    Hostile("a private header", HEADER, lambda w: w.token(header={"x-admin": True})),
    Hostile("typ of an access token", HEADER, lambda w: w.token(header={"typ": "at+jwt"})),
    Hostile("typ of a WIT-SVID", HEADER, lambda w: w.token(header={"typ": "wit+jwt"})),
    Hostile("typ in lower case", HEADER, lambda w: w.token(header={"typ": "jwt"})),
    Hostile("typ is a list", HEADER, lambda w: w.token(header={"typ": ["JWT"]})),
    # --- algorithm
    Hostile("alg none", ALGORITHM, lambda w: w.token(header={"alg": "none"}).rpartition(".")[0] + ".AA"),
    Hostile("alg nOnE", ALGORITHM, lambda w: w.token(header={"alg": "nOnE"})),
    Hostile("alg HS256 keyed with the public key", ALGORITHM, _hmac_with_public_key),
    Hostile("alg HS512", ALGORITHM, lambda w: w.token(algorithm="HS512", key=b"k" * 64)),
    Hostile("alg EdDSA", ALGORITHM, _eddsa),
    Hostile(
        "alg ES256K", ALGORITHM, lambda w: w.token(algorithm="ES256K", key=ec.generate_private_key(ec.SECP256K1()))
    ),
    Hostile("alg missing", ALGORITHM, lambda w: w.token(header={"alg": None})),
    Hostile("alg is a list", ALGORITHM, lambda w: w.token(header={"alg": ["ES256"]})),
    Hostile("alg is null", ALGORITHM, lambda w: w.raw(header=b'{"alg":null,"kid":"ec"}')),
    Hostile("alg in lower case", ALGORITHM, lambda w: w.token(header={"alg": "es256"})),
    Hostile("alg with a space", ALGORITHM, lambda w: w.token(header={"alg": "ES256 "})),
    Hostile("RS256 with an EC key's kid", ALGORITHM, lambda w: w.token(header={"alg": "RS256"})),
    Hostile("ES256 with an RSA key's kid", ALGORITHM, lambda w: w.token(kid="rsa", header={"alg": "ES256"})),
    Hostile("ES384 with a P-256 key's kid", ALGORITHM, lambda w: w.token(header={"alg": "ES384"})),
    Hostile("ES256 with a P-521 key's kid", ALGORITHM, lambda w: w.token(kid="p521", header={"alg": "ES256"})),
    # --- key
    Hostile("kid missing", KEY, lambda w: w.token(header={"kid": None})),
    Hostile("kid empty", KEY, lambda w: w.token(header={"kid": ""})),
    Hostile("kid is a number", KEY, lambda w: w.token(header={"kid": 0})),
    Hostile("kid in other case", KEY, lambda w: w.token(header={"kid": "EC"})),
    Hostile("kid is a path", KEY, lambda w: w.token(header={"kid": "../../dev/null"})),
    Hostile("kid is SQL", KEY, lambda w: w.token(header={"kid": "x' UNION SELECT 'key"})),
    Hostile("kid very long", KEY, lambda w: w.token(header={"kid": "e" * 2000})),
    Hostile("kid of a key nobody has", KEY, lambda w: w.token(header={"kid": "rotated-away"}, key=ec_key("old"))),
    Hostile(
        "sub of another trust domain whose bundle has no such key",
        DOMAIN,
        lambda w: w.sub("spiffe://no-bundle.example/agent/one"),
    ),
    Hostile("sub of a child of the trust domain", DOMAIN, lambda w: w.sub(f"spiffe://x.{w.own.trust_domain}/agent")),
    # --- signature
    Hostile(
        "own domain's id, signed by the federated authority",
        SIGNATURE,
        lambda w: w.federated.token(w.agent, w.audience),
    ),
    Hostile(
        "federated id, by our authority",
        SIGNATURE,
        lambda w: w.sub(f"spiffe://{w.federated.trust_domain}/agent/one"),
    ),
    Hostile("attacker's key under a known kid", SIGNATURE, lambda w: w.token(key=ec_key("attacker"))),
    Hostile("payload exchanged", SIGNATURE, _changed_payload),
    Hostile("one bit of the signature flipped", SIGNATURE, lambda w: _flipped(w, 2)),
    Hostile("signature of zeros (CVE-2022-21449)", SIGNATURE, lambda w: ".".join([*w.parts()[:2], b64(bytes(64))])),
    Hostile("signature too short", SIGNATURE, lambda w: ".".join([*w.parts()[:2], b64(bytes(63))])),
    Hostile("signature in DER", SIGNATURE, _der_signature),
    Hostile("signature of another token", SIGNATURE, lambda w: ".".join([*w.parts()[:2], w.token(x=1).split(".")[2]])),
    Hostile("RS256 signed by another RSA key", SIGNATURE, lambda w: w.token(kid="rsa", key=rsa_key("attacker"))),
    Hostile(
        "PS256 header over a PKCS #1 v1.5 signature",
        SIGNATURE,
        lambda w: w.token(kid="rsa", header={"alg": "PS256"}),
    ),
    # --- sub
    Hostile("sub missing", CLAIM, lambda w: w.token(sub=None)),
    Hostile("sub is a list", CLAIM, lambda w: w.sub([w.agent])),
    Hostile("sub is a number", CLAIM, lambda w: w.sub(1)),
    Hostile("sub empty", ID, lambda w: w.sub("")),
    Hostile("sub is the trust domain itself", ID, lambda w: w.sub(f"spiffe://{w.own.trust_domain}")),
    Hostile("sub with a final slash", ID, lambda w: w.sub(f"{w.agent}/")),
    Hostile("sub with a dotted segment", ID, lambda w: w.sub(f"spiffe://{w.own.trust_domain}/agent/../broker")),
    Hostile("sub with an empty segment", ID, lambda w: w.sub(w.agent.replace("/agent", "//agent"))),
    Hostile(
        "sub with an upper-case trust domain", ID, lambda w: w.sub(f"spiffe://{w.own.trust_domain.upper()}/agent/a")
    ),
    Hostile("sub with an upper-case scheme", ID, lambda w: w.sub(w.agent.replace("spiffe", "SPIFFE"))),
    Hostile("sub percent-encoded", ID, lambda w: w.sub(w.agent.replace("/agent", "/%61gent"))),
    Hostile("sub with a query", ID, lambda w: w.sub(f"{w.agent}?admin=1")),
    Hostile("sub with a fragment", ID, lambda w: w.sub(f"{w.agent}#x")),
    Hostile("sub with user info", ID, lambda w: w.sub(w.agent.replace("://", "://root@"))),
    Hostile("sub with a port", ID, lambda w: w.sub(f"spiffe://{w.own.trust_domain}:443/agent/a")),
    Hostile("sub with a zero byte", ID, lambda w: w.sub(f"{w.agent}\x00")),
    Hostile("sub with a Cyrillic letter", ID, lambda w: w.sub(w.agent.replace("a", "\u0430"))),
    Hostile("sub with a newline at the end", ID, lambda w: w.sub(f"{w.agent}\n")),
    Hostile("sub of another scheme", ID, lambda w: w.sub("https://issuer.example/agent")),
    Hostile("sub longer than 2048 bytes", ID, lambda w: w.sub(w.agent + "/a" * 1024)),
    Hostile("sub with a lone surrogate", ID, lambda w: w.sub(f"{w.agent}\ud800")),
    # --- aud
    Hostile("aud missing", AUDIENCE, lambda w: w.token(aud=None)),
    Hostile(
        "aud null", AUDIENCE, lambda w: w.raw(payload=f'{{"sub":"{w.agent}","aud":null,"exp":{w.now + 9}}}'.encode())
    ),
    Hostile("aud empty text", AUDIENCE, lambda w: w.token(aud="")),
    Hostile("aud empty list", AUDIENCE, lambda w: w.token(aud=[])),
    Hostile("aud of somebody else", AUDIENCE, lambda w: w.token(aud=["spiffe://elsewhere.example/vault"])),
    Hostile("aud of us and somebody else", AUDIENCE, lambda w: w.token(aud=[w.audience, "vault"])),
    Hostile("aud of us twice", AUDIENCE, lambda w: w.token(aud=[w.audience, w.audience])),
    Hostile("aud begins like ours", AUDIENCE, lambda w: w.token(aud=[f"{w.audience}-staging"])),
    Hostile("aud with a space", AUDIENCE, lambda w: w.token(aud=[f"{w.audience} "])),
    Hostile("aud in other case", AUDIENCE, lambda w: w.token(aud=[w.audience.upper()])),
    Hostile("aud nested", AUDIENCE, lambda w: w.token(aud=[[w.audience]])),
    Hostile("aud an object", AUDIENCE, lambda w: w.token(aud={w.audience: 1})),
    # --- exp
    Hostile("exp missing", CLAIM, lambda w: w.token(exp=None)),
    Hostile("exp a text", CLAIM, lambda w: w.token(exp=str(w.now + 60))),
    Hostile("exp true", CLAIM, lambda w: w.token(exp=True)),
    Hostile("exp a list", CLAIM, lambda w: w.token(exp=[w.now + 60])),
    Hostile("exp zero", CLAIM, lambda w: w.token(exp=0)),
    Hostile("exp negative", CLAIM, lambda w: w.token(exp=-(w.now + 60))),
    Hostile("exp in milliseconds", CLAIM, lambda w: w.token(exp=(w.now + 60) * 1000)),
    Hostile("exp with four hundred digits", CLAIM, lambda w: w.token(exp=10**400)),
    Hostile("exp with six thousand digits", MALFORMED, lambda w: w.raw(payload=b'{"exp":' + b"9" * 5500 + b"}")),
    Hostile(
        "exp infinite by overflow",
        CLAIM,
        lambda w: w.raw(payload=f'{{"sub":"{w.agent}","aud":"{w.audience}","exp":1e999}}'.encode()),
    ),
    Hostile("exp ten minutes away", LONG, lambda w: w.token(exp=w.now + 600)),
    Hostile("exp a year away", LONG, lambda w: w.token(exp=w.now + 365 * 86_400)),
    Hostile("issued an hour ago for an hour and a bit", LONG, lambda w: w.token(iat=w.now - 3_600, exp=w.now + 120)),
    Hostile("expired ten minutes ago", EXPIRED, lambda w: w.token(iat=w.now - 900, exp=w.now - 600)),
    Hostile("expires before now by a second", EXPIRED, lambda w: w.token(iat=w.now - 60, exp=w.now - 1)),
    Hostile("expired by a fraction", EXPIRED, lambda w: w.token(iat=w.now - 60, exp=w.now - 0.5)),
    # --- iat, nbf
    Hostile("iat a text", CLAIM, lambda w: w.token(iat="now")),
    Hostile("iat false", CLAIM, lambda w: w.token(iat=False)),
    Hostile("iat in 1999", CLAIM, lambda w: w.token(iat=946_684_799)),
    Hostile("iat a minute ahead", EARLY, lambda w: w.token(iat=w.now + 60)),
    Hostile("nbf a minute ahead", EARLY, lambda w: w.token(nbf=w.now + 60)),
    Hostile("nbf a list", CLAIM, lambda w: w.token(nbf=[w.now])),
    Hostile("nbf in the year 40000", CLAIM, lambda w: w.token(nbf=1.2e12)),
)

TWINS: tuple[Twin, ...] = (
    Twin("as SPIRE makes it", lambda w: w.token()),
    Twin("typ JOSE", lambda w: w.token(header={"typ": "JOSE"})),
    Twin("typ absent", lambda w: w.token(header={"typ": None})),
    Twin("aud a text", lambda w: w.token(aud=w.audience)),
    Twin("ES384 with the P-384 key", lambda w: w.token(kid="p384")),
    Twin("ES512 with the P-521 key", lambda w: w.token(kid="p521")),
    *(
        Twin(f"{name} with the RSA key", lambda w, name=name: w.token(kid="rsa", algorithm=name))  # type: ignore[misc]
        for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    ),
    Twin("no iat", lambda w: w.token(iat=None)),
    Twin("nbf now", lambda w: w.token(nbf=w.now)),
    Twin("iat ahead by less than clocks may differ", lambda w: w.token(iat=w.now + 4)),
    Twin("exp with a fraction", lambda w: w.token(exp=w.now + 60.5)),
    Twin("issued a minute before", lambda w: w.token(iat=w.now - 60)),
    Twin("a jti", lambda w: w.token(jti="one")),
    Twin("private claims", lambda w: w.token(roles=["reader"])),
    Twin("nearly 8 KiB", lambda w: w.token(filler="x" * 5500)),
    Twin("the signature's other spelling", lambda w: other_signature(w.token(other=1))),
)


def each() -> Iterator[Hostile | Twin]:
    yield from HOSTILE
    yield from TWINS


__all__ = ["HOSTILE", "TWINS", "Hostile", "Twin", "World", "each", "sign"]
