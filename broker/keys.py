"""Keys for MACs, by reference: the KeyRing adapter.

A key is base64 text (RFC 4648 section 4) of at least 32 random bytes, found where a reference says:
``file:PATH`` (mode 0600) or ``env:NAME``. ``openssl rand -base64 32`` makes one, and so does
:func:`new_key`. The first reference is the current key; further ones are older keys that still check
what they once signed, so that a key is changed without a gap: put the new one first, drop the old one
when nothing bears its id any more. A key's id is derived from the key itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping, Sequence

from broker.errors import InvalidInput, Reason, Tampered
from broker.references import resolve

# HMAC-SHA256 and a 32-byte keyed BLAKE2b gain nothing from more, and lose strength with less (RFC 2104 section 3).
LEAST_BYTES = 32
# A random 32-byte key has about 30 different byte values; this only catches keys that nobody drew at random.
_LEAST_VALUES = 12
_KEY_HINT = "Make one with: openssl rand -base64 32"


class FileKeyRing:
    """A :class:`broker.ports.keys.KeyRing` over references, current key first."""

    def __init__(self, references: Sequence[str]) -> None:
        """Raises InvalidInput (CONFIG_INVALID) for whatever is not a usable key."""
        self._references = tuple(references)
        self._current, self._keys = _load(self._references)

    def current(self) -> tuple[str, bytes]:
        """(key id, key) to make new MACs with."""
        return self._current

    def find(self, key_id: str) -> bytes:
        """The key of this id. Raises Tampered (ROW_MAC_MISMATCH) for an unknown one."""
        try:
            return self._keys[key_id]
        except KeyError:
            raise Tampered(
                Reason.ROW_MAC_MISMATCH,
                f"something bears a MAC of key {key_id!a}, which is not among the {len(self._keys)} known keys.",
                hint="If the key was changed, name the older one too, after the current one.",
                metadata={"keyId": key_id},
            ) from None

    def reload(self) -> None:
        """Read the references again, all or nothing: if one is unfit, InvalidInput, and the keys stay as they were."""
        self._current, self._keys = _load(self._references)


def new_key() -> str:
    """A fresh key as text, to be kept in a 0600 file."""
    return base64.b64encode(secrets.token_bytes(LEAST_BYTES)).decode()


def key_id(key: bytes) -> str:
    """The name of a key: tells keys apart, and nothing about them."""
    return hashlib.sha256(b"jit-broker key id\0" + key).hexdigest()[:16]


def _load(references: Sequence[str]) -> tuple[tuple[str, bytes], Mapping[str, bytes]]:
    if not references:
        raise InvalidInput(Reason.CONFIG_INVALID, "no key is named.", hint="Name at least one: file:PATH or env:NAME.")
    keys = [_decode(reference) for reference in references]
    ring = {key_id(key): key for key in keys}
    if len(ring) != len(keys):
        raise InvalidInput(
            Reason.CONFIG_INVALID, "the same key is named twice.", hint="Name each key once, the current one first."
        )
    return (key_id(keys[0]), keys[0]), ring


def _decode(reference: str) -> bytes:
    try:
        key = base64.b64decode(resolve(reference).reveal(), validate=True)
    except (binascii.Error, ValueError):
        raise _unfit(reference, "is not base64 text") from None
    if len(key) < LEAST_BYTES:
        raise _unfit(reference, f"has {len(key)} bytes, {LEAST_BYTES} are needed")
    if len(set(key)) < _LEAST_VALUES:
        raise _unfit(reference, "is not random")
    return key


def _unfit(reference: str, why: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID, f"the key {reference} {why}.", hint=_KEY_HINT, metadata={"reference": reference}
    )
