"""Sealed codes in the ledger: asked for by one person, made by another, used once, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.breakglass.codes import CONFIRM_WITHIN, MOST_FAILURES, Batch, KeptCode
from broker.errors import Conflict, Denied, NotFound, Reason, WrongState
from broker.ports.break_glass import NewBatch
from broker.ports.proofs import ProofRecord
from broker.scope.canonical import JsonValue
from broker.stores import break_glass_rows as rows
from broker.stores.break_glass_ops import find_code
from broker.stores.break_glass_rows import BatchRow, CodeRow, batch_of, code_of, trusted
from broker.stores.proof_ops import keep_proof
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View


def request(tx: Transaction, new: NewBatch) -> Batch:
    """See BreakGlassStore.request_codes."""
    asked = new.batch
    key = {"tenant": new.tenant, "by": asked.requested_by, "request_id": new.request_id}
    raw = tx.one("batch_by_request", key)
    if raw is not None:
        row = trusted(BatchRow, raw, tx.seal)
        if (row.person, row.count, row.reason) != (asked.person, asked.count, asked.reason):
            raise Conflict(
                Reason.REQUEST_ID_REUSED,
                f"request id {new.request_id!r} already names batch {row.id}, with other content.",
                hint="Use a fresh request id.",
                metadata={"requestId": new.request_id, "batch": row.id},
            )
        return batch_of(row)
    row = BatchRow(
        tenant=new.tenant,
        id=asked.id,
        person=asked.person,
        person_name=asked.person_name,
        count=asked.count,
        reason=asked.reason,
        requested_by=asked.requested_by,
        requested_name=asked.requested_name,
        request_id=new.request_id,
        request_proof=new.proof.digest,
        requested_at=to_ms(asked.requested_at),
    )
    keep_proof(tx, new.tenant, new.proof, row.requested_at)
    rows.insert(tx, row)
    _tell(tx, EventType.BREAK_GLASS_CODES_REQUESTED, row, row.requested_by, row.requested_at, new.proof.digest)
    return batch_of(row)


def make(
    tx: Transaction,
    tenant: str,
    batch_id: str,
    by: str,
    by_name: str,
    proof: ProofRecord,
    made: Sequence[KeptCode],
    now: datetime,
) -> Batch:
    """See BreakGlassStore.make_codes."""
    row = _find_batch(tx, tenant, batch_id)
    _check_makeable(row, by, now)
    keep_proof(tx, tenant, proof, to_ms(now))
    row.confirmed_by, row.confirmed_name, row.confirm_proof, row.confirmed_at = by, by_name, proof.digest, to_ms(now)
    rows.update(tx, row)
    for code in made:
        rows.insert(tx, _row_of(tenant, code))
    _tell(tx, EventType.BREAK_GLASS_CODES_MADE, row, by, to_ms(now), proof.digest, codes=[code.id for code in made])
    return batch_of(row)


def _check_makeable(row: BatchRow, by: str, now: datetime) -> None:
    spent = ""
    if row.confirmed_at is not None:
        spent = f"was made by {row.confirmed_name}"
    elif row.revoked_at is not None:
        spent = "was revoked"
    elif now >= from_ms(row.requested_at) + CONFIRM_WITHIN:
        spent = "has waited too long"
    if spent:
        raise WrongState(
            Reason.BREAK_GLASS_CODE_SPENT,
            f"batch {row.id} {spent}.",
            hint="Ask for a new one: broker break-glass codes create --person ...",
            metadata={"batch": row.id},
        )
    if by == row.requested_by:
        raise Denied(
            Reason.SECOND_PERSON_REQUIRED,
            f"{row.requested_name} has asked for batch {row.id}; a second person makes it.",
            hint=f"Another person runs: broker break-glass codes create --confirm {row.id}",
            metadata={"batch": row.id},
        )


def get_batch(view: View, tenant: str, batch_id: str) -> Batch:
    """See BreakGlassStore.get_batch."""
    return batch_of(_find_batch(view, tenant, batch_id))


def get_code(view: View, tenant: str, code_id: str) -> KeptCode:
    """See BreakGlassStore.get_code."""
    row = find_code(view, tenant, code_id)
    if row is None:
        raise _not_found(code_id)
    return code_of(row)


def all_of(view: View, tenant: str) -> tuple[list[Batch], list[KeptCode]]:
    """See BreakGlassStore.codes."""
    waiting = [trusted(BatchRow, raw, view.seal) for raw in view.all("batches_waiting", {"tenant": tenant})]
    kept = [trusted(CodeRow, raw, view.seal) for raw in view.all("codes_all", {"tenant": tenant})]
    return [batch_of(row) for row in waiting], [code_of(row) for row in kept]


def failed(tx: Transaction, tenant: str, code_id: str, now: datetime) -> None:
    """See BreakGlassStore.code_failed."""
    row = find_code(tx, tenant, code_id)
    if row is None:
        return
    row.failures += 1
    if row.failures >= MOST_FAILURES and row.used_by is None and row.revoked_at is None:
        row.revoked_by, row.revoked_at = BROKER, to_ms(now)
    rows.update(tx, row)
    about: dict[str, JsonValue] = {
        "code": row.id,
        "person": row.person,
        "failures": row.failures,
        "revoked": row.revoked_at is not None,
    }
    event = AuditEvent(EventType.BREAK_GLASS_CODE_FAILED, BROKER, Vouch.BROKER, tenant=tenant, data=about)
    tx.audit(event, to_ms(now))


def revoke(tx: Transaction, tenant: str, named: str, by: str, now: datetime) -> int:
    """See BreakGlassStore.revoke_codes."""
    code = find_code(tx, tenant, named)
    if code is not None:
        batch, codes = None, [code]
    else:
        batch = _find_batch(tx, tenant, named)
        codes = [trusted(CodeRow, raw, tx.seal) for raw in tx.all("codes_of_batch", {"tenant": tenant, "batch": named})]
    now_ms = to_ms(now)
    living = [row for row in codes if row.revoked_at is None and row.used_by is None]
    for row in living:
        row.revoked_by, row.revoked_at = by, now_ms
        rows.update(tx, row)
    waiting = batch is not None and batch.confirmed_at is None and batch.revoked_at is None
    if batch is not None and waiting:
        batch.revoked_at = now_ms
        rows.update(tx, batch)
    if living or waiting:
        about: dict[str, JsonValue] = {"named": named, "codes": [row.id for row in living]}
        event = AuditEvent(EventType.BREAK_GLASS_CODES_REVOKED, by, Vouch.BROKER, tenant=tenant, data=about)
        tx.audit(event, now_ms)
    return len(living)


def _row_of(tenant: str, code: KeptCode) -> CodeRow:
    return CodeRow(
        tenant=tenant,
        id=code.id,
        batch=code.batch,
        person=code.person,
        person_name=code.person_name,
        salt=code.salt.hex(),
        hash=code.hash.hex(),
        created_at=to_ms(code.created_at),
        expires_at=to_ms(code.expires_at),
        failures=0,
    )


def _find_batch(view: View, tenant: str, batch_id: str) -> BatchRow:
    raw = view.one("batch_by_id", {"tenant": tenant, "id": batch_id})
    if raw is None:
        raise _not_found(batch_id)
    return trusted(BatchRow, raw, view.seal)


def _not_found(named: str) -> NotFound:
    return NotFound(
        Reason.BREAK_GLASS_CODE_NOT_FOUND,
        f"there is no code, and no batch of codes, {named!a}.",
        hint="`broker break-glass codes list` shows them.",
        metadata={"named": named},
    )


def _tell(
    tx: Transaction, event: EventType, row: BatchRow, actor: str, now_ms: int, proof: str, **data: JsonValue
) -> None:
    about: dict[str, JsonValue] = {
        "batch": row.id,
        "person": row.person,
        "count": row.count,
        "reason": row.reason,
        "requested_by": row.requested_by,
        "fresh_login": proof,
        **data,
    }
    tx.audit(AuditEvent(event, actor, Vouch.BROKER, tenant=row.tenant, data=about), now_ms)
