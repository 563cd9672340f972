"""The operator's page, carried out: what ``docs/identity.md`` tells to type is typed, and its files are written.

Belongs here: reading the page, and where its words lead to on this machine. A block is for our operator, unless its
first line says for whom it is. What must be true afterwards is the story's business.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from broker.dev.files import private_directory, write_private
from tests.house.project import ROOT, blocks

PAGE = ROOT / "docs" / "identity.md"


def section(title: str) -> list[tuple[str, str]]:
    """(language, content) of the blocks below one heading of the page, its subsections included."""
    _, _, rest = PAGE.read_text().partition(f"\n## {title}\n")
    assert rest, title
    return blocks(re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0])


class Operators:
    """Whoever the page speaks to. ``places`` says what stands here for a word of the page.

    ``commands`` has, by whom a block is for (empty: our operator), what runs as which command there.
    """

    def __init__(
        self, directory: Path, deploy: Path, places: Mapping[str, str], commands: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._directory = private_directory(directory)
        self._deploy = deploy
        self._places = {**places, **{f"unix:uid:{uid}": f"unix:uid:{os.geteuid()}" for uid in (990, 991, 1001)}}
        self._paths = {whom: self._wrapped(whom, each) for whom, each in commands.items()}
        # What the page says goes into brokerd.yaml, the later over the earlier.
        self.configuration: dict[str, Any] = {}

    def carry_out(self, title: str) -> None:
        """Every block of a section, from its top."""
        for language, content in section(title):
            first, _, rest = content.partition("\n")
            if language == "sh":
                whom = first.removeprefix("# at ").removeprefix("# as the ") if first.startswith("# ") else ""
                self._type(self._paths[whom], self._here(content))
            elif language == "yaml" and first == "# in brokerd.yaml":
                self.configuration |= yaml.safe_load(self._here(rest))
            elif language == "yaml":
                write_private(self._deploy / first.removeprefix("# "), content)

    def _here(self, text: str) -> str:
        for word, place in self._places.items():
            text = text.replace(word, place)
        return text

    def _type(self, path: Path, lines: str) -> None:
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", lines],
            cwd=self._directory,
            env={"PATH": f"{path}:{os.defpath}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"

    def _wrapped(self, whom: str, commands: Mapping[str, str]) -> Path:
        """A directory for the PATH in which each command is what it is for this person."""
        path = private_directory(self._directory / (whom or "ours") / "bin")
        for name, line in commands.items():
            (path / name).write_text(f"#!/bin/bash\nexec {line}\n")
            (path / name).chmod(0o700)
        return path


def at_socket(binary: Path, socket: Path) -> str:
    """``spire-server``, whose commands of two words take ``-socketPath`` after them."""
    return f'{shlex.quote(str(binary))} "$1" "$2" -socketPath {shlex.quote(str(socket))} "${{@:3}}"'


def broker_command(python: str, environment: Mapping[str, str]) -> str:
    """``broker``, as run by this Python, with these variables."""
    variables = {"PYTHONPATH": str(ROOT), "HOME": "/nowhere", **environment}
    words = ["env", *(f"{name}={value}" for name, value in variables.items()), python, "-m", "broker.cli"]
    return f'{shlex.join(words)} "$@"'
