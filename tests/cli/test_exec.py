"""``broker exec``, with real processes and real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from broker.api.v1 import lease_pb2, task_pb2
from broker.errors import Denied, NotReady, Reason
from tests.cli.conftest import ASK, COMMAND, ROOT, Cli
from tests.client.fake_broker import ACTIVE, REVOKED, REVOKING, FakeBroker
from tests.patience import PATIENCE, until

TTL = ("--ttl", "5m")
PRINT_ENVIRONMENT = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def spawn(options: list[str], environment: dict[str, str]) -> Spawn:
    """A `broker exec` in a session of its own, so that no terminal has a word in it."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *options, "exec", *ASK, *TTL, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )

    return start


def states(fake: FakeBroker) -> tuple[list[int], list[int]]:
    return [task.state for task in fake.tasks.values()], [lease.state for lease in fake.leases.values()]


def test_the_command_has_the_credential_in_its_environment_and_nowhere_else(
    process: Cli, fake: FakeBroker, environment: dict[str, str]
) -> None:
    environment |= {"PGHOSTADDR": "10.0.0.1", "PGSERVICE": "prod", "KEPT": "yes"}
    done = process("exec", *ASK, *TTL, "--", *PRINT_ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert (got["PGPASSWORD"], got["PGUSER"], got["PGHOST"]) == (fake.secrets[0], "token-attempt-2", "127.0.0.1")
    assert got["KEPT"] == "yes"
    assert {"PGHOSTADDR", "PGSERVICE", "GRPC_VERBOSITY"} & set(got) == set()
    assert done.stderr == ""
    assert fake.asked("StartTask")[0].purpose == f"run {Path(sys.executable).name}"
    assert [name for name, _ in fake.calls][:4] == ["StartTask", "HoldTask", "RequestCredential", "ConfirmDelivery"]
    assert states(fake) == ([task_pb2.Task.STATE_COMPLETED], [REVOKED])


def command_lines() -> Iterator[bytes]:
    """Of whatever runs on this machine; some of it ends meanwhile."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            yield path.read_bytes()


def test_the_secret_is_on_no_command_line(spawn: Spawn, fake: FakeBroker, tmp_path: Path) -> None:
    running = spawn("--", "sh", "-c", f"touch {tmp_path}/up; exec sleep 1000")
    fake.wait_until(lambda: bool(fake.asked("ConfirmDelivery")))
    until((tmp_path / "up").exists)
    try:
        lines = list(command_lines())
        assert any(b"sleep" in line for line in lines)
        assert not any(fake.secrets[0].encode() in line for line in lines)
    finally:
        running.terminate()
        running.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 137),  # 128 + 9
        (("sh", "-c", "kill -TERM $$"), 143),  # 128 + 15
        (("/nonexistent/command",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_the_exit_code_is_the_commands(cli: Cli, fake: FakeBroker, command: tuple[str, ...], code: int) -> None:
    done = cli("exec", *ASK, *TTL, "--", *command)
    assert done.returncode == code, done.stderr
    assert states(fake) == ([task_pb2.Task.STATE_COMPLETED], [REVOKED])


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)),
    ],
)
def test_signals_reach_the_command_and_the_leases_end(
    spawn: Spawn, fake: FakeBroker, tmp_path: Path, number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    running = spawn(
        "--", "bash", "-c", f"trap 'echo got {name}; exit 42' {name}; touch {tmp_path}/up; while :; do sleep 0.05; done"
    )
    until((tmp_path / "up").exists)
    running.send_signal(number)
    out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out) == (42, f"got {name}\n"), err
    assert states(fake) == ([task_pb2.Task.STATE_COMPLETED], [REVOKED])


def test_what_was_to_be_ignored_is_ignored_by_the_command_too(
    options: list[str], environment: dict[str, str], fake: FakeBroker, tmp_path: Path
) -> None:
    """As under `nohup`: the terminal goes, and the work goes on."""
    up, go = tmp_path / "up", tmp_path / "go"
    work = f"touch {up}; while ! test -e {go}; do sleep 0.05; done"
    command = [*COMMAND, *options, "exec", *ASK, *TTL, "--", "sh", "-c", work]
    running = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command], cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        until(up.exists)
        os.killpg(running.pid, signal.SIGHUP)
        go.touch()
        assert running.wait(PATIENCE) == 0
    finally:
        go.touch()
        running.wait(PATIENCE)
    assert states(fake) == ([task_pb2.Task.STATE_COMPLETED], [REVOKED])


def test_descriptors_that_were_given_are_the_commands_and_no_others(
    options: list[str], environment: dict[str, str], fake: FakeBroker
) -> None:
    """As of bash's <(...), and of make's jobserver."""
    theirs, ours = os.pipe()
    os.write(ours, b"handed on")
    os.close(ours)
    look = (
        "import os, sys; print(os.read(int(sys.argv[1]), 99).decode());"
        "print([each for each in range(3, 256) if os.path.exists(f'/proc/self/fd/{each}')])"
    )
    try:
        done = subprocess.run(
            [*COMMAND, *options, "exec", *ASK, *TTL, "--", sys.executable, "-c", look, str(theirs)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=ROOT,
            env=environment,
            pass_fds=[theirs],
        )
    finally:
        os.close(theirs)
    assert (done.returncode, done.stdout) == (0, f"handed on\n[{theirs}]\n"), done.stderr


def test_a_command_that_dies_of_the_signal_is_told_as_a_shell_would(
    spawn: Spawn, fake: FakeBroker, tmp_path: Path
) -> None:
    running = spawn("--", "sh", "-c", f"touch {tmp_path}/up; exec sleep 1000")
    until((tmp_path / "up").exists)
    running.terminate()
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 128 + signal.SIGTERM
    assert states(fake) == ([task_pb2.Task.STATE_COMPLETED], [REVOKED])


def test_a_signal_before_the_command_ends_everything(spawn: Spawn, fake: FakeBroker, tmp_path: Path) -> None:
    """SIGTERM while the broker is still deciding: no command, and the task is completed."""
    holder: list[subprocess.Popen[str]] = []
    fake.before["RequestCredential"] = lambda: until(lambda: holder)[0].terminate()
    holder.append(spawn("--", "touch", str(tmp_path / "ran")))
    _, err = holder[0].communicate(timeout=PATIENCE)
    assert holder[0].returncode == 128 + signal.SIGTERM, err
    assert not (tmp_path / "ran").exists()
    assert [task.state for task in fake.tasks.values()] == [task_pb2.Task.STATE_COMPLETED]


def test_signals_while_tidying_up_change_nothing(spawn: Spawn, fake: FakeBroker) -> None:
    holder: list[subprocess.Popen[str]] = []

    def impatient() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            until(lambda: holder)[0].send_signal(number)

    fake.before["CompleteTask"] = impatient
    holder.append(spawn("--", "sh", "-c", "exit 5"))
    holder[0].communicate(timeout=PATIENCE)
    assert holder[0].returncode == 5
    assert states(fake) == ([task_pb2.Task.STATE_COMPLETED], [REVOKED])


def test_a_killed_exec_lets_go_of_its_task(spawn: Spawn, fake: FakeBroker, tmp_path: Path) -> None:
    """SIGKILL leaves no time for anything: the held task is let go of, and the broker ends it."""
    running = spawn("--grace", "3s", "--", "sh", "-c", f"touch {tmp_path}/up; exec sleep 1000")
    until((tmp_path / "up").exists)
    assert fake.held == list(fake.tasks)
    assert fake.asked("HoldTask")[0].grace.seconds == 3
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=PATIENCE)
    fake.wait_until(lambda: not fake.held)
    assert fake.asked("CompleteTask") == []


@pytest.fixture
def task_id(fake: FakeBroker) -> str:
    fake.tasks["task-0"] = task_pb2.Task(id="task-0", state=task_pb2.Task.STATE_OPEN)
    return "task-0"


def test_somebodys_task_goes_on(cli: Cli, fake: FakeBroker, task_id: str) -> None:
    done = cli("exec", *ASK, *TTL, "--task", task_id, "--", "true")
    assert done.returncode == 0, done.stderr
    assert states(fake) == ([task_pb2.Task.STATE_OPEN], [REVOKED])
    assert fake.asked("CompleteTask") == fake.asked("HoldTask") == fake.asked("StartTask") == []


def test_only_its_own_lease_is_ended(cli: Cli, fake: FakeBroker, task_id: str) -> None:
    fake.leases["lease-0"] = lease_pb2.Lease(id="lease-0", task_id=task_id, state=ACTIVE)
    assert cli("exec", *ASK, *TTL, "--task", task_id, "--", "true").returncode == 0
    assert {lease.id: lease.state for lease in fake.leases.values()} == {"lease-0": ACTIVE, "lease-1": REVOKED}


def test_a_signal_while_its_arrival_is_confirmed_ends_the_lease(
    spawn: Spawn, fake: FakeBroker, task_id: str, tmp_path: Path
) -> None:
    """The broker has heard that it arrived, so it would live to its TTL: in somebody's task nothing else ends it."""
    holder: list[subprocess.Popen[str]] = []
    asked_again = threading.Event()

    def stopped() -> None:
        until(lambda: holder)[0].terminate()
        asked_again.wait(PATIENCE)

    fake.before["ConfirmDelivery"] = stopped
    fake.before["RevokeLease"] = asked_again.set
    holder.append(spawn("--task", task_id, "--", "touch", str(tmp_path / "ran")))
    try:
        _, err = holder[0].communicate(timeout=PATIENCE)
    finally:
        asked_again.set()
    assert holder[0].returncode == 128 + signal.SIGTERM, err
    assert not (tmp_path / "ran").exists()
    assert states(fake) == ([task_pb2.Task.STATE_OPEN], [REVOKED])


@pytest.mark.parametrize("task", [(), ("--task", "task-0")])
def test_what_only_time_ends_is_told(cli: Cli, fake: FakeBroker, task_id: str, task: tuple[str, ...]) -> None:
    fake.expiry_only, fake.kind = True, "aws_session"
    done = cli("exec", *ASK, *TTL, *task, "--", "sh", "-c", 'test -n "$AWS_SESSION_TOKEN"')
    assert done.returncode == 0, done.stderr
    (lease,) = fake.leases.values()
    assert lease.state == REVOKING
    assert done.stderr == (
        f"broker: lease {lease.id}: REVOKING until 2031-05-01T12:03:10Z: only time ends this credential (EXPIRY_ONLY)\n"
    )


@pytest.mark.parametrize("task", [(), ("--task", "task-0")])
@pytest.mark.parametrize(("command", "code"), [(("sh", "-c", "exit 7"), 7), (("/nonexistent/command",), 127)])
def test_what_nobody_can_be_told_changes_nothing(
    options: list[str],
    environment: dict[str, str],
    fake: FakeBroker,
    task_id: str,
    task: tuple[str, ...],
    command: tuple[str, ...],
    code: int,
) -> None:
    """The terminal is gone, or the log's disk is full: the leases end, and the exit code is the command's."""
    fake.expiry_only, fake.kind = True, "aws_session"
    buffered = {name: value for name, value in environment.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        arguments = [*COMMAND, *options, "exec", *ASK, *TTL, *task, "--", *command]
        done = subprocess.run(arguments, stderr=full, timeout=PATIENCE, cwd=ROOT, env=buffered)
    assert done.returncode == code
    assert [lease.state for lease in fake.leases.values()] == [REVOKING]


def test_a_refusal_runs_nothing_and_completes_the_task(cli: Cli, fake: FakeBroker, tmp_path: Path) -> None:
    fake.faults["RequestCredential"] = [Denied(Reason.POLICY_DENIED, "No.", hint="Ask.")]
    done = cli("exec", *ASK, *TTL, "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 3
    assert done.stderr == "error: POLICY_DENIED: No.\nhint: Ask.\n"
    assert not (tmp_path / "ran").exists()
    assert [task.state for task in fake.tasks.values()] == [task_pb2.Task.STATE_COMPLETED]


def test_a_broker_that_is_away_at_the_end_does_not_change_the_exit_code(cli: Cli, fake: FakeBroker) -> None:
    fake.faults["CompleteTask"] = [NotReady(Reason.SHUTTING_DOWN, "Bye.")] * 9
    done = cli("exec", *ASK, *TTL, "--", "sh", "-c", "exit 5")
    assert done.returncode == 5
    assert "could not be completed; let go of, it ends in 10s: Bye." in done.stderr


@pytest.mark.parametrize("heard", [True, False])
def test_a_task_that_ended_under_the_command_is_told(
    spawn: Spawn, fake: FakeBroker, tmp_path: Path, heard: bool
) -> None:
    """Whether or not the stream says so before the command ends: the answer at the end does."""
    running = spawn("--", "sh", "-c", f"touch {tmp_path}/up; while ! test -e {tmp_path}/go; do sleep 0.05; done")
    until((tmp_path / "up").exists)
    (task,) = fake.tasks.values()
    task.state, task.end_cause = task_pb2.Task.STATE_ENDED, "TASK_DEADLINE"
    if heard:
        fake.emit("task.ended", lease_pb2.Lease())  # wakes the stream, which then ends
        fake.wait_until(lambda: not fake.held)
    (tmp_path / "go").touch()
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert err == f"broker: task {task.id}, and its credential, had ended before the command did (TASK_DEADLINE).\n"
    assert task.state == task_pb2.Task.STATE_ENDED


def test_nothing_was_lost_where_nothing_was_held(cli: Cli, fake: FakeBroker, tmp_path: Path) -> None:
    fake.faults["HoldTask"] = [Denied(Reason.SUSPENDED, "Stopped.")]
    done = cli("exec", *ASK, *TTL, "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 3
    assert done.stderr == "error: SUSPENDED: Stopped.\n"
    assert not (tmp_path / "ran").exists()
    assert states(fake) == ([task_pb2.Task.STATE_COMPLETED], [])


def test_it_is_held_until_it_is_completed(cli: Cli, fake: FakeBroker) -> None:
    """Let go of before, a task whose completion takes longer than its grace time ends for another cause."""
    held: list[list[str]] = []
    fake.before["CompleteTask"] = lambda: held.append(list(fake.held))
    assert cli("exec", *ASK, *TTL, "--", "true").returncode == 0
    assert held == [list(fake.tasks)]


def test_the_hold_survives_a_restarting_broker(spawn: Spawn, fake: FakeBroker, tmp_path: Path) -> None:
    running = spawn("--", "sh", "-c", f"touch {tmp_path}/up; while ! test -e {tmp_path}/go; do sleep 0.05; done")
    until((tmp_path / "up").exists)
    fake.faults["HoldTask"] = [grpc.StatusCode.UNAVAILABLE]
    fake.break_streams()
    fake.wait_until(lambda: len(fake.asked("HoldTask")) == 3 and bool(fake.held))
    (tmp_path / "go").touch()
    _, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--ttl", "nan", "--", "true"), "is not a span of time"),
        (("--ttl", "5m"), "Missing argument"),
        (
            ("--ttl", "5m", "--task", "t", "--purpose", "p", "--", "true"),
            "--purpose and --task-type are for a task started here",
        ),
        (("--ttl", "5m", "--task", "t", "--task-type", "p", "--", "true"), "are for a task started here"),
        (("--ttl", "5m", "--wait", "61s", "--", "true"), "is more than"),
        (("--ttl", "5m", "--wrap", "60s", "--", "true"), "--wrap is for `broker request`"),
    ],
)
def test_usage_is_refused_before_anything_is_asked(
    cli: Cli, fake: FakeBroker, arguments: tuple[str, ...], told: str
) -> None:
    done = cli("exec", *ASK, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert fake.calls == []
