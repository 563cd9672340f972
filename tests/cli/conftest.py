"""The ``broker`` command in processes of its own, against a fake broker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.main import cli as broker_command
from broker.client import calls
from broker.client.probe import probe
from tests.client.fake_broker import FakeBroker, SvidFiles, svid_files
from tests.patience import PATIENCE

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "broker.cli")
ASK = ("--template", "orders-readonly", "--account", "shop", "--environment", "dev", "--resource", "orders")

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    fake = FakeBroker().start()
    yield fake
    fake.stop()


@pytest.fixture
def files(fake: FakeBroker, tmp_path: Path) -> SvidFiles:
    return svid_files(tmp_path / "svid", fake.agent(), fake.ca)


@pytest.fixture
def options(fake: FakeBroker, files: SvidFiles) -> list[str]:
    """The global options of a caller the fake broker knows."""
    return ["--address", fake.address, *files.options()]


@pytest.fixture
def environment() -> dict[str, str]:
    """What every child gets: no proxy, no identity, no address of somebody's own."""
    dropped = ("BROKER_", "SPIFFE_", "PG", "AWS_", "GRPC_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


@pytest.fixture
def cli(options: list[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command in this process: quick, and the same but for signals and standard streams of children."""
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.setattr(calls, "RETRY_WAITS", tuple(wait / 10 for wait in calls.RETRY_WAITS))
    monkeypatch.setattr(probe, "__defaults__", (PATIENCE,))  # the doctor's, who otherwise gives up after three seconds

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(broker_command, [*options, *arguments], input=stdin, prog_name="broker")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def process(options: list[str], environment: dict[str, str]) -> Cli:
    """The command in a process of its own."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *options, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=ROOT,
            env=environment,
        )

    return run
