"""Reading an operator's file, and refusing one that others may write.

Whoever can write these files decides who gets what, so a file or directory that its group or the
world may write is refused. The check is made on the open file, not on its name, so nothing can be
swapped in between.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from broker.files.problems import Problem, Problems

MAX_BYTES = 256 * 1024
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def read_text(path: Path, shown: str, *, follow: bool = True) -> str:
    """The UTF-8 text of a regular file of at most 256 KiB. Raises :class:`Problems`.

    ``shown`` is what problems call it. ``follow=False`` refuses a symbolic link.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if not follow and path.is_symlink():
            raise _problem(shown, "is a symbolic link", "Put the file itself there.") from None
        raise _problem(shown, f"cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _problem(shown, "is not a regular file")
        _check_mode(path, shown, status.st_mode)
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _problem(shown, f"is larger than {MAX_BYTES // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Problems([Problem(shown, line, "", "is not UTF-8")]) from None


def check_directory(path: Path, shown: str) -> None:
    """Refuses a directory that is none, or that others may write. Raises :class:`Problems`."""
    try:
        status = path.stat()
    except OSError as error:
        raise _problem(shown, f"cannot be read: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise _problem(shown, "is not a directory")
    _check_mode(path, shown, status.st_mode)


def _check_mode(path: Path, shown: str, mode: int) -> None:
    if mode & _WRITABLE_BY_OTHERS:
        who = "the world" if mode & stat.S_IWOTH else "its group"
        raise _problem(shown, f"is writable by {who} (mode {stat.S_IMODE(mode):04o})", f"Run: chmod go-w {path}")


def _problem(shown: str, message: str, hint: str = "") -> Problems:
    return Problems([Problem(shown, 0, "", message, hint)])
