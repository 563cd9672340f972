"""``broker doctor`` names the first thing that is wrong, and only then exits 1."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.cli.main import cli as command
from broker.errors import Denied, Reason
from tests.client.fake_broker import AGENT, TRUST_DOMAIN, FakeBroker, SvidFiles, svid_files
from tests.forge import Authority, authority, rsa_key
from tests.workloadapi.server import ScriptedWorkloadApi, answer, der, svid

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


# --------------------------------------------------------------------------- a broker of another trust domain

PARTNER, HOME = authority("partner.test", at=datetime.now(UTC)), authority(TRUST_DOMAIN, at=datetime.now(UTC))
AUDITOR = "spiffe://partner.test/agent/auditor"


@pytest.fixture
def given(tmp_path: Path) -> Iterator[ScriptedWorkloadApi]:
    """What the partner's SPIRE gives its agent, while its entry federates with the broker's trust domain."""
    says = answer(svid(PARTNER.svid(AUDITOR), PARTNER), federated={TRUST_DOMAIN: der(HOME)})
    api = ScriptedWorkloadApi(tmp_path / "api.sock", says).start()
    yield api
    api.stop()


def shown_by(signer: Authority) -> FakeBroker:
    """A server with the broker's name, that takes the partner's agents."""
    return FakeBroker(ca=PARTNER, server_ca=signer).start()


def named(api: ScriptedWorkloadApi, trust_domain: str = TRUST_DOMAIN) -> tuple[str, ...]:
    return "--workload-api", api.endpoint, "--trust-domain", trust_domain


def test_identity_of_a_partners_agent(identity: Doctor, given: ScriptedWorkloadApi) -> None:
    fake = shown_by(HOME)
    try:
        code, findings = identity(fake.address, *named(given))
    finally:
        fake.stop()
    told = {str(each["step"]): str(each["detail"]) for each in findings}
    assert (code, last(findings)[:2]) == (0, ("whoami", True))
    assert told["SVID"].startswith(AUDITOR)
    assert told["rule: chain"] == "holds"
    assert re.fullmatch(
        rf"{TRUST_DOMAIN}, 1 root\(s\): sha256 [0-9a-f]{{16}}; the broker's, and yours is partner.test",
        told["trust domain"],
    )
    assert told["broker"].startswith(f"its certificate is of {TRUST_DOMAIN}, ")


def test_identity_does_not_say_that_an_unasked_rule_holds(
    identity: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files have the broker's bundle, and not ours. The environment names the trust domain here."""
    monkeypatch.setenv("BROKER_TRUST_DOMAIN", TRUST_DOMAIN)
    fake = shown_by(HOME)
    try:
        code, findings = identity(fake.address, *svid_files(tmp_path, PARTNER.svid(AUDITOR), HOME).options())
    finally:
        fake.stop()
    assert (code, last(findings)[:2]) == (0, ("whoami", True))
    assert "rule: chain" not in {each["step"] for each in findings}
    (told,) = (str(each["detail"]) for each in findings if each["step"] == "trust domain")
    assert told.endswith("partner.test, whose bundle is not at hand: your SVID's chain was not verified here")


@pytest.mark.parametrize("words", [("doctor",), ("doctor", "identity")])
def test_a_missing_bundle_of_the_brokers_trust_domain(given: ScriptedWorkloadApi, words: tuple[str, ...]) -> None:
    options = ["--address", "127.0.0.1:1", *named(given, "third.test")]
    done = CliRunner().invoke(command, [*options, *words, "--format", "json"])
    findings = json.loads(done.stdout)
    assert [each["step"] for each in findings] == ["endpoint", "SVID", "trust domain"]
    assert (done.exit_code, last(findings)) == (1, ("trust domain", False, "BROKER_BUNDLE_MISSING"))
    assert (findings[1]["ok"], findings[1]["detail"]) == (True, AUDITOR)
    assert "third.test" in findings[2]["detail"]
    assert f"the bundles of: {TRUST_DOMAIN}, partner.test." in findings[2]["detail"]
    assert "-federatesWith spiffe://third.test" in findings[2]["hint"]


def test_a_command_without_the_bundle_exits_4(given: ScriptedWorkloadApi) -> None:
    done = CliRunner().invoke(command, ["--address", "127.0.0.1:1", *named(given, "third.test"), "whoami"])
    assert done.exit_code == 4
    assert done.stderr.startswith("error: BROKER_BUNDLE_MISSING: There is no bundle to verify a broker of third.test ")


def test_a_bundle_of_the_brokers_trust_domain_that_is_none(doctor: Doctor, given: ScriptedWorkloadApi) -> None:
    given.say(answer(svid(PARTNER.svid(AUDITOR), PARTNER), federated={TRUST_DOMAIN: b""}))
    code, findings = doctor("127.0.0.1:1", *named(given))
    assert (code, last(findings)) == (1, ("trust domain", False, "CONFIG_INVALID"))
    assert f"The trust bundle of {TRUST_DOMAIN} has no certificate" in str(findings[-1]["detail"])


def test_what_is_no_trust_domain_is_told_first(doctor: Doctor, given: ScriptedWorkloadApi) -> None:
    code, findings = doctor("127.0.0.1:1", *named(given, f"spiffe://{TRUST_DOMAIN}"))
    assert (code, len(findings), last(findings)) == (1, 1, ("trust domain", False, "CONFIG_INVALID"))


def test_our_own_authority_is_no_broker_of_the_trust_domain_we_named(
    identity: Doctor, given: ScriptedWorkloadApi
) -> None:
    impostor = shown_by(PARTNER)
    try:
        code, findings = identity(impostor.address, *named(given))
    finally:
        impostor.stop()
    assert (code, last(findings)) == (1, ("broker", False, "BROKER_UNTRUSTED"))
    assert impostor.calls == []
