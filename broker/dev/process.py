"""One server process: started under a keeper, found again after a crash, stopped for certain.

Three things end a server, each a net under the one before: :meth:`ServerProcess.stop`; the keeper,
when this process dies without calling it (``keeper.py``); and the pid file, read at the next start,
when even the keeper was killed. A pid file names processes by pid *and* creation time, so a pid that
the system has given to somebody else is never touched.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from broker.dev.files import append_private, write_private
from broker.errors import Reason, UpstreamFailed

_KEEPER = Path(__file__).with_name("keeper.py")
_POLL_SECONDS = 0.02
_KILL_SECONDS = 30.0
_KEEPER_SECONDS = 60.0  # until the keeper has said which process it has started


@dataclass(frozen=True, slots=True)
class Account:
    """An existing operating system account that a server steps down to."""

    uid: int
    gid: int


class ServerProcess:
    """A server named ``name``, with its pid file and log in ``directory``.

    ``stop_signal`` asks it to end; after ``grace`` seconds it is killed. ``environment`` is the
    server's whole environment: nothing is inherited, so nobody's shell can configure it.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        stop_signal: int,
        grace: float = 5.0,
        account: Account | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._record = directory / f"{name}.pid"
        self._stop_signal = stop_signal
        self._grace = grace
        self._account = account
        self._environment = dict(environment or {})
        self._keeper: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None

    def start(self, command: Sequence[str | Path], *, cwd: Path | None = None) -> None:
        """Start the server after stopping what an earlier run left. Raises :class:`UpstreamFailed`."""
        self.stop_leftover()
        account = (str(self._account.uid), str(self._account.gid)) if self._account else ("-", "-")
        kept = [sys.executable, "-I", "-S", str(_KEEPER), str(int(self._stop_signal)), str(self._grace), *account, "--"]
        with append_private(self.log) as log:
            keeper = subprocess.Popen(  # nosec B603 # noqa: S603 - the command is the caller's own list
                [*kept, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=cwd,
                env=self._environment,
                start_new_session=True,
            )
        self._keeper = keeper
        atexit.register(self.stop)
        self.pid = self._read_pid(keeper)
        self._write_record(keeper.pid, self.pid)

    def stop_leftover(self) -> list[int]:
        """Kill what an earlier run of this server left behind; returns the process ids that lived."""
        return stop_recorded(self._record)

    def stop(self) -> None:
        """End the server and wait for it. Doing it twice is the same as doing it once."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        atexit.unregister(self.stop)
        if keeper.stdin is not None:
            keeper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(self._grace + 2.0)
        stop_recorded(self._record)
        keeper.wait(self._grace)
        self.pid = None

    def kill(self) -> None:
        """End the server as a crash would: SIGKILL, no chance to tidy up. Returns when it is gone."""
        if self.pid is not None and self.running:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self.pid).kill()
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the server has been started and has not ended."""
        return self._keeper is not None and self._keeper.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, within: float) -> None:
        """Poll until ``ready()``; raises :class:`UpstreamFailed` when the server ends or ``within`` seconds pass."""
        end = time.monotonic() + within
        while not ready():
            if not self.running:
                raise self.failed("ended while starting")
            if time.monotonic() > end:
                raise self.failed(f"was not ready within {within:g} s")
            time.sleep(_POLL_SECONDS)

    def failed(self, what: str) -> UpstreamFailed:
        """The error for this server: what happened, and the end of its log."""
        return UpstreamFailed(
            Reason.UPSTREAM_UNAVAILABLE,
            f"The development server {self.name} {what}.",
            hint=f"Its log is {self.log} and ends:\n{self._log_tail()}",
            metadata={"server": self.name, "log": str(self.log)},
        )

    def _read_pid(self, keeper: subprocess.Popen[bytes]) -> int:
        if keeper.stdout is None:
            raise self.failed("has no keeper to read from")
        with keeper.stdout as said:
            readable, _, _ = select.select([said], [], [], _KEEPER_SECONDS)
            line = said.readline() if readable else b""
        if not line.strip().isdigit():
            keeper.kill()
            keeper.wait()
            self._keeper = None
            raise self.failed("could not be started")
        return int(line)

    def _write_record(self, *pids: int) -> None:
        known = []
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                known.append({"pid": pid, "created": psutil.Process(pid).create_time()})
        write_private(self._record, json.dumps(known))

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:]) if self.log.exists() else "(no log)"


def stop_recorded(record: Path) -> list[int]:
    """Kill the processes that the pid file ``record`` names, with their children; returns the pids that lived."""
    if not record.exists():
        return []
    entries = json.loads(record.read_text())
    alive: list[psutil.Process] = []
    for entry in entries:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(entry["pid"])
            if process.create_time() == entry["created"]:
                alive.append(process)
    killed = [pid for process in alive for pid in kill_tree(process)]
    record.unlink(missing_ok=True)
    return killed


def kill_tree(process: psutil.Process) -> list[int]:
    """Kill a process and its descendants and wait until they are gone; returns their ids."""
    with contextlib.suppress(psutil.NoSuchProcess):
        doomed = [process, *process.children(recursive=True)]
        for one in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        end = time.monotonic() + _KILL_SECONDS
        while any(map(_lives, doomed)) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        return [one.pid for one in doomed]
    return []


def _lives(process: psutil.Process) -> bool:
    """A zombie does not: it holds nothing, and in a container nobody may ever collect it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
