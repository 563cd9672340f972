"""brokerd as a process of its own, started on a configuration file and watched until it says it is ready."""

from __future__ import annotations

import http.client
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import broker
from broker.dev.loopback import LOOPBACK
from broker.dev.process import ServerProcess

_START_SECONDS = 60.0
BROKERD = (sys.executable, "-m", "broker.daemon")


class BrokerdProcess:
    """``COMMAND --config FILE`` with its pid file and log in ``directory``; ready when ``/readyz`` answers 200."""

    def __init__(self, directory: Path, config: Path, ops_port: int, command: Sequence[str] = BROKERD) -> None:
        self._directory = directory
        self._config = config
        self._ops_port = ops_port
        self._command = tuple(command)
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """Where it writes."""
        return self._directory / "brokerd.log"

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it and wait until it is ready. ``environment`` is all it gets, beside a path and a home."""
        process = ServerProcess(
            "brokerd",
            self._directory,
            # Its drain may take some seconds; after that it is killed, as any supervisor would.
            stop_signal=signal.SIGTERM,
            grace=10.0,
            environment={"PATH": os.defpath, "HOME": str(self._directory), **environment},
        )
        self._process = process
        # From where the package is, so that it runs from a checkout that nobody installed, too.
        root = Path(broker.__file__).parent.parent
        process.start([*self._command, "--config", self._config], cwd=root)
        process.wait_until(self._ready, within=_START_SECONDS)

    def stop(self) -> None:
        """SIGTERM, then wait."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """SIGKILL, then wait: what a crash looks like."""
        if self._process is not None:
            self._process.kill()

    def stop_leftover(self) -> None:
        """Kill the brokerd of an earlier run, if it lives."""
        ServerProcess("brokerd", self._directory, stop_signal=signal.SIGTERM).stop_leftover()

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._ops_port, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
