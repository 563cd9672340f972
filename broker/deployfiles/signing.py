"""Signing a deploy set: the other end of ``signed.py``. Writes one file, the envelope, whole or not at all."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.deployfiles import envelope, listing
from broker.deployfiles.envelope import Sealed
from broker.deployfiles.listing import Listing
from broker.deployfiles.statement import Statement, Unsound
from broker.files import Problem, Problems


@dataclass(frozen=True, slots=True)
class Signature:
    """What was signed. ``keys`` have signed it now; ``dropped`` had signed something else."""

    statement: Statement
    keys: tuple[str, ...]
    dropped: tuple[str, ...]


def sign(
    directory: Path, key: Ed25519PrivateKey, name: str, *, author: str = "", serial: int | None = None
) -> Signature:
    """Sign the set in ``directory`` as the key ``name``, beside those who signed the same statement already.

    Without ``author`` it is the statement that is there. With ``author``, it may be a new one, whose ``serial`` is by
    default one more than that of the one there; signatures over another statement are dropped.
    Raises :class:`Problems`.
    """
    files = listing.read_set(directory)
    if files.problems:
        raise Problems(files.problems)
    shown = files.name(listing.ENVELOPE)
    sealed = Sealed.parse(shown, files.envelope) if files.envelope is not None else None
    before = sealed.statement() if sealed is not None else None
    statement = _statement(files, before, author, serial)
    same = sealed is not None and statement == before
    container = sealed.envelope if sealed is not None and same else envelope.fresh(statement)
    envelope.add_signature(container, key, name)
    try:
        _write(directory / listing.ENVELOPE, envelope.render(container))
    except OSError as error:
        raise Problems([Problem(shown, 1, "", f"cannot be written: {error.strerror}")]) from None
    dropped = sealed.keys if sealed is not None and not same else ()
    return Signature(statement, tuple(container.signatures), dropped)


def _statement(files: Listing, before: Statement | None, author: str, serial: int | None) -> Statement:
    shown, digest = files.name(listing.ENVELOPE), files.digest()
    if not author:
        if before is None:
            raise Problems(
                [Problem(shown, 1, "", "is not there yet", "The first who signs says --author and --serial.")]
            )
        if before.digest != digest:
            hint = "Look at what was changed; then start anew with --author."
            raise Problems([Problem(shown, 1, "payload", "is about other files than are here now", hint)])
        return before
    if serial is None:
        if before is None:
            hint = "Say --serial: higher than that of any signed set that was in force."
            raise Problems([Problem(shown, 1, "", "is not there yet, so there is no serial to count on from", hint)])
        serial = before.serial if (before.digest, before.author) == (digest, author) else before.serial + 1
    try:
        return Statement(digest, author, serial)
    except Unsound as error:
        raise Problems([Problem(shown, 1, error.field, error.message)]) from None


def _write(path: Path, text: str) -> None:
    """0644 under any umask: brokerd refuses what its group may write."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
