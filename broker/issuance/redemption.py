"""What must still be true when an approved request is redeemed, before policy is asked again.

In this order: its state and deadline; template and policies are those that people were shown; the votes carry it
with the people and rules in force. Afterwards its digest is recomputed from what would be granted now. The ledger
looks at state, deadline and digest once more, in the transaction that uses the request up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from broker.approval.machine import RequestEvent, RequestState, can, refusal
from broker.errors import Conflict, Denied, Reason
from broker.issuance.caller import Caller
from broker.issuance.counting import check_terms, standing
from broker.issuance.filing import ACCESS_REQUEST_PREFIX, terms_of
from broker.ports.access_requests import FiledRequest
from broker.ports.intents import Intent, Redemption

LEASE_PREFIX = "lease-"


def approvals_held(filed: FiledRequest, request_id: str, caller: Caller, sponsor: str) -> frozenset[str]:
    """The approvals held for exactly this request, now. Raises :class:`WrongState` or :class:`Denied`."""
    repeated = filed.state is RequestState.REDEEMED and filed.redemption_id == request_id
    if not repeated:
        if not can(filed.state, RequestEvent.REDEEM):
            raise refusal(filed.state, filed.id)
        if filed.redeem_by is None or caller.now >= filed.redeem_by:
            raise refusal(RequestState.LAPSED, filed.id)
    check_terms(filed, caller.deploy)
    counted = standing(filed, caller.deploy, sponsor, caller.now).tally
    if not counted.satisfied:
        raise not_held(filed, [str(each) for each in counted.missing])
    return counted.held


def funded(filed: FiledRequest, caller: Caller, held: frozenset[str], intent: Intent) -> Intent:
    """``intent`` as the redemption of ``filed``, whose digest is recomputed from what the intent would grant.

    Raises :class:`Conflict` (APPROVAL_DIGEST_MISMATCH) where that is not what people agreed to.
    """
    terms = terms_of(caller, filed.request, intent.scope, intent.contract_class, filed.policies, filed.approvals)
    if terms.digest() != filed.digest:
        raise Conflict(
            Reason.APPROVAL_DIGEST_MISMATCH,
            f"what access request {filed.id} would grant now is not what people agreed to.",
            hint="Ask again, under a fresh request id.",
            metadata={"accessRequestId": filed.id},
        )
    told = {"access_request": filed.id, "access_request_digest": filed.digest, "approvals": sorted(held)}
    return replace(
        intent,
        lease_id=lease_id(filed),
        redeems=Redemption(filed.id, filed.digest),
        audit={**intent.audit, **told},
    )


def lease_id(filed: FiledRequest) -> str:
    """The id of the one lease that ``filed`` can fund: the ledger's primary key keeps it the only one."""
    return LEASE_PREFIX + filed.id.removeprefix(ACCESS_REQUEST_PREFIX)


def not_held(filed: FiledRequest, missing: Sequence[str]) -> Denied:
    """The votes do not carry the request, or not all that policy asks for now. Final for this request."""
    told = "; ".join(missing)
    return Denied(
        Reason.APPROVAL_NOT_HELD,
        f"access request {filed.id} was approved, but that does not carry it any more: {told}.",
        hint="Ask again, under a fresh request id; people decide again.",
        metadata={"accessRequestId": filed.id, "missing": told[:500]},
    )
