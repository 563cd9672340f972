"""The files of a deploy set, each read once.

The directory is resolved once, before the first file: where operators swap a symbolic link, all
files come from one side of the swap. A directory that is itself replaced while it is read is noticed
afterwards, and refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.files import Problem, Problems, check_directory, read_text

PEOPLE, CONNECTORS = "people.yaml", "connectors.yaml"
# A set may do without these.
DENIED, TRUST_DOMAINS, APPROVALS = "denied.yaml", "trust_domains.yaml", "approvals.yaml"
QUOTAS, ESCALATION = "quotas.yaml", "escalation.yaml"
AGENTS, TEMPLATES, POLICIES = "agents", "templates", "policies"
_CEDAR = ".cedar"
_FOLDERS = {AGENTS: ".yaml", TEMPLATES: ".yaml", POLICIES: _CEDAR}
# Policies that are tried out and decide nothing; a set may do without. Not below policies/, so that nothing which
# reads those can take them in.
SHADOW = "shadow_policies"
# A set may do without these, too: tests of its policies, beside them.
POLICY_TESTS = ".test.yaml"
_BESIDE = {POLICIES: POLICY_TESTS}
_IGNORED = {"README.md"}
# Beside the set, not of it: signatures are over the digest, and do not change it.
SIGNATURES = "signatures"
ENVELOPE = f"{SIGNATURES}/set.dsse.json"
_STRAY = "is not part of a deploy set"
# In the root of a Kubernetes volume, beside links to what is in it: a link to all of it, swapped as one.
_KUBERNETES = "..data"
_NAMES = "Name it in printable characters, in UTF-8."


@dataclass(frozen=True, slots=True)
class Identity:
    """Which directory it really is: another one under the same name is another set."""

    resolved: Path
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Listing:
    """``texts`` by path relative to the set (``agents/x.yaml``); ``shown`` is how the operator named the set.

    ``envelope``: the text of the signatures' file, which is not one of ``texts``; None where there is none.
    """

    shown: Path
    identity: Identity
    texts: Mapping[str, str]
    problems: tuple[Problem, ...]  # of files that could not be taken in
    envelope: str | None = None

    def name(self, relative: str) -> str:
        """What problems call a file."""
        return str(self.shown / relative)

    def folder(self, name: str) -> list[str]:
        """The files that a folder is for, sorted."""
        return self._ending(name, _FOLDERS.get(name, _CEDAR))

    def policy_tests(self) -> list[str]:
        """The tests that lie beside the policies, sorted."""
        return self._ending(POLICIES, POLICY_TESTS)

    def _ending(self, folder: str, suffix: str) -> list[str]:
        return sorted(each for each in self.texts if each.startswith(f"{folder}/") and each.endswith(suffix))

    def digest(self) -> str:
        """SHA-256 (hex) over every file's name and bytes."""
        digest = hashlib.sha256()
        for relative in sorted(self.texts):
            for part in (relative.encode(), self.texts[relative].encode()):
                digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


def identity(directory: Path) -> Identity:
    """Which directory ``directory`` is right now. Raises :class:`Problems`."""
    try:
        resolved = directory.resolve(strict=True)
        status = resolved.stat()
    except OSError as error:
        raise Problems([Problem(str(directory), 1, "", f"cannot be read: {error.strerror}")]) from None
    return Identity(resolved, status.st_dev, status.st_ino)


def read_set(directory: Path) -> Listing:
    """Every file of the set in ``directory``. Raises :class:`Problems` where there is no set at all."""
    before = identity(directory)
    check_directory(before.resolved, str(directory))
    if (before.resolved / _KUBERNETES).is_symlink():
        hint = f"Name {directory / _KUBERNETES}: that changes as one."
        raise Problems([Problem(str(directory), 1, "", "is a Kubernetes volume, whose files are links", hint)])
    reader = _Reader(directory, before.resolved)
    reader.root()
    if not before.resolved.exists() or identity(before.resolved) != before:
        raise Problems([Problem(str(directory), 1, "", "was replaced while it was read", "Reload again.")])
    envelope = reader.texts.pop(ENVELOPE, None)
    return Listing(directory, before, reader.texts, tuple(reader.problems), envelope)


class _Reader:
    def __init__(self, shown: Path, root: Path) -> None:
        self._shown = shown
        self._root = root
        self.texts: dict[str, str] = {}
        self.problems: list[Problem] = []

    def root(self) -> None:
        present = self._names("")
        if present is None:
            return
        files = (PEOPLE, CONNECTORS, APPROVALS, DENIED, TRUST_DOMAINS, QUOTAS, ESCALATION)
        for name in present:
            if name in _FOLDERS or name == SHADOW:
                self._folder(name, _FOLDERS.get(name, _CEDAR))
            elif name == SIGNATURES:
                self._signatures()
            elif name in files:
                self._file(name)
            elif name not in _IGNORED:
                self._refuse(name, _STRAY, f"A set holds {', '.join([*_FOLDERS, SHADOW, *files, SIGNATURES])}.")
        for name in sorted({*_FOLDERS, PEOPLE, CONNECTORS} - set(present)):
            self._refuse(name, "is missing")

    def _folder(self, name: str, suffix: str) -> None:
        present = self._inside(name)
        if present is None:
            return
        for file in present:
            if file.endswith((suffix, _BESIDE.get(name, suffix))):
                self._file(f"{name}/{file}")
            elif file not in _IGNORED:
                # A .yml that is silently not read could be the agent somebody thinks is registered.
                endings = " or ".join([suffix, *([_BESIDE[name]] if name in _BESIDE else [])])
                self._refuse(f"{name}/{file}", _STRAY, f"Files of {name} end in {endings}.")
        if not any(file.endswith(suffix) for file in present):
            self._refuse(name, f"has no *{suffix}")

    def _signatures(self) -> None:
        for file in self._inside(SIGNATURES) or ():
            if f"{SIGNATURES}/{file}" == ENVELOPE:
                self._file(ENVELOPE)
            elif file not in _IGNORED:
                self._refuse(f"{SIGNATURES}/{file}", _STRAY, f"All signatures are in {ENVELOPE}.")

    def _inside(self, name: str) -> list[str] | None:
        """What is in a folder; None, and a problem, where nobody should look into it."""
        if (self._root / name).is_symlink():
            self._refuse(name, "is a symbolic link", "Link the whole set, so that it changes as one.")
            return None
        try:
            check_directory(self._root / name, str(self._shown / name))
        except Problems as found:
            self.problems.extend(found.problems)
            return None
        return self._names(name)

    def _file(self, relative: str) -> None:
        try:
            self.texts[relative] = read_text(self._root / relative, str(self._shown / relative), follow=False)
        except Problems as found:
            self.problems.extend(found.problems)

    def _refuse(self, relative: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(str(self._shown / relative), 1, "", message, hint))

    def _names(self, folder: str) -> list[str] | None:
        """What is to be looked at in a folder of the set (empty: the set itself), sorted; None where nobody can tell.

        Of a name that cannot be shown, and so not be looked at, there is a problem.
        """
        try:
            names = [path.name for path in (self._root / folder).iterdir()]
        except OSError as error:
            self._refuse(folder, f"cannot be read: {error.strerror}")
            return None
        # Hidden files and editors' backups come and go while somebody works.
        names = [name for name in names if not name.startswith(".") and not name.endswith("~")]
        for name in names:
            if not name.isprintable():  # bytes that are no UTF-8 are none, either
                where = f"{folder}/{ascii(name)[1:-1]}".lstrip("/")
                self._refuse(where, "has characters in its name that cannot be shown", _NAMES)
        return sorted(filter(str.isprintable, names))
