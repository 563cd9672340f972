"""``broker audit verify`` with nothing but a public key and a witness; ``broker audit keygen``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from broker.cli.main import cli as command
from broker.references import resolve
from broker.witnesses.signing import CheckpointKeys
from tests.audit.trail import KEY, ORIGIN, STRANGER, written

Run = Callable[..., Result]
WHOLE = written()


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str | Path) -> Result:
        done = CliRunner().invoke(command, [str(each) for each in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """A folder with an export, what a witness has as a file and as objects, and public keys."""
    (tmp_path / "export").write_bytes(b"".join(body + b"\n" for body in WHOLE.bodies))
    (tmp_path / "witness").write_text("".join(f"{note}\n" for note in WHOLE.notes))
    (tmp_path / "bucket").mkdir()
    for number, note in enumerate(WHOLE.notes):
        (tmp_path / "bucket" / f"{number:015d}.note").write_text(note)
    for name, key in (("public", KEY), ("stranger", STRANGER)):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / name).write_bytes(pem)
    return tmp_path


@pytest.mark.parametrize("witness", ["witness", "bucket"])
def test_a_whole_trail(run: Run, evidence: Path, witness: str) -> None:
    how = ("--public-key", evidence / "public", "--witness", evidence / witness, "--origin", ORIGIN, "--closed")
    done = run("audit", "verify", "--export", evidence / "export", *how)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1:] == ["signed up to record 59 (6 checkpoints), witnessed up to record 59"]
    told = json.loads(run("audit", "verify", "--export", evidence / "export", *how, "--format", "json").stdout)
    figures = {name: told[name] for name in ("ok", "records", "signed", "checkpoints", "witnessed", "witnesses")}
    assert figures == {"ok": True, "records": 60, "signed": 59, "checkpoints": 6, "witnessed": 59, "witnesses": 1}


def test_an_export_in_two_files(run: Run, evidence: Path) -> None:
    lines = (evidence / "export").read_bytes().splitlines(keepends=True)
    (evidence / "one").write_bytes(b"".join(lines[:25]))
    (evidence / "two").write_bytes(b"".join(lines[25:]))
    how = ("--public-key", evidence / "public", "--witness", evidence / "witness")
    assert run("audit", "verify", "--export", evidence / "one", "--export", evidence / "two", *how).exit_code == 0
    assert run("audit", "verify", "--export", evidence / "two", "--export", evidence / "one", *how).exit_code == 1


def test_a_damaged_one_is_located_and_only_so_much_is_printed(run: Run, evidence: Path) -> None:
    export = evidence / "export"
    export.write_bytes(export.read_bytes().replace(b"lease-33", b"lease-99", 1))
    how = ("--export", export, "--public-key", evidence / "public", "--witness", evidence / "witness")
    done = run("audit", "verify", *how)
    assert (done.exit_code, done.stdout.splitlines()[0].split(":")[:2]) == (1, ["record 33", " BODY"])
    export.write_bytes(b"rubbish\n" * 500)
    told = json.loads(run("audit", "verify", *how, "--most", "7", "--format", "json").stdout)
    assert (len(told["findings"]), told["findingsNotShown"] >= 493) == (7, True)


def test_a_witness_of_somebody_else_s_key(run: Run, evidence: Path) -> None:
    how = ("--public-key", evidence / "stranger", "--witness", evidence / "witness")
    told = json.loads(run("audit", "verify", "--export", evidence / "export", *how, "--format", "json").stdout)
    assert {each["problem"] for each in told["findings"]} == {"WITNESS", "SIGNATURE", "UNSIGNED"}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--export", "export"),
        ("--export", "export", "--database", "ledger", "--public-key", "public"),
        ("--export", "export", "--public-key", "public", "--key", "env:KEY"),
        ("--database", "ledger", "--witness", "witness"),
        ("--export", "export", "--public-key", "absent"),
        ("--export", "absent", "--public-key", "public"),
        ("--export", "export", "--public-key", "witness"),
        ("--export", "export", "--public-key", "public", "--witness", "absent"),
    ],
)
def test_what_makes_no_sense_is_told(run: Run, evidence: Path, arguments: tuple[str, ...]) -> None:
    named = [each if each.startswith(("-", "env:")) else str(evidence / each) for each in arguments]
    assert run("audit", "verify", *named).exit_code == 2


def test_a_key_pair(run: Run, tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    assert run("audit", "keygen", private, public).exit_code == 0
    assert (private.stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o600, 0o644)
    (made,) = CheckpointKeys([f"file:{private}"], resolve).public
    assert load_pem_public_key(public.read_bytes()) == made
    before = private.read_bytes()
    assert run("audit", "keygen", private, tmp_path / "other").exit_code == 2
    assert private.read_bytes() == before
