"""Operations of the revoker: claiming what is due and recording how it went, each inside one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from broker.audit.event import BROKER, EventType
from broker.errors import Defect, Reason
from broker.lease.machine import TERMINAL, Event, State
from broker.ports.leases import Attempt, EndCause, Tried
from broker.scope.canonical import JsonValue, canonical_json
from broker.stores.end_ops import CHUNK, find_attempt, read_pair
from broker.stores.moves import due_ms, move, quarantine, quarantine_pause, settle, tell
from broker.stores.replica_ops import alone
from broker.stores.rows import (
    AttemptRow,
    LeaseRow,
    Raw,
    attempt_of,
    imagined_attempt,
    packed_attempt,
    packed_lease,
)
from broker.stores.times import span_ms, to_ms
from broker.stores.transaction import Transaction

# An upstream's complaint is kept for people to read, up to this many characters.
LONGEST_ERROR = 500
# At least so many of what is due longest are looked at for those that end soonest by themselves.
WINDOW = 256
# And what has been due for so long goes before what ends sooner.
PATIENCE = timedelta(minutes=1)


def claim_due(tx: Transaction, connector: str, now: datetime, limit: int, claim_for: timedelta) -> list[Attempt]:
    """See LeaseStore.claim_due."""
    now_ms = to_ms(now)
    until_ms = now_ms + span_ms(claim_for)
    room = limit + len(tx.resting)
    patience = now_ms - span_ms(PATIENCE)
    asked: dict[str, Any] = {
        "patience": patience,
        "connector": connector,
        "now": now_ms,
        "limit": room,
        "window": max(WINDOW, 2 * room),
    }
    with tx.remembering():
        due = _due(tx, asked)
        if tx.resting:
            due = [pair for pair in due if tx.resting.get((pair[0].tenant, pair[0].id), now_ms) <= now_ms]
        due = due[:limit]
        if due:
            # What was claimed by a clock that was an hour fast is due in an hour: so is time, then, after a crash.
            tx.saw(now_ms)
        for (attempt, _), done in zip(due, tx.each(partial(_claim, tx, until_ms, now_ms), due), strict=True):
            if not done:
                # It is revoked all the same, at the slowest pace; this one's schedule is kept in memory.
                tx.resting[attempt.tenant, attempt.id] = max(until_ms, quarantine_pause(now_ms))
    return [attempt_of(attempt) for attempt, _ in due]


def _due(tx: Transaction, asked: dict[str, Any]) -> list[tuple[AttemptRow, LeaseRow | None]]:
    """What is due, with its leases, the soonest native expiry first.

    A column for each where SQLite can pack them, which it cannot of a damaged row.
    """
    try:
        packed = tx.all("attempts_due_packed", asked)
    except sqlite3.OperationalError:
        found = [read_pair(raw, tx) for raw in tx.all("attempts_due", asked)]
    else:
        found = [(packed_attempt(attempt, tx.seal), packed_lease(lease, tx.seal)) for attempt, lease in packed]
    found.sort(key=lambda pair: _urgency(pair[0], asked["patience"]))
    return found


def _urgency(attempt: AttemptRow, patience: int) -> int:
    """The lower, the sooner it is tried: as the query chose it."""
    due = attempt.due_at or 0
    return due if due <= patience else attempt.expires_at or 0


def _claim(tx: Transaction, until_ms: int, now_ms: int, pair: tuple[AttemptRow, LeaseRow | None]) -> bool:
    attempt, lease = pair
    if not attempt.trusted:
        quarantine(tx, attempt, lease, until_ms, now_ms)
        return True
    attempt.epoch += 1
    if attempt.state == State.REVOKING:
        return _postpone(tx, attempt, lease, until_ms, now_ms)
    return move(tx, attempt, lease, Event.END, overdue_cause(attempt, now_ms), now_ms, due=until_ms)


def overdue_cause(attempt: AttemptRow, now_ms: int) -> EndCause:
    """Why an attempt that came due before anybody ended it is ended now."""
    if attempt.state == State.ISSUING:
        return EndCause.OUTCOME_UNKNOWN
    return EndCause.EXPIRED if now_ms >= attempt.expires_at else EndCause.UNCONFIRMED


def _postpone(tx: Transaction, attempt: AttemptRow, lease: LeaseRow | None, until_ms: int, now_ms: int) -> bool:
    """Take a REVOKING attempt: no change of state, hence no event."""
    attempt.due_at = due_ms(attempt, None, until_ms)
    if not tx.update_attempt(attempt):
        return False
    if lease is not None:
        settle(tx, lease, attempt, now_ms)
    return True


def record_revocations(tx: Transaction, tried: Sequence[Tried]) -> list[bool]:
    """See LeaseStore.record_revocations."""
    return tx.each(partial(_record, tx), tried)


def _record(tx: Transaction, tried: Tried) -> bool:
    event, claimed = tried.event, tried.attempt
    if event not in (None, Event.REVOKE_CONFIRMED, Event.TIME_ENDED, Event.NEVER_ISSUED):
        raise Defect(Reason.INTERNAL, f"a revocation does not end in {event}.")
    attempt, lease = _find_claimed(tx, claimed)
    if attempt.epoch != claimed.epoch or State(attempt.state) in TERMINAL:
        return False
    now, next_due = tried.now, tried.next_due
    now_ms = to_ms(now)
    tx.saw(now_ms)
    if not attempt.trusted:
        due = to_ms(next_due) if event is None else quarantine_pause(now_ms)
        quarantine(tx, attempt, lease, due, now_ms)
        return True
    if attempt.state != State.REVOKING:
        raise Defect(Reason.ILLEGAL_TRANSITION, f"an attempt in {attempt.state} has no revocation to record.")
    if event is None:
        return _not_yet(tx, attempt, lease, now_ms, to_ms(next_due), tried)
    failures, attempt.failures, attempt.last_error = attempt.failures, 0, ""
    cause = EndCause.NEVER_ISSUED if event is Event.NEVER_ISSUED else None
    return move(tx, attempt, lease, event, cause, now_ms, data={"failures": failures})


def _find_claimed(tx: Transaction, claimed: Attempt) -> tuple[AttemptRow, LeaseRow | None]:
    """The attempt and its lease, as the claim left them or as the database has them now."""
    values = tx.images.attempts.get((claimed.tenant, claimed.id))
    lease = tx.images.leases.get((claimed.tenant, claimed.lease_id))
    if values is None or lease is None:
        return find_attempt(tx, claimed.tenant, claimed.id)
    return imagined_attempt(values), LeaseRow(*lease)


def _not_yet(tx: Transaction, attempt: AttemptRow, lease: LeaseRow | None, now_ms: int, due: int, tried: Tried) -> bool:
    """Schedule the next try. Waiting (no error) is not owed before then; failing is owed since it began."""
    alarm = tried.stuck and not attempt.stuck
    attempt.failures = attempt.failures + 1 if tried.error else 0
    attempt.last_error = tried.error[:LONGEST_ERROR]
    attempt.stuck = int(tried.stuck)
    attempt.due_at = due_ms(attempt, None, due)
    if not tried.error:
        attempt.owed_since = due
    if tried.noted is not None:
        attempt.handle = canonical_json(tried.noted).decode()
    if not tx.update_attempt(attempt, noted=tried.noted is not None):
        return False
    if lease is not None:
        settle(tx, lease, attempt, now_ms)
    if alarm:
        about: dict[str, JsonValue] = {
            "attempt": attempt.number,
            "failures": attempt.failures,
            "error": attempt.last_error,
        }
        tell(tx, EventType.LEASE_STUCK, attempt, lease, BROKER, now_ms, about)
    return True


def recover(tx: Transaction, writer: str, now: datetime) -> int:
    """One portion of LeaseStore.recover; 0 when nothing is left.

    Whether another replica lives is asked in the same transaction: one that begins to has told so before its first
    intent. One that lives and was not heard for too long loses what it is issuing: the epoch rises, so it cannot
    activate it, and what came of it is swept.
    """
    now_ms = to_ms(now)

    def end(raw: Raw) -> bool:
        attempt, lease = read_pair(raw, tx)
        attempt.epoch += 1  # whatever an earlier process still has in hand is stale
        return move(tx, attempt, lease, Event.END, overdue_cause(attempt, now_ms), now_ms)

    query = "attempts_to_recover" if alone(tx, writer, now) else "attempts_due_of_all"
    rows = tx.all(query, {"now": now_ms, "limit": CHUNK})
    return sum(tx.each(end, rows))


def let_go(tx: Transaction, writers: Sequence[str], now: datetime) -> int:
    """One portion of the attempts that ``writers`` have in hand, for whoever takes them: due at once.

    The epoch rises: whoever still has it in hand after all changes nothing. What is upstream of a call that is still
    under way is found as after a crash: by sweeping until none can come any more.
    """
    now_ms = to_ms(now)

    def due(raw: Raw) -> bool:
        attempt, lease = read_pair(raw, tx)
        if not attempt.trusted:
            return False  # at its own pace, which is slow
        attempt.epoch += 1
        if attempt.state == State.REVOKING:
            return _postpone(tx, attempt, lease, now_ms, now_ms)
        return move(tx, attempt, lease, Event.END, overdue_cause(attempt, now_ms), now_ms)

    rows = tx.all("attempts_held", {"writers": canonical_json(list(writers)).decode(), "limit": CHUNK})
    return sum(tx.each(due, rows))


def take_over(tx: Transaction, now: datetime) -> int:
    """One portion of the attempts that anybody has claimed: due at once; 0 when nothing is left.

    A try that has failed before keeps its pace: it cannot be told from one that waits for its next.
    """
    now_ms = to_ms(now)

    def due(raw: Raw) -> bool:
        attempt, lease = read_pair(raw, tx)
        if not attempt.trusted:
            return False
        attempt.epoch += 1
        return _postpone(tx, attempt, lease, now_ms, now_ms)

    rows = tx.all("attempts_claimed", {"now": now_ms, "limit": CHUNK})
    return sum(tx.each(due, rows))
