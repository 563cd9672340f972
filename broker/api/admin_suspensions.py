"""AdminService: the kill switch, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from broker.api import convert
from broker.api.v1 import admin_service_pb2 as pb
from broker.api.v1 import suspension_pb2
from broker.issuance.caller import OperatorCaller
from broker.issuance.suspending import SuspensionDesk, SuspensionOrder
from broker.ports.connectors import Connector
from broker.ports.suspensions import StillAlive
from broker.suspension.suspension import Kind, Suspension

_PAGE = 100
_STATES = suspension_pb2.Suspension


class SuspensionRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before.

    ``connectors`` finds a running one by name.
    """

    def __init__(self, desk: SuspensionDesk, connectors: Callable[[str], Connector | None]) -> None:
        self._desk = desk
        self._connectors = connectors

    async def Suspend(self, request: pb.SuspendRequest, caller: OperatorCaller, context: Any) -> pb.SuspendResponse:
        """Stop something."""
        lasts = convert.duration(request.duration, "duration") if request.HasField("duration") else None
        kind = Kind[suspension_pb2.Suspension.Kind.Name(request.kind).removeprefix("KIND_")]
        order = SuspensionOrder(request.request_id, kind, request.value, request.reason, lasts)
        stopped = await self._desk.suspend(caller, order)
        return pb.SuspendResponse(
            suspension=told(stopped.suspension, caller.now),
            attempts_ended=stopped.ended.attempts,
            unknown_value=not stopped.known,
            still_alive=[_alive(each, self._connectors(each.connector)) for each in stopped.alive or ()],
            still_alive_unknown=stopped.alive is None,
        )

    async def Resume(self, request: pb.ResumeRequest, caller: OperatorCaller, context: Any) -> pb.ResumeResponse:
        """Lift a suspension, or be the first to."""
        lifted = await self._desk.resume(
            caller, request.suspension_id, request.request_id, request.reason, fresh_id_token=request.fresh_id_token
        )
        return pb.ResumeResponse(suspension=told(lifted, caller.now))

    async def ListSuspensions(
        self, request: pb.ListSuspensionsRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListSuspensionsResponse:
        """A page of what is stopped."""
        found, token = await self._desk.list(
            caller, ended=request.include_ended, after=request.page_token, limit=request.page_size or _PAGE
        )
        return pb.ListSuspensionsResponse(suspensions=[told(each, caller.now) for each in found], next_page_token=token)


def told(suspension: Suspension, now: datetime) -> suspension_pb2.Suspension:
    """As the wire has it."""
    first, lifted = suspension.first, suspension.lifted
    message = suspension_pb2.Suspension(
        id=suspension.id,
        kind=f"KIND_{suspension.kind.value}",
        value=suspension.value,
        reason=suspension.reason,
        author=suspension.author,
        author_name=suspension.author_name,
        create_time=convert.timestamp(suspension.created_at),
        expire_time=None if suspension.until is None else convert.timestamp(suspension.until),
        state=_state(suspension, now),
        first_resumed_by=first.by if first else "",
    )
    if lifted is not None:
        message.resumed_by, message.resume_reason = lifted.by, lifted.reason
        message.end_time.CopyFrom(convert.timestamp(lifted.at))
    return message


def _alive(alive: StillAlive, connector: Connector | None) -> suspension_pb2.StillAlive:
    contract = None if connector is None else connector.contract
    bound = None if contract is None else contract.on_revoke
    return suspension_pb2.StillAlive(
        connector=alive.connector,
        credentials=alive.attempts,
        contract_class=f"CONTRACT_CLASS_{'UNSPECIFIED' if contract is None else contract.cls}",
        bound_on_revoke=None if bound is None else convert.to_duration(bound),
        last_expire_time=convert.timestamp(alive.last_end),
    )


def _state(suspension: Suspension, now: datetime) -> suspension_pb2.Suspension.State:
    if not suspension.trusted:
        return _STATES.STATE_TAMPERED
    if suspension.in_force(now):
        return _STATES.STATE_IN_FORCE if suspension.first is None else _STATES.STATE_RESUME_BEGUN
    by_time = suspension.lifted is None or suspension.lifted.by == "broker"
    return _STATES.STATE_EXPIRED if by_time else _STATES.STATE_LIFTED
