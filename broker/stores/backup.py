"""A copy of a ledger, taken while a broker writes it: whole, at one moment, and never over something that is there."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from broker.errors import InvalidInput, Reason
from broker.files.durable import sync_directory
from broker.stores.audit_reader import AuditReader
from broker.stores.queries import SQL

# So many pages are copied at a time; in between, the broker writes. (sqlite.org/backup.html)
_PAGES = 2_000


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied."""

    records: int  # of the audit trail
    checkpoint: Path | None  # the last one in it; None where it has none


def back_up(source: Path, target: Path) -> Backup:
    """Copy ``source`` to ``target``, which must not be there, and its last checkpoint to ``target``.checkpoint.

    The copy has that name only once it is whole and durable. Raises InvalidInput (CONFIG_INVALID), or OSError where it
    cannot be written; what was begun is then removed. One that was killed leaves ``target``.RANDOM.part.
    """
    checkpoint = target.with_name(f"{target.name}.checkpoint")
    with AuditReader(source):
        pass  # is it a ledger of this release, or of an older one?
    for path in (target, checkpoint):
        if path.is_symlink() or path.exists():
            raise _there_already(path)
    part, beside = _begun(target), _begun(checkpoint)
    try:
        _copy(source, part)
        records, note = _facts(part)
        beside.write_text(note, encoding="utf-8")
        for path in (part, beside):
            _sync(path)
        _name(part, target)
        if note:
            _name(beside, checkpoint)
    finally:
        for path in (part, part.with_name(f"{part.name}-journal"), beside):
            path.unlink(missing_ok=True)
    sync_directory(target.parent)
    return Backup(records, checkpoint if note else None)


def _begun(path: Path) -> Path:
    """A file of nobody else's, 0600, in the place of what it is to be."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    return Path(name)


def _name(part: Path, path: Path) -> None:
    """Over nothing. Raises InvalidInput (CONFIG_INVALID), OSError."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise _there_already(path) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without links, such as another system's over a network.
        path.touch(0o600, exist_ok=False)
        part.replace(path)


def _there_already(path: Path) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"{path} is there already: a backup overwrites nothing.",
        hint="Name another file; one with the time in its name is a good one.",
        metadata={"path": str(path)},
    )


def _copy(source: Path, target: Path) -> None:
    live = sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, isolation_level=None)
    copy = sqlite3.connect(target, isolation_level=None)
    try:
        # Or the copy would begin anew whenever the broker writes.
        live.execute("BEGIN")
        live.execute("SELECT count(*) FROM schema_version").fetchone()
        live.backup(copy, pages=_PAGES)
        copy.execute("PRAGMA journal_mode = DELETE")
        (found,) = copy.execute("PRAGMA quick_check").fetchone()
        if found != "ok":
            raise OSError(f"the copy is damaged: {found}")
    except sqlite3.Error as error:
        raise OSError(f"the ledger cannot be copied: {error}") from None
    finally:
        copy.close()
        live.close()


def _facts(target: Path) -> tuple[int, str]:
    copy = sqlite3.connect(f"file:{quote(str(target))}?mode=ro&immutable=1", uri=True)
    head = last = None
    # A ledger of a release without checkpoints has no such table.
    with contextlib.closing(copy), contextlib.suppress(sqlite3.OperationalError):
        head = copy.execute(SQL["audit_head"]).fetchone()
        last = copy.execute("SELECT note FROM audit_checkpoints ORDER BY seq DESC LIMIT 1").fetchone()
    return (0 if head is None else int(head[0])), ("" if last is None else str(last[0]))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
