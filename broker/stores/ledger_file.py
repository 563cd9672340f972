"""The SQLite file: who may open it, how connections are made, and what must be true of them.

The directory belongs to the broker's account (or root) and nobody else can write to it; the file is
0600; one process at a time owns the ledger, because the audit head is in its memory. WAL with
``synchronous=FULL`` is what makes an answered COMMIT survive a power cut (sqlite.org/pragma.html), so it
is read back on every connection and not believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from broker.errors import InvalidInput, NotReady, Reason
from broker.files.durable import sync_directory

# How long a connection waits for another one's lock. Ours are one writer and readers that never block it,
# so this is for operators with a shell open on the file.
BUSY_MS = 5_000

# Page cache of each connection: an upper bound, whatever the size of the ledger.
CACHE_KIB = 32 * 1024

# The write-ahead log is moved into the file when it has so many pages (32 MiB of 4 KiB pages). Pages that many
# commits touch are then written back once, and an opening after a crash still takes a fraction of a second.
CHECKPOINT_PAGES = 8 * 1024

_SYNCHRONOUS_FULL = 2

# Of a database's first page.
_HEADER, _WRITE_VERSION, _LOGGED = 100, 18, 2

# Of the file beside the ledger: so long is who has it; then, whether the ledger was ever more than an empty file.
_WHO, _OPENED = 11, b"ledger\n"

T = TypeVar("T")


def _as_it_is(value: T) -> T:
    return value


# For every None and every bytes that is written the module looks for an adapter, then for two methods, and makes an
# exception of each that is not there. Told that there is nothing to adapt, it takes half as long.
for _plain in (bytes, type(None)):
    sqlite3.register_adapter(_plain, _as_it_is)


def prepare_file(path: Path) -> None:
    """Make ``path`` (0600) if there was never one. Raises InvalidInput (CONFIG_INVALID).

    That is where others could write or read, and where one is gone: a new one would know nothing of what is alive.
    """
    directory = path.parent
    try:
        facts = directory.stat()
    except OSError as error:
        raise _refused(path, f"its directory cannot be used: {error.strerror}.") from None
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _refused(path, "its directory is writable by group or others.", f"chmod go-w {directory}")
    if facts.st_uid not in (os.geteuid(), 0):
        raise _refused(path, "its directory belongs to another account.")
    if _lock_of(path).exists() and not os.path.lexists(path):
        raise _gone(path)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        _check_file(path)
        return
    except OSError as error:
        raise _refused(path, f"it cannot be made: {error.strerror}.") from None
    os.close(descriptor)
    sync_directory(directory)


def _check_file(path: Path) -> None:
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise _refused(path, "it is not a regular file.")
    if facts.st_mode & 0o077:
        raise _refused(path, "it is open to group or others.", f"chmod 600 {path}")
    if facts.st_uid != os.geteuid():
        raise _refused(path, "it belongs to another account.")
    if (stranger := strange_log(path)) is not None:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"ledger {path}: it is a copy that was put here, and {stranger.name} is of the one that was here before.",
            hint=f"Move {stranger.name} and {path.name}-shm away, and keep them (docs/operators.md: Backup).",
            metadata={"path": str(path)},
        )
    if facts.st_size == 0 and _was_opened(path):
        raise _gone(path, "it is empty")


def strange_log(path: Path) -> Path | None:
    """The write-ahead log beside ``path`` that cannot be its own. SQLite would write its pages into it all the same.

    A backup is in journal mode DELETE (sqlite.org/fileformat.html, offset 18), and has a log only once it was opened as
    a ledger; what has no first page has none. Raises OSError.
    """
    log = path.with_name(f"{path.name}-wal")
    try:
        if log.stat().st_size == 0:
            return None
    except FileNotFoundError:
        return None
    with path.open("rb") as file:
        header = file.read(_HEADER)
    return log if len(header) < _HEADER or header[_WRITE_VERSION] != _LOGGED else None


def _was_opened(path: Path) -> bool:
    """Whether a ledger was made of it once, by what lies beside it."""
    try:
        return _OPENED in _lock_of(path).read_bytes()
    except OSError:
        return False


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _gone(path: Path, how: str = "it is gone") -> InvalidInput:
    moved = path.with_name(f"{path.name}.moved")
    if moved.exists():
        why, hint = "it was moved to a server.", "Say in ledger.dsn where it is now."
    else:
        why = f"{how}: {_lock_of(path).name} says that there was one."
        hint = (
            "It is the only list of what may be alive: put it back, or restore a backup."
            f" Where a new one is meant, remove {_lock_of(path).name}."
        )
    return InvalidInput(Reason.CONFIG_INVALID, f"ledger {path}: {why}", hint=hint, metadata={"path": str(path)})


def _refused(path: Path, why: str, hint: str = "") -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID, f"ledger {path}: {why}", hint=hint and f"Run: {hint}", metadata={"path": str(path)}
    )


class ProcessLock:
    """An exclusive advisory lock on the ledger and on a file beside it; it ends with the process, however that ends.

    The file beside it says who has it, and can be removed; the ledger's own lock is had all the same. (SQLite's locks
    are of another kind, and do not meet it; but those of this process end with any descriptor of the ledger that is
    closed. So it is released last.)
    """

    def __init__(self, path: Path) -> None:
        """Raises NotReady (STORE_UNAVAILABLE) if another process has it, OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptors = [os.open(_lock_of(path), flags, 0o600)]
        try:
            self._take(path)
            self._descriptors.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
            self._take(path)
        except BaseException:
            self.release()
            raise
        with contextlib.suppress(OSError):  # who has it is a courtesy, and a full disk keeps nobody from revoking
            os.pwrite(self._descriptors[0], b"%-*d\n" % (_WHO - 1, os.getpid()), 0)

    def opened(self) -> None:
        """The ledger is there: an empty file in its place is none that nobody has used."""
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptors[0], _OPENED, _WHO)

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptors[0], _WHO, 0).decode("ascii", "replace").strip()
            raise NotReady(
                Reason.STORE_UNAVAILABLE,
                f"ledger {path} is in use by another broker (process {holder or 'unknown'}).",
                hint="One brokerd per SQLite ledger: stop the other one, or give this one its own.",
                metadata={"path": str(path), "process": holder},
            ) from None

    def release(self) -> None:
        """Let the next broker in."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()


def connect_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes. Raises NotReady (STORE_UNAVAILABLE) if durability is not what was asked for."""
    connection = _connect(path, "rw")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        connection.close()
        raise _unfit(path, f"journal mode is {mode}, not WAL")
    keep_log(connection, CHECKPOINT_PAGES)
    return connection


def keep_log(connection: sqlite3.Connection, pages: int) -> None:
    """Move the write-ahead log into the file whenever it has so many pages."""
    connection.execute(f"PRAGMA wal_autocheckpoint = {int(pages)}")


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, seeing whatever is committed when a statement begins."""
    connection = _connect(path, "ro")
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_MS / 1000,
        isolation_level=None,  # transactions are opened and closed by name
        check_same_thread=False,  # each connection is used by one thread at a time
        cached_statements=256,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    # Some builds zero what is deleted. Nothing here opens a door, and an index entry moves with every lease.
    connection.execute("PRAGMA secure_delete = OFF")
    for pragma, wanted in (("synchronous", _SYNCHRONOUS_FULL), ("foreign_keys", 1), ("busy_timeout", BUSY_MS)):
        (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
        if value != wanted:
            connection.close()
            raise _unfit(path, f"PRAGMA {pragma} is {value}, not {wanted}")
    return connection


def _unfit(path: Path, why: str) -> NotReady:
    return NotReady(
        Reason.STORE_UNAVAILABLE,
        f"ledger {path}: {why}; an answered commit would not be durable.",
        hint="Keep the ledger on a local file system.",
        metadata={"path": str(path)},
    )
