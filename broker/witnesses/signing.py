"""The keys that sign checkpoints: Ed25519 private keys in PEM, by reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.audit import note
from broker.errors import InvalidInput, Reason
from broker.secret import Secret

_HINT = "Make a pair with: broker audit keygen PRIVATE PUBLIC"


class CheckpointKeys:
    """Every key signs every checkpoint, so that a key is changed without a gap: name both, then drop the old one."""

    def __init__(self, references: Sequence[str], resolve: Callable[[str], Secret]) -> None:
        """Raises InvalidInput (CONFIG_INVALID) for whatever is not a usable key."""
        self._references = tuple(references)
        self._resolve = resolve
        self._keys = self._load()

    @property
    def public(self) -> tuple[Ed25519PublicKey, ...]:
        """Their other halves."""
        return tuple(key.public_key() for key in self._keys)

    def sign(self, text: str, name: str) -> str:
        """``text`` as a note with a signature of each."""
        return note.sign(text, name, self._keys)

    def reload(self) -> None:
        """Read the references again, all or nothing: if one is unfit, InvalidInput, and the keys stay as they were."""
        self._keys = self._load()

    def _load(self) -> tuple[Ed25519PrivateKey, ...]:
        keys = tuple(_key(reference, self._resolve(reference)) for reference in self._references)
        if len({key.public_key().public_bytes_raw() for key in keys}) != len(keys):
            raise _unfit("the same key is named twice for checkpoints", "")
        return keys


def _key(reference: str, pem: Secret) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.reveal().encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unfit(f"the key {reference} is not a private key in PEM without a passphrase", reference) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unfit(f"the key {reference} is not an Ed25519 key", reference)
    return key


def _unfit(what: str, reference: str) -> InvalidInput:
    return InvalidInput(Reason.CONFIG_INVALID, f"{what}.", hint=_HINT, metadata={"reference": reference})
