"""What fuzzing starts from: the corpora that other tests are made of, as bytes, for each target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests import hostile_id_tokens, hostile_jwts, hostile_svids
from tests.forge import NOW, der_san_uris, tlv
from tests.fuzz.targets import AUDIENCE, CA, CLIENT, ID, LEAF, PROVIDER, TOKENS
from tests.hostile_jwts import HOSTILE, TWINS

# Inputs that broke a promise once, in a folder for each target: `make fuzz` puts them here, and they stay.
FOUND = Path(__file__).parent / "found"


def seeds(target: str) -> list[bytes]:
    """Inputs for ``target``, those that were findings included."""
    found = sorted(path.read_bytes() for path in (FOUND / target).glob("*") if path.is_file())
    return [*_MADE[target](), *found]


def _ids() -> Iterator[bytes]:
    yield from (ID.encode(), b"", b"spiffe://", b"spiffe://a/b/c.d-e_f", b"spiffe://a/" + b"b" * 2037)
    yield from (b"spiffe://a/" + b"b" * 2038, b"spiffe://" + b"a" * 256 + b"/b", "spiffe://é/b".encode())
    yield from (ID.encode() + ending for ending in (b"/", b"/.", b"/..", b"?", b"#", b"%61", b"\n", b"\x00", b"\xff"))
    yield from (b"SPIFFE://a/b", b"https://a/b", b"spiffe://A/b", b"spiffe://u@a/b", b"spiffe://a:1/b", b"spiffe:///b")


def _leaves() -> Iterator[bytes]:
    world = hostile_svids.World(NOW)
    yield from (case.sent.leaf for case in hostile_svids.hostile(world) if len(case.sent.leaf) < 4096)
    yield from (sent.leaf for sent in hostile_svids.allowed(world).values())
    yield LEAF.pem


def _names() -> Iterator[bytes]:
    one = ID.encode()
    yield from (der_san_uris(one), der_san_uris(one, one), der_san_uris(), der_san_uris(one + b"\x00"), b"")
    for tag in (0xA0, 0x81, 0x82, 0xA3, 0xA4, 0xA5, 0x86, 0x87, 0x88):  # each kind of GeneralName (RFC 5280, 4.2.1.6)
        yield tlv(0x30, tlv(0x86, one) + tlv(tag, b"\x7f\x00\x00\x01"))


def _chains() -> Iterator[bytes]:
    below = CA.intermediate("below")
    yield from (
        b"",
        CA.pem,
        CA.der,
        below.pem,
        below.pem * 4,
        below.pem * 5,
        LEAF.pem,
        b"-----BEGIN CERTIFICATE-----\n",
    )


def _tokens() -> Iterator[bytes]:
    world = hostile_jwts.World.of("example.org", "federated.example", AUDIENCE, ID, NOW)
    made = [*(case.make(world) for case in HOSTILE), *(twin.make(world) for twin in TWINS)]
    yield from (token.encode("utf-8", "surrogateescape") for token in made)


def _signed() -> Iterator[bytes]:
    header = json.dumps({"alg": "ES256", "kid": "ec", "typ": "JWT"}).encode()
    for changes in ({}, {"aud": AUDIENCE}, {"aud": [AUDIENCE, "x"]}, {"nbf": 1.5}, {"exp": None}, {"exp": 1e300}):
        yield header + b"\n" + json.dumps(TOKENS.claims(ID, AUDIENCE, **changes)).encode()
    for token in _tokens():
        head, _, rest = token.partition(b".")
        yield head + b"\n" + rest


def _id_tokens() -> Iterator[bytes]:
    world = hostile_id_tokens.World.of(PROVIDER.url, "https://other.example.org", CLIENT, "anna", NOW)
    made = [case.make(world) for case in (*hostile_id_tokens.HOSTILE, *hostile_id_tokens.TWINS)]
    yield from (token.encode("utf-8", "surrogateescape") for token in made)


def _id_signed() -> Iterator[bytes]:
    header = json.dumps({"alg": "ES256", "kid": "ec", "typ": "JWT"}).encode()
    for changes in ({}, {"aud": [CLIENT]}, {"azp": CLIENT}, {"groups": {}}, {"groups": ["a", "a"]}, {"exp": 1e300}):
        yield header + b"\n" + json.dumps(PROVIDER.claims("anna", CLIENT, **{"groups": [], **changes})).encode()


_MADE = {
    "spiffe_id": _ids,
    "x509_leaf": _leaves,
    "x509_names": _names,
    "x509_chain": _chains,
    "jwt_token": _tokens,
    "jwt_signed": _signed,
    "id_token": _id_tokens,
    "id_signed": _id_signed,
}
