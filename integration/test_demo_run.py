"""`broker demo` as a person runs it: once to its end, once interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from broker.cli.demo.story import STORY
from broker.dev.minio import built
from tests.dev.watched import Watched, passable_directory, secrets_in

Start = Callable[..., Watched]
_STATES = "jit-broker-demo-*"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the demo puts its state."""
    with passable_directory() as directory:
        yield directory


@pytest.fixture
def start(temporary: Path) -> Iterator[Start]:
    started: list[Watched] = []

    def run(*arguments: str) -> Watched:
        started.append(Watched("demo", *arguments, cwd=temporary, temporary=temporary))
        return started[-1]

    yield run
    for each in started:
        each.kill()


def test_the_whole_story(start: Start, temporary: Path) -> None:
    demo = start()
    demo.until(STORY[0].title)
    (state,) = temporary.glob(_STATES)
    secrets = secrets_in(state)
    assert demo.to_its_end() == 0, demo.output
    for number, step in enumerate(STORY, start=1):
        assert f"{number:2}  {step.title}" in demo.lines
    assert demo.lines[-1].startswith(f"All {len(STORY)} steps came true: ")
    # The same brokerd, killed and started again, among others.
    assert len(demo.family) > 15
    assert demo.left() == {}
    assert list(temporary.iterdir()) == []
    assert [secret for secret in secrets if secret in demo.output] == []
    # Who plays S3 depends on the machine; who only plays it says so.
    assert ("enforces no policy" in demo.output) is (built() is None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(start: Start, temporary: Path, number: signal.Signals) -> None:
    demo = start()
    demo.until(STORY[1].title if number is signal.SIGINT else "Starting")
    assert number is not signal.SIGINT or {"postgres", "bao"} <= set(demo.family.values())
    demo.tell(number)
    assert demo.to_its_end() == 1
    assert "INTERRUPTED" in demo.lines[-1]
    assert demo.left() == {}
    assert list(temporary.iterdir()) == []


def test_what_failed_is_told_and_kept(start: Start, temporary: Path) -> None:
    """PostgreSQL is taken away in the middle: the demo must not come true, and says where to look."""
    demo = start()
    demo.until(STORY[1].title)
    for process in demo.processes("postgres"):
        with suppress(psutil.NoSuchProcess):  # the first that is killed takes the others with it
            process.kill()
    assert demo.to_its_end() == 1, demo.output
    failure, where = demo.lines[-2:]
    assert failure.startswith("FAILED  step "), demo.output
    (state,) = temporary.glob(_STATES)
    assert str(state) in where
    assert all((state / log).exists() for log in where.partition("logs: ")[2].split(", "))
    assert demo.left() == {}
