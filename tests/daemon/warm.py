"""brokerd in a process of its own, quickly: forked from a small process that has imported it already.

What happens is what ``python -m broker.daemon`` does (test_life.py starts that, too): a process whose main
thread runs brokerd's ``main``, with signals, an exit code and a standard error of its own. Only the two seconds of
processor time that its imports take are spent once for all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["broker.daemon.main"])


class WarmBrokerd:
    """``brokerd --config FILE``; what it says is kept in the file ``said``."""

    def __init__(self, config: Path, environment: Mapping[str, str], said: Path) -> None:
        self._said = said
        self._process = _FORKS.Process(target=_run, args=(config, dict(environment), said), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int:
        """Its exit code, when it has ended."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"it still runs after {seconds} s"
        return self._process.exitcode

    def said(self) -> str:
        return self._said.read_text() if self._said.exists() else ""

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _run(config: Path, environment: dict[str, str], said: Path) -> None:
    from broker.daemon.main import main

    os.environ.clear()
    os.environ.update(environment)
    with said.open("wb") as errors, Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    sys.exit(main(["--config", str(config)]))
