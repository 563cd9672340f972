"""brokerd as something to kill: started, told by its page whether it is ready, ended without a word."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.daemon.warm import WarmBrokerd
from tests.kill.setting import ENVIRONMENT_OF_BROKERD

_ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {**os.environ, **ENVIRONMENT_OF_BROKERD}


class Daemon:
    """One brokerd, as often as it is started. What it says is in ``CONFIG.said``, of its latest life."""

    def __init__(self, config: Path, operations_port: int) -> None:
        self._config = config
        self._port = operations_port
        self._said = config.with_suffix(".said")
        self._process: WarmBrokerd | subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self, *, cold: bool = False) -> None:
        """``cold``: the command in a new interpreter; else forked from one that has imported it all already."""
        self.starts += 1
        if not cold:
            self._process = WarmBrokerd(self._config, _ENVIRONMENT, self._said)
            return
        command = [sys.executable, "-m", "broker.daemon", "--config", str(self._config)]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(command, env=_ENVIRONMENT, stderr=said, stdout=said, cwd=_ROOT)

    @property
    def pid(self) -> int:
        """Of its latest life."""
        assert self._process is not None
        return self._process.pid

    def ready(self) -> bool:
        """Whether it serves. Raises if it has ended by itself."""
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            raise RuntimeError(f"brokerd ended by itself, exit code {code}:\n{self.said()}")
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def until_ready(self, within: float = 300.0) -> float:
        """Seconds that it took, at most ``within``."""
        begun = time.monotonic()
        while not self.ready():
            if time.monotonic() - begun > within:
                raise RuntimeError(f"brokerd was not ready within {within:g} s:\n{self.said()}")
            time.sleep(0.005)
        return time.monotonic() - begun

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(300.0)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(300.0)

    def end(self) -> None:
        """However it stands."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def said(self) -> str:
        """What it wrote, of its latest life."""
        return self._said.read_text(errors="replace")[-4000:] if self._said.exists() else ""
