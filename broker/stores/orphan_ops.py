"""Operations on what is upstream and not in the ledger, each inside one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.lease.machine import TERMINAL
from broker.ports.connectors import Carried
from broker.ports.orphans import Orphan, OrphanEnd
from broker.scope.canonical import JsonValue, canonical_json
from broker.stores.end_ops import CHUNK
from broker.stores.orphan_reads import held
from broker.stores.orphan_rows import OrphanRow, insert, orphan_of, read_orphan, row_of, update
from broker.stores.revoke_ops import LONGEST_ERROR
from broker.stores.rows import Raw
from broker.stores.seal import tampered
from broker.stores.times import span_ms, to_ms
from broker.stores.transaction import Transaction


def mark(tx: Transaction, tenant: str, candidate: str, now: datetime) -> str:
    """See OrphanStore.mark."""
    raw = tx.one("mark_of_tenant", {"tenant": tenant})
    if raw is None:
        values = (tenant, candidate, to_ms(now))
        tx.write("insert_mark", (*values, *tx.seal.make("marks", values)))
        return candidate
    if not tx.seal.holds("marks", raw[:-2], raw[-2], raw[-1]):
        raise tampered("marks", tenant)
    return str(raw[1])


def add(tx: Transaction, found: Sequence[Orphan]) -> list[Orphan]:
    """See OrphanStore.add_orphans."""
    return [orphan for orphan in found if _add(tx, orphan)]


def _add(tx: Transaction, orphan: Orphan) -> bool:
    carried = Carried(orphan.name, orphan.attempt_id or None, None, orphan.handle)
    state = held(tx, orphan.tenant, [carried]).get(orphan.name)
    if state is not None and state not in TERMINAL:
        return False  # it has become known meanwhile
    if tx.one("orphan_living", {"connector": orphan.connector, "name": orphan.name}) is not None:
        return False
    row = row_of(orphan)
    insert(tx, row)
    about: dict[str, JsonValue] = {"why": row.why, "upstream_created_ms": row.created_at}
    _tell(tx, EventType.UPSTREAM_UNKNOWN_FOUND, row, row.found_at, about, Vouch.UPSTREAM)
    return True


def claim(tx: Transaction, connector: str, now: datetime, limit: int, claim_for: timedelta) -> list[Orphan]:
    """See OrphanStore.claim_orphans."""
    now_ms = to_ms(now)
    claimed = []
    for raw in tx.all("orphans_due", {"connector": connector, "now": now_ms, "limit": limit}):
        row = read_orphan(raw, tx.seal)
        if not row.trusted:
            _drop(tx, row, now_ms)
            continue
        tx.saw(now_ms)
        row.epoch += 1
        row.due_at = now_ms + span_ms(claim_for)
        if update(tx, row, tx.at_work):
            claimed.append(orphan_of(row))
    return claimed


def let_go(tx: Transaction, writers: Sequence[str], now: datetime) -> int:
    """One portion of what ``writers`` have claimed: due at once, under a higher epoch; 0 when nothing is left."""
    return _due_now(
        tx, tx.all("orphans_held", {"writers": canonical_json(list(writers)).decode(), "limit": CHUNK}), now
    )


def take_over(tx: Transaction, now: datetime) -> int:
    """The same of what anybody has claimed. What has failed before keeps its pace, as attempts do."""
    return _due_now(tx, tx.all("orphans_claimed", {"now": to_ms(now), "limit": CHUNK}), now)


def _due_now(tx: Transaction, rows: Sequence[Raw], now: datetime) -> int:
    now_ms = to_ms(now)

    def due(raw: Raw) -> bool:
        row = read_orphan(raw, tx.seal)
        if not row.trusted:
            return False  # whoever claims it drops it
        row.epoch += 1
        row.due_at = now_ms
        return update(tx, row)

    return sum(tx.each(due, rows))


def _drop(tx: Transaction, row: OrphanRow, now_ms: int) -> None:
    """A handle that somebody else wrote is not acted on: what really is upstream is found again."""
    tx.run("drop_orphan", {"tenant": row.tenant, "id": row.id})
    about: dict[str, JsonValue] = {"why": "its row fails its MAC", "untrusted_row": True, "id": ascii(row.id)[:100]}
    event = AuditEvent(EventType.UPSTREAM_UNKNOWN_STUCK, BROKER, Vouch.BROKER, tenant=row.tenant, data=about)
    tx.audit(event, now_ms)


def record(
    tx: Transaction,
    claimed: Orphan,
    outcome: OrphanEnd | None,
    now: datetime,
    next_due: datetime,
    error: str,
    stuck: bool,
) -> bool:
    """See OrphanStore.record_orphan."""
    raw = tx.one("orphan_by_id", {"tenant": claimed.tenant, "id": claimed.id})
    row = None if raw is None else read_orphan(raw, tx.seal)
    if row is None or not row.trusted or row.epoch != claimed.epoch or row.due_at is None:
        return False
    now_ms = to_ms(now)
    tx.saw(now_ms)
    if outcome is None:
        return _not_yet(tx, row, now_ms, to_ms(next_due), error, stuck)
    about: dict[str, JsonValue] = {"outcome": outcome.value, "failures": row.failures}
    row.due_at, row.ended_at, row.outcome = None, now_ms, outcome.value
    row.failures, row.last_error, row.stuck = 0, "", 0
    if not update(tx, row):
        return False
    vouch = Vouch.UPSTREAM if outcome is OrphanEnd.REVOKED else Vouch.BROKER
    _tell(tx, EventType.UPSTREAM_UNKNOWN_ENDED, row, now_ms, about, vouch)
    return True


def _not_yet(tx: Transaction, row: OrphanRow, now_ms: int, due: int, error: str, stuck: bool) -> bool:
    alarm = stuck and not row.stuck
    row.failures = row.failures + 1 if error else 0
    row.last_error, row.stuck, row.due_at = error[:LONGEST_ERROR], int(stuck), due
    if not update(tx, row):
        return False
    if alarm:
        about: dict[str, JsonValue] = {"failures": row.failures, "error": row.last_error}
        _tell(tx, EventType.UPSTREAM_UNKNOWN_STUCK, row, now_ms, about, Vouch.BROKER)
    return True


def _tell(
    tx: Transaction, event: EventType, row: OrphanRow, now_ms: int, data: dict[str, JsonValue], vouch: Vouch
) -> None:
    about: dict[str, JsonValue] = {
        "orphan": row.id,
        "connector": row.connector,
        "name": row.name,
        "attempt_id": row.attempt_id,
        **data,
    }
    tx.audit(AuditEvent(event, BROKER, vouch, tenant=row.tenant, data=about), now_ms)
