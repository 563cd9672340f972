"""A key of the agent's own: made here, kept in 0600 files, gone at the end; only its public part is sent."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.connectors.subject_key import ssh_public_key, x509_request
from tests.cli.conftest import ASK, Cli
from tests.client.fake_broker import REVOKED, FakeBroker

TTL = ("--ttl", "5m")
# Tells what the command finds: of each file its text and mode.
LOOK = (
    sys.executable,
    "-c",
    "import json, os; names = [n for n in os.environ if n.startswith('BROKER_') and n.endswith('_FILE')];"
    "files = {n: os.environ[n] for n in names};"
    "print(json.dumps({n: [p, open(p).read(), os.stat(p).st_mode & 0o777] for n, p in files.items()}))",
)


@pytest.fixture
def task_id(cli: Cli) -> str:
    """A task of the caller's."""
    started = cli("task", "start", "--purpose", "certificates", "--format", "json")
    assert started.returncode == 0, started.stderr
    return str(json.loads(started.stdout)["id"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory."""
    made = tmp_path / "place"
    made.mkdir()
    return made


def private_key(text: str) -> serialization.SSHPrivateKeyTypes | object:
    if "OPENSSH" in text:
        return serialization.load_ssh_private_key(text.encode(), None)
    return serialization.load_pem_private_key(text.encode(), None)


@pytest.mark.parametrize(
    ("kind", "answered", "beside"),
    [
        ("x509", "x509_certificate", {"BROKER_CERTIFICATE_FILE": "the certificate\n", "BROKER_CA_FILE": "the CA\n"}),
        ("ssh", "ssh_certificate", {"BROKER_CERTIFICATE_FILE": "ssh-cert-v01@openssh.com AAAA"}),
    ],
)
def test_a_command_has_the_files_for_its_life(
    process: Cli, fake: FakeBroker, kind: str, answered: str, beside: dict[str, str]
) -> None:
    fake.kind = answered
    done = process("exec", *ASK, *TTL, "--new-key", kind, "--", *LOOK)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: text for name, (_, text, _) in found.items() if name != "BROKER_KEY_FILE"} == beside
    assert {mode for _, _, mode in found.values()} == {0o600}
    assert [path for path, _, _ in found.values() if Path(path).exists()] == []
    (asked,) = fake.asked("RequestCredential")
    _, text, _ = found["BROKER_KEY_FILE"]
    public = private_key(text).public_key()  # type: ignore[attr-defined]
    if kind == "ssh":
        line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        assert asked.subject_public_key == ssh_public_key(asked.subject_public_key) == line.decode()
    else:
        assert x509_request(asked.subject_public_key).public_key() == public
        assert not list(x509.load_pem_x509_csr(asked.subject_public_key.encode()).subject)
    assert "PRIVATE" not in asked.subject_public_key


def test_a_passing_key_is_where_no_restart_leaves_it(
    process: Cli, fake: FakeBroker, environment: dict[str, str], place: Path
) -> None:
    fake.kind = "ssh_certificate"
    environment["XDG_RUNTIME_DIR"] = str(place)
    done = process("exec", *ASK, *TTL, "--new-key", "ssh", "--", *LOOK)
    assert done.returncode == 0, done.stderr
    assert {Path(path).parent.parent for path, _, _ in json.loads(done.stdout).values()} == {place}
    assert list(place.iterdir()) == []


def refuse_for_space(*_: object, **__: object) -> None:
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("full", ["os.fdopen", "tempfile.mkdtemp"])
def test_a_full_disk_is_told_before_anybody_is_asked_and_leaves_no_key(
    cli: Cli, fake: FakeBroker, task_id: str, place: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    key = str(place / "id_deploy")
    ways = [("exec", "--new-key", "ssh", "--", "true")]
    if full == "os.fdopen":
        ways.append(("request", "--task", task_id, "--new-key", "ssh", "--key-out", key))
    monkeypatch.setattr(full, refuse_for_space)
    for command, *more in ways:
        done = cli(command, *ASK, *TTL, *more)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert list(place.iterdir()) == []
    assert not fake.asked("RequestCredential")


def test_a_command_whose_credential_is_no_certificate_does_not_run(process: Cli, fake: FakeBroker) -> None:
    done = process("exec", *ASK, *TTL, "--new-key", "ssh", "--", *LOOK)
    assert done.returncode != 0
    assert "is no certificate" in done.stderr
    assert done.stdout == ""


def test_a_request_leaves_the_key_and_the_certificate_beside_it(
    cli: Cli, fake: FakeBroker, task_id: str, place: Path
) -> None:
    fake.kind = "ssh_certificate"
    key = place / "id_deploy"
    done = cli("request", *ASK, *TTL, "--task", task_id, "--new-key", "ssh", "--key-out", str(key))
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in place.iterdir()) == ["id_deploy", "id_deploy-cert.pub"]
    assert {each.stat().st_mode & 0o777 for each in place.iterdir()} == {0o600}
    assert fake.asked("ConfirmDelivery")
    assert "PRIVATE" not in done.stdout + done.stderr


def test_where_the_certificate_cannot_be_put_nothing_is_left(
    cli: Cli, fake: FakeBroker, task_id: str, place: Path
) -> None:
    fake.kind = "ssh_certificate"
    taken = place / "id_deploy-cert.pub"
    taken.write_text("somebody's")
    key = place / "id_deploy"
    done = cli("request", *ASK, *TTL, "--task", task_id, "--new-key", "ssh", "--key-out", str(key))
    assert done.returncode != 0
    assert "never overwritten" in done.stderr
    assert (key.exists(), taken.read_text()) == (False, "somebody's")
    assert {lease.state for lease in fake.leases.values()} == {REVOKED}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--new-key", "ssh"), "come together"),
        (("--key-out", "k"), "come together"),
        (("--new-key", "ssh", "--key-out", "{}/k", "--reveal"), "leave out"),
        (("--new-key", "ssh", "--key-out", "{}/k", "--public-key", "ssh-ed25519 A"), "say one of them"),
        (("--new-key", "ssh", "--key-out", "{}/k", "--validate-only"), "--public-key"),
        (("--new-key", "ssh", "--key-out", "{}/absent/k"), "cannot be created"),
        (("--new-key", "rsa", "--key-out", "{}/k"), "is not one of"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_asked(
    cli: Cli, fake: FakeBroker, task_id: str, place: Path, arguments: tuple[str, ...], told: str
) -> None:
    given = [each.format(place) for each in arguments]
    done = cli("request", *ASK, *TTL, "--task", task_id, *given)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert not fake.asked("RequestCredential")
    assert list(place.iterdir()) == []
