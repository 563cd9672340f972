"""Where mutmut works on one room: a folder of its own, in which only that room is mutated, by its own tests.

mutmut knows one configuration, and every test that comes by a mutant is run for it. A room that is held by the tests of
ideas, which need no server, is done in minutes; by all of them it would be a night.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = ROOT / "build" / "mutation"
# Of each room, the tests that hold it: its own, and those of its ideas that stand elsewhere.
TESTS: Mapping[str, tuple[str, ...]] = {
    "approval": ("approval",),
    "audit": ("audit", "client/test_report.py", "witnesses/test_checkpointer.py"),
    "delegation": ("delegation",),
    "identity": (
        "identity",
        "approval/test_separation.py",
        "delegation",
        "deployfiles/test_agents.py",
        "deployfiles/test_denied.py",
        "scope/test_from_identity.py",
    ),
    "lease": ("lease",),
    "policy": ("policy",),
    "scope": ("scope", "delegation", "audit/test_canonical.py"),
}
# Those whose every survivor was looked at: it is killed by now, or explained. What runs where no room is named.
DONE = ("approval", "audit", "delegation", "identity", "lease", "policy", "scope")
_COPIED = ("tests", "deploy", "protos", "docs", "bench", "integration")
# Words of errors are tested where people read them; what is decided stands on other lines.
_WORDS = (
    r"^\s*raise\b",
    r'^\s+(hint=)?f?"[^"]* [^"]*",?$',
    # Some rooms raise in one function, which gets the words, and choose among words first.
    r'^\s+_?refuse\(.*"[^"]* [^"]*"',
    r'^\s+(why|wrong) = f?"[^"]* [^"]*"',
)
_PYTEST = ("-m", "not slow", "-qq", "--tb=native", "-p", "no:cacheprovider")


def prepared(room: str, *, afresh: bool) -> Path:
    """The folder in which mutmut is started for a room; if ``afresh``, without what was found there before."""
    place = PLACES / room
    if afresh:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    for name in ("broker", "pyproject.toml", *_COPIED):
        if not (place / name).exists():
            (place / name).symlink_to(ROOT / name)
    with (place / "setup.cfg").open("w") as file:
        configuration(room).write(file)
    return place


def configuration(room: str) -> RawConfigParser:
    """What mutmut is told of a room, as it reads it from ``setup.cfg``."""
    told = RawConfigParser()
    told["mutmut"] = {
        "source_paths": "broker",
        "only_mutate": _lines(f"broker/{room}/*.py"),
        "also_copy": _lines(*_COPIED),
        "do_not_mutate_patterns": _lines(*_WORDS),
        "use_git_change_detection": "false",
    }
    return told


def session(room: str) -> list[str]:
    """What pytest is told, in the folder of the mutants, to put them to the tests of the room."""
    return ["--rootdir=.", *_PYTEST, "-p", "tests.mutation.session", *(f"tests/{each}" for each in TESTS[room])]


def _lines(*values: str) -> str:
    return "\n".join(["", *values])
