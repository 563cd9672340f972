"""AdminService: access reviews, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from broker.api import convert
from broker.api.v1 import access_review_signoff_pb2 as pb
from broker.issuance.access_reviews import AccessReviewDesk, SignOff
from broker.issuance.caller import OperatorCaller


class AccessReviewRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: AccessReviewDesk) -> None:
        self._desk = desk

    async def SignOffAccessReview(
        self, request: pb.SignOffAccessReviewRequest, caller: OperatorCaller, context: Any
    ) -> pb.SignOffAccessReviewResponse:
        """Sign off a report."""
        said = SignOff(
            request_id=request.request_id,
            report_digest=request.report_digest,
            deploy_digest=request.deploy_digest,
            report_time=request.report_time.ToDatetime(UTC),
            findings=request.findings,
        )
        signed = await self._desk.sign_off(caller, said)
        told = pb.SignOffAccessReviewResponse(own_agents=signed.own_agents)
        told.sign_off_time.CopyFrom(convert.timestamp(signed.at))
        if signed.due is not None:
            told.due_time.CopyFrom(convert.timestamp(signed.due))
        return told
