"""Reading an operator's file, and refusing one that others may write.

Whoever can write these files decides who gets what, so a file or directory that its group or the
world may write is refused (``guarded.py``).
"""

from __future__ import annotations

from pathlib import Path

from broker.files.guarded import Unfit, check_mode, read_bytes
from broker.files.problems import Problem, Problems

MAX_BYTES = 256 * 1024


def read_text(path: Path, shown: str, *, follow: bool = True) -> str:
    """The UTF-8 text of a regular file of at most 256 KiB. Raises :class:`Problems`.

    ``shown`` is what problems call it. ``follow=False`` refuses a symbolic link.
    """
    try:
        data = read_bytes(path, private=False, at_most=MAX_BYTES, follow=follow)
    except Unfit as unfit:
        raise _problem(shown, unfit) from None
    return as_text(data, shown)


def as_text(data: bytes, shown: str) -> str:
    """``data`` as UTF-8. Raises :class:`Problems`, at the line where it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Problems([Problem(shown, line, "", "is not UTF-8")]) from None


def check_directory(path: Path, shown: str) -> None:
    """Refuses a directory that is none, or that others may write. Raises :class:`Problems`."""
    try:
        check_mode(path, path.stat().st_mode, private=False, directory=True)
    except OSError as error:
        raise _problem(shown, Unfit(f"cannot be read: {error.strerror}")) from None
    except Unfit as unfit:
        raise _problem(shown, unfit) from None


def _problem(shown: str, unfit: Unfit) -> Problems:
    return Problems([Problem(shown, 1, "", unfit.message, unfit.hint)])
