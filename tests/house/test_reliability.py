"""Every row of the fault matrix names tests that are there."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache

import pytest

from tests.house.project import ROOT, tree

FAULTS = [f"F{number}" for number in range(1, 28)] + ["F27b"] + [f"F{number}" for number in range(28, 51)]
INVARIANTS = [f"I{number}" for number in range(1, 15)]


@cache
def told() -> dict[str, dict[str, dict[str, object]]]:
    return tomllib.loads((ROOT / "docs/reliability.toml").read_text())


def every_row() -> Iterator[tuple[str, dict[str, object]]]:
    yield from told()["faults"].items()
    yield from told()["invariants"].items()


def is_there(test: str) -> bool:
    """``file::function``, or ``file::`` for whatever tests it has. Methods of test classes count."""
    file, _, name = test.partition("::")
    path = ROOT / file
    if not path.is_file():
        return False
    functions = (node.name for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(each == name or (not name and each.startswith("test_")) for each in functions)


def test_every_row_of_the_matrix_is_told_in_its_order() -> None:
    assert list(told()["faults"]) == FAULTS
    assert list(told()["invariants"]) == INVARIANTS


@pytest.mark.parametrize(("row", "content"), list(every_row()), ids=lambda each: each if isinstance(each, str) else "")
def test_a_row_is_proved_by_tests_that_are_there(row: str, content: dict[str, object]) -> None:
    tests = content["tests"]
    assert isinstance(tests, list)
    assert tests, f"{row} is proved by nothing"
    assert [test for test in tests if not is_there(test)] == []
    decision = content.get("decision")
    assert decision is None or (ROOT / f"docs/decisions/{decision}.md").is_file()


@pytest.mark.parametrize(
    "missing",
    ["tests/house/test_nothing.py::test_x", "tests/house/test_reliability.py::test_x", "docs/reliability.toml::"],
)
def test_a_test_that_is_not_there_is_missed(missing: str) -> None:
    assert not is_there(missing)
