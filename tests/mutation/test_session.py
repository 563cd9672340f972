"""Mutants are put to the tests that come by them, and what came of each is kept. mutmut and its mutants are made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.mutants import KILLED, SURVIVED, TIMEOUT, judge, statuses
from tests.mutation.place import ROOT
from tests.mutation.session import verdict

STATE = """
class State:
    _stats = set()
def state():
    return State
"""
CODE = """
import os
from mutmut.state import state
seen = []
def half(number):
    mutant = os.environ["MUTANT_UNDER_TEST"]
    if mutant == "stats":
        state()._stats.add("broker.room.code.x_half")
    if mutant.endswith("_1"):
        return number // 3
    if mutant.endswith("_2"):
        return number / 2
    while mutant.endswith("_5"):
        pass
    if mutant.endswith("_3"):
        os._exit(0 if seen else 9)
    seen.append(number)
    return number // 2
def unused():
    pass
"""
TEST = """
from broker.room.code import half, seen
def test_half():
    assert not seen  # nobody was here before
    assert half(4) == 2
def test_something_else():
    pass
"""
HALF, UNUSED = "broker.room.code.x_half__mutmut_", "broker.room.code.x_unused__mutmut_1"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, text in {
        "mutmut/__init__.py": "",
        "mutmut/state.py": STATE,
        "broker/__init__.py": "",
        "broker/room/__init__.py": "",
        "broker/room/code.py": CODE,
        "test_room.py": TEST,
        "broker/room/code.py.meta": json.dumps(
            {
                "exit_code_by_key": dict.fromkeys([HALF + "1", HALF + "2", HALF + "3", UNUSED]) | {HALF + "4": 1},
                "other": 7,
            }
        ),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def put_to_tests(place: Path, *options: str) -> int:
    command = [sys.executable, "-m", "pytest", "--rootdir=.", "-qq", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": f"{place}:{ROOT}", "MUTANT_UNDER_TEST": ""}
    return subprocess.run(
        [*command, "-p", "tests.mutation.session", "test_room.py", *options],
        cwd=place,
        env=environment,
        check=False,
        capture_output=True,
    ).returncode


@pytest.mark.slow
def test_each_is_told_apart_and_what_lived_is_asked_again_where_that_is_wanted(place: Path) -> None:
    assert put_to_tests(place, "--mutants-at-a-time", "2") == 0
    expected = {
        HALF + "1": "killed",
        HALF + "2": "survived",
        HALF + "3": "killed",  # the process itself broke
        HALF + "4": "killed",  # as it was
        UNUSED: "no tests",
    }
    assert dict(statuses(place)) == expected
    (place / "test_room.py").write_text(TEST + "    assert type(half(4)) is int\n")
    assert put_to_tests(place) == 0
    assert dict(statuses(place)) == expected
    assert put_to_tests(place, "--mutants-alive") == 0
    assert dict(statuses(place)) == expected | {HALF + "2": "killed"}
    assert json.loads((place / "broker/room/code.py.meta").read_text())["other"] == 7


@pytest.mark.slow
def test_a_mutant_that_never_ends_is_stopped(place: Path) -> None:
    (place / "impatient.py").write_text("from tests.mutation import session\nsession._SPARE_S = 0\n")
    file = place / "broker/room/code.py.meta"
    file.write_text(json.dumps({"exit_code_by_key": {HALF + "5": None, HALF + "1": None}}))
    assert put_to_tests(place, "-p", "impatient") == 0
    assert dict(statuses(place)) == {HALF + "5": "timeout", HALF + "1": "killed"}


@pytest.mark.slow
def test_where_tests_fail_by_themselves_nothing_is_said_of_mutants(place: Path) -> None:
    (place / "test_room.py").write_text(TEST + "    assert False\n")
    assert put_to_tests(place) != 0
    assert set(dict(statuses(place)).values()) == {"not checked", "killed"}


def test_verdicts_are_kept_by_mutant(place: Path) -> None:
    judge(place, {HALF + "1": TIMEOUT, "broker.room.code.x_gone__mutmut_1": KILLED})
    told = dict(statuses(place))
    assert (told[HALF + "1"], told[HALF + "2"], len(told)) == ("timeout", "not checked", 5)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", SURVIVED),
        ("raise SystemExit(1)", KILLED),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", TIMEOUT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGALRM)", TIMEOUT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", TIMEOUT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", KILLED),
    ],
)
def test_how_a_process_ended_is_the_verdict(code: str, expected: int) -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", code], stderr=subprocess.DEVNULL)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0  # it was waited for
    assert verdict(status) == expected
