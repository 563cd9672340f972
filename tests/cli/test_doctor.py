"""``broker doctor`` names the first thing that is wrong, and only then exits 1."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.main import cli as command
from broker.errors import Denied, Reason
from tests.client.fake_broker import AGENT, FakeBroker, SvidFiles, svid_files
from tests.forge import authority

HOUR = timedelta(hours=1)
Findings = list[dict[str, object]]
Doctor = Callable[..., tuple[int, Findings]]


@pytest.fixture
def doctor() -> Doctor:
    def examine(address: str, *options: str) -> tuple[int, Findings]:
        done = CliRunner().invoke(command, ["--address", address, *options, "doctor", "--format", "json"])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.exit_code, json.loads(done.stdout)

    return examine


def last(findings: Findings) -> tuple[object, object, object]:
    return findings[-1]["step"], findings[-1]["ok"], findings[-1]["reason"]


def test_everything_is_fine(doctor: Doctor, fake: FakeBroker, files: SvidFiles) -> None:
    code, findings = doctor(fake.address, *files.options())
    assert code == 0
    assert [each["step"] for each in findings] == [
        *("endpoint", "SVID", "validity", "trust domain"),
        *("TCP", "TLS", "broker", "broker's name", "accepted", "whoami"),
    ]
    assert all(each["ok"] for each in findings)
    assert findings[-1]["detail"] == f"{AGENT}: autonomous, reader, owner Ada"
    assert "brokerd (its DNS names: brokerd)" in str(findings[7]["detail"])


def test_text_names_the_step_and_what_to_do(fake: FakeBroker, files: SvidFiles) -> None:
    options = ["--address", fake.address, "--server-name", "other", *files.options()]
    for arguments in (["doctor"], ["doctor", "identity"]):
        done = CliRunner().invoke(command, [*options, *arguments])
        assert done.exit_code == 1
        assert "ok     SVID" in done.stdout
        assert "error  broker's name  BROKER_NAME_MISMATCH: " in done.stdout
        assert "Set BROKER_SERVER_NAME" in done.stdout.splitlines()[-1]


def test_no_workload_api_at_all(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    code, findings = doctor("127.0.0.1:1")
    assert (code, last(findings)) == (1, ("SVID", False, "SVID_MISSING"))


def test_a_socket_that_is_not_there_or_none(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, told in ((tmp_path / "absent", "No such file"), (tmp_path / "file", "is not a socket")):
        code, findings = doctor("127.0.0.1:1", "--workload-api", f"unix://{path}")
        assert (code, last(findings)) == (1, ("endpoint", False, "SVID_MISSING"))
        assert told in str(findings[-1]["detail"])


def test_an_expired_svid_is_told_before_the_way_is_tried(doctor: Doctor, fake: FakeBroker, tmp_path: Path) -> None:
    files = svid_files(tmp_path, fake.agent(begins=-2 * HOUR, ends=-HOUR), fake.ca)
    code, findings = doctor(fake.address, *files.options())
    wrong = [(each["step"], each["reason"]) for each in findings if not each["ok"]]
    assert code == 1
    assert wrong == [("validity", "SVID_EXPIRED"), ("accepted", "SVID_EXPIRED")]
    assert "valid by our own clock" not in str(findings)
    assert fake.calls == []


def test_an_svid_with_a_defect_is_named(doctor: Doctor, fake: FakeBroker, tmp_path: Path) -> None:
    files = svid_files(tmp_path, fake.ca.svid(AGENT, purposes=None, usage=("key_agreement",)), fake.ca)
    _, findings = doctor(fake.address, *files.options())
    wrong = [(each["step"], each["reason"]) for each in findings if not each["ok"]]
    assert wrong[0] == ("validity", "SVID_KEY_USAGE")


def test_no_address(doctor: Doctor, files: SvidFiles) -> None:
    code, findings = doctor("", *files.options())
    assert (code, last(findings)) == (1, ("address", False, "CONFIG_INVALID"))


def test_nobody_there(doctor: Doctor, files: SvidFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code, findings = doctor(address, *files.options())
    assert (code, last(findings)) == (1, ("TCP", False, "BROKER_UNREACHABLE"))


def test_another_trust_domain(doctor: Doctor, fake: FakeBroker, tmp_path: Path) -> None:
    elsewhere = authority("elsewhere.test", at=datetime.now(UTC))
    files = svid_files(tmp_path, elsewhere.svid("spiffe://elsewhere.test/agent"), elsewhere)
    code, findings = doctor(fake.address, *files.options())
    assert (code, last(findings)) == (1, ("broker", False, "BROKER_UNTRUSTED"))


def test_a_broker_that_does_not_know_us(doctor: Doctor, fake: FakeBroker, files: SvidFiles) -> None:
    fake.faults["WhoAmI"] = [Denied(Reason.AGENT_NOT_REGISTERED, "Who?", hint="Register.")]
    code, findings = doctor(fake.address, *files.options())
    assert (code, last(findings)) == (1, ("whoami", False, "AGENT_NOT_REGISTERED"))
    assert findings[-1]["hint"] == "Register."
