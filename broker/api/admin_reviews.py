"""AdminService: live leases, decided on again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker.api import convert
from broker.api.v1 import lease_review_pb2 as pb
from broker.issuance.caller import OperatorCaller
from broker.issuance.tightening import TighteningDesk

_PAGE = 100


class ReviewRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: TighteningDesk) -> None:
        self._desk = desk

    async def ReviewLeases(
        self, request: pb.ReviewLeasesRequest, caller: OperatorCaller, context: Any
    ) -> pb.ReviewLeasesResponse:
        """A page of what would not be granted any more."""
        found, token = await self._desk.review(
            request.page_token, request.page_size or _PAGE, revoke=request.revoke, by=caller.id
        )
        leases = [replace(each.granted.lease, policy_tightened=each.tightened) for each in found]
        return pb.ReviewLeasesResponse(
            leases=[convert.lease(each) for each in leases],
            revoked=[each.granted.lease.id for each in found if each.revoked],
            next_page_token=token,
        )
