"""AdminService: deciding on access requests. Each is a translation to one call of the desk and back."""

from __future__ import annotations

from typing import Any

from broker.api import convert_requests
from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import access_review_pb2 as review_pb
from broker.issuance.approvals import ApprovalDesk
from broker.issuance.caller import OperatorCaller

DEFAULT_PAGE = 100


class ApprovalRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: ApprovalDesk) -> None:
        self._desk = desk

    async def ListAccessRequests(
        self, request: requests_pb.ListAccessRequestsRequest, caller: OperatorCaller, context: Any
    ) -> requests_pb.ListAccessRequestsResponse:
        """A page of everybody's requests."""
        after, limit = request.page_token, request.page_size or DEFAULT_PAGE
        found, token = await self._desk.list(caller, open_only=request.open_only, after=after, limit=limit)
        return requests_pb.ListAccessRequestsResponse(
            access_requests=[convert_requests.access_request(each, caller.deploy, caller.now) for each in found],
            next_page_token=token,
        )

    async def GetAccessRequest(
        self, request: requests_pb.GetAccessRequestRequest, caller: OperatorCaller, context: Any
    ) -> review_pb.AccessReview:
        """One request, ready to be decided on."""
        found = await self._desk.review(caller, request.access_request_id)
        return convert_requests.review(found, caller.deploy, caller.now)

    async def ApproveAccessRequest(
        self, request: review_pb.ApproveAccessRequestRequest, caller: OperatorCaller, context: Any
    ) -> requests_pb.AccessRequest:
        """One yes."""
        after = await self._desk.approve(
            caller,
            request.access_request_id,
            request.digest,
            fresh_id_token=request.fresh_id_token,
            approval=request.approval,
            note=request.note,
        )
        return convert_requests.access_request(after, caller.deploy, caller.now)

    async def DenyAccessRequest(
        self, request: review_pb.DenyAccessRequestRequest, caller: OperatorCaller, context: Any
    ) -> requests_pb.AccessRequest:
        """One no."""
        after = await self._desk.deny(caller, request.access_request_id, request.digest, note=request.note)
        return convert_requests.access_request(after, caller.deploy, caller.now)
