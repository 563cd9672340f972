"""AdminService: the registry and the deploy set in force, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from broker.api.v1 import admin_view_pb2 as pb
from broker.identity.agent import Agent
from broker.issuance.caller import OperatorCaller
from broker.issuance.registry import Registered, RegistryDesk
from broker.ports.deploys import Reloaded

_PAGE = 100


class RegistryRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: RegistryDesk) -> None:
        self._desk = desk

    async def ListAgents(
        self, request: pb.ListAgentsRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListAgentsResponse:
        """A page of the entries."""
        found, token = await self._desk.list(caller, request.page_token, request.page_size or _PAGE)
        return pb.ListAgentsResponse(agents=[_told(each) for each in found], next_page_token=token)

    async def GetAgent(self, request: pb.GetAgentRequest, caller: OperatorCaller, context: Any) -> pb.RegisteredAgent:
        """One entry, or one workload."""
        return _told(await self._desk.get(caller, request.agent))


class ReloadRpcs:
    """The same as SIGHUP. ``reload`` takes who asks."""

    def __init__(self, reload: Callable[[str], Awaitable[Reloaded]]) -> None:
        self._reload = reload

    async def ReloadDeploy(
        self, request: pb.ReloadDeployRequest, caller: OperatorCaller, context: Any
    ) -> pb.ReloadDeployResponse:
        """Take in what is on disk."""
        done = await self._reload(caller.id)
        return pb.ReloadDeployResponse(accepted=done.accepted, deploy_digest=done.digest, problems=done.problems)


def _told(value: Registered) -> pb.RegisteredAgent:
    entry, workload = value.entry, value.entry if isinstance(value.entry, Agent) else None
    return pb.RegisteredAgent(
        entry=entry.principal,
        spiffe_id="" if workload is None else str(workload.spiffe_id),
        pattern=value.pattern,
        description=entry.description,
        owner=entry.owner.id,
        owner_name=entry.owner.display_name,
        owner_enabled=value.owner_enabled,
        tier=entry.tier,
        roles=sorted(entry.roles),
        environments=sorted(entry.environments),
        promoted=entry.promoted,
        tools=sorted(entry.tools),
        segments=[] if workload is None else [f"{name}={text}" for name, text in workload.segments],
        denied=value.denied,
        live_leases=value.alive.leases,
        open_tasks=value.alive.tasks,
        max_live_leases=entry.quotas.live_leases,
        max_open_tasks=entry.quotas.open_tasks,
    )
