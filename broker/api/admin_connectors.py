"""AdminService: connectors, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from typing import Any

from broker.api import convert
from broker.api.v1 import connectors_pb2 as pb
from broker.issuance.caller import OperatorCaller
from broker.issuance.connectors import ConnectorDesk, Examined, Shown
from broker.ports import Doubt


class ConnectorRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: ConnectorDesk) -> None:
        self._desk = desk

    async def ListConnectors(
        self, request: pb.ListConnectorsRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListConnectorsResponse:
        """All of them."""
        return pb.ListConnectorsResponse(connectors=[_told(each) for each in self._desk.list(caller)])

    async def GetConnector(self, request: pb.GetConnectorRequest, caller: OperatorCaller, context: Any) -> pb.Connector:
        """One of them."""
        return _told(self._desk.get(caller, request.name))

    async def ExamineConnector(
        self, request: pb.ExamineConnectorRequest, caller: OperatorCaller, context: Any
    ) -> pb.ExamineConnectorResponse:
        """What is not as it must be."""
        found = await self._desk.examine(caller, request.name)
        return pb.ExamineConnectorResponse(examinations=[_examination(each) for each in found])


def _told(value: Shown) -> pb.Connector:
    return pb.Connector(
        name=value.spec.name,
        kind=value.spec.kind,
        contract=None if value.contract is None else convert.contract(value.contract),
        templates=value.templates,
        running=value.contract is not None,
        digest=value.spec.digest,
    )


def _examination(value: Examined) -> pb.Examination:
    return pb.Examination(
        connector=_told(value.connector),
        doubts=[_doubt(each) for each in value.doubts],
        examine_time=convert.timestamp(value.at),
    )


def _doubt(value: Doubt) -> pb.Doubt:
    return pb.Doubt(severity=f"SEVERITY_{value.severity}", what=value.what, remedy=value.remedy)
