"""How a credential is handed to programs: files and endpoints of the caller's alone, and nothing of them afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from broker.api.v1 import lease_pb2, task_pb2
from broker.cli import delivery
from broker.client.forms import pgpass, service_file
from broker.lease.credential import DatabaseLogin
from broker.secret import Secret
from tests.cli.conftest import ASK, COMMAND, ROOT, Cli
from tests.client.fake_broker import REVOKED, FakeBroker
from tests.patience import PATIENCE, until

TTL = ("--ttl", "5m")
SHOW = (
    sys.executable,
    "-c",
    "import json, os, pathlib, stat\n"
    "files = {n: v for n, v in os.environ.items() if n in"
    " ('PGPASSFILE', 'PGSERVICEFILE', 'KUBECONFIG', 'AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE')}\n"
    "print(json.dumps({'environment': dict(os.environ),"
    " 'texts': {n: pathlib.Path(p).read_text() for n, p in files.items()},"
    " 'modes': sorted({stat.S_IMODE(os.stat(p).st_mode) for p in files.values()}),"
    " 'directories': sorted({stat.S_IMODE(os.stat(os.path.dirname(p)).st_mode) for p in files.values()})}))",
)


@pytest.fixture
def runtime(environment: dict[str, str], tmp_path: Path) -> Path:
    """The user's runtime directory: what is left in it was left behind."""
    directory = tmp_path / "runtime"
    directory.mkdir(mode=0o700)
    environment["XDG_RUNTIME_DIR"] = str(directory)
    return directory


@pytest.fixture
def task_id(fake: FakeBroker) -> str:
    fake.tasks["task-0"] = task_pb2.Task(id="task-0", state=task_pb2.Task.STATE_OPEN)
    return "task-0"


def states(fake: FakeBroker) -> set[int]:
    return {lease.state for lease in fake.leases.values()}


# --------------------------------------------------------------------------- libpq's files


def test_libpqs_files_are_there_for_the_command_and_gone_after_it(
    process: Cli, fake: FakeBroker, environment: dict[str, str], runtime: Path
) -> None:
    environment |= {"PGPASSWORD": "stale", "PGHOST": "elsewhere"}
    done = process("exec", *ASK, *TTL, "--deliver", "pgpass", "--", *SHOW)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    escaped = fake.secrets[0].replace("\\", "\\\\")
    assert shown["texts"]["PGPASSFILE"] == f"127.0.0.1:5432:orders:token-attempt-2:{escaped}\n"
    assert fake.secrets[0] not in json.dumps(shown["environment"])
    assert {"PGPASSWORD", "PGHOST"} & set(shown["environment"]) == set()
    assert (shown["modes"], shown["directories"]) == ([0o600], [0o700])
    assert list(runtime.iterdir()) == []
    assert states(fake) == {REVOKED}


def test_libpq_itself_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the server: libpq looks into both files before it connects, and says what it found."""
    nasty = r"p:a\s:s'w\\ord"
    login = DatabaseLogin("postgresql", str(tmp_path), 5432, "a:b\\c", "u:s\\er", Secret(nasty))
    (tmp_path / "pgpass").write_text(pgpass(login))
    (tmp_path / "pgpass").chmod(0o600)
    (tmp_path / "service").write_text(service_file(login))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "service"))
    started = psycopg.pq.PGconn.connect_start(b"service=broker")
    assert (started.db, started.user, started.host) == (b"a:b\\c", b"u:s\\er", str(tmp_path).encode())
    assert started.password == nasty.encode()
    started.finish()


@pytest.mark.parametrize("text", ["new\nline", "nul\0", "tab\t"])
def test_what_would_end_a_line_early_is_refused(text: str) -> None:
    login = DatabaseLogin("postgresql", "h", 5432, "d", text, Secret("p"))
    with pytest.raises(ValueError, match="printable"):
        pgpass(login)
    with pytest.raises(ValueError, match="printable"):
        service_file(login)


# --------------------------------------------------------------------------- the endpoint


def test_the_endpoint_is_what_an_sdk_finds_whatever_profile_the_user_has(
    process: Cli, fake: FakeBroker, environment: dict[str, str], runtime: Path, tmp_path: Path
) -> None:
    fake.kind = "aws_session"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id=AKIAOWN\naws_secret_access_key=own\n")
    environment |= {"HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "AKIASTALE", "AWS_SECRET_ACCESS_KEY": "stale"}
    ask = (
        "import botocore.session as s; c = s.Session(); k = c.get_credentials(); f = k.get_frozen_credentials()\n"
        "print(k.method, f.access_key, f.secret_key, c.get_config_variable('region'))"
    )
    done = process("exec", *ASK, *TTL, "--deliver", "container", "--", sys.executable, "-c", f"{ask}\n{ask}\n{ask}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"container-role ASIAEXAMPLE {fake.secrets[0]} eu-central-1"] * 3
    assert len(fake.asked("RequestCredential")) == 1
    assert states(fake) == {REVOKED}
    assert list(runtime.iterdir()) == []


def test_the_secret_is_in_no_environment_and_the_token_has_no_newline(
    process: Cli, fake: FakeBroker, runtime: Path, task_id: str
) -> None:
    fake.kind = "aws_session"
    done = process("exec", *ASK, *TTL, "--task", task_id, "--deliver", "container", "--", *SHOW)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert fake.secrets[0] not in done.stdout
    token = shown["texts"]["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
    assert token == token.strip()
    assert len(token) >= 43  # 256 bits
    assert (shown["modes"], shown["directories"]) == ([0o600], [0o700])
    assert states(fake) == {REVOKED}
    assert fake.tasks[task_id].state == task_pb2.Task.STATE_OPEN


def test_all_that_were_asked_for_are_ended_at_once(
    process: Cli, fake: FakeBroker, environment: dict[str, str], task_id: str
) -> None:
    """One after the other they took twenty seconds each where the broker does not answer, and no signal is heard."""
    fake.kind = "aws_session"

    def over() -> None:  # so the next question is answered with a lease of its own
        for lease in fake.leases.values():
            lease.state = REVOKED

    together = threading.Barrier(3)
    fake.before["GetLease"] = over
    fake.before["RevokeLease"] = lambda: (together.wait(PATIENCE / 4), None)[1]
    ask = "import botocore.session as s; s.Session().get_credentials().get_frozen_credentials()"
    more = ("--task", task_id, "--deliver", "container", "--", sys.executable, "-c", f"{ask}\n{ask}")
    done = process("exec", *ASK, *TTL, *more)
    assert done.returncode == 0, done.stderr
    assert len(fake.asked("RevokeLease")) == len(fake.leases) == 3
    assert not together.broken


@pytest.fixture
def serving(
    options: list[str], environment: dict[str, str], fake: FakeBroker, runtime: Path, task_id: str
) -> Iterator[subprocess.Popen[str]]:
    fake.kind = "aws_session"
    running = subprocess.Popen(
        [*COMMAND, *options, "serve-credentials", *ASK, *TTL, "--task", task_id],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    yield running
    running.kill()
    running.communicate(timeout=PATIENCE)


@pytest.mark.slow
def test_a_served_credential_says_task_ended_and_goes_with_the_signal(
    serving: subprocess.Popen[str], fake: FakeBroker, environment: dict[str, str], runtime: Path, task_id: str
) -> None:
    assert serving.stdout is not None
    variables: dict[str, str] = {}
    while "AWS_DEFAULT_REGION" not in variables:
        name, _, value = serving.stdout.readline().rstrip("\n").partition("=")
        assert name, serving.stderr and serving.stderr.read()
        variables[name] = value
    ask = "import botocore.session as s; print(s.Session().get_credentials().get_frozen_credentials().access_key)"
    found = {**environment, **variables}

    def sdk() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=found, timeout=PATIENCE)

    assert sdk().stdout == "ASIAEXAMPLE\n"
    fake.tasks[task_id].state = task_pb2.Task.STATE_COMPLETED
    for lease in fake.leases.values():
        lease.state = REVOKED
    # A broker that does not say in time whether the lease lives ends nothing, so it may take a second look.
    after = until(lambda: done if (done := sdk()).returncode else None)
    assert "task ended: task-0 is over" in after.stderr
    serving.send_signal(signal.SIGTERM)
    serving.wait(PATIENCE)
    assert serving.returncode == 0
    assert list(runtime.iterdir()) == []


# --------------------------------------------------------------------------- what does not fit, and what goes wrong


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("database_login", "container"),
        ("database_login", "kubeconfig"),
        ("aws_session", "pgpass"),
        ("database_login", "token"),
        ("aws_session", "token"),
        ("aws_access_key", "container"),
    ],
)
def test_a_form_that_does_not_fit_is_a_usage_error_and_nothing_is_kept(
    cli: Cli, fake: FakeBroker, task_id: str, kind: str, form: str, tmp_path: Path
) -> None:
    fake.kind = kind
    ran = tmp_path / "ran"
    done = cli("exec", *ASK, *TTL, "--task", task_id, "--deliver", form, "--", "touch", str(ran))
    assert done.returncode == 2
    assert f"cannot be delivered as {form}" in done.stderr
    assert states(fake) == {REVOKED}
    assert not ran.exists()


@pytest.mark.parametrize(
    ("gives", "how", "told"),
    [
        ("database_login", ("exec", "--deliver", "container"), "a DatabaseLogin cannot be delivered as container"),
        ("gcp_token", ("exec", "--deliver", "pgpass"), "a GcpToken cannot be delivered as pgpass"),
        ("aws_session", ("request", "--reveal", "--format", "token"), "AwsSession cannot be delivered as token"),
        ("database_login", ("request", "--format", "credential-process"), "cannot be delivered as credential-process"),
        ("database_login", ("exec", "--new-key", "ssh"), "--new-key ssh makes no key"),
        ("x509_certificate", ("exec", "--new-key", "ssh"), "--new-key ssh makes no key"),
        ("database_login", ("request", "--reveal", "--format", "pgpass", "--wrap", "1m"), "a WrappedSecret cannot"),
    ],
)
def test_a_form_that_the_template_cannot_have_is_refused_before_anything_is_asked(
    cli: Cli, fake: FakeBroker, task_id: str, runtime: Path, gives: str, how: tuple[str, ...], told: str
) -> None:
    fake.gives = gives
    command = ("--", "true") if how[0] == "exec" else ()
    done = cli(how[0], *ASK, *TTL, "--task", task_id, *how[1:], *command)
    assert done.returncode == 2
    assert told in done.stderr
    assert not fake.asked("RequestCredential")
    assert not fake.leases


def test_no_place_for_files_is_told_before_anybody_is_asked(
    cli: Cli, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", refuse_for_space)
    done = cli("exec", *ASK, *TTL, "--deliver", "pgpass", "--", "true")
    assert done.returncode == 1
    assert "could not be delivered: No space left on device" in done.stderr
    assert fake.calls == []


def refuse_for_space(*_: object, **__: object) -> None:
    raise OSError(28, os.strerror(28))


def test_a_full_disk_ends_what_was_granted_and_leaves_no_file(
    cli: Cli, fake: FakeBroker, task_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(delivery, "_write_all", refuse_for_space)
    done = cli("exec", *ASK, *TTL, "--task", task_id, "--deliver", "pgpass", "--", "true")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert states(fake) == {REVOKED}
    assert list(tmp_path.glob("broker-*")) == []


@pytest.mark.parametrize("when", ["RequestCredential", "ConfirmDelivery"])
def test_a_signal_in_the_middle_leaves_no_file(
    options: list[str], environment: dict[str, str], fake: FakeBroker, runtime: Path, when: str
) -> None:
    holder: list[subprocess.Popen[str]] = []
    until_there = lambda: until(lambda: holder)  # noqa: E731
    fake.before[when] = lambda: (until_there(), holder[0].terminate())  # type: ignore[func-returns-value, assignment]
    holder.append(
        subprocess.Popen(
            [*COMMAND, *options, "exec", *ASK, *TTL, "--deliver", "pgpass", "--", "sleep", "1000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    )
    _, err = holder[0].communicate(timeout=PATIENCE)
    assert holder[0].returncode == 128 + signal.SIGTERM, err
    assert list(runtime.iterdir()) == []
    assert [task.state for task in fake.tasks.values()] == [task_pb2.Task.STATE_COMPLETED]


# --------------------------------------------------------------------------- credential_process


def process_call(cli: Cli, task_id: str, cache: Path, *more: str) -> subprocess.CompletedProcess[str]:
    form = ("--format", "credential-process", "--cache", str(cache))
    return cli("request", *ASK, *TTL, "--task", task_id, *form, *more)


def test_credential_process_asks_for_one_lease_however_often_it_is_run(
    cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path
) -> None:
    fake.kind = "aws_session"
    cache = tmp_path / "cache"
    answers = [process_call(cli, task_id, cache) for _ in range(3)]
    assert {answer.stdout for answer in answers} == {answers[0].stdout}
    assert json.loads(answers[0].stdout) == {
        "Version": 1,
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": fake.secrets[0],
        "SessionToken": f"token-{fake.secrets[0]}",
        "Expiration": "2031-05-01T12:03:10Z",
    }
    assert len(fake.asked("RequestCredential")) == 1
    assert len(fake.asked("ConfirmDelivery")) == 1
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.iterdir()} == {0o600}
    process_call(cli, task_id, cache, "--param", "day=1")  # another question is another lease
    assert len(fake.asked("RequestCredential")) == 2


def test_a_call_that_waits_for_another_ones_answer_ends_with_a_signal(
    cli: Cli, options: list[str], environment: dict[str, str], fake: FakeBroker, task_id: str, tmp_path: Path
) -> None:
    """The other one may be waiting for people."""
    fake.kind = "aws_session"
    process_call(cli, task_id, tmp_path)
    (lock,) = tmp_path.glob("*.lock")
    arguments = ["request", *ASK, *TTL, "--task", task_id, "--format", "credential-process", "--cache", str(tmp_path)]
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        running = subprocess.Popen([*COMMAND, *options, *arguments], cwd=ROOT, env=environment)
        until(lambda: has_open(running.pid, lock))
        running.terminate()
        try:
            assert running.wait(PATIENCE / 2) == 128 + signal.SIGTERM
        finally:
            running.kill()
            running.wait()


def has_open(pid: int, path: Path) -> bool:
    return any(each.resolve() == path for each in Path(f"/proc/{pid}/fd").iterdir())


def test_credential_process_says_that_the_task_has_ended(
    cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path
) -> None:
    fake.kind = "aws_session"
    process_call(cli, task_id, tmp_path / "cache")
    fake.tasks[task_id].state = task_pb2.Task.STATE_COMPLETED
    fake.leases["lease-1"].state = REVOKED
    done = process_call(cli, task_id, tmp_path / "cache")
    assert (done.returncode, done.stdout) == (3, "")
    assert "task ended: task-0 is over" in done.stderr
    assert list((tmp_path / "cache").glob("*.json")) == []
    assert len(fake.asked("RequestCredential")) == 1


@pytest.mark.slow
def test_botocore_runs_it_from_a_profile(
    options: list[str], environment: dict[str, str], fake: FakeBroker, task_id: str, tmp_path: Path
) -> None:
    fake.kind = "aws_session"
    call = [*COMMAND, *options, "request", *ASK, *TTL, "--task", task_id, "--format", "credential-process"]
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {' '.join(call)}\n")
    ask = "import botocore.session as s; print(s.Session().get_credentials().get_frozen_credentials().secret_key)"
    surroundings = {
        **environment,
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }

    def sdk() -> subprocess.CompletedProcess[str]:
        run = [sys.executable, "-c", ask]
        return subprocess.run(run, capture_output=True, text=True, env=surroundings, timeout=PATIENCE)

    assert [sdk().stdout for _ in range(2)] == [f"{fake.secrets[0]}\n"] * 2
    fake.tasks[task_id].state = task_pb2.Task.STATE_COMPLETED
    fake.leases["lease-1"].state = lease_pb2.Lease.STATE_REVOKED
    assert "task ended: task-0 is over" in sdk().stderr
    assert len(fake.asked("RequestCredential")) == 1


@pytest.mark.parametrize("planted", ["link", "open", "file"])
def test_a_cache_that_is_not_the_callers_alone_is_not_used(
    cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path, planted: str
) -> None:
    fake.kind = "aws_session"
    cache = tmp_path / "cache"
    match planted:
        case "link":
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            cache.symlink_to(tmp_path / "elsewhere")
        case "open":
            cache.mkdir()
            cache.chmod(0o755)
        case _:
            cache.write_text("")
    done = process_call(cli, task_id, cache)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert fake.asked("RequestCredential") == []


def test_a_planted_answer_is_not_given_out(cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path) -> None:
    fake.kind = "aws_session"
    cache = tmp_path / "cache"
    process_call(cli, task_id, cache)
    (kept,) = cache.glob("*.json")
    planted = tmp_path / "planted"
    kept.rename(planted)
    kept.symlink_to(planted)
    process_call(cli, task_id, cache)
    assert len(fake.asked("RequestCredential")) == 2
    assert not kept.is_symlink()


def test_credential_process_for_a_database_login_is_a_usage_error(
    cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path
) -> None:
    done = process_call(cli, task_id, tmp_path / "cache")
    assert done.returncode == 2
    assert states(fake) == {REVOKED}
    assert list((tmp_path / "cache").glob("*.json")) == []


def test_kubectl_reads_a_private_file_that_is_gone_afterwards(
    process: Cli, fake: FakeBroker, environment: dict[str, str], runtime: Path
) -> None:
    fake.kind = "kubernetes_token"
    environment["KUBECONFIG"] = "/somebody/elses"
    done = process("exec", *ASK, *TTL, "--deliver", "kubeconfig", "--", *SHOW)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    (user,) = json.loads(shown["texts"]["KUBECONFIG"])["users"]
    assert user["user"] == {"token": fake.secrets[0]}
    assert (shown["modes"], shown["directories"]) == ([0o600], [0o700])
    assert fake.secrets[0] not in str(shown["environment"])
    assert list(runtime.iterdir()) == []
