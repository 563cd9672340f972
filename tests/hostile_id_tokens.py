"""The corpus of hostile ID tokens, each with the reason that must stop it, and twins that pass.

Run twice: against the pure function (tests/identity/test_id_token.py) and through the people's real door
(tests/api/test_people_hostile.py). Every case differs from a good token in what its name says.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.forge_jwt import b64, compact, ec_key, jwk, other_signature, rsa_key
from tests.forge_oidc import ForgedProvider


@dataclass(frozen=True)
class World:
    """A provider, another one that is configured as well, this broker's client id, and a person."""

    own: ForgedProvider
    other: ForgedProvider
    audience: str
    subject: str

    @classmethod
    def of(cls, url: str, other: str, audience: str, subject: str, at: datetime) -> World:
        return cls(ForgedProvider(url, at), ForgedProvider(other, at), audience, subject)

    def token(self, **defects: object) -> str:
        return self.own.token(self.subject, self.audience, **{"groups": ["oncall"], **defects})  # type: ignore[arg-type]

    @property
    def now(self) -> int:
        return int(self.own.at.timestamp())

    def raw(self, header: bytes | None = None, payload: bytes | None = None) -> str:
        """Signed by the right key, but with these bytes for header or payload."""
        good = {"alg": "ES256", "kid": "ec", "typ": "JWT"}
        claims = self.own.claims(self.subject, self.audience, groups=["oncall"])
        return compact(
            good if header is None else header, claims if payload is None else payload, "ES256", ec_key(self.own.url)
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


MALFORMED, HEADER, ALGORITHM = "ID_TOKEN_MALFORMED", "ID_TOKEN_HEADER", "ID_TOKEN_ALGORITHM"
KEY, SIGNATURE, ISSUER = "ID_TOKEN_KEY_UNKNOWN", "ID_TOKEN_SIGNATURE", "ID_TOKEN_ISSUER_UNKNOWN"
CLAIM, AUDIENCE, GROUPS = "ID_TOKEN_CLAIM_INVALID", "ID_TOKEN_AUDIENCE", "ID_TOKEN_GROUPS"
EXPIRED, EARLY, LONG = "ID_TOKEN_EXPIRED", "ID_TOKEN_NOT_YET_VALID", "ID_TOKEN_LIFE_TOO_LONG"


def _hmac_with_public_key(world: World) -> str:
    """RFC 8725, 2.1: the public key as the HMAC's secret."""
    pem = rsa_key(world.own.url).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": "rsa", "typ": "JWT"}
    claims = world.own.claims(world.subject, world.audience, groups=["oncall"])
    signed = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{b64(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def _changed_payload(world: World) -> str:
    header, _, signature = world.parts()
    payload = b64(json.dumps(world.own.claims("root", world.audience)).encode())
    return f"{header}.{payload}.{signature}"


def _flipped(world: World) -> str:
    header, payload, signature = world.parts()
    data = bytearray(base64.urlsafe_b64decode(signature + "=="))
    data[10] ^= 1
    return f"{header}.{payload}.{b64(bytes(data))}"


def _unsigned(world: World) -> str:
    return world.token(header={"alg": "none"}).rpartition(".")[0]


def _agents_humans(world: World) -> str:
    """The token with which the person lets an agent act for them: another audience of the same provider."""
    return world.own.token(world.subject, "on-behalf-of", groups=["oncall"])


def _payload(world: World, members: str) -> bytes:
    start = f'"iss":"{world.own.url}","sub":"{world.subject}","aud":"{world.audience}","groups":["oncall"]'
    return f"{{{start},{members}}}".encode()


HOSTILE: tuple[Hostile, ...] = (
    # --- form
    Hostile("two parts", MALFORMED, lambda w: w.token().rpartition(".")[0]),
    Hostile("unsigned: alg none, empty signature", MALFORMED, lambda w: _unsigned(w) + "."),
    Hostile("four parts", MALFORMED, lambda w: w.token() + ".AA"),
    Hostile("five parts, as an encrypted token has", MALFORMED, lambda w: ".".join([*w.parts(), "AA", "AA"])),
    Hostile("only dots", MALFORMED, lambda _: ".."),
    Hostile("no token at all, but text", MALFORMED, lambda _: "hello"),
    Hostile("an opaque access token", MALFORMED, lambda _: "ya29.a0AfH6SMBx"),
    Hostile("padding", MALFORMED, lambda w: w.token() + "=="),
    Hostile("longer than 12 KiB", MALFORMED, lambda w: w.token(filler="x" * 10_000)),
    Hostile("header with two alg", MALFORMED, lambda w: w.raw(header=b'{"alg":"none","alg":"ES256","kid":"ec"}')),
    Hostile("header is a list", MALFORMED, lambda w: w.raw(header=b'["ES256"]')),
    Hostile("payload is null", MALFORMED, lambda w: w.raw(payload=b"null")),
    Hostile("payload nested too deep", MALFORMED, lambda w: w.raw(payload=b"[" * 5000)),
    Hostile("payload with two aud", MALFORMED, lambda w: w.raw(payload=_payload(w, '"aud":"else","exp":1'))),
    Hostile("exp is NaN", MALFORMED, lambda w: w.raw(payload=_payload(w, f'"iat":{w.now},"exp":NaN'))),
    # --- header
    Hostile("crit", HEADER, lambda w: w.token(header={"crit": ["exp"]})),
    Hostile("crit with b64", HEADER, lambda w: w.token(header={"crit": ["b64"], "b64": False})),
    Hostile(
        "jwk with the attacker's key",
        HEADER,
        lambda w: w.token(key=ec_key("attacker"), header={"jwk": jwk(ec_key("attacker"), "ec")}),
    ),
    Hostile("jku", HEADER, lambda w: w.token(key=ec_key("attacker"), header={"jku": "https://attacker.example/keys"})),
    Hostile("x5u", HEADER, lambda w: w.token(key=ec_key("attacker"), header={"x5u": "https://attacker.example/x"})),
    Hostile("x5c", HEADER, lambda w: w.token(key=ec_key("attacker"), header={"x5c": ["MIIB"]})),
    Hostile("zip", HEADER, lambda w: w.token(header={"zip": "DEF"})),
    Hostile("an access token (RFC 9068)", HEADER, lambda w: w.token(header={"typ": "at+jwt"})),
    Hostile("a logout token", HEADER, lambda w: w.token(header={"typ": "logout+jwt"})),
    Hostile("typ is a list", HEADER, lambda w: w.token(header={"typ": ["JWT"]})),
    # --- algorithm
    Hostile("alg none, with some signature", ALGORITHM, lambda w: _unsigned(w) + ".AA"),
    Hostile("alg nOnE", ALGORITHM, lambda w: w.token(header={"alg": "nOnE"})),
    Hostile("alg HS256 keyed with the public key", ALGORITHM, _hmac_with_public_key),
    Hostile("alg HS512", ALGORITHM, lambda w: w.token(algorithm="HS512", key=b"k" * 64)),
    Hostile("alg RS512", ALGORITHM, lambda w: w.token(kid="rsa", algorithm="RS512")),
    Hostile(
        "alg ES256K", ALGORITHM, lambda w: w.token(algorithm="ES256K", key=ec.generate_private_key(ec.SECP256K1()))
    ),
    Hostile("alg missing", ALGORITHM, lambda w: w.token(header={"alg": None})),
    Hostile("alg is a list", ALGORITHM, lambda w: w.token(header={"alg": ["ES256"]})),
    Hostile("RS256 with an EC key's kid", ALGORITHM, lambda w: w.token(header={"alg": "RS256"})),
    Hostile("ES256 with an RSA key's kid", ALGORITHM, lambda w: w.token(kid="rsa", header={"alg": "ES256"})),
    Hostile("EdDSA with an EC key's kid", ALGORITHM, lambda w: w.token(header={"alg": "EdDSA"})),
    # --- key
    Hostile("kid missing", KEY, lambda w: w.token(header={"kid": None})),
    Hostile("kid is a number", KEY, lambda w: w.token(header={"kid": 0})),
    Hostile("kid is a path", KEY, lambda w: w.token(header={"kid": "../../dev/null"})),
    Hostile("kid very long", KEY, lambda w: w.token(header={"kid": "e" * 2000})),
    Hostile("a stale key, withdrawn", KEY, lambda w: w.token(header={"kid": "of-last-year"}, key=ec_key("old"))),
    # --- signature
    Hostile("signed by another provider's key of that kid", SIGNATURE, lambda w: w.token(key=ec_key(w.other.url))),
    Hostile("attacker's key under a known kid", SIGNATURE, lambda w: w.token(key=ec_key("attacker"))),
    Hostile("payload exchanged", SIGNATURE, _changed_payload),
    Hostile("one bit of the signature flipped", SIGNATURE, _flipped),
    Hostile("signature of zeros (CVE-2022-21449)", SIGNATURE, lambda w: ".".join([*w.parts()[:2], b64(bytes(64))])),
    Hostile("signature of another token", SIGNATURE, lambda w: ".".join([*w.parts()[:2], w.token(x=1).split(".")[2]])),
    Hostile("PS256 over a PKCS #1 v1.5 signature", SIGNATURE, lambda w: w.token(kid="rsa", header={"alg": "PS256"})),
    # --- iss
    Hostile("iss of nobody we know", ISSUER, lambda w: w.token(iss="https://attacker.example")),
    Hostile("iss with a slash more", ISSUER, lambda w: w.token(iss=f"{w.own.url}/")),
    Hostile("iss in upper case", ISSUER, lambda w: w.token(iss=w.own.url.upper())),
    # --- aud, azp
    Hostile("the token with which an agent acts for its human", AUDIENCE, _agents_humans),
    Hostile("aud missing", AUDIENCE, lambda w: w.token(aud=None)),
    Hostile("aud empty list", AUDIENCE, lambda w: w.token(aud=[])),
    Hostile("aud of another client", AUDIENCE, lambda w: w.token(aud="wiki")),
    Hostile("aud of us and another client", AUDIENCE, lambda w: w.token(aud=[w.audience, "wiki"])),
    Hostile("aud of us twice", AUDIENCE, lambda w: w.token(aud=[w.audience, w.audience])),
    Hostile("aud begins like ours", AUDIENCE, lambda w: w.token(aud=f"{w.audience}-staging")),
    Hostile("aud an object", AUDIENCE, lambda w: w.token(aud={w.audience: 1})),
    Hostile("azp of another client", AUDIENCE, lambda w: w.token(azp="wiki")),
    # --- sub
    Hostile("sub missing", CLAIM, lambda w: w.token(sub=None)),
    Hostile("sub empty", CLAIM, lambda w: w.token(sub="")),
    Hostile("sub a number", CLAIM, lambda w: w.token(sub=7)),
    Hostile("sub with a line feed", CLAIM, lambda w: w.token(sub=f"{w.subject}\n")),
    Hostile("sub with a Cyrillic letter", CLAIM, lambda w: w.token(sub=f"{w.subject}\u0430")),
    Hostile("sub of 256 characters", CLAIM, lambda w: w.token(sub="s" * 256)),
    # --- time
    Hostile("exp missing", CLAIM, lambda w: w.token(exp=None)),
    Hostile("iat missing", CLAIM, lambda w: w.token(iat=None)),
    Hostile("exp a text", CLAIM, lambda w: w.token(exp=str(w.now + 60))),
    Hostile("exp true", CLAIM, lambda w: w.token(exp=True)),
    Hostile("exp in milliseconds", CLAIM, lambda w: w.token(exp=(w.now + 60) * 1000)),
    Hostile("exp infinite by overflow", CLAIM, lambda w: w.raw(payload=_payload(w, f'"iat":{w.now},"exp":1e999'))),
    Hostile("auth_time a text", CLAIM, lambda w: w.token(auth_time="now")),
    Hostile("expired a second ago", EXPIRED, lambda w: w.token(iat=w.now - 60, exp=w.now - 1)),
    Hostile("expired, and would live too long", EXPIRED, lambda w: w.token(iat=w.now - 9_000_000, exp=w.now - 1)),
    Hostile("iat a minute ahead", EARLY, lambda w: w.token(iat=w.now + 60)),
    Hostile("nbf a minute ahead", EARLY, lambda w: w.token(nbf=w.now + 60)),
    Hostile("lives for a week", LONG, lambda w: w.token(exp=w.now + 7 * 86_400)),
    Hostile("issued a week ago, ends in a minute", LONG, lambda w: w.token(iat=w.now - 604_800, exp=w.now + 60)),
    # --- nonce, amr, acr
    Hostile("nonce a number", CLAIM, lambda w: w.token(nonce=5)),
    Hostile("nonce very long", CLAIM, lambda w: w.token(nonce="n" * 256)),
    Hostile("amr a text", CLAIM, lambda w: w.token(amr="mfa")),
    Hostile("amr of numbers", CLAIM, lambda w: w.token(amr=[1])),
    Hostile("amr huge", CLAIM, lambda w: w.token(amr=[str(n) for n in range(33)])),
    Hostile("acr a list", CLAIM, lambda w: w.token(acr=["phr"])),
    # --- groups
    Hostile("groups missing", GROUPS, lambda w: w.token(groups=None)),
    Hostile("groups a text", GROUPS, lambda w: w.token(groups="oncall")),
    Hostile("groups with a number", GROUPS, lambda w: w.token(groups=["oncall", 7])),
    Hostile("groups with an empty name", GROUPS, lambda w: w.token(groups=["oncall", ""])),
    Hostile("groups with a very long name", GROUPS, lambda w: w.token(groups=["g" * 256])),
    Hostile("groups: more than 256", GROUPS, lambda w: w.token(groups=[str(n) for n in range(257)])),
    Hostile(
        "groups elsewhere (the list was too long for the token)",
        GROUPS,
        lambda w: w.token(groups=None, _claim_names={"groups": "src1"}, _claim_sources={"src1": {"endpoint": "x"}}),
    ),
    Hostile(
        "groups both here and elsewhere",
        GROUPS,
        lambda w: w.token(_claim_names={"groups": "src1"}, _claim_sources={"src1": {"endpoint": "x"}}),
    ),
)

TWINS: tuple[Twin, ...] = (
    Twin("as most providers make it", lambda w: w.token(kid="rsa")),
    Twin("PS256", lambda w: w.token(kid="rsa", algorithm="PS256")),
    Twin("ES256", lambda w: w.token()),
    Twin("ES384", lambda w: w.token(kid="p384")),
    Twin("EdDSA", lambda w: w.token(kid="ed")),
    Twin("typ absent", lambda w: w.token(header={"typ": None})),
    Twin("typ in lower case (RFC 7515, 4.1.9: it is a media type)", lambda w: w.token(header={"typ": "jwt"})),
    Twin("a certificate's thumbprint", lambda w: w.token(header={"x5t": "AAAA"})),
    Twin("aud a list of one", lambda w: w.token(aud=[w.audience])),
    Twin("azp is us", lambda w: w.token(azp=w.audience)),
    Twin("no auth_time", lambda w: w.token(auth_time=None)),
    Twin("lives for a day", lambda w: w.token(exp=w.now + 86_400)),
    Twin("iat ahead by less than clocks may differ", lambda w: w.token(iat=w.now + 4)),
    Twin("no groups at all, said so", lambda w: w.token(groups=[])),
    Twin("256 groups", lambda w: w.token(groups=[str(n) for n in range(256)])),
    Twin("other distributed claims", lambda w: w.token(_claim_names={"photos": "src1"})),
    Twin("a nonce", lambda w: w.token(nonce="n-0S6_WzA2Mj")),
    Twin("amr and acr", lambda w: w.token(amr=["pwd", "otp", "mfa"], acr="phr")),
    Twin("claims about display", lambda w: w.token(name="Anna", email="anna@example.com", email_verified=True)),
    Twin("the signature's other spelling", lambda w: other_signature(w.token(other=1))),
)

__all__ = ["HOSTILE", "TWINS", "Hostile", "Twin", "World"]
