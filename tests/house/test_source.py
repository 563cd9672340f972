"""What holds for every module, beyond what ruff, mypy and import-linter can say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house.project import ROOT, modules

# Calls that ask the machine for time or chance, by the attribute that is called.
CLOCKS = {
    *(("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")),
    *(("time", "time"), ("time", "time_ns")),
}
THE_CLOCK = ROOT / "broker" / "clock.py"


def asks_the_clock(source: str) -> list[int]:
    """Lines that ask for the wall-clock time."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            base = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (base, node.attr) in CLOCKS:
                found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [node.lineno for name in node.names if name.name in ("time", "time_ns")]
    return found


@pytest.mark.parametrize("module", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is_for(module: Path) -> None:
    docstring = ast.get_docstring(ast.parse(module.read_text()))
    assert docstring and docstring.splitlines()[0].endswith((".", ":", "?", ",", ";"))


def test_only_the_clock_asks_for_the_time() -> None:
    asking = {path: asks_the_clock(path.read_text()) for path in modules()}
    assert {path.relative_to(ROOT) for path, lines in asking.items() if lines} == {THE_CLOCK.relative_to(ROOT)}


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "import time\ntime.time()",
        "from time import time\ntime()",
        "import datetime\ndatetime.date.today()",
    ],
)
def test_the_search_for_clocks_finds_them(source: str) -> None:
    assert asks_the_clock(source)


@pytest.mark.parametrize("module", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_left_for_later(module: Path) -> None:
    # Split, so that this line is not what it looks for.
    assert not [word for word in ("TO" + "DO", "FIX" + "ME", "X" * 3) if word in module.read_text()]
