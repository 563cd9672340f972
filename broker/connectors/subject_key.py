"""The agent's own public key, as it sends it to be certified: read, and held to asking for nothing else.

A PKCS #10 request (RFC 2986) proves by its own signature that whoever made it has the private key. Its subject
and its attributes are where a request would ask for names, and none may be there: names come from the template.
An OpenSSH key proves nothing; a certificate for somebody else's key is of no use to who has not its private part.
"""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.errors import InvalidInput, Reason

_SMALLEST_RSA = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def x509_request(text: str) -> x509.CertificateSigningRequest:
    """The request in ``text``, one PEM block. Raises InvalidInput (FIELD_INVALID) for any that asks for anything."""
    if not text:
        raise _refused("is missing", "Make a key, and send a PKCS #10 request of it; `--key-out FILE` does both.")
    _refuse_private(text)
    try:
        request = x509.load_pem_x509_csr(text.encode("ascii"))
        names, attributes, signed = list(request.subject), list(request.attributes), request.is_signature_valid
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.UnsupportedGeneralNameType):
        raise _refused("is no PKCS #10 request in PEM", "`openssl req -new -subj / -key FILE` makes one.") from None
    if text.count("-----BEGIN ") != 1:
        raise _refused("has more than one PEM block", "Send the request alone.")
    if not signed:
        raise _refused("is not signed by its own key", "Sign the request with the key it is for.")
    if names or attributes:
        told = "a subject" if names else "extensions or other attributes"
        raise _refused(f"asks for {told}", "Names come from the template: make the request with an empty subject.")
    _check_strength(key)
    return request


def ssh_public_key(text: str) -> str:
    """The key in ``text``, one line of OpenSSH, as ``TYPE BASE64`` without its comment. Raises InvalidInput."""
    if not text:
        raise _refused("is missing", "Make a key, and send its public part; `--key-out FILE` does both.")
    _refuse_private(text)
    parts = text.strip().split(" ", 2)
    if "\n" in text.strip() or len(parts) < 2 or "-cert-" in parts[0]:
        raise _refused("is not one line of an OpenSSH public key", "Send the content of the file ending in .pub.")
    line = f"{parts[0]} {parts[1]}"
    try:
        base64.b64decode(parts[1], validate=True)
        key = serialization.load_ssh_public_key(line.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm, binascii.Error):
        raise _refused("is no OpenSSH public key", "Send the content of the file ending in .pub.") from None
    _check_strength(key)
    return line


def _check_strength(key: object) -> None:
    match key:
        case rsa.RSAPublicKey() if key.key_size >= _SMALLEST_RSA:
            return
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, _CURVES):
            return
        case ed25519.Ed25519PublicKey():
            return
    raise _refused(
        "is of a kind or size that is not certified", "Use Ed25519, ECDSA from P-256, or RSA from 2048 bits."
    )


def _refuse_private(text: str) -> None:
    if "PRIVATE KEY" in text:
        raise _refused("holds a private key", "It was sent over the network: throw that key away, and make another.")


def _refused(why: str, hint: str) -> InvalidInput:
    # What was sent is not told: it may hold what must not be shown.
    return InvalidInput(
        Reason.FIELD_INVALID, f"subject_public_key {why}.", hint=hint, metadata={"field": "subject_public_key"}
    )
