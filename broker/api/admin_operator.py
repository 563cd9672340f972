"""AdminService: what an operator asks about itself."""

from __future__ import annotations

from typing import Any

from broker.api.v1 import admin_service_pb2 as pb
from broker.issuance.caller import OperatorCaller


class OperatorRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    async def GetOperator(
        self, request: pb.GetOperatorRequest, caller: OperatorCaller, context: Any
    ) -> pb.GetOperatorResponse:
        """The caller, as authenticated and as listed."""
        operator = caller.operator
        return pb.GetOperatorResponse(
            key=operator.key,
            issuer=operator.person.issuer,
            subject=operator.person.subject,
            display_name=operator.person.display_name,
            groups=sorted(operator.person.groups),
            roles=sorted(caller.roles),
            authenticated_by=operator.how,
            tenant=caller.tenant,
            deploy_digest=caller.deploy.digest,
        )
