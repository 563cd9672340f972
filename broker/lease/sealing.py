"""A credential sealed to its holder's key, so that what carries it cannot read it.

Belongs here: HPKE (RFC 9180, base mode, X25519 with AES-256-GCM, as ``cryptography`` does it), and what a seal
is bound to. Both ends of the wire use this file; ``SealedCredential`` in ``credential.proto`` describes it for
everybody else. Bytes in, bytes out: what is in them is the wire's business.

What it gives: whoever passes the answer on (a proxy that ends TLS, its logs, its memory) holds only
ciphertext, and cannot exchange one answer for another. What it cannot give: a proxy that forges the *request*
puts its own key there, and the agent finds out only in that its own key does not open the answer. That is
why the SDK ends such a lease at once, and why policy decides whether to trust a proxy at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from broker.errors import InvalidInput, NotReady, Reason

SUITE = "DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM"
KEY_BYTES = 32

_HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_PURPOSE = "broker.api.v1.SealedCredential"
_FIELD_PRIME = 2**255 - 19


@dataclass(frozen=True, slots=True)
class SealedTo:
    """What a seal is bound to: it opens for this delivery and for no other."""

    lease_id: str
    attempt_id: str
    holder: str  # SPIFFE ID
    request_id: str

    def info(self) -> bytes:
        """HPKE's ``info``: each part with its length before it, so that no two contexts have the same bytes."""
        parts = [each.encode() for each in (_PURPOSE, self.lease_id, self.attempt_id, self.holder, self.request_id)]
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True, slots=True)
class Sealed:
    """The encapsulated key (``enc``, 32 bytes) and the ciphertext."""

    encapsulated_key: bytes
    ciphertext: bytes = field(repr=False)


def check_recipient_key(key: bytes) -> None:
    """Raises :class:`InvalidInput` (RECIPIENT_KEY_INVALID) for bytes that nothing should be sealed to.

    Asked before anything is issued. Refused are another length, a second spelling of a number, and the
    points of low order (RFC 7748, 6.1): with those the shared secret is zero, and anybody could open the seal.
    """
    if len(key) != KEY_BYTES:
        raise _bad_key(f"has {len(key)} bytes; an X25519 public key has {KEY_BYTES}")
    if int.from_bytes(key, "little") >= _FIELD_PRIME:
        raise _bad_key("is not in canonical form")
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        raise _bad_key("is a point of low order, to which nothing can be sealed") from None


def seal(plaintext: bytes, recipient: bytes, to: SealedTo) -> Sealed:
    """``plaintext`` for the holder of ``recipient``'s private key. Raises as :func:`check_recipient_key`."""
    check_recipient_key(recipient)
    sealed = _HPKE.encrypt(plaintext, X25519PublicKey.from_public_bytes(recipient), info=to.info())
    return Sealed(sealed[:KEY_BYTES], sealed[KEY_BYTES:])


class Recipient:
    """A fresh key pair, for one request. The private half stays in this object."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()
        self.public_key = self._key.public_key().public_bytes_raw()

    def open(self, suite: str, sealed: Sealed, to: SealedTo) -> bytes:
        """The plaintext. Raises :class:`NotReady` (SEAL_BROKEN) if it was not sealed to this key, for this delivery."""
        if suite != SUITE or len(sealed.encapsulated_key) != KEY_BYTES:
            raise broken_seal(f"its suite is {ascii(suite)[:80]}, with {len(sealed.encapsulated_key)} bytes of key")
        try:
            return _HPKE.decrypt(sealed.encapsulated_key + sealed.ciphertext, self._key, info=to.info())
        except (InvalidTag, ValueError):
            raise broken_seal("it was sealed to another key, or for another delivery") from None


def broken_seal(why: str) -> NotReady:
    """What the agent's side says of an answer that did not come as it was asked for."""
    return NotReady(
        Reason.SEAL_BROKEN,
        f"The credential did not arrive sealed to our key: {why}.",
        hint="Something between this program and the broker changed the request or the answer. Look at the proxy.",
    )


def _bad_key(why: str) -> InvalidInput:
    return InvalidInput(
        Reason.RECIPIENT_KEY_INVALID,
        f"recipient_public_key {why}.",
        hint="Make a fresh X25519 key pair for each request and send the 32 bytes of its public key.",
        metadata={"field": "recipient_public_key"},
    )
