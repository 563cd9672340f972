"""AdminService: everybody's leases and tasks, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.api import convert
from broker.api.promised import promised
from broker.api.v1 import admin_view_pb2 as pb
from broker.api.v1 import broker_service_pb2 as service
from broker.api.v1 import lease_pb2, task_pb2
from broker.issuance.caller import OperatorCaller
from broker.issuance.everybodys import EndOrder, EverybodysDesk
from broker.ports.connectors import Connector
from broker.ports.views import LeaseSearch, TaskSearch

_PAGE = 100


class EverybodysRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: EverybodysDesk, connectors: Callable[[str], Connector | None]) -> None:
        self._desk = desk
        self._connectors = connectors

    async def ListLeases(
        self, request: pb.AdminServiceListLeasesRequest, caller: OperatorCaller, context: Any
    ) -> service.ListLeasesResponse:
        """A page of everybody's leases."""
        search = LeaseSearch(
            caller.tenant, request.holder, request.task_id, request.template, living_only=request.living_only
        )
        found, token = await self._desk.leases(search, request.page_token, request.page_size or _PAGE)
        told = [
            convert.listed_lease(each, caller.now, promised(each, caller.deploy, self._connectors)) for each in found
        ]
        return service.ListLeasesResponse(leases=told, next_page_token=token)

    async def GetLease(self, request: service.GetLeaseRequest, caller: OperatorCaller, context: Any) -> lease_pb2.Lease:
        """One lease."""
        found = await self._desk.lease(caller, request.lease_id)
        return convert.lease(found, caller.now, promised(found, caller.deploy, self._connectors))

    async def RevokeLease(
        self, request: pb.AdminServiceRevokeLeaseRequest, caller: OperatorCaller, context: Any
    ) -> lease_pb2.Lease:
        """End one lease now."""
        return convert.lease(await self._desk.revoke(caller, request.lease_id, _order(request)), caller.now)

    async def ListTasks(
        self, request: pb.ListTasksRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListTasksResponse:
        """A page of everybody's tasks."""
        search = TaskSearch(caller.tenant, request.agent, open_only=request.open_only)
        found, token = await self._desk.tasks(search, request.page_token, request.page_size or _PAGE)
        return pb.ListTasksResponse(tasks=[convert.task(each) for each in found], next_page_token=token)

    async def GetTask(self, request: service.GetTaskRequest, caller: OperatorCaller, context: Any) -> task_pb2.Task:
        """One task."""
        return convert.task(await self._desk.task(caller, request.task_id))

    async def CompleteTask(
        self, request: pb.AdminServiceCompleteTaskRequest, caller: OperatorCaller, context: Any
    ) -> service.CompleteTaskResponse:
        """End one task now, and tell what became of its leases."""
        task, leases = await self._desk.complete(caller, request.task_id, _order(request))
        told = [convert.lease(each, caller.now) for each in leases]
        return service.CompleteTaskResponse(task=convert.task(task), leases=told)


def _order(request: pb.AdminServiceRevokeLeaseRequest | pb.AdminServiceCompleteTaskRequest) -> EndOrder:
    return EndOrder(request.request_id, request.reason, convert.duration(request.wait, "wait"))
