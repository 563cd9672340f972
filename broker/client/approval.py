"""Waiting for people to decide on a request of ours.

Belongs here: following one request until it is decided. Whenever a stream begins, and with each heartbeat, the
request is looked at, so that nothing is missed between two streams; what happens within one is told by it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

from broker.api.v1 import access_request_pb2 as pb
from broker.approval.machine import RequestState, refusal
from broker.client import read
from broker.client.calls import Calls
from broker.client.model import AccessRequest, AccessRequestEvent, RevocationContract
from broker.client.streams import FIRST_WAIT, messages
from broker.client.watch import FROM_NOW_ON
from broker.errors import Denied, InvalidInput, Reason, WrongState

READ_SECONDS = 10.0


class ApprovalNeeded(Denied):
    """People must agree first, and have not (yet). ``access_request`` is what waits for them; it goes on waiting.

    ``contract``: how, and how fast, the credential could be ended; None where the broker was not asked just now.
    """

    def __init__(
        self,
        access_request: AccessRequest,
        waited: timedelta | None = None,
        contract: RevocationContract | None = None,
    ) -> None:
        self.access_request = access_request
        self.contract = contract
        missing = "; ".join(access_request.missing) or "its redemption"
        after = "" if waited is None else f" after {waited}"
        super().__init__(
            Reason.APPROVAL_NEEDED,
            f"access request {access_request.id} still waits{after} for {missing}.",
            hint="Wait for people (wait_for_approval, --wait-for-approval), or redeem it once it is approved: "
            f"broker requests redeem {access_request.id}",
            metadata={"accessRequestId": access_request.id, "missing": missing},
        )


async def approved(
    calls: Calls, filed: AccessRequest, within: timedelta, fraction: Callable[[], float]
) -> AccessRequest:
    """``filed`` once it is approved. Raises :class:`ApprovalNeeded` after ``within``, :class:`WrongState` for a no."""
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await _decided(calls, filed, fraction)
    except TimeoutError:
        raise ApprovalNeeded(filed, within) from None


async def _decided(calls: Calls, filed: AccessRequest, fraction: Callable[[], float]) -> AccessRequest:
    now = filed
    while now.state == RequestState.AWAITING_APPROVAL:
        async with contextlib.aclosing(messages(calls, "WatchAccessRequests", _from_now_on, fraction)) as stream:
            async for message in stream:
                event = read.read(AccessRequestEvent, message)
                if event.access_request is None:
                    now = await look(calls, filed.id)
                elif event.access_request.id == filed.id:
                    now = event.access_request
                if now.state != RequestState.AWAITING_APPROVAL:
                    break
            else:
                # The broker ended the stream, which it does not do by itself.
                await asyncio.sleep(FIRST_WAIT)
    if now.state == RequestState.APPROVED:
        return now
    raise _over(now)


def _from_now_on() -> pb.WatchAccessRequestsRequest:
    return pb.WatchAccessRequestsRequest(after_sequence=FROM_NOW_ON)


async def look(calls: Calls, access_request_id: str) -> AccessRequest:
    """The request as it is now."""
    request = pb.GetAccessRequestRequest(access_request_id=access_request_id)
    return read.read(AccessRequest, await calls.unary("GetAccessRequest", request, READ_SECONDS))


def _over(now: AccessRequest) -> WrongState:
    try:
        error = refusal(RequestState(now.state), now.id)
    except ValueError:  # a state that this client does not know yet
        error = WrongState(Reason.ACCESS_REQUEST_LAPSED, f"access request {now.id} is {now.state}.")
    return WrongState(error.reason, f"{error.message} {now.note}".strip(), hint=error.hint, metadata=error.metadata)


def refuse_sealed(filed: AccessRequest) -> None:
    """Raises InvalidInput where the credential would be sealed to a key that this call does not have."""
    if filed.sealed:
        raise InvalidInput(
            Reason.RECIPIENT_KEY_INVALID,
            f"the credential of access request {filed.id} is sealed to a key of the process that asked for it.",
            hint="Have that process wait for the approval, or ask again with --no-seal.",
            metadata={"accessRequestId": filed.id},
        )
