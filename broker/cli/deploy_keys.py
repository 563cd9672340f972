"""The private keys of people who sign deploy sets: PEM files (Ed25519), as a rule encrypted with a passphrase."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from broker.errors import InvalidInput, Reason
from broker.files.guarded import Unfit, read_bytes
from broker.secret import Secret

_MOST_BYTES = 64 * 1024
Passphrase = Callable[[], Secret]


def read_private_key(path: Path, passphrase: Passphrase) -> Ed25519PrivateKey:
    """The key in ``path``, which only its owner may read. ``passphrase`` is asked for only if it is encrypted.

    Raises InvalidInput (CONFIG_INVALID).
    """
    try:
        pem = read_bytes(path, private=True, at_most=_MOST_BYTES)
    except Unfit as unfit:
        raise _unfit(path, str(unfit)) from None
    # Both of the ways in which a PEM file says that it is encrypted (RFC 5958, RFC 1421).
    encrypted = b"ENCRYPTED" in pem
    word = passphrase().reveal().encode() if encrypted else None
    try:
        key = load_pem_private_key(pem, word)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "cannot be decrypted with this passphrase" if encrypted else "is not a private key in PEM"
        raise _unfit(path, why) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unfit(path, "is not an Ed25519 key")
    return key


def write_pair(private: Path, public: Path, passphrase: Secret | None) -> None:
    """A new key pair in two new files, 0600 and 0644, or no file. Overwrites nothing.

    Raises InvalidInput (CONFIG_INVALID).
    """
    key = Ed25519PrivateKey.generate()
    try:
        cipher: KeySerializationEncryption = (
            NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.reveal().encode())
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher)
    except ValueError:  # of its length
        raise _unfit(private, "cannot be encrypted with this passphrase: it is longer than 1023 bytes") from None
    _new_file(private, secret, 0o600)
    try:
        _new_file(public, public_pem(key.public_key()).encode(), 0o644)
    except InvalidInput:
        private.unlink()  # ours, made a moment ago: half a pair is of no use
        raise


def public_pem(key: Ed25519PublicKey) -> str:
    """The public key as deploy_keys wants it."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read_passphrase(descriptor: int) -> Secret:
    """The first line of an open file descriptor. Raises InvalidInput (CONFIG_INVALID)."""
    try:
        with os.fdopen(descriptor, "rb") as file:
            word = file.readline(_MOST_BYTES).decode().removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        raise _unfit(Path(f"descriptor {descriptor}"), "cannot be read as text") from None
    if not word:
        raise _unfit(Path(f"descriptor {descriptor}"), "has no passphrase in its first line")
    return Secret(word)


def _new_file(path: Path, data: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    except FileExistsError:
        raise _unfit(path, "is there already") from None
    except OSError as error:
        raise _unfit(path, f"cannot be made: {error.strerror}") from None


def _unfit(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"{path} {why}.",
        hint="A pair is made with: broker deploy keygen",
        metadata={"path": str(path)},
    )
