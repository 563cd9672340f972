"""Forgetting a lease whose end nobody can prove: two people say that its credential cannot be alive any more.

For rows that the revoker would try for ever: stuck, because the upstream is gone or refuses; or quarantined, because
they fail their MAC and an upstream's "gone" about them proves nothing. Only long after the time at which the upstream
itself ends such a credential. The attempts become EXPIRED, and the broker seals what the two people stand for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.audit.event import EventType
from broker.errors import Denied, Reason, WrongState
from broker.lease.machine import Event, State, next_state
from broker.ports.leases import Forgetting, Forgotten
from broker.scope.canonical import JsonValue
from broker.stores.end_ops import lease_ended, lease_not_found
from broker.stores.moves import attempts_of, settle, tell
from broker.stores.proof_ops import keep_word, word_told
from broker.stores.rows import AttemptRow, LeaseRow, read_lease
from broker.stores.times import from_ms, span_ms, to_ms
from broker.stores.transaction import Transaction

# After the time that the upstream itself enforces: clocks differ, and so do upstreams about what they enforce when.
MARGIN = timedelta(hours=24)


def forget(tx: Transaction, said: Forgetting) -> Forgotten:
    """See LeaseStore.forget_lease."""
    raw = tx.one("lease_by_id", {"tenant": said.tenant, "lease_id": said.lease_id})
    if raw is None:
        raise lease_not_found(said.lease_id)
    lease = read_lease(raw, tx.seal)
    living = [attempt for attempt in attempts_of(tx, lease) if attempt.due_at is not None]
    before = tx.one("lease_forgetting", (said.tenant, said.lease_id))
    first_by, second_by = before or (None, None)
    if not living:
        if second_by == said.by:
            return Forgotten(True, str(first_by))
        raise lease_ended(said.lease_id)
    _check(lease, living, said.now)
    if first_by is None:
        return _begin(tx, lease, living, said)
    if first_by == said.by:
        raise Denied(
            Reason.SECOND_PERSON_REQUIRED,
            f"You have already said that lease {said.lease_id} shall be forgotten; a second person has to say so too.",
            hint="Have somebody else run the same command.",
            metadata={"leaseId": said.lease_id},
        )
    return _finish(tx, lease, living, said, first_by)


def _check(lease: LeaseRow, living: list[AttemptRow], now: datetime) -> None:
    """Raises WrongState (LEASE_NOT_FORGETTABLE) where the revoker may still get there, or time has not."""
    if not all(attempt.state == State.REVOKING and (attempt.stuck or not attempt.trusted) for attempt in living):
        raise _not_yet(lease.id, "its revocation is under way and not stuck", "Wait for it.")
    # A row that fails its MAC may say any time; the lease's own, and the latest of all, must have passed.
    latest = max(lease.expires_at, *(attempt.expires_at for attempt in living))
    if to_ms(now) < latest + span_ms(MARGIN):
        when = from_ms(min(latest + span_ms(MARGIN), _LAST_SAID)).isoformat()
        raise _not_yet(lease.id, "the upstream may not have ended it by itself yet", f"Not before {when}.")


# 9999-12-30: rows may say later ones, which no datetime can.
_LAST_SAID = 253_402_214_400_000


def _begin(tx: Transaction, lease: LeaseRow, living: list[AttemptRow], said: Forgetting) -> Forgotten:
    now_ms = to_ms(said.now)
    keep_word(tx, said)
    tx.run("begin_forgetting", (said.tenant, said.lease_id, said.by, said.reason, now_ms))
    tell(tx, EventType.LEASE_FORGET_BEGUN, living[-1], lease, said.by, now_ms, word_told(said))
    return Forgotten(False, said.by)


def _finish(tx: Transaction, lease: LeaseRow, living: list[AttemptRow], said: Forgetting, first_by: str) -> Forgotten:
    now_ms = to_ms(said.now)
    keep_word(tx, said)
    confirmed = {"tenant": said.tenant, "lease_id": said.lease_id, "by": said.by, "now": now_ms}
    tx.run("confirm_forgetting", confirmed)
    for attempt in living:
        untrusted = not attempt.trusted
        failures, error = attempt.failures, attempt.last_error
        _end(tx, attempt)
        settle(tx, lease, attempt, now_ms)
        told: dict[str, JsonValue] = {
            "attempt": attempt.number,
            **word_told(said),
            "first_by": first_by,
            "failures": failures,
            "error": error,
            "row_failed_its_mac": untrusted,
        }
        tell(tx, EventType.LEASE_FORGOTTEN, attempt, lease, said.by, now_ms, told)
    return Forgotten(True, first_by)


def _end(tx: Transaction, attempt: AttemptRow) -> None:
    """EXPIRED, by the word of two people: what the row says from now on is the broker's again."""
    attempt.trusted = True
    attempt.state = next_state(State(attempt.state), Event.TIME_ENDED).value
    attempt.due_at = attempt.owed_since = None
    attempt.epoch += 1  # what the revoker has in hand is stale
    attempt.failures, attempt.stuck, attempt.last_error = 0, 0, ""
    tx.update_attempt(attempt)


def _not_yet(lease_id: str, why: str, hint: str) -> WrongState:
    return WrongState(
        Reason.LEASE_NOT_FORGETTABLE,
        f"lease {lease_id} cannot be forgotten: {why}.",
        hint=hint,
        metadata={"leaseId": lease_id},
    )
