"""Sealed codes: break-glass while the identity provider is down.

A code is printed once, named for one person, good once, and kept as a scrypt hash. Belongs here: its written form,
and its hash. The 125 random bits of a code need no slow hash to be unguessable; it is there so that a code of fewer
bits, in a later form, would not be the first one that a stolen ledger gives away.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from broker.errors import Reason, Unauthenticated
from broker.secret import Secret

FORM = "jbg1"
# Crockford's base 32: without the letters that look like digits, so that it survives being printed and typed.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ID_LENGTH, SECRET_LENGTH, GROUP = 8, 25, 5
SALT_BYTES = 16
# A code is made for the bottom of a safe, but not for ever.
CODES_LAST = timedelta(days=180)
MOST_IN_BATCH = 20
# A batch that one person asked for waits so long for the second.
CONFIRM_WITHIN = timedelta(hours=24)
# So many wrong secrets for one code's id, and that code is dead.
MOST_FAILURES = 5
# RFC 7914, section 2; 32 MiB and about 0.1 s.
COST = 2**15
_R, _P, _LENGTH = 8, 1, 32
_LOOKS_LIKE = str.maketrans("OIL", "011")
_CODE = re.compile(rf"JBG1-?([{ALPHABET}]{{{ID_LENGTH}}})-?([{ALPHABET}]{{{SECRET_LENGTH}}})\Z")


@dataclass(frozen=True, slots=True)
class Code:
    """A code as somebody typed it."""

    id: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class NewCode:
    """One code as it was made: what is printed, and what is kept."""

    id: str
    salt: bytes
    hash: bytes
    printed: Secret


@dataclass(frozen=True, slots=True)
class KeptCode:
    """One code as it is kept; nothing of it opens a door."""

    id: str
    batch: str
    person: str  # whom it names: issuer#subject
    person_name: str
    salt: bytes
    hash: bytes
    created_at: datetime
    expires_at: datetime
    failures: int
    used_by: str  # the lease that it got; empty
    used_at: datetime | None
    revoked_by: str  # issuer#subject, or "broker" after too many wrong tries; empty
    revoked_at: datetime | None

    def state(self, now: datetime) -> str:
        """READY, USED, REVOKED or EXPIRED."""
        if self.used_by:
            return "USED"
        if self.revoked_at is not None:
            return "REVOKED"
        return "READY" if now < self.expires_at else "EXPIRED"


@dataclass(frozen=True, slots=True)
class Batch:
    """Codes that one person asked for, and a second one has made, or may yet."""

    id: str
    person: str  # whom the codes name
    person_name: str
    count: int
    reason: str
    requested_by: str
    requested_name: str
    requested_at: datetime
    confirmed_by: str  # empty: nobody yet
    confirmed_name: str
    confirmed_at: datetime | None


def written(id_: str, secret: str) -> Secret:
    """How a code is printed: JBG1, the id, and the secret in groups of five"""
    groups = [secret[start : start + GROUP] for start in range(0, len(secret), GROUP)]
    return Secret("-".join((FORM.upper(), id_, *groups)))


def of_random(number: int, length: int) -> str:
    """``length`` characters of the alphabet, from a random ``number`` of 5 bits for each."""
    return "".join(ALPHABET[(number >> 5 * place) & 31] for place in range(length))


def read_code(text: Secret) -> Code:
    """The code in ``text``; case, spaces and hyphens are nothing. Raises Unauthenticated (BREAK_GLASS_CODE_INVALID)."""
    plain = re.sub(r"[\s-]", "", text.reveal()).upper()
    # Of the letters that are in no code, those that were meant for digits; the form's own name has none of them.
    found = _CODE.match(plain.translate(_LOOKS_LIKE)) if len(plain) < 100 and plain.isascii() else None
    if found is None:
        raise code_invalid()
    return Code(found[1], Secret(found[2]))


def hashed(secret: Secret, salt: bytes, cost: int = COST) -> bytes:
    """The scrypt hash. Slow by design: not for the event loop."""
    return Scrypt(salt=salt, length=_LENGTH, n=cost, r=_R, p=_P).derive(secret.reveal().encode())


def matches(code: Code, kept: KeptCode, cost: int = COST) -> bool:
    """Whether ``code`` is the one that is kept. Slow by design, and the same time for any secret."""
    return hmac.compare_digest(hashed(code.secret, kept.salt, cost), kept.hash)


def code_invalid() -> Unauthenticated:
    """One answer for a code that is none, is unknown or has another secret."""
    return Unauthenticated(
        Reason.BREAK_GLASS_CODE_INVALID,
        "that is no break-glass code of this broker.",
        hint="Type it as it is printed; case, spaces and hyphens do not matter. A code names one person, once.",
    )
