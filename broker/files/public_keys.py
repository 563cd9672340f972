"""Public keys as operators write them: PEM, Ed25519."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key


def ed25519_public_key(pem: str) -> Ed25519PublicKey:
    """The one key in ``pem``. Raises :class:`ValueError`; it never quotes the text, which may be a private key."""
    if "PRIVATE KEY" in pem:
        raise ValueError("is a private key; the public one belongs here")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is not an Ed25519 key")
    return key
