"""Nothing outlives the process that wanted it: stopped, left by a crash, or found by its pid file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from broker.dev.process import ServerProcess, stop_recorded
from broker.errors import Reason, UpstreamFailed
from tests.patience import PATIENCE, until

ROOT = Path(__file__).parents[2]
# With a child that does not hear the signal its parent gets.
SLEEPER = ["/bin/sh", "-c", "sleep 1000 & echo started; exec sleep 1000"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)",
]
ENVIRONMENT = {"PATH": os.defpath}


def eventually(true: Callable[[], bool], within: float = PATIENCE) -> bool:
    end = time.monotonic() + within
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    try:
        return has_ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def has_ended(process: psutil.Process) -> bool:
    """This one, whoever has its number now; a zombie has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def server(directory: Path, grace: float = 5.0) -> ServerProcess:
    return ServerProcess("sleeper", directory, stop_signal=signal.SIGTERM, grace=grace, environment=ENVIRONMENT)


def logged(process: ServerProcess, text: str) -> bool:
    return process.log.exists() and text in process.log.read_text()


def test_stop_ends_it_and_is_the_same_twice(tmp_path: Path) -> None:
    process = server(tmp_path)
    process.start(SLEEPER)
    process.wait_until(lambda: logged(process, "started"), within=PATIENCE)
    pid = process.pid
    assert pid is not None
    family = [psutil.Process(pid), *psutil.Process(pid).children()]
    assert len(family) == 2
    process.stop()
    process.stop()
    # Told to die, a process of its family takes its moment where the machine is busy.
    until(lambda: all(gone(one.pid) for one in family))
    assert (process.pid, process.running, (tmp_path / "sleeper.pid").exists()) == (None, False, False)


def test_what_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = server(tmp_path, grace=0.2)
    process.start(STUBBORN)
    process.wait_until(lambda: logged(process, "deaf"), within=PATIENCE)
    pid = process.pid
    assert pid is not None
    process.stop()
    assert gone(pid)


def test_kill_gives_it_no_chance_to_tidy_up(tmp_path: Path) -> None:
    process = server(tmp_path)
    process.start(["/bin/sh", "-c", "trap 'echo tidied; exit' TERM; echo started; while :; do sleep 0.05; done"])
    process.wait_until(lambda: logged(process, "started"), within=PATIENCE)
    process.kill()
    assert not process.running
    assert not logged(process, "tidied")


def test_it_inherits_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRAY", "leak")
    process = server(tmp_path)
    process.start(["/bin/sh", "-c", "env; echo done; exec sleep 1000"])
    process.wait_until(lambda: logged(process, "done"), within=PATIENCE)
    process.stop()
    assert "STRAY" not in process.log.read_text()


def test_a_server_that_ends_while_starting_is_told_with_its_log(tmp_path: Path) -> None:
    process = server(tmp_path)
    process.start(["/bin/sh", "-c", "echo no such luck; exit 3"])
    with pytest.raises(UpstreamFailed, match="no such luck") as failed:
        process.wait_until(lambda: False, within=PATIENCE)
    assert failed.value.reason is Reason.UPSTREAM_UNAVAILABLE
    process.stop()


def test_a_server_that_is_never_ready_is_told_so(tmp_path: Path) -> None:
    process = server(tmp_path)
    process.start(SLEEPER)
    with pytest.raises(UpstreamFailed, match=r"not ready within 0\.05 s"):
        process.wait_until(lambda: False, within=0.05)
    process.stop()


def test_a_command_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    process = server(tmp_path)
    with pytest.raises(UpstreamFailed, match="could not be started"):
        process.start([tmp_path / "absent"])
    assert not process.running


ORPHANMAKER = """
import os, signal, sys
from pathlib import Path
from broker.dev.process import ServerProcess
process = ServerProcess("sleeper", Path(sys.argv[1]), stop_signal=signal.SIGTERM, environment={"PATH": os.defpath})
process.start(["/bin/sh", "-c", "exec sleep 1000"])
print(process.pid, flush=True)
sys.stdin.read()
"""


def wanting_process(directory: Path) -> tuple[subprocess.Popen[str], int]:
    wanting = subprocess.Popen(
        [sys.executable, "-c", ORPHANMAKER, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert wanting.stdout is not None
    return wanting, int(wanting.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_it_does_not_outlive_the_process_that_wanted_it(tmp_path: Path, number: signal.Signals) -> None:
    wanting, pid = wanting_process(tmp_path)
    assert not gone(pid)
    wanting.send_signal(number)
    wanting.communicate()
    assert eventually(lambda: gone(pid))


def test_killed_with_its_keeper_it_is_found_by_the_next_start(tmp_path: Path) -> None:
    wanting, pid = wanting_process(tmp_path)
    keeper = psutil.Process(pid).parent()
    assert keeper is not None
    keeper.kill()
    wanting.kill()
    wanting.communicate()
    assert eventually(lambda: gone(keeper.pid))
    assert not gone(pid)
    process = server(tmp_path)
    process.start(SLEEPER)
    assert gone(pid)
    process.stop()


def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    innocent = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        record = tmp_path / "sleeper.pid"
        born = psutil.Process(innocent.pid).create_time()
        record.write_text(json.dumps([{"pid": innocent.pid, "created": born - 1}]))
        assert stop_recorded(record) == []
        assert innocent.poll() is None
        assert not record.exists()
    finally:
        innocent.kill()
        innocent.wait()
