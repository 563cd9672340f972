"""Step: the audit trail verifies, and a byte that somebody flipped in a copy is found. With what reads the trail."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from broker.audit.verify import Finding, FindKey
from broker.cli.demo.narrator import failed
from broker.cli.demo.world import World
from broker.keys import FileKeyRing
from broker.stores.audit_reader import AuditReader


async def audit_verifies(world: World) -> None:
    """What `broker audit verify` says of the ledger, of a copy, and of the copy with one byte flipped."""
    tell, facts = world.tell, world.facts
    find_key = FileKeyRing([f"file:{facts.mac_key}"]).find
    records, findings = await asyncio.to_thread(verified, facts.ledger, find_key)
    tell.checked(
        records > 0 and not findings,
        f"The audit trail of all this verifies: {records} records, each chained to the one before, each with its MAC.",
        f"the audit trail does not verify: {[str(finding) for finding in findings]}",
    )
    copy = facts.state / "copy-of-ledger.sqlite3"
    await asyncio.to_thread(copied, facts.ledger, copy)
    records, findings = await asyncio.to_thread(verified, copy, find_key)
    tell.checked(records > 0 and not findings, "A copy of the ledger verifies too.", "the copy does not verify.")
    victim = records // 2
    offset = await asyncio.to_thread(flip_a_byte, copy, victim)
    _, findings = await asyncio.to_thread(verified, copy, find_key)
    tell.checked(
        {finding.sequence for finding in findings} == {victim},
        f"Byte {offset} of the copy, in record {victim}, is flipped. Found: {'; '.join(map(str, findings))}.",
        f"a byte of record {victim} was flipped; the verifier says: {[str(finding) for finding in findings]}",
    )


def verified(ledger: Path, find_key: FindKey) -> tuple[int, list[Finding]]:
    """How many records the trail has, and every damage of it."""
    with AuditReader(ledger) as trail:
        head = trail.head()
        return (head.seq if head else 0), list(trail.verify(find_key))


def events_of(ledger: Path, lease_id: str) -> list[str]:
    """The types of the events of one lease, in order."""
    with AuditReader(ledger) as trail:
        return [record.type for record in trail.records() if record.lease_id == lease_id]


def copied(ledger: Path, copy: Path) -> None:
    """A consistent copy, beside the running broker."""
    with (
        closing(sqlite3.connect(f"file:{quote(str(ledger))}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def flip_a_byte(ledger: Path, sequence: int) -> int:
    """Flip one byte inside the body of a record, in the file itself; where it is.

    Wherever the body lies: a page that was split keeps what it held before, and nobody reads that.
    """
    with AuditReader(ledger) as trail:
        body = next(row.body for row in trail.rows(sequence - 1))
    data = bytearray(ledger.read_bytes())
    starts = [found.start() for found in re.finditer(re.escape(body), data)]
    if not starts:
        failed(f"record {sequence} does not lie in one piece in the copy.")
    for start in starts:
        offset = start + len(body) // 2
        data[offset] ^= 0xFF
    ledger.write_bytes(data)
    return offset
