"""AdminService: leases that cannot be ended, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from typing import Any

from broker.api.v1 import lease_forgetting_pb2 as pb
from broker.issuance.caller import OperatorCaller
from broker.issuance.forgetting import ForgettingDesk


class LeaseRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: ForgettingDesk) -> None:
        self._desk = desk

    async def ForgetLease(
        self, request: pb.ForgetLeaseRequest, caller: OperatorCaller, context: Any
    ) -> pb.ForgetLeaseResponse:
        """Be the first or the second of two people to say that it cannot be alive any more."""
        done = await self._desk.forget(caller, request.lease_id, request.reason, fresh_id_token=request.fresh_id_token)
        return pb.ForgetLeaseResponse(forgotten=done.done, first_by=done.first_by)
