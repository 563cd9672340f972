"""Make and check the lock files: what is installed, by exact version and hash.

``lock.py`` compiles ``base.txt``, ``daemon.txt`` and ``dev.txt`` from the extras of ``pyproject.toml``,
for every platform and every Python from the oldest supported one on. ``--upgrade`` takes the newest
versions; without it, versions that still fit are kept. ``lock.py --check`` needs no network; it proves

1. that each lock was compiled from the requirements that stand in ``pyproject.toml`` now (their digest
   is the lock's first line) and that its pins satisfy them,
2. that every pin is exact and hashed, that no file names a host or an option, and that what two locks
   share they share in the same version,
3. that each lock is exactly the closure of its requirements in this environment, as the installed
   packages' own metadata tells it: nothing is missing, and nothing is left over.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).resolve().parent
PYPROJECT = HERE.parent / "pyproject.toml"
# From the widest to the narrowest: the narrower ones take the wider one's versions.
LOCKS = ("dev", "daemon", "base")
DIGEST_LINE = "# Made by `make lock` for the requirements with digest sha256:"
# Settings of this machine that must not decide, or be seen in, what everybody installs.
FOREIGN_SETTINGS = ("PIP_", "UV_")


@dataclass(frozen=True)
class Pin:
    """One locked package; ``requirement`` still has its marker."""

    requirement: Requirement
    hashes: int

    @property
    def name(self) -> str:
        """The normalised name (PEP 503)."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The version, from ``==``."""
        return next(iter(self.requirement.specifier)).version

    @property
    def wanted_here(self) -> bool:
        """Whether the marker holds in this environment."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def wanted(lock: str) -> list[Requirement]:
    """The requirements of ``pyproject.toml`` that a lock answers, our own extras resolved."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    texts = list(project["dependencies"])
    pending = [] if lock == "base" else [lock]
    while pending:
        for text in project["optional-dependencies"][pending.pop()]:
            requirement = Requirement(text)
            if canonicalize_name(requirement.name) == canonicalize_name(project["name"]):
                pending.extend(sorted(requirement.extras))
            else:
                texts.append(text)
    return [Requirement(text) for text in sorted(texts)]


def digest(lock: str) -> str:
    """What ties a lock to ``pyproject.toml``: changes when any requirement, or the oldest Python, does."""
    python = tomllib.loads(PYPROJECT.read_text())["project"]["requires-python"]
    text = json.dumps([python, *map(str, wanted(lock))])
    return hashlib.sha256(text.encode()).hexdigest()


def pins(text: str) -> list[Pin]:
    """Every package of a lock file. Raises ValueError for a line that is anything but a hashed pin."""
    found = []
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        head, *options = re.split(r"\s+--hash=sha256:", line.split(" #", 1)[0].strip())
        if not all(re.fullmatch(r"[0-9a-f]{64}", option.strip()) for option in options):
            raise ValueError(f"not a hashed pin: {head}")
        requirement = Requirement(head)
        specifiers = list(requirement.specifier)
        if requirement.url or len(specifiers) != 1 or specifiers[0].operator != "==":
            raise ValueError(f"not an exact pin: {head}")
        found.append(Pin(requirement, len(options)))
    return found


def closure(requirements: list[Requirement]) -> set[str]:
    """The names that installing ``requirements`` brings here, by the installed packages' metadata.

    Raises PackageNotFoundError where something of it is not installed.
    """
    seen: set[tuple[str, str]] = set()
    pending = [(requirement, "") for requirement in requirements]
    while pending:
        requirement, parent_extra = pending.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": parent_extra}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                needs = metadata.distribution(name).requires or []
                pending.extend((Requirement(need), extra) for need in needs)
    return {name for name, _ in seen}


def problems() -> Iterator[str]:
    """Everything that is wrong with the locks, one line each."""
    versions: dict[str, tuple[str, str]] = {}
    for lock in LOCKS:
        path = HERE / f"{lock}.txt"
        text = path.read_text()
        if re.search(r"https?:|^\s*-", re.sub(r"^\s+--hash=.*$", "", text, flags=re.MULTILINE), re.MULTILINE):
            yield f"{path.name}: names a host or an option"
        if text.splitlines()[0] != DIGEST_LINE + digest(lock):
            yield f"{path.name}: was not made for what pyproject.toml requires now; run `make lock`"
            continue
        try:
            locked = {pin.name: pin for pin in pins(text)}
        except ValueError as error:
            yield f"{path.name}: {error}"
            continue
        yield from (f"{path.name}: {pin.name} has no hash" for pin in locked.values() if not pin.hashes)
        for requirement in wanted(lock):
            pin = locked.get(canonicalize_name(requirement.name))
            if pin is None:
                yield f"{path.name}: {requirement} is required and not locked"
            elif not requirement.specifier.contains(Version(pin.version), prereleases=True):
                yield f"{path.name}: {pin.requirement} does not satisfy {requirement}"
        for pin in locked.values():
            other, version = versions.setdefault(pin.name, (path.name, pin.version))
            if version != pin.version:
                yield f"{path.name}: {pin.name} is {pin.version}, and {version} in {other}"
        here = {name for name, pin in locked.items() if pin.wanted_here}
        try:
            needed = closure(wanted(lock))
        except metadata.PackageNotFoundError as error:
            yield f"{path.name}: {error.name} is needed and not installed here"
            continue
        yield from (f"{path.name}: {name} is needed and not locked" for name in sorted(needed - here))
        yield from (f"{path.name}: nothing needs {name}" for name in sorted(here - needed))


def compile_locks(upgrade: bool) -> None:
    """Write the three files with uv, from the registry this machine is set up for, without naming it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_SETTINGS)}
    oldest = tomllib.loads(PYPROJECT.read_text())["project"]["requires-python"].removeprefix(">=")
    for lock in LOCKS:
        path = HERE / f"{lock}.txt"
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal"]
        command += ["--python-version", oldest, "--generate-hashes", "--no-config", "--quiet", "--no-header"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--annotation-style=line"]
        command += [] if lock == "base" else ["--extra", lock]
        command += ["--constraint", f"{HERE.name}/{LOCKS[0]}.txt"] if lock != LOCKS[0] else []
        command += ["--upgrade"] if upgrade else []
        command += ["--output-file", str(path)]
        subprocess.run(command, check=True, cwd=HERE.parent, env=environment)  # noqa: S603 - our own arguments
        body = re.sub(rf"^{re.escape(DIGEST_LINE)}.*\n", "", path.read_text(), flags=re.MULTILINE)
        body = re.sub(r", -c [^,\s]+|-c [^,\s]+, ", "", body)
        path.write_text(f"{DIGEST_LINE}{digest(lock)}\n{body}")


def main() -> int:
    """Make the locks, or with ``--check`` say what is wrong with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a lock is stale or unsound")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    arguments = parser.parse_args()
    if not arguments.check:
        compile_locks(arguments.upgrade)
    found = list(problems()) if arguments.check else []
    for problem in found:
        sys.stderr.write(f"requirements/{problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
