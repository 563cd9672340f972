"""`broker dev` as a person uses it: paste what it prints, edit the deploy set, press Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dev.watched import Watched, passable_directory, secrets_in

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
Start = Callable[[], Watched]
_READY = "Ctrl-C stops everything."


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the person works: a deploy set with a clone's loose modes."""
    with passable_directory() as directory:
        shutil.copytree(ROOT / "deploy" / "dev", directory / "deploy")
        for path in (directory / "deploy").rglob("*"):
            path.chmod(path.stat().st_mode | 0o020)
        yield directory


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Starts `broker dev`; kills it if the test did not end it."""
    started: list[Watched] = []

    def run() -> Watched:
        started.append(Watched("dev", "--deploy", "deploy", cwd=place, temporary=place))
        return started[-1]

    yield run
    for each in started:
        each.kill()


def replace(file: Path, text: str) -> None:
    """As an editor that saves whole files: who watches sees the old one or the new one, and not half of it."""
    draft = file.with_name(f".{file.name}.swp")
    draft.write_text(text)
    draft.replace(file)


def pasted(lines: list[str]) -> str:
    """What stands indented between "paste this" and the next agent, to be typed as it is."""
    text = "\n".join(lines)
    block = text[text.index("paste this in another terminal:") : text.index("To be migrator")]
    return "\n".join(line.strip() for line in block.splitlines() if line.startswith("  "))


@pytest.mark.slow
def test_a_session_at_the_terminal(start: Start, place: Path) -> None:
    dev = start()
    greeting = dev.until(_READY)
    assert "deploy      deploy, watched" in dev.output

    # A second one leaves the first one's state alone.
    current = place / ".broker-dev" / "deploy" / "current"
    before = current.readlink()
    second = start()
    assert second.to_its_end() == 2, second.output
    assert "is in use by another process" in second.output
    assert current.readlink() == before

    # Somebody else's terminal: a bare environment, and what was printed.
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", pasted(greeting)],
        cwd=place, env={"PATH": os.defpath, "HOME": str(place)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "spiffe://dev.broker.internal/agent/analyst" in done.stdout
    assert "(5,)" in done.stdout.splitlines()
    assert "REVOKED" in done.stdout  # the lease of the example, by the time it is listed

    # Edited in place: taken in, refused with its place, taken in again.
    template = place / "deploy" / "templates" / "orders-readonly.yaml"
    original = template.read_text()
    replace(template, original.replace("max_ttl: 15m", "max_ttl: 14m"))
    agents, templates = (len(list((place / "deploy" / kind).glob("*.yaml"))) for kind in ("agents", "templates"))
    policies = sum(each.read_text().count("\n@id(") for each in (place / "deploy" / "policies").glob("*.cedar"))
    told = dev.until("new deploy set in force: ")
    assert told[-1] == f"new deploy set in force: {agents} agents, {templates} templates, {policies} policies"
    replace(template, original.replace("max_ttl: 15m", "max_ttl: soon"))
    told = dev.until("the last good set stays in force")
    line = 1 + original.splitlines().index("max_ttl: 15m")
    assert any(each.startswith(f"deploy/templates/orders-readonly.yaml:{line}: max_ttl: ") for each in told)
    replace(template, original.replace("max_ttl: 15m", "max_ttl: 14m"))
    dev.until("the deploy set is again the one in force")

    state = place / ".broker-dev"
    secrets = secrets_in(state)
    dev.tell(signal.SIGINT)
    assert dev.to_its_end() == 0
    assert dev.lines[-1] == "stopped; nothing is left running. State: .broker-dev"
    assert {"postgres", "bao"} <= set(dev.family.values())
    assert dev.left() == {}
    assert [secret for secret in secrets if secret in dev.output] == []
    assert (state / ".gitignore").read_text() == "*\n"


@pytest.mark.slow
def test_a_bad_set_is_told_and_nothing_is_started(start: Start, place: Path) -> None:
    (place / "deploy" / "people.yaml").unlink()
    dev = start()
    assert dev.to_its_end() == 2, dev.output
    assert any(line.startswith("deploy/people.yaml:1: is missing") for line in dev.lines), dev.output
    assert dev.family == {}
