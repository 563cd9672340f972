"""The ledger's high-water mark, read and kept.

What fails its proof is not believed: a forged mark in the future would end every credential and stop every grant.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from broker.audit.record import decode
from broker.errors import Tampered
from broker.ports.trail import HighWater
from broker.stores.high_water import TABLE, sealed
from broker.stores.seal import RowSeal
from broker.stores.times import from_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View


def keep(tx: Transaction, now_ms: int) -> None:
    """See TrailStore.keep_time."""
    row = tx.one("high_water", {})
    forged = row is not None and not _holds(tx.seal, row)
    tx.run("raise_high_water", sealed(tx.seal, now_ms, forged=forged))


def read(view: View) -> HighWater:
    """See TrailStore.high_water."""
    own, intact = _mark(view)
    latest = max(own, _last_record(view))
    return HighWater(from_ms(latest) if latest else None, intact)


def seen(view: View) -> datetime | None:
    """The mark alone, which is some seconds old: enough for whoever has gone on since it was made."""
    own, _ = _mark(view)
    return from_ms(own) if own else None


def _mark(view: View) -> tuple[int, bool]:
    """0 where there is none that can be believed; and whether what is there is ours."""
    row = view.one("high_water", {})
    intact = row is None or _holds(view.seal, row)
    return (int(row[1]) if row is not None and intact else 0), intact


def _last_record(view: View) -> int:
    """The time of the last audit record, where it is ours; else 0."""
    last = view.one("last_audit_row", {})
    with suppress(Tampered, ValueError):
        if last is not None:
            record = decode(last[4])
            if view.seal.holds_record(bytes.fromhex(record.prev), last[4], last[6], last[7]):
                return record.at_ms
    return 0


def _holds(seal: RowSeal, row: tuple[object, ...]) -> bool:
    only, at_ms, mac, key_id = row
    return isinstance(only, int) and isinstance(at_ms, int) and seal.holds(TABLE, (only, at_ms), mac, key_id)
