"""One version, said once."""

from __future__ import annotations

import re
from importlib.metadata import version

from tests.house.project import ROOT, pyproject


def test_what_is_installed_is_what_pyproject_says() -> None:
    assert version("jit-broker") == pyproject()["project"]["version"]


def test_the_changelog_knows_no_version_above_it() -> None:
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    current = pyproject()["project"]["version"]
    assert all(tuple(map(int, each.split("."))) <= tuple(map(int, current.split("."))) for each in released)


def test_the_version_is_written_nowhere_else() -> None:
    current = re.escape(pyproject()["project"]["version"])
    files = [path for path in (ROOT / "broker").rglob("*.py") if "vendored" not in path.parts]
    assert not [path for path in files if re.search(rf"version\w*\s*=\s*[\"']{current}", path.read_text())]
