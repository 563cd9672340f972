"""``broker verify`` on the ledger of a broker at work, and on damaged copies of it; ``broker backup``."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.main import cli as command
from broker.keys import FileKeyRing, new_key
from broker.lease.machine import Event
from broker.ports.leases import EndCause
from broker.stores import backup
from broker.stores.audit_reader import AuditReader
from broker.stores.sqlite import SqliteStore
from tests.stores.contract_trail import checkpoint
from tests.stores.make import ALICE, TENANT, at, intent, new_task

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str | Path) -> Result:
        done = CliRunner().invoke(command, [str(each) for each in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "ledger.key"
    path.write_text(new_key())
    path.chmod(0o600)
    return f"file:{path}"


@pytest.fixture
async def store(tmp_path: Path, key: str) -> AsyncIterator[SqliteStore]:
    """Open, as a running broker has it: one lease alive, one revoked, one never issued, a checkpoint."""
    (tmp_path / "state").mkdir(mode=0o700)
    store = await SqliteStore.open(tmp_path / "state" / "ledger.sqlite3", FileKeyRing([key]), writer="w")
    await store.start_task(new_task())
    for name in ("1", "2", "3"):
        await store.open_intent(intent(name))
    for name in ("1", "2"):
        await store.activate(TENANT, f"attempt-{name}", 1, at(61), at(31), {}, at(2))
    await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(3))
    await store.end_attempt(TENANT, "attempt-2", Event.END, EndCause.RELEASED, at(4))
    await store.end_attempt(TENANT, "attempt-3", Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(4))
    (claimed,) = await store.claim_due("bao", at(5), 10, timedelta(seconds=10))
    await store.record_revocation(claimed, Event.REVOKE_CONFIRMED, at(6), at(7), "", False)
    await store.add_checkpoint(TENANT, checkpoint(9), at(7))
    yield store
    await store.close()


@pytest.fixture
def ledger(store: SqliteStore, tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite3"


def damaged(ledger: Path, tmp_path: Path, statement: str) -> Path:
    """A copy in which somebody has been."""
    with sqlite3.connect(ledger) as live, sqlite3.connect(tmp_path / "copy") as copy:
        live.backup(copy)
        copy.execute("PRAGMA ignore_check_constraints = 1")
        copy.execute("PRAGMA foreign_keys = 0")
        for index in ("leases_living", "attempts_one_active", "access_requests_by_lease"):
            copy.execute(f"DROP INDEX {index}")
        copy.executescript(statement)
    live.close()
    copy.close()
    return tmp_path / "copy"


def test_a_ledger_in_use_is_well(run: Run, ledger: Path, key: str) -> None:
    done = run("verify", "--database", ledger, "--key", key)
    assert (done.exit_code, done.stdout) == (0, f"{ledger}: all well, 12 invariants\n"), done.stdout
    assert run("verify", "--database", ledger).stdout.endswith("11 invariants; MACs not checked (no --key)\n")


# statement, what is said of it without keys (empty: nothing can be), and with
DAMAGES = {
    "no due time": ("UPDATE attempts SET due_at = NULL WHERE id = 'attempt-1'", "no due time"),
    "due too late": ("UPDATE attempts SET due_at = expires_at + 1 WHERE id = 'attempt-1'", "due after it expires"),
    "over and due": ("UPDATE attempts SET due_at = 1 WHERE id = 'attempt-2'", "has a due time"),
    "resurrected": (
        "UPDATE attempts SET state = 'ACTIVE', cause = NULL, due_at = expires_at WHERE id = 'attempt-2'",
        "the trail says that it is over",
    ),
    "called over": (
        "UPDATE attempts SET state = 'REVOKED', cause = 'RELEASED', due_at = NULL WHERE id = 'attempt-1'",
        "it is REVOKED and the trail does not say so",
    ),
    "no intent": (
        "INSERT INTO attempts SELECT tenant, 'attempt-9', lease_id, 9, connector, created_at, issue_deadline, handle,"
        " upstream, 'VOID', 'NEVER_ISSUED', NULL, expires_at, NULL, NULL, epoch, failures, last_error, stuck, mac,"
        " mac_key_id, NULL FROM attempts WHERE id = 'attempt-1'",
        "no intent of it",
    ),
    "for ever": ("UPDATE leases SET expires_at = created_at + 400 * 86400000", "no finite life"),
    "a task for ever": ("UPDATE tasks SET deadline = created_at + 400 * 86400000", "no finite life"),
    "not looked at": ("UPDATE leases SET next_due = NULL WHERE id = 'lease-1'", "does not look at it"),
    "two of one request": (
        "UPDATE leases SET ended_at = NULL, request_id = 'request-1' WHERE id = 'lease-2'",
        "2 living leases of request request-1",
    ),
    "a record": (
        "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'bao', 'boa') AS BLOB) WHERE seq = 2",
        "BODY",
    ),
    "a wider lease": ("UPDATE leases SET resource = 'everything' WHERE id = 'lease-1'", ""),
    "another holder": ("UPDATE tasks SET creator = 'spiffe://example.org/agent/mallory'", ""),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_not_well_is_named(run: Run, ledger: Path, tmp_path: Path, key: str, name: str) -> None:
    statement, said = DAMAGES[name]
    copy = damaged(ledger, tmp_path, statement)
    without = run("verify", "--database", copy)
    assert (without.exit_code, said in without.stdout) == (1 if said else 0, True), without.stdout
    told = json.loads(run("verify", "--database", copy, "--key", key, "--format", "json").stdout)
    assert not told["ok"]
    if name != "a record":
        assert any(each["detail"] == "it fails its MAC" for each in told["violations"])


def test_an_intent_while_everything_is_suspended(run: Run, ledger: Path, tmp_path: Path) -> None:
    # As if the order of the two records were another one.
    copy = damaged(
        ledger,
        tmp_path,
        "INSERT INTO suspensions SELECT 'default', 's', 'EVERYTHING', '', 'r', 'a', 'a', 'r', 'd', 1, NULL, NULL, NULL,"
        " NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, zeroblob(32), 'k';"
        'UPDATE audit SET body = CAST(\'{"type":"suspension.suspended","data":{"suspension":"s","kind":"EVERYTHING"}}\''
        " AS BLOB) WHERE seq = 1;",
    )
    assert "came while everything was suspended" in run("verify", "--database", copy).stdout


def test_a_ledger_of_an_older_release(run: Run, ledger: Path, tmp_path: Path) -> None:
    copy = damaged(ledger, tmp_path, "UPDATE schema_version SET version = 3")
    done = run("verify", "--database", copy)
    assert (done.exit_code, "SCHEMA_VERSION" in done.stderr) != (0, False)
    assert run("verify", "--database", tmp_path / "absent").exit_code == 2


# ------------------------------------------------------------------ backup


async def test_a_backup_of_a_ledger_in_use(
    run: Run, store: SqliteStore, ledger: Path, tmp_path: Path, key: str
) -> None:
    target = tmp_path / "backup.sqlite3"
    done = run("backup", "--database", ledger, target)
    assert (done.exit_code, done.stdout) == (
        0,
        f"{target}: 11 audit records, its last checkpoint {target}.checkpoint\n",
    )
    assert (tmp_path / "backup.sqlite3.checkpoint").read_text() == "note 9"
    assert target.stat().st_mode & 0o777 == 0o600
    await store.start_task(new_task("task-2"))  # the broker goes on
    assert run("verify", "--database", target, "--key", key).exit_code == 0
    with AuditReader(target) as copied, AuditReader(ledger) as live:
        heads = copied.head(), live.head()
    assert [head.seq for head in heads if head] == [11, 12]
    # It can be opened where it lies, as the ledger that it is.
    (tmp_path / "restored").mkdir(mode=0o700)
    shutil.copyfile(target, tmp_path / "restored" / "ledger.sqlite3")
    (tmp_path / "restored" / "ledger.sqlite3").chmod(0o600)
    restored = await SqliteStore.open(tmp_path / "restored" / "ledger.sqlite3", FileKeyRing([key]), writer="w2")
    assert (await restored.get_lease(TENANT, "lease-1", ALICE)).id == "lease-1"
    await restored.close()


@pytest.mark.parametrize("taken", ["backup.sqlite3", "backup.sqlite3.checkpoint"])
def test_a_backup_overwrites_nothing(run: Run, ledger: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    done = run("backup", "--database", ledger, tmp_path / "backup.sqlite3")
    assert (done.exit_code, (tmp_path / taken).read_text()) == (2, "precious")


def test_a_backup_has_its_name_once_it_is_whole(
    run: Run, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before, it is not there: the next one of that name is made, and nobody restores half a ledger."""
    target = tmp_path / "backup.sqlite3"
    seen: list[bool] = []
    real = backup._copy

    def copy(source: Path, part: Path) -> None:
        real(source, part)
        seen.append(target.exists())
        raise OSError("as if it ended here")

    with monkeypatch.context() as killed:
        killed.setattr(backup, "_copy", copy)
        before = set(tmp_path.iterdir())
        assert run("backup", "--database", ledger, target).exit_code != 0
    assert seen == [False] and set(tmp_path.iterdir()) == before
    (tmp_path / "backup.sqlite3.abcd.part").write_text("of one that was killed")
    assert run("backup", "--database", ledger, target).exit_code == 0


@pytest.mark.parametrize("taken", ["", "backup.sqlite3"])
def test_a_backup_where_there_are_no_links(
    run: Run, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    def none(source: Path, target: Path) -> None:
        if taken:  # somebody else's, since it was looked
            target.write_text("precious")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    target = tmp_path / "backup.sqlite3"
    done = run("backup", "--database", ledger, target)
    assert (done.exit_code == 0, target.read_bytes() == b"precious") == (not taken, bool(taken))
    assert not list(tmp_path.glob("*.part*"))


def test_a_backup_on_a_full_disk_leaves_nothing(run: Run, ledger: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        done = run("backup", "--database", ledger, tmp_path / "backup.sqlite3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.exit_code != 0 and "Nothing of it is left" in done.stderr
    assert set(tmp_path.iterdir()) == before


def test_a_backup_that_cannot_be_written_leaves_nothing(run: Run, ledger: Path, tmp_path: Path) -> None:
    assert run("backup", "--database", ledger, tmp_path / "nowhere" / "backup").exit_code != 0
    assert run("backup", "--database", tmp_path / "absent", tmp_path / "backup").exit_code == 2
    assert not (tmp_path / "backup").exists()
