"""Signed notes: a text, and Ed25519 signatures over it, each by a named key (c2sp.org/signed-note).

Chosen because the signature is over plain text: whoever has a note and a public key checks it with OpenSSL alone
(docs/audit.md). A key is told from others by its *hash*, four bytes over its name and itself; that only says which
key to try. Reading is strict: one spelling for one note, so that what was altered is no note any more.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.errors import Reason, Tampered

_DASH = "\u2014"
_ED25519 = b"\x01"
_HASH, _SIGNATURE = 4, 64
# Ours has 300 bytes. A witness may be anybody's file.
MOST_CHARACTERS = 16 * 1024
MOST_SIGNATURES = 16


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, as it stands there."""

    name: str
    key_hash: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its signatures; nothing is checked yet."""

    text: str  # every line of it ends in a newline
    signatures: tuple[Signature, ...]


def key_hash(name: str, key: Ed25519PublicKey) -> bytes:
    """The four bytes that stand before a signature of ``key`` under this name."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()).digest()[:_HASH]


def sign(text: str, name: str, keys: Sequence[Ed25519PrivateKey]) -> str:
    """``text`` as a note, signed by each of ``keys`` under one name."""
    lines = [_line(name, key_hash(name, key.public_key()) + key.sign(text.encode())) for key in keys]
    return f"{text}\n{''.join(lines)}"


def _line(name: str, blob: bytes) -> str:
    return f"{_DASH} {name} {base64.b64encode(blob).decode()}\n"


def parse(note: str) -> Note:
    """The note that is spelt so. Raises :class:`Tampered` (CHECKPOINT_INVALID) for anything else."""
    text, gap, lines = note.rpartition("\n\n")
    if not gap or len(note) > MOST_CHARACTERS or any(ord(each) < 0x20 for each in note.replace("\n", "")):
        raise invalid("it is not a text, an empty line and signatures")
    signatures = tuple(_signature(line) for line in lines.removesuffix("\n").split("\n"))
    found = Note(f"{text}\n", signatures)
    named = {(each.name, each.key_hash) for each in signatures}
    if len(signatures) > MOST_SIGNATURES or len(named) != len(signatures) or spelt(found) != note:
        raise invalid("its signature lines are not what they must be")
    return found


def spelt(note: Note) -> str:
    """The one spelling of a note."""
    return note.text + "\n" + "".join(_line(each.name, each.key_hash + each.signature) for each in note.signatures)


def _signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if dash != _DASH or not name or "+" in name or len(blob) != _HASH + _SIGNATURE:
        raise invalid("a line below its text is no signature")
    return Signature(name, blob[:_HASH], blob[_HASH:])


def signers(note: Note, keys: Iterable[Ed25519PublicKey]) -> tuple[Ed25519PublicKey, ...]:
    """Those of ``keys`` that have signed ``note``; signatures of other keys say nothing.

    Raises :class:`Tampered` (CHECKPOINT_INVALID) where a signature that bears the hash of one of ``keys`` is not its.
    """
    found = []
    for key in keys:
        for each in note.signatures:
            if each.key_hash == key_hash(each.name, key):
                _check(note, each, key)
                found.append(key)
    return tuple(found)


def _check(note: Note, signature: Signature, key: Ed25519PublicKey) -> None:
    try:
        key.verify(signature.signature, note.text.encode())
    except InvalidSignature:
        raise invalid(f"the signature of key {signature.key_hash.hex()} is not over this text") from None


def split(lines: Iterable[str]) -> Iterator[str]:
    """The notes in a file of them, each followed by an empty line; what is none comes out as it stands there.

    Holds one note at a time: where no end is found, what was read so far comes out.
    """
    block: list[str] = []
    length, signed = 0, False
    for line in lines:
        if line == "\n" and (signed or not block):
            if block:
                yield "".join(block)
            block, length, signed = [], 0, False
            continue
        signed = signed or line.startswith(f"{_DASH} ")
        block.append(line)
        length += len(line)
        if length > MOST_CHARACTERS:
            yield "".join(block)
            block, length, signed = [], 0, False
    if block:
        yield "".join(block)


def invalid(why: str) -> Tampered:
    """What is raised for a checkpoint that cannot be believed."""
    return Tampered(Reason.CHECKPOINT_INVALID, f"this is no checkpoint that can be believed: {why}.")
