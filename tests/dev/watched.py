"""A command in a process of its own, its lines as they come, and every process that it ever started."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.dev.test_process import has_ended
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
# Whole stacks are started meanwhile, and the demo is told from its beginning to its end.
WHOLE_STORY_SECONDS = 5 * PATIENCE
NOWHERE = "http://127.0.0.1:9"
# A person's shell may say all of this, about servers that are none of ours.
SOMEBODYS = {
    "PGHOST": "/nowhere", "PGSSLMODE": "verify-full", "PGOPTIONS": "-c nonsense=1", "PGSERVICE": "nope",
    "AWS_PROFILE": "nope", "AWS_ENDPOINT_URL": NOWHERE, "AWS_CA_BUNDLE": "/nowhere",
    "VAULT_ADDR": NOWHERE, "VAULT_TOKEN": "nope", "VAULT_NAMESPACE": "nope", "BAO_ADDR": NOWHERE,
    "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "ALL_PROXY": NOWHERE, "http_proxy": NOWHERE,
    "BROKER_ADDRESS": "nowhere:1", "BROKER_SERVER_NAME": "nope", "SPIFFE_ENDPOINT_SOCKET": "unix:///nowhere",
    "BROKER_TRUST_DOMAIN": "nope.example.org", "BROKER_AUDIENCE": "nope",
}  # fmt: skip

# What each server keeps for itself in the state directory.
SECRET_FILES = (
    "mac.key",
    "openbao/keys.json",
    "postgres/superuser.password",
    "postgres/openbao.password",
    "aws/secret-access-key",
)


class Watched:
    """``broker ARGUMENTS`` in ``cwd``, its temporary files in ``temporary``."""

    def __init__(self, *arguments: str, cwd: Path, temporary: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "broker.cli", *arguments],
            cwd=cwd,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("GRPC_")},
                **SOMEBODYS,
                "TMPDIR": str(temporary),
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._processes: dict[int, psutil.Process] = {}
        self.family: dict[int, str] = {}
        self._incoming: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def until(self, text: str) -> list[str]:
        """Lines from here to the one that holds ``text``."""
        seen: list[str] = []
        end = time.monotonic() + WHOLE_STORY_SECONDS
        while True:
            line = self._next(end)
            assert line is not None, f"ended without {text!r}:\n{self.output}"
            seen.append(line)
            if text in line:
                return seen

    def to_its_end(self) -> int:
        """The exit code, after everything it had to say."""
        end = time.monotonic() + WHOLE_STORY_SECONDS
        while self._next(end) is not None:
            continue
        return self._process.wait(PATIENCE)

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def left(self) -> dict[int, str]:
        """Those of the processes it started that still live."""
        return {pid: name for pid, name in self.family.items() if not has_ended(self._processes[pid])}

    def processes(self, name: str) -> list[psutil.Process]:
        """Those that it started of this name, whether they live or not."""
        return [self._processes[pid] for pid, known in self.family.items() if known == name]

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)

    def _next(self, end: float) -> str | None:
        while True:
            self._look()
            try:
                line = self._incoming.get(timeout=0.1)
            except queue.Empty:
                assert time.monotonic() < end, f"nothing more came in time:\n{self.output}"
                continue
            if line is not None:
                self.lines.append(line)
            return line

    def _look(self) -> None:
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for child in children:
            self._processes[child.pid] = child
            with suppress(psutil.NoSuchProcess):
                # Again at each look: between fork and exec a process still has its parent's name.
                self.family[child.pid] = child.name()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._incoming.put(line.rstrip("\n"))
        self._incoming.put(None)


@contextmanager
def passable_directory() -> Iterator[Path]:
    """A temporary directory through which root's PostgreSQL, which runs as another account, can pass."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def secrets_in(state: Path) -> list[str]:
    """Every secret that the servers keep in files, whole lines and JSON values alike."""
    found: list[str] = []
    for name in SECRET_FILES:
        found += [part for part in (state / name).read_text().replace('"', " ").split() if len(part) >= 20]
    assert len(found) >= len(SECRET_FILES)
    return found
