"""Files that only their owner reads, written whole or not at all; and directories a server's account can use."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

# sockaddr_un holds 108 bytes, the final NUL included (unix(7)).
_LONGEST_SOCKET_PATH = 107


def private_directory(path: Path, *, others_may_pass: bool = False) -> Path:
    """``path`` as a directory that only its owner lists, made if absent.

    ``others_may_pass`` (mode 0711) lets a server's account reach what it owns inside; what is not its
    own stays unreadable, because every file is 0600.
    """
    mode = 0o711 if others_may_pass else 0o700
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    path.chmod(mode)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step, mode 0600 from the first byte: a reader sees old or new."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def append_private(path: Path) -> BinaryIO:
    """``path`` opened for appending, made with mode 0600 if absent."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def secret_file(path: Path) -> str:
    """The secret kept in ``path`` (0600), drawn at random the first time."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text()


def directory_for(uid: int, gid: int, wanted: Path, *, longest_name: int) -> Path:
    """A directory, owned by ``uid`` and entered by it alone, that this account can reach by its path.

    That is ``wanted`` where every parent lets the account through and a unix socket with a name of
    ``longest_name`` bytes fits. Otherwise, as under a 0700 home of root, ``wanted`` becomes a symbolic
    link to a fresh directory in a temporary directory of the system; :func:`remove_directory` removes both.
    """
    if wanted.is_symlink() and not _usable(wanted.resolve(), uid):
        wanted.unlink()  # the system has cleaned its temporary directory, or somebody else has put something there
    if wanted.is_dir():
        return wanted.resolve()
    fits = len(os.fsencode(wanted)) + 1 + longest_name <= _LONGEST_SOCKET_PATH
    if fits and can_reach(uid, gid, wanted.parent):
        wanted.mkdir(mode=0o700)
        place = wanted
    else:
        place = Path(tempfile.mkdtemp(prefix="jit-broker-", dir=_shared_directory(uid, gid)))
        wanted.symlink_to(place)
    os.chown(place, uid, gid)
    return place


def remove_directory(wanted: Path) -> None:
    """Remove what :func:`directory_for` made, wherever it was put."""
    if wanted.is_symlink():
        shutil.rmtree(wanted.resolve(), ignore_errors=True)
        wanted.unlink()
    else:
        shutil.rmtree(wanted, ignore_errors=True)


def can_reach(uid: int, gid: int, path: Path) -> bool:
    """Whether the mode bits of ``path`` and of its parents let the account in (access lists are not looked at)."""
    return all(_may_enter(parent.stat(), uid, gid) for parent in (path.resolve(), *path.resolve().parents))


def _shared_directory(uid: int, gid: int) -> str | None:
    """A temporary directory the account can reach: ``TMPDIR`` may be one that only root enters (pam_tmpdir(8))."""
    known = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # nosec B108 # noqa: S108 - mkdtemp makes it ours alone
    return next((path for path in known if Path(path).is_dir() and can_reach(uid, gid, Path(path))), None)


def _may_enter(status: os.stat_result, uid: int, gid: int) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _usable(place: Path, uid: int) -> bool:
    return place.is_dir() and not place.is_symlink() and place.stat().st_uid == uid
