"""``broker audit find-secret``: whose a found secret was, and whether the trail says that it is dead."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.main import cli as command
from broker.keys import FileKeyRing, new_key
from broker.lease.credential import AwsSession, DatabaseLogin
from broker.lease.fingerprint import fingerprint, fingerprints
from broker.lease.machine import State
from broker.secret import Secret
from tests.issuance.world import World

KEY = b"k" * 32


def test_a_digest_of_each_field_that_opens_a_door() -> None:
    session = AwsSession("AKIA", Secret("one"), Secret("two"), "eu", "arn", "{}")
    told = fingerprints("id", KEY, session)
    assert told.keys() == {"key_id", "secret_access_key", "session_token"}
    assert told["secret_access_key"] == fingerprint(KEY, Secret("one")) != fingerprint(b"l" * 32, Secret("one"))


def run(ledger: Path, key: Path, secret: str, *more: str) -> Result:
    arguments = ["audit", "find-secret", "--database", str(ledger), "--key", f"file:{key}", *more]
    done = CliRunner().invoke(command, arguments, input=secret)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return written(tmp_path / "ledger.key")


def written(path: Path) -> Path:
    path.write_text(new_key())
    path.chmod(0o600)
    return path


def issued(directory: Path, key: Path, *, ended: bool) -> str:
    """The password of a login that was issued, and ended; another login of the agent lives on."""

    async def live() -> str:
        world = await World.open(directory, keys=FileKeyRing([f"file:{key}"]))
        task = await world.task()
        granted = await world.grant(task)
        await world.grant(task, name="r2")
        assert granted.lease is not None
        assert isinstance(granted.credential, DatabaseLogin)
        if ended:
            lease_id = granted.lease.id
            await world.leases.revoke(world.caller(), lease_id, timedelta(0))
            await world.settle(lambda: over(world, lease_id))
        await world.close()
        return granted.credential.password.reveal()

    async def over(world: World, lease_id: str) -> bool:
        return (await world.lease(lease_id)).state is State.REVOKED

    return asyncio.run(live())


def test_a_secret_that_was_issued_is_found_and_its_end_told(tmp_path: Path, key: Path) -> None:
    password = issued(tmp_path, key, ended=False)
    found = run(tmp_path / "ledger.sqlite3", key, f"{password}\n")
    assert found.exit_code == 0
    assert found.stdout.startswith("It is the password of lease lease-")
    assert "does not say that it is dead" in found.stdout
    assert password not in found.stdout
    told = json.loads(run(tmp_path / "ledger.sqlite3", key, password, "--format", "json").stdout)
    assert (told["field"], told["ended"]) == ("password", None)


def test_of_a_dead_one_its_end_is_told(tmp_path: Path, key: Path) -> None:
    password = issued(tmp_path, key, ended=True)
    found = run(tmp_path / "ledger.sqlite3", key, password)
    assert (found.exit_code, "the upstream confirmed: the credential is dead" in found.stdout) == (0, True)
    told = json.loads(run(tmp_path / "ledger.sqlite3", key, password, "--format", "json").stdout)
    assert told["ended"]["type"] == "lease.revoked"


def test_what_is_nobodys(tmp_path: Path, key: Path) -> None:
    password = issued(tmp_path, key, ended=False)
    ledger, other = tmp_path / "ledger.sqlite3", written(tmp_path / "other.key")
    for secret, by in ((f"{password}x", key), (password[:-1], key), (password, other)):
        found = run(ledger, by, secret)
        assert (found.exit_code, found.stdout) == (1, "")
        assert "knows of no such secret" in found.stderr
    assert run(ledger, key, "").exit_code == 2
