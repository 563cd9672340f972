"""``broker deploy`` and ``broker check --config``: what people who sign type, and what they read."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from broker.cli.main import cli as command
from broker.deployfiles import listing, signing
from tests.api.served import private, write_config
from tests.signing import KEYS, deploy_section, private_pem, signed

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str | Path, stdin: str = "") -> Result:
        done = CliRunner().invoke(command, [str(each) for each in arguments], input=stdin)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A whole set, of the trust domain of the brokerd that is configured beside it."""
    write_config(tmp_path)
    return tmp_path / "deploy"


@pytest.fixture
def dana(tmp_path: Path) -> Path:
    return private(tmp_path / "dana.key", private_pem(KEYS["dana-1"]))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, deploy=deploy_section())


def test_from_keys_to_a_set_that_loads(run: Run, tmp_path: Path, good: Path) -> None:
    """With nothing but the command line."""
    for name in ("dana", "alex"):
        made = run(
            "deploy", "keygen", "--key", tmp_path / name, "--public", tmp_path / f"{name}.pub", "--no-passphrase"
        )
        assert made.exit_code == 0, made.output
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    keys = {f"{name}-1": {"person": name, "file": f"{name}.pub"} for name in ("dana", "alex")}
    deploy = {"directory": "deploy", "deploy_keys": keys, "deploy_signatures_required": 2}
    config = write_config(tmp_path, deploy=deploy)
    digest = run("deploy", "digest", good).stdout.strip()

    told = run(
        "deploy", "sign", good, "--key", tmp_path / "dana", "--as", "dana-1", "--author", "dana", "--serial", "1"
    )
    assert told.stdout == f"signed {digest}, author dana, serial 1, by dana-1\n"
    told = run("deploy", "verify", good, "--config", config)
    assert (told.exit_code, told.stdout) == (1, "")
    assert "are by 1 person, dana (its author); 2 must sign" in told.stderr
    told = run("check", "--config", config)
    assert told.exit_code == 1
    assert "2 must sign" in told.stderr

    told = run("deploy", "sign", good, "--key", tmp_path / "alex", "--as", "alex-1")
    assert told.stdout == f"signed {digest}, author dana, serial 1, by dana-1, alex-1\n"
    told = run("deploy", "verify", good, "--config", config)
    assert told.stdout == f"{good}: signed by alex, dana; author dana, serial 1, {digest}\n"
    told = run("check", "--config", config)
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines()[1].endswith(
        f", digest {digest}, signed by alex, dana; author dana, serial 1 (not compared with the ledger)"
    )
    assert run("deploy", "digest", good).stdout.strip() == digest


def test_programs_get_json(run: Run, good: Path, dana: Path, config: Path) -> None:
    signed(good, "alex-1", serial=4)
    digest = run("deploy", "digest", good).stdout.strip()
    made = json.loads(run("deploy", "sign", good, "--key", dana, "--as", "dana-1", "--format", "json").stdout)
    statement = {"digest": digest, "author": "dana", "serial": 4}
    assert made == {**statement, "keys": ["alex-1", "dana-1"], "dropped": []}
    who = {"signers": ["alex", "dana"], "keys": ["alex-1", "dana-1"]}
    assert json.loads(run("deploy", "verify", good, "--config", config, "--format", "json").stdout) == {
        **statement,
        **who,
    }
    told = json.loads(run("check", "--config", config, "--format", "json").stdout)
    assert [each["path"] for each in told] == [str(config), str(good)]
    assert {name: told[1][name] for name in (*statement, *who)} == {**statement, **who}
    assert told[1]["serialCompared"] is False


def test_without_config_signatures_are_nobodys_business(run: Run, good: Path, config: Path) -> None:
    assert run("check", good).exit_code == 0
    assert run("check", good, config).exit_code == 0
    assert run("check", "--config", config, good).exit_code == 1
    assert run("check").exit_code == 2


def test_check_tells_what_is_wrong_with_the_keys(run: Run, good: Path, tmp_path: Path) -> None:
    section: dict[str, Any] = deploy_section()
    section["deploy_keys"]["kim-1"] = {"person": "kim", "file": "absent.pub"}
    config = write_config(tmp_path, deploy=section)
    told = run("check", "--config", config)
    assert (told.exit_code, told.stdout) == (1, "")
    assert "absent.pub:1: cannot be read" in told.stderr


def test_verify_needs_a_brokerd_that_asks(run: Run, good: Path, tmp_path: Path) -> None:
    told = run("deploy", "verify", good, "--config", write_config(tmp_path))
    assert told.exit_code == 1
    assert "has no deploy_keys" in told.stderr


def test_a_change_is_told_when_it_is_signed_anew(run: Run, good: Path, dana: Path) -> None:
    signed(good, "dana-1", "alex-1", serial=4)
    people = good / "people.yaml"
    people.write_text(people.read_text() + "# changed\n")
    sign = ("deploy", "sign", good, "--key", dana, "--as", "dana-1")
    told = run(*sign)
    assert (told.exit_code, told.stdout) == (1, "")
    assert "is about other files than are here now" in told.stderr
    told = run(*sign, "--author", "dana")
    assert told.stderr == "dropped, because they were about something else: dana-1, alex-1\n"
    assert told.stdout.endswith("author dana, serial 5, by dana-1\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--as", "dana-1", "--serial", "3"), "--serial is said together with --author."),
        (("--as", "Dana"), "--as is the name of a key in deploy_keys"),
        ((), "Missing option '--as'"),
    ],
)
def test_usage(run: Run, good: Path, dana: Path, options: tuple[str, ...], told: str) -> None:
    done = run("deploy", "sign", good, "--key", dana, *options)
    assert done.exit_code == 2
    assert told in done.stderr
    assert not (good / "signatures").exists()


# --------------------------------------------------------------------------- private keys


def sign_with(run: Run, good: Path, key: Path, *options: str, stdin: str = "") -> Result:
    first = ("--as", "dana-1", "--author", "dana", "--serial", "1")
    return run("deploy", "sign", good, "--key", key, *first, *options, stdin=stdin)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_private_key_that_others_may_read(run: Run, good: Path, dana: Path, mode: int) -> None:
    dana.chmod(mode)
    done = sign_with(run, good, dana)
    assert done.exit_code == 2
    assert f"run: chmod 0600 {dana}" in done.stderr
    assert not (good / "signatures").exists()


def test_keys_of_no_use(run: Run, good: Path, tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, data, why in (
        ("text", b"secret text", "is not a private key in PEM"),
        ("ec", other, "is not an Ed25519 key"),
        ("big", b"x" * 70_000, "is larger than 64 KiB"),
    ):
        done = sign_with(run, good, private(tmp_path / name, data))
        assert done.exit_code == 2
        assert why in done.stderr
        assert "secret text" not in done.output
    assert "cannot be read" in sign_with(run, good, tmp_path / "absent").stderr


def test_a_passphrase_that_is_asked_for(run: Run, good: Path, tmp_path: Path) -> None:
    key, public = tmp_path / "dana.enc", tmp_path / "dana.pub"
    made = run("deploy", "keygen", "--key", key, "--public", public, stdin="open sesame\nopen sesame\n")
    assert made.exit_code == 0, made.output
    assert b"ENCRYPTED" in key.read_bytes()
    assert "sesame" not in made.output
    assert sign_with(run, good, key, stdin="open sesame\n").exit_code == 0
    before = (good / listing.ENVELOPE).read_bytes()
    done = sign_with(run, good, key, stdin="open barley\n")
    assert done.exit_code == 2
    assert "cannot be decrypted with this passphrase" in done.stderr
    assert "barley" not in done.output
    assert (good / listing.ENVELOPE).read_bytes() == before


def test_a_passphrase_from_a_descriptor(run: Run, good: Path, tmp_path: Path) -> None:
    key, public = tmp_path / "dana.enc", tmp_path / "dana.pub"

    def descriptor(text: bytes) -> str:
        reading, writing = os.pipe()
        os.write(writing, text)
        os.close(writing)
        return str(reading)

    made = run("deploy", "keygen", "--key", key, "--public", public, "--passphrase-fd", descriptor(b"sesame\nmore\n"))
    assert made.exit_code == 0, made.output
    assert load_pem_private_key(key.read_bytes(), b"sesame")
    assert sign_with(run, good, key, "--passphrase-fd", descriptor(b"sesame")).exit_code == 0
    assert "has no passphrase" in sign_with(run, good, key, "--passphrase-fd", descriptor(b"\n")).stderr
    assert "cannot be read as text" in sign_with(run, good, key, "--passphrase-fd", "987").stderr


def test_keys_of_openssl_do_as_well(run: Run, good: Path, tmp_path: Path) -> None:
    """What the help of keygen says, word for word."""
    key, word = tmp_path / "openssl.key", tmp_path / "word"
    private(word, "sesame\n")
    made = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", f"file:{word}", "-out", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    key.chmod(0o600)
    shown = ["openssl", "pkey", "-in", str(key), "-passin", f"file:{word}", "-pubout"]
    pem = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    assert sign_with(run, good, key, stdin="sesame\n").exit_code == 0
    section: dict[str, Any] = deploy_section()
    section["deploy_keys"]["dana-1"]["pem"] = pem
    config = write_config(tmp_path, deploy=section)
    alex = private(tmp_path / "alex.key", private_pem(KEYS["alex-1"]))
    assert run("deploy", "sign", good, "--key", alex, "--as", "alex-1").exit_code == 0
    assert run("deploy", "verify", good, "--config", config).exit_code == 0


def test_keygen_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    key, public = private(tmp_path / "a", b"precious"), tmp_path / "b"
    done = run("deploy", "keygen", "--key", key, "--public", public, "--no-passphrase")
    assert (done.exit_code, "is there already" in done.stderr) == (2, True)
    assert key.read_bytes() == b"precious" and not public.exists()
    done = run("deploy", "keygen", "--key", public, "--public", key, "--no-passphrase")
    assert (done.exit_code, "is there already" in done.stderr) == (2, True)
    assert key.read_bytes() == b"precious" and not public.exists()


@pytest.mark.parametrize("public", ["k", "absent/k.pub"])
def test_keygen_leaves_no_half_pair(run: Run, tmp_path: Path, public: str) -> None:
    """Both keys into one file, or the public one where it cannot be: then there is no private one, either."""
    done = run("deploy", "keygen", "--key", tmp_path / "k", "--public", tmp_path / public, "--no-passphrase")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{tmp_path / public} " in done.stderr
    assert not (tmp_path / "k").exists()


def test_a_passphrase_that_no_key_can_have(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "word"
    file.write_text("x" * 1024 + "\n")
    descriptor = os.open(file, os.O_RDONLY)
    key = tmp_path / "k"
    done = run("deploy", "keygen", "--key", key, "--public", tmp_path / "k.pub", "--passphrase-fd", descriptor)
    assert (done.exit_code, "longer than 1023 bytes" in done.stderr) == (2, True)
    assert not key.exists()


def test_signatures_that_cannot_be_written(run: Run, good: Path, dana: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(signing, "_write", full)
    done = sign_with(run, good, dana)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"{good}/signatures/set.dsse.json:1: cannot be written: No space left on device\n"


def test_what_is_signed_is_what_is_read(run: Run, good: Path, dana: Path) -> None:
    (good / "agents" / "analyst.yml").write_text("spiffe_id: x\n")
    for done in (sign_with(run, good, dana), run("deploy", "digest", good)):
        assert (done.exit_code, done.stdout) == (1, "")
        assert "analyst.yml:1: is not part of a deploy set" in done.stderr
    assert not (good / "signatures").exists()


def test_the_schema_of_the_configuration_knows_the_keys(config: Path) -> None:
    schema = json.loads((Path(__file__).parents[2] / "deploy" / "schemas" / "brokerd.schema.json").read_text())
    deploy = schema["$defs"]["Deploy"]["properties"]
    assert yaml.safe_load(config.read_text())["deploy"].keys() == deploy.keys() - {"follow_within"}
    assert deploy["deploy_signatures_required"]["anyOf"][0]["minimum"] == 2
