"""AdminService: the audit trail, a translation to one call of the inside and back."""

from __future__ import annotations

from typing import Any

from broker.api.v1 import audit_export_pb2 as pb
from broker.issuance.caller import OperatorCaller
from broker.issuance.trail import TrailDesk

_PAGE = 500


class TrailRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: TrailDesk) -> None:
        self._desk = desk

    async def ReadAudit(
        self, request: pb.ReadAuditRequest, caller: OperatorCaller, context: Any
    ) -> pb.ReadAuditResponse:
        """A page of it."""
        page = await self._desk.read(caller, request.after, request.page_size or _PAGE)
        return pb.ReadAuditResponse(records=page.records, more=page.more)
