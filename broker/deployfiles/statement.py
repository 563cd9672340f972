"""What people sign when they sign a deploy set: its digest, who wrote it, and which in order it is.

One set has one statement and one statement has one spelling (canonical JSON), which names its format and
version; the envelope adds the type below. So a signature means this and nothing else, and no signature over
anything else can be passed off as one. Does not belong here: keys and signatures (``envelope.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from broker.config import PERSON_NAME
from broker.identity.strict_json import NotStrictJson, parse_object
from broker.scope.canonical import canonical_json

# The payloadType of the DSSE envelope: under every signature, too.
PAYLOAD_TYPE = "application/vnd.jit-broker.deploy-set+json"
FORMAT = "jit-broker deploy set, version 1"
# Exact in every reader of JSON (RFC 8259 section 6), and far below SQLite's largest integer.
MAX_SERIAL = 2**53 - 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
# Of people and of keys.
NAME = re.compile(PERSON_NAME.removeprefix("^").removesuffix("$") + r"\Z")


class Unsound(ValueError):
    """No statement. ``field`` is what is wrong with it, or empty for the whole."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Statement:
    """``digest``: SHA-256 of the set, in hex. ``author``: a person's name. ``serial``: 1 or more."""

    digest: str
    author: str
    serial: int

    def __post_init__(self) -> None:
        """Raises :class:`Unsound`: what could not be read back is not made either."""
        if not _DIGEST.match(f"sha256:{self.digest}"):
            raise Unsound("digest", "must be sha256: and 64 hexadecimal digits")
        if not NAME.match(self.author):
            raise Unsound("author", "must be a person's name: a-z 0-9 . _ -, at most 63 characters")
        if not 1 <= self.serial <= MAX_SERIAL:
            raise Unsound("serial", f"must be a whole number from 1 to {MAX_SERIAL}")

    def encode(self) -> bytes:
        """The bytes to sign."""
        return canonical_json(
            {"author": self.author, "digest": f"sha256:{self.digest}", "format": FORMAT, "serial": self.serial}
        )

    @classmethod
    def decode(cls, payload: bytes) -> Statement:
        """The statement whose bytes these are. Raises :class:`Unsound` for every other byte string."""
        try:
            told = parse_object(payload)
        except NotStrictJson as error:
            raise Unsound("", str(error)) from None
        if told.get("format") != FORMAT:
            raise Unsound("format", f"is not {FORMAT!r}")
        statement = cls(_text(told, "digest").removeprefix("sha256:"), _text(told, "author"), _serial(told))
        if statement.encode() != payload:
            raise Unsound("", "is not in canonical form, or says more than it should")
        return statement


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str):
        raise Unsound(name, "is missing" if value is None else "must be a text")
    return value


def _serial(told: dict[str, Any]) -> int:
    value = told.get("serial")
    if type(value) is not int:  # True is an int, too
        raise Unsound("serial", "is missing" if value is None else "must be a whole number")
    return value
