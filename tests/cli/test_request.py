"""``broker request``: where the secret goes, and where it does not."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import signal
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from broker.api.v1 import task_pb2
from broker.errors import Denied, Reason, WrongState
from tests.cli.conftest import ASK, COMMAND, ROOT, Cli
from tests.client.fake_broker import ACTIVE, REVOKED, FakeBroker
from tests.patience import PATIENCE, until

TTL = ("--ttl", "5m")


@pytest.fixture
def task_id(fake: FakeBroker) -> str:
    fake.tasks["task-0"] = task_pb2.Task(id="task-0", state=task_pb2.Task.STATE_OPEN)
    return "task-0"


def test_into_a_fresh_private_file_before_it_is_confirmed(
    process: Cli, fake: FakeBroker, task_id: str, tmp_path: Path
) -> None:
    out = tmp_path / "credential"
    seen: list[str] = []
    fake.before["RequestCredential"] = lambda: seen.append(out.read_text())
    fake.before["ConfirmDelivery"] = lambda: seen.append(out.read_text())
    done = process(
        "request", *ASK, *TTL, "--task", task_id, "--out", str(out), "--param", "schema=a=b", "--step", "plan"
    )
    assert done.returncode == 0, done.stderr
    (secret,) = fake.secrets
    assert seen[0] == ""  # made before anything was asked
    assert seen[1] == out.read_text()  # complete when it was confirmed
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert secret not in done.stdout + done.stderr
    assert done.stdout.startswith("lease-1  ACTIVE until 2031-05-01T12:03:10Z")
    (asked,) = fake.asked("RequestCredential")
    assert (asked.ttl.seconds, dict(asked.parameters), asked.step) == (300, {"schema": "a=b"}, "plan")


def test_a_posix_shell_reads_the_env_format_back(cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path) -> None:
    """The fake's passwords hold a quote and a backslash."""
    out = tmp_path / "credential"
    assert cli("request", *ASK, *TTL, "--task", task_id, "--out", str(out)).returncode == 0
    read = subprocess.run(["sh", "-c", f'. {out}; printf %s "$PGPASSWORD"'], capture_output=True, text=True, check=True)
    assert read.stdout == fake.secrets[0]


def test_json_holds_credential_and_lease(cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path) -> None:
    out = tmp_path / "credential"
    done = cli("request", *ASK, *TTL, "--task", task_id, "--out", str(out), "--format", "json")
    written = json.loads(out.read_text())
    assert (written["kind"], written["password"], written["lease"]["id"]) == (
        "databaseLogin",
        fake.secrets[0],
        "lease-1",
    )
    told = json.loads(done.stdout)
    assert (told["id"], told["expireTime"], told["endTime"]) == ("lease-1", "2031-05-01T12:03:10Z", None)


def test_an_aws_session_as_a_profile(cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path) -> None:
    fake.kind = "aws_session"
    out = tmp_path / "credentials"
    assert cli("request", *ASK, *TTL, "--task", task_id, "--out", str(out), "--format", "text").returncode == 0
    profile = configparser.RawConfigParser()
    profile.read(out)
    assert profile["default"]["aws_secret_access_key"] == fake.secrets[0]
    assert profile["default"]["region"] == "eu-central-1"


def test_an_access_key_of_aws_in_each_form(cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path) -> None:
    fake.kind = "aws_access_key"
    said = {}
    for form in ("text", "env", "credential-process"):
        out = tmp_path / form
        assert cli("request", *ASK, *TTL, "--task", task_id, "--out", str(out), "--format", form).returncode == 0
        said[form] = out.read_text()
    profile = configparser.RawConfigParser()
    profile.read_string(said["text"])
    assert dict(profile["default"]) == {
        "aws_access_key_id": "AKIAEXAMPLE",
        "aws_secret_access_key": fake.secrets[0],
        "region": "eu-central-1",
    }
    assert f"AWS_SECRET_ACCESS_KEY={shlex.quote(fake.secrets[1])}\n" in said["env"]
    assert "SESSION_TOKEN" not in said["env"]
    assert json.loads(said["credential-process"]) == {
        "Version": 1,
        "AccessKeyId": "AKIAEXAMPLE",
        "SecretAccessKey": fake.secrets[2],
        "Expiration": "2031-05-01T12:03:10Z",
    }


def test_a_google_cloud_token_in_each_form(cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path) -> None:
    fake.kind = "gcp_token"
    said = {}
    for form in ("text", "json", "env"):
        out = tmp_path / form
        assert cli("request", *ASK, *TTL, "--task", task_id, "--out", str(out), "--format", form).returncode == 0
        said[form] = out.read_text()
    text, first, last = said["text"], json.loads(said["json"]), said["env"]
    assert text == f"{fake.secrets[0]}\n"
    assert (first["kind"], first["accessToken"], first["expiresAt"]) == (
        "gcpToken",
        fake.secrets[1],
        "2031-05-01T12:03:09Z",
    )
    assert first["scopes"] == ["https://www.googleapis.com/auth/devstorage.read_only"]
    assert f"CLOUDSDK_AUTH_ACCESS_TOKEN={shlex.quote(fake.secrets[2])}\n" in last


def test_into_a_descriptor(cli: Cli, fake: FakeBroker, task_id: str) -> None:
    reader, writer = os.pipe()
    try:
        done = cli("request", *ASK, *TTL, "--task", task_id, "--fd", str(writer))
        with os.fdopen(os.dup(reader)) as pipe:
            text = pipe.read()
    finally:
        os.close(reader)
    assert done.returncode == 0, done.stderr
    assert "PGUSER=token-attempt-1" in text
    assert fake.secrets[0] not in done.stdout + done.stderr
    assert len(fake.asked("ConfirmDelivery")) == 1


def test_reveal_prints_the_secret_and_nothing_else(process: Cli, fake: FakeBroker, task_id: str) -> None:
    done = process("request", *ASK, *TTL, "--task", task_id, "--reveal", "--format", "text")
    assert done.stdout.startswith("host='127.0.0.1' port='5432'")
    assert done.stdout.count("\n") == 1
    assert fake.secrets[0] not in done.stderr
    assert "lease-1  ACTIVE" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Say where the credential goes"),
        (("--reveal", "--out", "x"), "Say where the credential goes"),
        (("--fd", "1"), "print with --reveal"),
        (("--fd", "2"), "print with --reveal"),
        (("--fd", "999999"), "Bad file descriptor"),  # above any limit: this process has many open
        (("--out", "/nonexistent/x"), "cannot be created"),
        (("--reveal", "--ttl", "nan"), "is not a span of time"),
        (("--reveal", "--ttl", "0s"), "is not more than nothing"),
        (("--reveal", "--ttl", "0"), "is not a span of time"),
        (
            (
                "--reveal",
                "--ttl=-5m",
            ),
            "is not a span of time",
        ),
        (("--reveal", "--ttl", "5"), "Write a whole number with a unit"),
        (("--reveal", "--param", "schema"), "is not NAME=VALUE"),
        (("--reveal", "--param", "a=1", "--param", "a=2"), "given twice"),
        (("--reveal", "--plan", "@/nonexistent/plan"), "cannot be read"),
        (("--reveal", "--purpose", "two tasks"), "Name the task"),
        (("--validate-only", "--reveal"), "nothing for --out, --fd or --reveal"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    cli: Cli, fake: FakeBroker, task_id: str, arguments: tuple[str, ...], told: str
) -> None:
    done = cli("request", *ASK, *TTL, "--task", task_id, *arguments)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert fake.calls == []


@pytest.mark.parametrize("there", ["file", "link", "dangling link"])
def test_what_is_there_is_never_overwritten(
    cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path, there: str
) -> None:
    out, other = tmp_path / "credential", tmp_path / "other"
    if there != "dangling link":
        other.write_text("precious")
    if there == "file":
        out.write_text("precious")
    else:
        out.symlink_to(other)
    done = cli("request", *ASK, *TTL, "--task", task_id, "--out", str(out))
    assert done.returncode == 2
    assert "never overwritten" in done.stderr
    assert other.exists() == (there != "dangling link")
    assert all(path.read_text() == "precious" for path in (out, other) if path.exists())
    assert fake.calls == []


def test_a_refusal_leaves_no_file_and_exits_3(cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path) -> None:
    out = tmp_path / "credential"
    fake.faults["RequestCredential"] = [Denied(Reason.POLICY_DENIED, "Not in prod.", hint="Ask for dev.")]
    done = cli("request", *ASK, *TTL, "--task", task_id, "--out", str(out))
    assert done.returncode == 3
    assert done.stderr == "error: POLICY_DENIED: Not in prod.\nhint: Ask for dev.\n"
    assert not out.exists()


def test_an_undeliverable_credential_is_revoked(cli: Cli, fake: FakeBroker, task_id: str) -> None:
    """The reader of the pipe is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    done = cli("request", *ASK, *TTL, "--task", task_id, "--fd", str(writer))
    os.close(writer)
    assert done.returncode == 1
    assert "could not be delivered: Broken pipe" in done.stderr
    assert fake.asked("ConfirmDelivery") == []
    assert fake.leases["lease-1"].state == REVOKED


def test_a_credential_that_came_too_late_is_revoked_and_removed(
    cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path
) -> None:
    out = tmp_path / "credential"
    fake.faults["ConfirmDelivery"] = [WrongState(Reason.LEASE_ENDED, "Too late.")]
    done = cli("request", *ASK, *TTL, "--task", task_id, "--out", str(out))
    assert done.returncode == 3
    assert not out.exists()
    assert fake.leases["lease-1"].state == REVOKED


def test_a_task_of_its_own_goes_on_and_is_told(cli: Cli, fake: FakeBroker, tmp_path: Path) -> None:
    done = cli(
        "request", *ASK, *TTL, "--purpose", "look once", "--task-type", "report", "--out", str(tmp_path / "credential")
    )
    assert done.returncode == 0, done.stderr
    assert "broker task complete task-1" in done.stderr
    (started,) = fake.asked("StartTask")
    assert (started.purpose, started.task_type) == ("look once", "report")
    assert fake.asked("CompleteTask") == []
    assert fake.leases["lease-2"].state == ACTIVE


def test_a_task_of_its_own_does_not_outlive_a_refusal(cli: Cli, fake: FakeBroker) -> None:
    fake.faults["RequestCredential"] = [Denied(Reason.POLICY_DENIED, "No.")]
    assert cli("request", *ASK, *TTL, "--purpose", "look once", "--reveal").returncode == 3
    assert [each.task_id for each in fake.asked("CompleteTask")] == ["task-1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["RequestCredential", "ConfirmDelivery"])
def test_a_signal_leaves_neither_file_nor_lease_nor_task(
    options: list[str],
    environment: dict[str, str],
    fake: FakeBroker,
    tmp_path: Path,
    number: signal.Signals,
    when: str,
) -> None:
    """As of `timeout`, of a CI job that is cancelled, of a terminal that is closed."""
    out, holder, ended = tmp_path / "credential", [], threading.Event()

    def stopped() -> None:
        until(lambda: holder)[0].send_signal(number)
        ended.wait(PATIENCE)

    fake.before[when], fake.before["CompleteTask"] = stopped, ended.set
    command = [*COMMAND, *options, "request", *ASK, *TTL, "--purpose", "look once", "--out", str(out)]
    holder.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment))
    try:
        _, err = holder[0].communicate(timeout=PATIENCE)
    finally:
        ended.set()
    assert holder[0].returncode == 128 + number, err
    assert not out.exists()
    assert [task.state for task in fake.tasks.values()] == [task_pb2.Task.STATE_COMPLETED]
    if when == "ConfirmDelivery":  # of the other call the broker hears that it was broken off, and takes its lease back
        assert [lease.state for lease in fake.leases.values()] == [REVOKED]


def test_validate_only_decides(cli: Cli, fake: FakeBroker, task_id: str) -> None:
    done = cli("request", *ASK, *TTL, "--task", task_id, "--validate-only")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("allowed by read-dev")
    assert fake.leases == {}


def test_there_is_a_flag_for_each_field(cli: Cli, fake: FakeBroker, task_id: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.txt"
    plan.write_text("1. look\n")
    done = cli(
        *("request", *ASK, *TTL, "--task", task_id, "--reveal", "--request-id", "r-1", "--step", "s"),
        *("--intent", "i", "--reason", "r", "--ticket", "t", "--tool-call", "@@tool", "--plan", f"@{plan}"),
        *("--prompt", "@-", "--plan-id", "plan-1", "--delegation", "delegation-1", "--public-key", "ssh-ed25519 A"),
        *("--wrap", "60s"),
        stdin="what do we have?\n",
    )
    assert done.returncode == 0, done.stderr
    (asked,) = fake.asked("RequestCredential")
    unset = [name for name in asked.DESCRIPTOR.fields_by_name if not asked.ByteSize() or not getattr(asked, name)]
    # Parameters are a map, a key is made with --seal, and --validate-only is for another test.
    assert sorted(unset) == ["parameters", "recipient_public_key", "validate_only"]
    assert (asked.request_id, asked.intent, asked.tool_call) == ("r-1", "i", "@tool")
    assert (asked.plan, asked.prompt) == ("1. look\n", "what do we have?\n")
