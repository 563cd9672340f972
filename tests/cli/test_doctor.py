"""``broker doctor`` names the first thing that is wrong, and only then exits 1."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.cli.main import cli as command
from broker.errors import Denied, Reason
from tests.client.fake_broker import AGENT, TRUST_DOMAIN, FakeBroker, SvidFiles, svid_files
from tests.forge import authority, rsa_key

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
        assert re.search(r"^error  broker's name +BROKER_NAME_MISMATCH: ", done.stdout, re.MULTILINE)
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
    files = svid_files(tmp_path, fake.agent(begins=-timedelta(minutes=4), ends=-timedelta(minutes=1)), fake.ca)
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
    assert wrong[0] == ("rule: key usage", "SVID_KEY_USAGE")


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


# --------------------------------------------------------------------------- broker doctor identity

RULES = ["readable", "id", "names critical", "serial", "not ca", "key usage", "extended key usage", "key"]
RULES += ["begun", "not ended", "chain"]


@pytest.fixture
def identity() -> Doctor:
    def examine(address: str, *options: str) -> tuple[int, Findings]:
        arguments = ["--address", address, *options, "doctor", "identity", "--format", "json"]
        done = CliRunner().invoke(command, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.exit_code, json.loads(done.stdout)

    return examine


def test_identity_tells_each_rule_and_the_svids_particulars(identity: Doctor, fake: FakeBroker, tmp_path: Path) -> None:
    svid = fake.ca.intermediate().svid(AGENT, dns=["one.example.org"])
    files = svid_files(tmp_path, svid, fake.ca)

    code, findings = identity(fake.address, *files.options())

    assert code == 0
    assert [each["step"] for each in findings] == [
        *("endpoint", "SVID", "validity"),
        *(f"rule: {rule}" for rule in RULES),
        *("trust domain", "TCP", "TLS", "broker", "broker's name", "accepted", "whoami"),
    ]
    told = str(findings[1]["detail"])
    assert told.startswith(f"{AGENT}, serial {svid.certificate.serial_number:x}, sha256 ")
    assert told.endswith("DNS names: one.example.org, 1 intermediate(s)")
    assert str(files.certificate) in str(findings[0]["detail"])


@pytest.mark.parametrize(
    ("defects", "rules"),
    [
        ({"san_critical": False}, {"names critical": "SVID_MALFORMED"}),
        ({"ca": True, "usage": None}, {"not ca": "SVID_IS_CA", "key usage": "SVID_KEY_USAGE"}),
        ({"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]}, {"extended key usage": "SVID_EXTENDED_KEY_USAGE"}),
        ({"key": rsa_key(1024)}, {"key": "SVID_KEY_WEAK"}),
    ],
)
def test_identity_names_each_broken_rule_and_what_to_do(
    identity: Doctor, fake: FakeBroker, tmp_path: Path, defects: dict[str, Any], rules: dict[str, str]
) -> None:
    files = svid_files(tmp_path, fake.agent(**defects), fake.ca)

    code, findings = identity(fake.address, *files.options())

    broken = [each for each in findings if not each["ok"] and str(each["step"]).startswith("rule: ")]
    assert code == 1
    assert {str(each["step"]).removeprefix("rule: "): each["reason"] for each in broken} == rules
    assert all(each["hint"] for each in broken)


def test_identity_from_another_authority_is_a_broken_chain(identity: Doctor, fake: FakeBroker, tmp_path: Path) -> None:
    other = authority(TRUST_DOMAIN, at=datetime.now(UTC), name="another")
    files = svid_files(tmp_path, other.svid(AGENT), fake.ca)

    code, findings = identity(fake.address, *files.options())

    wrong = [(each["step"], each["reason"]) for each in findings if not each["ok"]]
    assert code == 1
    assert wrong == [("rule: chain", "SVID_CHAIN_INVALID"), ("accepted", "SVID_CHAIN_INVALID")]


@pytest.mark.parametrize(
    ("svid", "reason"),
    [
        ((), "SVID_URI_COUNT"),
        ((AGENT, "spiffe://example.org/agent/two"), "SVID_URI_COUNT"),
        (("spiffe://Example.org/agent",), "SVID_ID_NOT_CANONICAL"),
    ],
)
def test_identity_without_one_id_ends_there(
    identity: Doctor, fake: FakeBroker, tmp_path: Path, svid: tuple[str, ...], reason: str
) -> None:
    files = svid_files(tmp_path, fake.ca.svid(*svid), fake.ca)

    code, findings = identity(fake.address, *files.options())

    assert (code, last(findings)) == (1, ("SVID", False, reason))
    assert findings[-1]["hint"]
    assert fake.calls == []


def test_identity_whose_key_is_another_ends_there(identity: Doctor, fake: FakeBroker, files: SvidFiles) -> None:
    files.key.write_bytes(fake.agent().key_pem)

    code, findings = identity(fake.address, *files.options())

    assert (code, last(findings)) == (1, ("SVID", False, "SVID_MALFORMED"))
    assert "does not belong to the key" in str(findings[-1]["detail"])


def test_identity_meets_an_impostor(identity: Doctor, tmp_path: Path) -> None:
    """A federated authority has the broker's DNS name signed, and even its SPIFFE ID."""
    impostor = FakeBroker(server_ca=authority("partner.test", at=datetime.now(UTC))).start()
    try:
        code, findings = identity(impostor.address, *svid_files(tmp_path, impostor.agent(), impostor.ca).options())
    finally:
        impostor.stop()

    assert (code, last(findings)) == (1, ("broker", False, "BROKER_UNTRUSTED"))
    assert impostor.calls == []


def test_identity_tells_of_a_token_that_a_proxy_needs(
    identity: Doctor, fake: FakeBroker, files: SvidFiles, tmp_path: Path
) -> None:
    absent = ("--audience", "spiffe://example.org/brokerd", "--token-file", str(tmp_path / "no.jwt"))

    code, findings = identity(fake.address, *files.options(), *absent)

    assert (code, last(findings)) == (1, ("JWT-SVID", False, "JWT_SVID_MISSING"))
