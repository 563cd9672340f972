"""AdminService: connectors, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from broker.api import convert
from broker.api.v1 import connectors_pb2 as pb
from broker.canary.canary import Kind
from broker.canary.measurement import Measurement
from broker.issuance.caller import OperatorCaller
from broker.issuance.connectors import ConnectorDesk, Examined, Shown
from broker.ports.connectors import Doubt


class ConnectorRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(
        self,
        desk: ConnectorDesk,
        measured: Callable[[str], Mapping[Kind, Measurement]] = lambda connector: convert.NOT_MEASURED,
    ) -> None:
        self._desk = desk
        self._measured = measured

    async def ListConnectors(
        self, request: pb.ListConnectorsRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListConnectorsResponse:
        """All of them."""
        return pb.ListConnectorsResponse(connectors=[self._told(each) for each in self._desk.list(caller)])

    async def GetConnector(self, request: pb.GetConnectorRequest, caller: OperatorCaller, context: Any) -> pb.Connector:
        """One of them."""
        return self._told(self._desk.get(caller, request.name))

    async def ExamineConnector(
        self, request: pb.ExamineConnectorRequest, caller: OperatorCaller, context: Any
    ) -> pb.ExamineConnectorResponse:
        """What is not as it must be."""
        found = await self._desk.examine(caller, request.name)
        return pb.ExamineConnectorResponse(examinations=[self._examination(each) for each in found])

    def _told(self, value: Shown) -> pb.Connector:
        measured = self._measured(value.spec.name)
        return pb.Connector(
            name=value.spec.name,
            kind=value.spec.kind,
            contract=None if value.contract is None else convert.contract(value.contract, measured),
            templates=value.templates,
            running=value.contract is not None,
            digest=value.spec.digest,
            circuit_open=value.circuit,
        )

    def _examination(self, value: Examined) -> pb.Examination:
        return pb.Examination(
            connector=self._told(value.connector),
            doubts=[_doubt(each) for each in value.doubts],
            examine_time=convert.timestamp(value.at),
        )


def _doubt(value: Doubt) -> pb.Doubt:
    return pb.Doubt(severity=f"SEVERITY_{value.severity}", what=value.what, remedy=value.remedy)
