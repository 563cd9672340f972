"""What holds for every module, beyond what ruff, mypy and import-linter can say."""

from __future__ import annotations

import ast

import pytest

from tests.house.project import ROOT, modules, nodes, tree

# Calls that ask the machine for time or chance, by the attribute that is called.
CLOCKS = {
    *(("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")),
    *(("time", "time"), ("time", "time_ns")),
}
THE_CLOCK = ROOT / "broker" / "clock.py"


def asks_the_clock(module: ast.Module) -> list[int]:
    """Lines that ask for the wall-clock time."""
    found = []
    for node in nodes(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            base = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (base, node.attr) in CLOCKS:
                found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [node.lineno for name in node.names if name.name in ("time", "time_ns")]
    return found


def says_what_it_is_for(module: ast.Module) -> bool:
    docstring = ast.get_docstring(module)
    return bool(docstring) and docstring.splitlines()[0].endswith((".", ":", "?", ",", ";"))  # type: ignore[union-attr]


# One test and not one for each of the modules: there are hundreds, and a test costs more than such a look.
def test_every_module_says_what_it_is_for() -> None:
    assert [path.relative_to(ROOT).as_posix() for path in modules() if not says_what_it_is_for(tree(path))] == []


@pytest.mark.parametrize("source", ["", "import time", '"""not a sentence"""', '""""""'])
def test_a_module_that_does_not_say_it_is_found(source: str) -> None:
    assert not says_what_it_is_for(ast.parse(source))


def test_only_the_clock_asks_for_the_time() -> None:
    asking = {path: asks_the_clock(tree(path)) for path in modules()}
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
    assert asks_the_clock(ast.parse(source))


def test_nothing_is_left_for_later() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "X" * 3)  # split, so that this line is not what it looks for
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in modules()}
    assert [(module, word) for module, text in texts.items() for word in words if word in text] == []
