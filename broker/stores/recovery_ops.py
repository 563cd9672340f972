"""Recovery in the ledger: how it begins, what it burns, and the two people who end it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import ClassVar

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.errors import Denied, Reason, WrongState
from broker.ports.leases import EndCause
from broker.ports.suspensions import Lifting
from broker.ports.tasks import TaskState
from broker.ports.trail import Evidence, Recovery, in_recovery
from broker.scope.canonical import JsonValue
from broker.stores.proof_ops import keep_word, word_told
from broker.stores.rows import Raw, read_task
from broker.stores.task_ops import close
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View
from broker.suspension.suspension import Lift

PORTION = 100


@dataclass(slots=True)
class RecoveryRow:
    """A row of ``recoveries``. ``trusted`` False: it fails its MAC, and counts as open."""

    TABLE: ClassVar[str] = "recoveries"

    tenant: str
    id: str
    entered_at: int
    witness: str
    why: str
    evidence: str
    evidence_at: int
    evidence_count: int
    ledger_count: int
    first_by: str | None = None
    first_name: str | None = None
    first_reason: str | None = None
    first_request_id: str | None = None
    first_at: int | None = None
    released_by: str | None = None
    released_name: str | None = None
    released_reason: str | None = None
    released_request_id: str | None = None
    released_at: int | None = None
    trusted: bool = True

    @property
    def open(self) -> bool:
        """See Recovery.open."""
        return self.released_at is None or not self.trusted


_STORED = [field.name for field in fields(RecoveryRow) if field.name != "trusted"]
_FOUND = _STORED.index("witness")
_WORDS = _STORED.index("first_by")
_values = attrgetter(*_STORED)


def find(view: View, tenant: str) -> RecoveryRow | None:
    """The row that is open, or else the last one."""
    raw = view.one("latest_recovery", {"tenant": tenant})
    if raw is None:
        return None
    row = RecoveryRow(*raw[: len(_STORED)])
    row.trusted = view.seal.holds(row.TABLE, raw[: len(_STORED)], raw[-2], raw[-1])
    return row


def shown(row: RecoveryRow) -> Recovery:
    """The port's view."""
    return Recovery(
        row.tenant,
        row.id,
        from_ms(row.entered_at),
        Evidence(row.witness, row.why, row.evidence, row.evidence_count, row.evidence_at),
        row.ledger_count,
        first=_lift(row.first_by, row.first_name, row.first_reason, row.first_at),
        released=_lift(row.released_by, row.released_name, row.released_reason, row.released_at),
        trusted=row.trusted,
    )


def _lift(by: str | None, name: str | None, reason: str | None, at: int | None) -> Lift | None:
    return None if by is None or at is None else Lift(by, name or "", reason or "", from_ms(at))


def refuse_while_open(view: View, tenant: str) -> None:
    """Raises NotReady (RECOVERY_MODE): another replica entered it, or this one while it decided, so its gate is open.

    A witness that could not be asked may be passed over, not what it has said to another.
    """
    row = find(view, tenant)
    if row is not None and row.open:
        raise in_recovery(row.id)


def read(view: View, tenant: str) -> Recovery | None:
    """See TrailStore.recovery."""
    row = find(view, tenant)
    return None if row is None else shown(row)


def enter(tx: Transaction, tenant: str, recovery_id: str, evidence: Evidence, now: datetime) -> Recovery:
    """See TrailStore.enter_recovery."""
    row = find(tx, tenant)
    if row is not None and row.open:
        if row.trusted and evidence.at_ms > row.evidence_at:
            _found_again(tx, row, evidence, to_ms(now))
        return shown(row)
    row = RecoveryRow(
        tenant=tenant,
        id=recovery_id,
        entered_at=to_ms(now),
        witness=evidence.witness,
        why=evidence.why,
        evidence=evidence.note,
        evidence_at=evidence.at_ms,
        evidence_count=evidence.count,
        ledger_count=_head(tx),
    )
    values = _values(row)
    tx.write("insert_recovery", (*values, *tx.seal.make(row.TABLE, values)))
    _tell_entered(tx, row, row.entered_at)
    return shown(row)


def _found_again(tx: Transaction, row: RecoveryRow, evidence: Evidence, now_ms: int) -> None:
    """An old copy in which a recovery was open, put back after its release: who spoke then has not seen what is missing
    now.
    """
    row.witness, row.why, row.evidence = evidence.witness, evidence.why, evidence.note
    row.evidence_at, row.evidence_count, row.ledger_count = evidence.at_ms, evidence.count, _head(tx)
    _forget_words(row)
    _update(tx, row)
    _tell_entered(tx, row, now_ms)


def _head(view: View) -> int:
    head = view.one("audit_head", {})
    return 0 if head is None else int(head[0])


def _tell_entered(tx: Transaction, row: RecoveryRow, now_ms: int) -> None:
    about: dict[str, JsonValue] = {"witness": row.witness, "why": row.why, "note": row.evidence}
    _tell(tx, EventType.RECOVERY_ENTERED, row, BROKER, now_ms, about)


def burn(tx: Transaction, tenant: str, now: datetime) -> int:
    """See TrailStore.burn_open; one portion of it."""
    now_ms = to_ms(now)
    # Accounts that the ledger calls ready may have been lent since: without a row they rest before they are lent.
    tx.run("forget_ready_allocations", (tenant,))

    def end(raw: Raw) -> bool:
        close(tx, read_task(raw, tx.seal), TaskState.ENDED, EndCause.RECOVERY, BROKER, now_ms)
        return True

    raws = tx.all("open_tasks", {"tenant": tenant, "limit": PORTION})
    return sum(tx.each(end, raws))


def release(tx: Transaction, lifting: Lifting) -> Recovery:
    """See TrailStore.release_recovery. What fails its MAC also takes two people, both of whose words are anew."""
    row = find(tx, lifting.tenant)
    if row is None or row.id != lifting.id:
        raise _not_in_recovery(lifting.id)
    if not row.trusted:
        _forget_words(row)
    mine = (lifting.by, lifting.request_id)
    if row.trusted and mine in ((row.first_by, row.first_request_id), (row.released_by, row.released_request_id)):
        return shown(row)
    if row.released_at is not None:
        raise _not_in_recovery(lifting.id)
    now_ms = to_ms(lifting.now)
    if row.first_by is None:
        row.first_by, row.first_name, row.first_reason = lifting.by, lifting.name, lifting.reason
        row.first_request_id, row.first_at = lifting.request_id, now_ms
        keep_word(tx, lifting)
        _update(tx, row)
        _tell(tx, EventType.RECOVERY_BEGUN, row, lifting.by, now_ms, word_told(lifting))
        return shown(row)
    return _released(tx, row, lifting, now_ms)


def _released(tx: Transaction, row: RecoveryRow, lifting: Lifting, now_ms: int) -> Recovery:
    if row.first_by == lifting.by:
        raise Denied(
            Reason.SECOND_PERSON_REQUIRED,
            f"{row.first_name} has already said that grants may begin again; a second person has to say so too.",
            hint=f"Have another person run: broker recovery release {row.id} --reason ...",
            metadata={"recoveryId": row.id, "first": row.first_name or ""},
        )
    row.released_by, row.released_name, row.released_reason = lifting.by, lifting.name, lifting.reason
    row.released_request_id, row.released_at = lifting.request_id, now_ms
    keep_word(tx, lifting)
    _update(tx, row)
    about = {**word_told(lifting), "first": row.first_by}
    _tell(tx, EventType.RECOVERY_RELEASED, row, lifting.by, now_ms, about)
    return shown(row)


def _forget_words(row: RecoveryRow) -> None:
    """Nobody knows who said what stands in a row that fails its MAC; or it was said of something else."""
    for name in _STORED[_WORDS:]:
        setattr(row, name, None)


def _update(tx: Transaction, row: RecoveryRow) -> None:
    row.trusted = True
    values = _values(row)
    tx.write("update_recovery", (*values[_FOUND:], *tx.seal.make(row.TABLE, values), row.tenant, row.id))


def _tell(
    tx: Transaction, event: EventType, row: RecoveryRow, actor: str, now_ms: int, data: dict[str, JsonValue]
) -> None:
    about: dict[str, JsonValue] = {
        "recovery": row.id,
        "witnessed": row.evidence_count,
        "ledger": row.ledger_count,
        **data,
    }
    tx.audit(AuditEvent(event, actor, Vouch.BROKER, tenant=row.tenant, data=about), now_ms)


def _not_in_recovery(recovery_id: str) -> WrongState:
    return WrongState(
        Reason.NOT_IN_RECOVERY,
        f"there is no recovery {recovery_id!a} that waits for a release.",
        hint="`broker recovery show` says what there is.",
        metadata={"recoveryId": recovery_id[:64]},
    )
