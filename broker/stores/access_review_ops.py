"""Access reports that people sign off, each in one transaction with its event."""

from __future__ import annotations

from datetime import datetime

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.errors import Conflict, Reason
from broker.ports.access_reviews import AccessReviewSigned, NewAccessReview
from broker.scope.canonical import JsonValue
from broker.stores.times import from_ms, optional_at, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View


def sign_off(tx: Transaction, new: NewAccessReview) -> AccessReviewSigned:
    """See LeaseStore.sign_off_access_review."""
    found = tx.one("access_review_by_request", (new.tenant, new.person, new.request_id))
    if found is not None:
        return _repeated(found, new)
    now_ms, due_ms = to_ms(new.now), None if new.due is None else to_ms(new.due)
    own = new.own_agents
    fixed = (new.tenant, new.person, new.request_id, new.request_digest, new.report_digest)
    tx.run("insert_access_review", (*fixed, own, now_ms, due_ms))
    data: dict[str, JsonValue] = {
        "digest": new.report_digest,
        "deploy_digest": new.deploy_digest,
        "report_ms": to_ms(new.report_time),
        "findings": new.findings,
        "agents": new.agents,
        "own_agents": own,
        "due_ms": due_ms,
    }
    event = AuditEvent(EventType.ACCESS_REVIEW_SIGNED_OFF, new.person, Vouch.BROKER, tenant=new.tenant, data=data)
    tx.audit(event, now_ms)
    return AccessReviewSigned(from_ms(now_ms), optional_at(due_ms), own)


def last(view: View, tenant: str) -> datetime | None:
    """When a report was signed off last."""
    row = view.one("last_access_review", (tenant,))
    return None if row is None else from_ms(row[0])


def _repeated(found: tuple[object, ...], new: NewAccessReview) -> AccessReviewSigned:
    request_digest, signed_at, due_at, own = found
    if request_digest != new.request_digest:
        raise Conflict(
            Reason.REQUEST_ID_REUSED,
            f"request id {new.request_id!r} already names a sign-off of yours with other content.",
            hint="Use a fresh request id for a new one.",
            metadata={"requestId": new.request_id},
        )
    return AccessReviewSigned(from_ms(signed_at), optional_at(due_at), own)  # type: ignore[arg-type]
