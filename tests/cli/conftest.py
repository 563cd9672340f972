"""The ``broker`` command in processes of its own, against a fake broker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.fake_broker import FakeBroker, SvidFiles, svid_files

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
def cli(options: list[str], environment: dict[str, str]) -> Cli:
    def run(*arguments: str, stdin: str = "", **more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *options, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            env=environment,
            **more,  # type: ignore[call-overload]
        )

    return run
