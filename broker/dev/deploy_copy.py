"""The deploy set of the embedded default: edited in place by a person, read by brokerd as a private copy.

brokerd refuses files that others may write, and a clone under umask 002 is full of them; and it must never
see a set that is half saved. So each state of the set is copied, 0700 and 0600, checked as a whole, and only
a good one gets the name that brokerd looks at, by an atomic swap of a symbolic link. That it was swapped,
brokerd notices by itself.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from broker.dev.files import private_directory
from broker.files import Problem, Problems
from broker.files.reading import MAX_BYTES
from broker.ports.deploys import DeploySet

_PREFIX = "set-"


def shipped_set() -> Path:
    """The set that comes with the package: a checkout's ``deploy/dev`` itself, or a wheel's copy of it.

    ``broker/dev/deploy`` is a symbolic link; building a wheel follows it, so the two cannot differ.
    """
    return Path(str(files("broker.dev").joinpath("deploy"))).resolve()


class DeployCopy:
    """Copies below ``directory`` of the set in ``source``; :attr:`current` names the last good one.

    ``check`` reads a set, or raises :class:`Problems`; these are told with the names of the source's files,
    as below ``shown``.
    """

    def __init__(
        self, source: Path, directory: Path, check: Callable[[Path], DeploySet], *, shown: Path | None = None
    ) -> None:
        self.source = source
        self.shown = source if shown is None else shown
        self._directory = directory
        self._check = check
        self._digest = ""

    @property
    def current(self) -> Path:
        """What brokerd's configuration names. There from the first good :meth:`refresh` on."""
        return self._directory / "current"

    def refresh(self) -> DeploySet | None:
        """Take in the source as it is now; None if it says what the last good one says.

        Raises :class:`Problems`: then the last good one stays.
        """
        private_directory(self._directory)
        copy = self._directory / f"{_PREFIX}{secrets.token_hex(8)}"
        try:
            _copy(self.source, copy, folders=True)
            checked = self._check(copy)
        except Problems as found:
            shutil.rmtree(copy)
            raise Problems([self._named(problem, copy) for problem in found.problems]) from None
        if checked.digest == self._digest:
            shutil.rmtree(copy)
            return None
        replaced = self.current.resolve()
        self._swap(copy)
        self._digest = checked.digest
        self._remove_all_but(copy, replaced)
        return checked

    def _swap(self, copy: Path) -> None:
        link = self._directory / f".current.{secrets.token_hex(4)}"
        link.symlink_to(copy.name)
        link.replace(self.current)

    def _remove_all_but(self, *kept: Path) -> None:
        """The set before stays, too: brokerd may be reading it at this moment."""
        names = {path.name for path in kept}
        for old in self._directory.glob(f"{_PREFIX}*"):
            if old.name not in names:
                shutil.rmtree(old)

    def _named(self, problem: Problem, copy: Path) -> Problem:
        file = Path(problem.file)
        if not file.is_relative_to(copy):
            return problem
        return dataclasses.replace(problem, file=str(self.shown / file.relative_to(copy)))


def _copy(source: Path, target: Path, *, folders: bool) -> None:
    """Copy what a set may consist of, and what the check must see to refuse it; raises :class:`Problems`.

    Not hidden files and editors' backups, which come and go; of a set's folders not what is in their folders;
    of no file more than the check accepts. What vanishes meanwhile is not copied: its removal is an event of its own.
    """
    target.mkdir(mode=0o700)
    try:
        entries = sorted(source.iterdir())
    except OSError as error:
        raise Problems([Problem(str(target), 1, "", f"cannot be read: {error.strerror}")]) from None
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith("~"):
            continue
        copy = target / entry.name
        try:
            if entry.is_symlink():
                copy.symlink_to(entry.readlink())
            elif entry.is_dir():
                _copy(entry, copy, folders=False) if folders else copy.mkdir(mode=0o700)
            elif entry.is_file():
                _copy_file(entry, copy)
            else:
                raise Problems([Problem(str(copy), 1, "", "is not a regular file")])
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Problems([Problem(str(copy), 1, "", f"cannot be read: {error.strerror}")]) from None


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as original:
        data = original.read(MAX_BYTES + 1)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        copy.write(data)
