"""Programs that SPIRE can tell apart: each is the same Python, copied to a path of its own.

SPIRE's unix attestor looks at the process that opened the socket: its account and the file it is running
(/proc/PID/exe). A copied interpreter is such a file, for root and for anybody else, so enrolling its path
enrols what is run with it; nothing that a process says about itself plays a part.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.dev.watched import ROOT

_SECONDS = 180.0
_PROGRAMS = Path(__file__).with_name("workloads")


@dataclass(frozen=True)
class Leaver:
    """A running agent with a login; ``refused`` waits until it is refused: what it told then."""

    login: str
    refused: Callable[[], dict[str, Any]]


class Program:
    """One enrolled, or not enrolled, program. ``environment`` is all it gets beside a path and a home."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        venv.EnvBuilder(symlinks=False).create(directory)
        self.path = directory / "bin" / "python"
        # Everything this Python has installed, .pth files (an editable install) included.
        inherited = [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]
        (site,) = (directory / "lib").glob("python*/site-packages")
        lines = [f"import site; site.addsitedir({path!r})\n" for path in dict.fromkeys(inherited)]
        (site / "inherited.pth").write_text("".join(lines))
        self.environment = {"PATH": os.defpath, "HOME": str(directory), "PYTHONPATH": str(ROOT), **environment}

    @property
    def selectors(self) -> tuple[str, ...]:
        """What its entry asks of a process: this account, and this file."""
        return (f"unix:uid:{os.geteuid()}", f"unix:path:{self.path}")

    def broker(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``broker WORDS``, to its end."""
        return self._run("-m", "broker.cli", *words, environment=environment)

    def run(self, workload: str, *words: str, **environment: str) -> dict[str, object]:
        """One of ``workloads/``, to its good end: the JSON object it prints last."""
        done = self._run(str(_PROGRAMS / f"{workload}.py"), *words, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return told

    def start(self, workload: str, *words: str) -> subprocess.Popen[str]:
        """One of ``workloads/``, left running: it ends when its standard input does."""
        return subprocess.Popen(
            [self.path, _PROGRAMS / f"{workload}.py", *words],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def until_refused(self) -> Iterator[Leaver]:
        """An agent that holds a login, and asks who it is until it is refused."""
        with self.start("until_refused") as process:
            assert process.stdout and process.stderr

            def refused() -> dict[str, Any]:
                output, errors = process.communicate(timeout=_SECONDS)
                assert process.returncode == 0, errors
                told: dict[str, Any] = json.loads(output.splitlines()[-1])
                return told

            try:
                login = process.stdout.readline().strip()
                assert login, process.stderr.read()
                yield Leaver(login, refused)
            finally:
                process.kill()

    def _run(self, *words: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path, *words],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
