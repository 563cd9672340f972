"""``broker audit evidence``: a package that is whole, says where the trail is not, and is never written over."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.cli.main import cli as command
from broker.keys import FileKeyRing, new_key
from broker.stores.sqlite import SqliteStore

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
REFUSED, STARTED, ENDED = EventType.REQUEST_REFUSED, EventType.DAEMON_STARTED, EventType.LEASE_REVOKED


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.key"
    path.write_text(new_key())
    path.chmod(0o600)
    return path


@pytest.fixture
def ledger(tmp_path: Path, key: Path) -> Path:
    """Refused a day before, started and ended now, refused a day after."""
    (tmp_path / "state").mkdir(mode=0o700)
    path = tmp_path / "state" / "ledger.sqlite3"

    async def write() -> None:
        store = await SqliteStore.open(path, FileKeyRing([f"file:{key}"]), "writer-1")
        for at, types in ((NOW - DAY, [REFUSED]), (NOW, [STARTED, ENDED]), (NOW + DAY, [REFUSED])):
            await store.append([AuditEvent(each, "broker", Vouch.BROKER, tenant="t") for each in types], at)
        await store.close()

    asyncio.run(write())
    return path


def run(ledger: Path, output: Path, *more: str, since: str = "2031-05-01", to: str = "owasp-nhi") -> Result:
    named = ["--database", str(ledger), "--output", str(output), "--since", since, "--framework", to, *more]
    done = CliRunner().invoke(command, ["audit", "evidence", *named])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def document(path: Path) -> Any:
    return json.loads(path.read_text())


def sequences(path: Path) -> Sequence[int]:
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


def test_a_package_is_whole(ledger: Path, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(ledger, out, "--key", f"file:{key}")
    assert (done.exit_code, done.stderr) == (0, "")
    manifest = document(out / "manifest.json")
    there = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert {each["name"] for each in manifest["files"]} == there.keys() - {"manifest.json"}
    for each in manifest["files"]:
        data = there[each["name"]].read_bytes()
        assert (each["sha256"], each["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (out, *there.values()))
    assert manifest["trail"].startswith("whole; 4 records, with their MACs")


def test_records_are_those_of_the_span_as_they_are_stored(ledger: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(ledger, out)
    assert {path.name: list(sequences(path)) for path in (out / "records").iterdir()} == {
        "lease.revoked.jsonl": [3],
        "request.refused.jsonl": [4],  # the first was a day too early; that the broker started is evidence for nothing
    }
    stored = sqlite3.connect(ledger).execute("SELECT body FROM audit WHERE seq = 4").fetchone()[0]
    assert (out / "records" / "request.refused.jsonl").read_bytes() == stored + b"\n"
    told = {each["id"]: each for each in document(out / "controls.json")["controls"]}
    assert told["NHI4"]["records"] == [{"type": "request.refused", "count": 1, "file": "records/request.refused.jsonl"}]
    assert told["NHI10"]["records"] == []
    readme = (out / "README.md").read_text()
    assert "## NHI10 Human Use of NHI" in readme and "Records: none in this span." in readme
    run(ledger, tmp_path / "before", "--until", "2031-05-02", since="2031-04-01")
    assert sequences(tmp_path / "before" / "records" / "request.refused.jsonl") == [1]


def test_what_nothing_serves_says_so(ledger: Path, tmp_path: Path) -> None:
    run(ledger, tmp_path / "out", to="csa-maestro")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "## L1 Foundation Models\n\nNothing here serves it.\n\nRecords: none of any kind." in readme


def test_a_damaged_record_counts_for_nothing_and_the_package_says_so(ledger: Path, tmp_path: Path) -> None:
    with sqlite3.connect(ledger) as database:
        forged = "CAST(replace(CAST(body AS TEXT), 'broker', 'brokex') AS BLOB)"
        database.execute(f"UPDATE audit SET body = {forged} WHERE seq = 4")
    out = tmp_path / "out"
    done = run(ledger, out)
    assert (done.exit_code, "the trail is damaged" in done.stderr) == (1, True)
    assert [path.name for path in (out / "records").iterdir()] == ["lease.revoked.jsonl"]
    assert [each["sequence"] for each in map(json.loads, (out / "damaged.jsonl").read_text().splitlines())] == [4]
    findings = [json.loads(line) for line in (out / "verification.jsonl").read_text().splitlines()]
    assert (findings[0]["sequence"], findings[0]["problem"]) == (4, "BODY")
    assert "**The trail:** DAMAGED" in (out / "README.md").read_text()
    assert document(out / "manifest.json")["damagedRecords"] == 1


def test_a_record_after_a_hole_is_still_evidence(ledger: Path, tmp_path: Path) -> None:
    with sqlite3.connect(ledger) as database:
        database.execute("DELETE FROM audit WHERE seq = 2")
    assert run(ledger, tmp_path / "out").exit_code == 1
    assert sequences(tmp_path / "out" / "records" / "lease.revoked.jsonl") == [3]


def test_nothing_is_written_over(ledger: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("x")
    done = run(ledger, out)
    assert (done.exit_code, "is there already" in done.stderr) == (2, True)
    assert [path.name for path in out.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"since": "yesterday"}, "is no date (2026-01-31), RFC 3339 time or span back (90d, 36h)"),
        ({"since": "2031-05-01T00:00:00"}, "is no date"),
        ({"since": "2031-13-01"}, "is no date"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "is no date"),
        ({"to": "iso"}, "is not one of"),
    ],
)
def test_what_cannot_be_meant_is_refused(ledger: Path, tmp_path: Path, more: dict[str, str], told: str) -> None:
    done = run(ledger, tmp_path / "out", **more)
    assert (done.exit_code, told in done.stderr, (tmp_path / "out").exists()) == (2, True, False)


def test_an_empty_span_and_no_ledger_make_nothing(ledger: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "is not after" in run(ledger, out, "--until", "2031-05-01").stderr
    assert run(tmp_path / "none", out).exit_code == 2
    assert not out.exists()


def test_where_it_cannot_be_written_it_says_that_it_is_no_package(ledger: Path) -> None:
    done = run(ledger, Path("/proc/evidence"))
    assert (done.exit_code, "it is no package" in done.stderr) == (1, True)
