"""What `broker audit` reads: any ledger file, or the reason why it is none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from broker.errors import InvalidInput, Reason, Tampered
from broker.stores import audit_reader
from broker.stores.audit_reader import AuditReader
from broker.stores.sqlite import SqliteStore
from tests.stores.make import Keys, new_task


async def ledger(path: Path, tasks: int) -> None:
    store = await SqliteStore.open(path, Keys(), "w")
    for number in range(tasks):
        await store.start_task(new_task(f"task-{number}", max_open=1000))
    await store.close()


def change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql)
    connection.close()


@pytest.mark.parametrize("tasks", [0, 1, 7])
async def test_it_reads_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: int) -> None:
    monkeypatch.setattr(audit_reader, "_PORTION", 3)
    await ledger(tmp_path / "l", tasks)
    with AuditReader(tmp_path / "l") as audit:
        assert [row.seq for row in audit.rows()] == list(range(1, tasks + 1))
        assert [record.task_id for record in audit.records(after=2)] == [f"task-{n}" for n in range(2, tasks)]
        assert list(audit.verify(Keys().find)) == []
        assert list(audit.verify()) == []


async def test_a_closed_ledger_is_one_file(tmp_path: Path) -> None:
    await ledger(tmp_path / "l", 3)
    elsewhere = tmp_path / "read-only"
    elsewhere.mkdir()
    (elsewhere / "copy").write_bytes((tmp_path / "l").read_bytes())
    elsewhere.chmod(0o500)
    with AuditReader(elsewhere / "copy") as audit:
        assert len(list(audit.records())) == 3
    assert [entry.name for entry in elsewhere.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("DELETE FROM audit WHERE seq = 2", (3, "GAP")),
        ("DELETE FROM audit WHERE seq > 2", (3, "TRUNCATED")),
        ("UPDATE audit SET holder = 'x' WHERE seq = 2", (2, "INDEX")),
        ("UPDATE audit SET mac = zeroblob(32) WHERE seq = 2", (2, "MAC")),
        ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 2", (2, "HASH")),
        ("UPDATE audit SET body = replace(body, 'task-1', 'task-9') WHERE seq = 2", (2, "BODY")),
        ("UPDATE audit SET mac_key_id = 'x' WHERE seq = 2", (2, "KEY")),
        ("DELETE FROM audit_head", (4, "HEAD")),
    ],
)
async def test_damage_is_located(tmp_path: Path, damage: str, finding: tuple[int, str]) -> None:
    await ledger(tmp_path / "l", 4)
    change(
        tmp_path / "l",
        damage.replace("replace(body", "CAST(replace(CAST(body AS TEXT)").replace("')", "') AS BLOB)")
        if "replace" in damage
        else damage,
    )
    with AuditReader(tmp_path / "l") as audit:
        found = [(entry.sequence, entry.problem.value) for entry in audit.verify(Keys().find)]
        assert found == [finding]


async def test_a_damaged_page_is_told_with_the_last_readable_record(tmp_path: Path) -> None:
    path = tmp_path / "l"
    await ledger(path, 200)
    data = path.read_bytes()
    with AuditReader(path) as audit:
        body = next(row.body for row in audit.rows() if row.seq == 100)
    page = data.find(body) // 4096 * 4096
    path.write_bytes(data[:page] + b"\xff" * 100 + data[page + 100 :])
    with AuditReader(path) as audit, pytest.raises(Tampered) as caught:
        list(audit.verify())
    assert caught.value.reason is Reason.AUDIT_CHAIN_BROKEN
    assert 50 < int(caught.value.metadata["after"]) < 100  # the page holds a few records before the hundredth


async def test_what_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no ledger" * 1000)
    (tmp_path / "empty").touch()
    change(tmp_path / "other.db", "CREATE TABLE a (b)")
    for name in ("absent", "text", "empty", "other.db", "."):
        with pytest.raises(InvalidInput) as caught:
            AuditReader(tmp_path / name)
        assert caught.value.reason is Reason.CONFIG_INVALID


async def test_a_newer_ledger(tmp_path: Path) -> None:
    await ledger(tmp_path / "l", 1)
    change(tmp_path / "l", "UPDATE schema_version SET version = 99, readable_from = 99")
    with pytest.raises(Tampered) as caught:
        AuditReader(tmp_path / "l")
    assert caught.value.reason is Reason.SCHEMA_VERSION
