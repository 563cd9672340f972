"""How an approved request is used up: inside the intent transaction of its lease, once.

An approval funds one lease with all its attempts: a retry of the redemption that made the lease adds an attempt
to it for as long as it lives, and nothing else does. The lease has its id from the request, so that a second
lease of one request would need a second primary key, also in a ledger whose request rows were set back.
"""

from __future__ import annotations

from broker.approval.digest import check_digest
from broker.approval.machine import RequestEvent, RequestState, refusal
from broker.errors import Conflict, Reason
from broker.ports.intents import Intent
from broker.stores.access_moves import move
from broker.stores.access_ops import find, refuse_unless
from broker.stores.access_rows import RequestRow, trusted, votes_of
from broker.stores.rows import LeaseRow
from broker.stores.seal import tampered
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View


def redeemable(view: View, intent: Intent, retried: LeaseRow | None) -> RequestRow | None:
    """The request that ``intent`` redeems; None if it redeems none. Writes nothing.

    ``retried`` is the living lease that has the intent's request id. Raises NotFound, Tampered, Conflict
    (APPROVAL_DIGEST_MISMATCH, REQUEST_ID_REUSED), WrongState (the reason of the request's state).
    """
    if intent.redeems is None:
        return None
    row = trusted(find(view, intent.tenant, intent.redeems.access_request_id, intent.holder))
    votes_of(view, row)
    check_digest(intent.redeems.digest, row.digest, row.id)
    request_id = intent.request.request_id
    if row.state == RequestState.REDEEMED:
        if retried is None or retried.id != row.lease_id or row.redemption_id != request_id:
            raise refusal(RequestState.REDEEMED, row.id)
        return row
    refuse_unless(row, RequestEvent.REDEEM, to_ms(intent.now))
    if retried is not None:
        raise Conflict(
            Reason.REQUEST_ID_REUSED,
            f"request id {request_id!r} already names lease {retried.id}, which is not of access request {row.id}.",
            hint="Redeem with a fresh request id.",
            metadata={"requestId": request_id, "leaseId": retried.id},
        )
    if view.one("lease_by_id", {"tenant": intent.tenant, "lease_id": intent.lease_id}) is not None:
        # The row says APPROVED and its lease is there: an older version of the row was put back.
        raise tampered(row.TABLE, row.id)
    return row


def redeem(tx: Transaction, row: RequestRow, intent: Intent) -> None:
    """Use the request up for the lease that the same transaction opens."""
    row.lease_id, row.redemption_id = intent.lease_id, intent.request.request_id
    about = {"lease": intent.lease_id, "attempt": intent.attempt_id, "request_id": row.redemption_id}
    move(tx, row, RequestEvent.REDEEM, intent.holder, to_ms(intent.now), dict(about))
