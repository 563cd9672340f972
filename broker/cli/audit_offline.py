"""``broker audit verify`` for somebody who trusts nobody: where records, witnesses and keys are read from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.audit import note as notes
from broker.audit.offline import Audit
from broker.audit.verify import Finding
from broker.audit.witnessed import Witnessed
from broker.errors import InvalidInput, Reason
from broker.files.guarded import Unfit, read_bytes
from broker.files.public_keys import ed25519_public_key

# A record's bytes are bounded by what a request may say (64 KiB); what is longer is none.
_LONGEST_LINE = 1024 * 1024
_MOST_BYTES = 64 * 1024


def public_keys(paths: Sequence[Path]) -> tuple[Ed25519PublicKey, ...]:
    """The keys in these PEM files. Raises InvalidInput (CONFIG_INVALID)."""
    found = []
    for path in paths:
        try:
            found.append(ed25519_public_key(read_bytes(path, private=False, at_most=_MOST_BYTES).decode()))
        except (Unfit, ValueError) as unfit:
            raise _unfit(path, str(unfit)) from None
    return tuple(found)


def records(exports: Sequence[Path]) -> Iterator[bytes]:
    """The records of an export, one a line. A last line without its end is one that a crash cut short: it is shown."""
    for export in exports:
        try:
            with export.open("rb", buffering=1024 * 1024) as file:
                while line := file.readline(_LONGEST_LINE):
                    yield line[:-1] if line.endswith(b"\n") else line
        except OSError as error:
            raise _unfit(export, error.strerror or "cannot be read") from None


def witness(path: Path, keys: Sequence[Ed25519PublicKey]) -> Witnessed:
    """What a witness has: a file of notes, or a folder of files with one each, in the order of their names."""
    if not path.exists():
        raise _unfit(path, "is not there")
    return Witnessed(path.name, _notes(path), keys)


def _notes(path: Path) -> Iterator[str]:
    for file in sorted(path.iterdir()) if path.is_dir() else (path,):
        try:
            with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                yield from notes.split(iter(partial(lines.readline, notes.MOST_CHARACTERS), ""))
        except OSError as error:
            raise _unfit(file, error.strerror or "cannot be read") from None


def examine(audit: Audit, bodies: Iterator[bytes], most: int) -> tuple[list[Finding], int]:
    """Run it; the first ``most`` findings, and how many there are."""
    shown: list[Finding] = []
    count = 0
    for finding in audit.verify(bodies):
        count += 1
        if len(shown) < most:
            shown.append(finding)
    return shown, count


def _unfit(path: Path, why: str) -> InvalidInput:
    return InvalidInput(Reason.CONFIG_INVALID, f"{path} {why}.", metadata={"path": str(path)})
