"""The audit file: every record once, whatever is repeated or cut short."""

from __future__ import annotations

import asyncio
import resource
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.stores.audit_file import AuditFile

RECORDS = [b'{"data":"%s","seq":%d}' % (b"x" * (seq * 40), seq) for seq in range(1, 9)]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


async def test_records_are_lines_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = AuditFile(path)
    await sink.write(RECORDS[:3])
    await sink.write([])
    await sink.write(RECORDS[3:])
    assert lines(path) == RECORDS
    assert path.read_bytes().endswith(b"\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_is_repeated_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    await AuditFile(path).write(RECORDS[:5])
    await AuditFile(path).write(RECORDS[2:7])  # a new process, whose mark was older
    await AuditFile(path).write(RECORDS[:4])
    assert lines(path) == RECORDS[:7]


@given(st.integers(min_value=1, max_value=sum(len(record) + 1 for record in RECORDS)))
def test_a_line_cut_short_is_written_again(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    whole = b"".join(record + b"\n" for record in RECORDS)
    path.write_bytes(whole[:cut])
    asyncio.run(AuditFile(path).write(RECORDS))
    assert path.read_bytes() == whole


async def test_lines_longer_than_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.stores.audit_file._BLOCK", 16)
    path = tmp_path / "audit.jsonl"
    await AuditFile(path).write(RECORDS[:6])
    with path.open("ab") as file:
        file.write(RECORDS[6][:50])
    await AuditFile(path).write(RECORDS)
    assert lines(path) == RECORDS


async def test_concurrent_writes_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = AuditFile(path)
    await asyncio.gather(*(sink.write([record]) for record in RECORDS))
    assert lines(path) == RECORDS


async def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = AuditFile(path)
    await sink.write(RECORDS[:3])
    path.rename(tmp_path / "audit.1")
    await sink.write(RECORDS[3:5])
    assert lines(path) == RECORDS[3:5]


@pytest.mark.parametrize("block", [16, 64 * 1024])
@pytest.mark.parametrize("back_to", [1, 4, 7])
async def test_another_life_of_the_ledger_is_not_taken_for_what_the_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, back_to: int
) -> None:
    """F35: a ledger that was put back tells other records under numbers that the file has, and all must come out."""
    monkeypatch.setattr("broker.stores.audit_file._BLOCK", block)
    path = tmp_path / "audit.jsonl"
    sink = AuditFile(path)
    await sink.write(RECORDS)
    other = [record.replace(b"data", b"diff") for record in RECORDS[back_to:]]
    # The restored ledger's mark may be older than where the two lives part.
    await sink.write([*RECORDS[back_to - 1 : back_to], *other])
    await sink.write([b'{"data":"more","seq":9}'])
    assert lines(path) == [*RECORDS[back_to - 1 : back_to], *other, b'{"data":"more","seq":9}']
    (kept,) = set(tmp_path.iterdir()) - {path}
    assert lines(kept) == RECORDS and kept.name.startswith("audit.jsonl.8-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # What is repeated of the new one is what it has.
    await AuditFile(path).write(other)
    assert len(lines(path)) == len(other) + 2


async def test_what_a_file_of_a_later_time_does_not_have_is_another_life(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    await AuditFile(path).write(RECORDS[4:])  # begun anew, when the first four had left
    await AuditFile(path).write(RECORDS[1:3])
    assert lines(path) == RECORDS[1:3]
    (kept,) = set(tmp_path.iterdir()) - {path}
    assert lines(kept) == RECORDS[4:]


async def test_what_cannot_be_appended_to(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text("somebody else's\n")
    (tmp_path / "link").symlink_to(foreign)
    for path in (foreign, tmp_path / "link", tmp_path, tmp_path / "absent" / "audit.jsonl"):
        with pytest.raises(OSError):
            await AuditFile(path).write(RECORDS)
    assert foreign.read_text() == "somebody else's\n"


async def test_a_full_disk_is_told_and_nothing_is_lost_when_there_is_room_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    await AuditFile(path).write(RECORDS[:3])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # In the middle of the fifth record: as on a full disk, a part of it is written and then no more.
    room = path.stat().st_size + len(RECORDS[3]) + 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            await AuditFile(path).write(RECORDS[3:6])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == room
    await AuditFile(path).write(RECORDS[3:6])  # the pump has marked none of them
    await AuditFile(path).write(RECORDS[6:])
    assert lines(path) == RECORDS
