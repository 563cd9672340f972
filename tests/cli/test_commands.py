"""What the smaller commands print."""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.api.v1 import lease_pb2, task_pb2
from broker.approval.intent_digest import task_nonce
from broker.cli.output import clock, environment_lines, lease_state, moment, span, to_json
from broker.client import Lease, read
from broker.errors import NotFound, Reason
from broker.secret import Secret
from tests.cli.conftest import COMMAND, ROOT, Cli
from tests.client.fake_broker import ACTIVE, AGENT, FakeBroker
from tests.patience import PATIENCE

NOW = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)


def lease(**changes: object) -> Lease:
    message = lease_pb2.Lease(id="lease-1", **changes)  # type: ignore[arg-type]
    message.expire_time.FromDatetime(datetime(2031, 5, 1, 12, 3, 10, tzinfo=UTC))
    message.end_time.FromDatetime(datetime(2031, 4, 30, 23, 0, tzinfo=UTC))
    return read.read(Lease, message)


def test_whoami_in_each_format(cli: Cli) -> None:
    text, data, variables = (cli("whoami", "--format", form).stdout for form in ("text", "json", "env"))
    assert f"spiffe id         {AGENT}\n" in text
    assert json.loads(data) == {
        "spiffeId": AGENT,
        "owner": "Ada",
        "tier": "autonomous",
        "roles": ["reader"],
        "environments": [],
        "svidExpireTime": "2031-05-01T00:00:00Z",
        "tenant": "default",
        "deployDigest": "",
        "delivery": "direct",
        "proxy": "",
        "principal": "analyst",
        "segments": [],
        "promoted": False,
        "tools": [],
    }
    assert f"BROKER_SPIFFE_ID={AGENT}\nBROKER_OWNER=Ada\n" in variables


def test_templates_as_a_table_and_in_full(cli: Cli) -> None:
    assert cli("templates").stdout.splitlines() == [
        "TEMPLATE         ACCESS  ENVIRONMENTS  MAX TTL  ENDS       DESCRIPTION",
        "orders-readonly  read    dev           15m      IMMEDIATE  Read orders.",
    ]
    full = cli("templates", "orders-readonly").stdout
    assert "  --ttl           up to 15m\n  --param schema=...  enum: public\n" in full
    assert "  class           IMMEDIATE: the upstream ends one credential when asked\n" in full
    assert "  revoked         works until it expires\n" in full  # the fake states no bound
    missing = cli("templates", "nothing")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert "TEMPLATE_NOT_FOUND" in missing.stderr


def test_a_task_for_somebody_takes_the_nonce_of_exactly_that_one(cli: Cli, fake: FakeBroker, tmp_path: Path) -> None:
    told = dict(line.split("=", 1) for line in cli("task", "nonce", "--format", "env").stdout.splitlines())
    name = told["BROKER_TASK_REQUEST_ID"]
    assert told["BROKER_TASK_NONCE"] == task_nonce(AGENT, name)
    again = json.loads(cli("task", "nonce", "--request-id", name, "--format", "json").stdout)
    assert again == {"requestId": name, "nonce": told["BROKER_TASK_NONCE"]}
    (tmp_path / "token").write_text("a.b.c\n")
    start = ("task", "start", "--purpose", "work", "--on-behalf-of-token", str(tmp_path / "token"))
    assert cli(*start, "--request-id", name).returncode == 0
    (asked,) = fake.asked("StartTask")
    assert (asked.on_behalf_of_token, asked.request_id) == ("a.b.c", name)
    for wrong in (start, (*start[:-1], str(tmp_path / "none"), "--request-id", name)):
        done = cli(*wrong)
        assert (done.returncode, "a.b.c" in done.stderr) == (2, False)
    (tmp_path / "token").write_text("two tokens\n")
    done = cli(*start, "--request-id", name)
    assert (done.returncode, "two tokens" in done.stderr) == (2, False)
    assert len(fake.asked("StartTask")) == 1


def test_a_task_from_start_to_end(cli: Cli, fake: FakeBroker) -> None:
    started = cli(
        *("task", "start", "--purpose", "it's work", "--participant", "spiffe://example.org/b", "--ticket", "T-1"),
        *("--max-duration", "1h", "--sponsor", "ada", "--request-id", "r-1", "--format", "env"),
        *("--type", "report"),
    )
    assert "BROKER_TASK_ID=task-1\n" in started.stdout
    assert "BROKER_TASK_PURPOSE='it'\"'\"'s work'\n" in started.stdout
    (asked,) = fake.asked("StartTask")
    assert (asked.max_duration.seconds, asked.ticket, asked.sponsor, asked.request_id) == (3600, "T-1", "ada", "r-1")
    assert asked.task_type == "report"
    assert json.loads(cli("task", "get", "task-1", "--format", "json").stdout)["state"] == "OPEN"
    fake.leases["lease-0"] = lease_pb2.Lease(id="lease-0", task_id="task-1", state=ACTIVE)
    completed = cli("task", "complete", "task-1", "--wait", "0s")
    assert completed.stdout.splitlines()[0] == "task-1  COMPLETED"
    assert completed.stdout.splitlines()[1].startswith("lease-0  REVOKED")
    assert cli("task", "complete", "task-1", "--wait", "61s").returncode == 2


def test_holding_a_task_until_a_signal(fake: FakeBroker, options: list[str], environment: dict[str, str]) -> None:
    fake.tasks["task-0"] = task_pb2.Task(id="task-0", state=task_pb2.Task.STATE_OPEN)
    holding = subprocess.Popen(
        [*COMMAND, *options, "task", "hold", "task-0", "--grace", "4s"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    fake.wait_until(lambda: bool(fake.held))
    holding.send_signal(signal.SIGTERM)
    _, err = holding.communicate(timeout=PATIENCE)
    assert (holding.returncode, err) == (0, "broker: holding task-0\nbroker: let go of task-0; it ends in 4s\n")
    fake.wait_until(lambda: not fake.held)


def test_holding_what_is_not_yours(cli: Cli, fake: FakeBroker) -> None:
    fake.faults["HoldTask"] = [NotFound(Reason.TASK_NOT_FOUND, "There is no task t.")]
    done = cli("task", "hold", "t")
    assert done.returncode == 3
    assert done.stderr == "error: TASK_NOT_FOUND: There is no task t.\n"


def test_leases_as_a_table_over_pages(cli: Cli, fake: FakeBroker) -> None:
    for number in range(3):
        fake.leases[f"lease-{number}"] = lease_pb2.Lease(id=f"lease-{number}", task_id="task-1", state=ACTIVE)
    fake.leases["lease-9"] = lease_pb2.Lease(id="lease-9", task_id="task-2", state=ACTIVE)
    lines = cli("leases", "list", "--task", "task-1").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["LEASE", "lease-0", "lease-1", "lease-2"]
    assert len(json.loads(cli("leases", "list", "--format", "json").stdout)) == 4
    assert fake.asked("ListLeases")[0].living_only is False
    cli("leases", "list", "--living")
    assert fake.asked("ListLeases")[-1].living_only is True


def test_one_lease_and_its_revocation(cli: Cli, fake: FakeBroker) -> None:
    fake.leases["lease-1"] = lease_pb2.Lease(id="lease-1", state=ACTIVE)
    assert json.loads(cli("leases", "get", "lease-1", "--format", "json").stdout)["state"] == "ACTIVE"
    assert cli("revoke", "lease-1", "--wait", "5s").stdout.startswith("lease-1  REVOKED")
    assert fake.asked("RevokeLease")[0].wait.seconds == 5
    assert cli("leases", "get", "lease-2").returncode == 3


def test_watching_prints_one_object_a_line(fake: FakeBroker, options: list[str], environment: dict[str, str]) -> None:
    for number in range(2):
        fake.emit(f"lease.changed-{number}", lease_pb2.Lease(id="lease-1", state=ACTIVE))
    watching = subprocess.Popen(
        [*COMMAND, *options, "leases", "watch", "--after", "0", "--format", "json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert watching.stdout is not None
    lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=PATIENCE)
    assert [(line["sequence"], line["type"], line["lease"]["state"]) for line in lines] == [
        (1, "lease.changed-0", "ACTIVE"),
        (2, "lease.changed-1", "ACTIVE"),
    ]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"state": 2}, "ACTIVE until 12:03:10Z at the latest"),
        (
            {"state": 3, "contract_class": 3},
            "REVOKING until 12:03:10Z: only time ends this credential (EXPIRY_ONLY)",
        ),
        ({"state": 3, "contract_class": 1}, "REVOKING: the broker tries until the upstream confirms"),
        (
            {"state": 3, "contract_class": 1, "revoke_failures": 3},
            "REVOKING: the broker tries until the upstream confirms, 3 failures so far",
        ),
        ({"state": 4}, "REVOKED at 2031-04-30T23:00:00Z: the upstream confirmed"),
        ({"state": 5}, "EXPIRED at 2031-04-30T23:00:00Z: time ended it"),
        ({"state": 6}, "VOID: never issued"),
        ({"state": 1}, "ISSUING"),
    ],
)
def test_a_leases_state_promises_nothing_the_upstream_does_not(facts: dict[str, int], told: str) -> None:
    assert lease_state(lease(**facts), NOW) == told


def test_json_of_everything_a_model_holds() -> None:
    assert moment(datetime(2031, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)) == "2031-05-01T12:00:00.250Z"
    assert to_json(timedelta(seconds=300)) == "300s"
    assert to_json(timedelta(milliseconds=1500)) == "1.5s"
    assert to_json({"a": (1, True, None)}) == {"a": [1, True, None]}
    assert [span(timedelta(seconds=each)) for each in (0, 59.9, 900, 5430)] == ["0s", "59s", "15m", "1h30m30s"]
    assert clock(None, NOW) == "an unknown time"
    with pytest.raises(TypeError, match="Secret has no JSON form"):
        to_json(Secret("x"))


def test_variables_are_quoted_for_a_shell() -> None:
    assert environment_lines({"A": "plain", "B": "it's $HOME"}) == "A=plain\nB='it'\"'\"'s $HOME'"
