"""Opening a file only if nobody else could have written it (or, for keys, read it).

The checks are made on the open file, not on its name, so that nothing can be exchanged in between; a
FIFO does not block, a directory or device is refused, and a size bound holds before anything is kept.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_MAY_ANYTHING = stat.S_IRWXG | stat.S_IRWXO


class Unfit(Exception):
    """Why a file is not used. Callers turn it into the error of their own family."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}{'; ' if hint else ''}{hint}")
        self.message = message
        self.hint = hint


def read_bytes(path: Path, *, private: bool, at_most: int, follow: bool = True) -> bytes:
    """The bytes of a regular file that only its owner may write and, if ``private``, read.

    ``at_most``: size bound in bytes. ``follow=False`` refuses a symbolic link. Raises :class:`Unfit`.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
        try:
            check_mode(path, os.fstat(descriptor).st_mode, private=private, directory=False)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(at_most + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not follow and path.is_symlink():
            raise Unfit("is a symbolic link", "put the file itself there") from None
        raise Unfit(f"cannot be read: {error.strerror}") from None
    if len(data) > at_most:
        raise Unfit(f"is larger than {at_most // 1024} KiB")
    return data


def check_mode(path: Path, mode: int, *, private: bool, directory: bool) -> None:
    """Refuse a file (or directory) of the wrong type or open to others. Raises :class:`Unfit`."""
    if directory and not stat.S_ISDIR(mode):
        raise Unfit("is not a directory")
    if not directory and not stat.S_ISREG(mode):
        raise Unfit("is not a regular file")
    bits = stat.S_IMODE(mode)
    if private and mode & _OTHERS_MAY_ANYTHING:
        raise Unfit(f"is secret, and its group or the world may use it (mode {bits:04o})", f"run: chmod 0600 {path}")
    if mode & _OTHERS_MAY_WRITE:
        who = "the world" if mode & stat.S_IWOTH else "its group"
        raise Unfit(f"is writable by {who} (mode {bits:04o})", f"run: chmod go-w {path}")
