"""BrokerService: the agents' RPCs, each a translation to one call of the inside and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from broker.api import convert, convert_requests
from broker.api.agents_pipelines import PipelineRpcs
from broker.api.promised import promised
from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import lease_pb2, task_pb2
from broker.canary.canary import Kind
from broker.canary.measurement import Measurement
from broker.errors import InvalidInput, Reason
from broker.issuance.caller import Caller
from broker.issuance.delegations import DelegationDesk
from broker.issuance.issue import Grant, Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.plans import PlanDesk
from broker.issuance.requests import RequestDesk
from broker.issuance.tasks import TaskDesk, TaskOrder
from broker.lease.sealing import SealedTo
from broker.ports.connectors import Connector
from broker.secret import Secret

DEFAULT_PAGE = 100


class AgentService(PipelineRpcs):
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(
        self,
        issuer: Issuer,
        tasks: TaskDesk,
        leases: LeaseDesk,
        requests: RequestDesk,
        plans: PlanDesk,
        delegations: DelegationDesk,
        connectors: Callable[[str], Connector | None],
        measured: Callable[[str], Mapping[Kind, Measurement]] = lambda connector: convert.NOT_MEASURED,
    ) -> None:
        super().__init__(plans, delegations)
        self._issuer = issuer
        self._tasks = tasks
        self._leases = leases
        self._requests = requests
        self._connectors = connectors
        self._measured = measured

    async def WhoAmI(self, request: pb.WhoAmIRequest, caller: Caller, context: Any) -> pb.WhoAmIResponse:
        """The caller, as validated and as registered."""
        agent = caller.agent
        return pb.WhoAmIResponse(
            spiffe_id=caller.id,
            owner=agent.owner.display_name,
            tier=agent.tier,
            roles=sorted(agent.roles),
            environments=sorted(agent.environments),
            svid_expire_time=convert.timestamp(caller.peer.not_after),
            tenant=caller.tenant,
            deploy_digest=caller.deploy.digest,
            delivery=caller.peer.delivery,
            proxy=str(caller.peer.proxy.spiffe_id) if caller.peer.proxy else "",
            principal=agent.principal,
            segments=[f"{name}={value}" for name, value in agent.segments],
            promoted=agent.promoted,
            tools=sorted(agent.tools),
        )

    async def ListTemplates(
        self, request: pb.ListTemplatesRequest, caller: Caller, context: Any
    ) -> pb.ListTemplatesResponse:
        """The templates in force, by name, each with its connector's contract."""
        named = sorted(caller.deploy.templates.items())
        found = [(template, self._connectors(template.connector)) for _, template in named]
        return pb.ListTemplatesResponse(
            templates=[
                convert.template(t, None if c is None else c.contract.of_grant(t.grant), self._measured(t.connector))
                for t, c in found
            ]
        )

    async def StartTask(self, request: pb.StartTaskRequest, caller: Caller, context: Any) -> task_pb2.Task:
        """A new task, or the one this request id started."""
        asked = request.HasField("max_duration")
        order = TaskOrder(
            request_id=request.request_id,
            purpose=request.purpose,
            max_duration=convert.duration(request.max_duration, "max_duration") if asked else None,
            participants=tuple(request.participants),
            ticket=request.ticket,
            sponsor=request.sponsor,
            task_type=request.task_type,
            on_behalf_of_token=Secret(request.on_behalf_of_token) if request.on_behalf_of_token else None,
        )
        return convert.task(await self._tasks.start(caller, order))

    async def GetTask(self, request: pb.GetTaskRequest, caller: Caller, context: Any) -> task_pb2.Task:
        """One task."""
        return convert.task(await self._tasks.get(caller, request.task_id))

    async def CompleteTask(
        self, request: pb.CompleteTaskRequest, caller: Caller, context: Any
    ) -> pb.CompleteTaskResponse:
        """End a task, and tell what became of its leases."""
        wait = convert.duration(request.wait, "wait")
        task, leases = await self._tasks.complete(caller, request.task_id, wait, convert.report(request))
        told = [convert.lease(each, caller.now) for each in leases]
        return pb.CompleteTaskResponse(task=convert.task(task), leases=told)

    async def HoldTask(
        self, request: pb.HoldTaskRequest, caller: Caller, context: Any
    ) -> AsyncIterator[pb.HoldTaskResponse]:
        """Hold a task open for as long as the stream is."""
        grace = convert.duration(request.grace, "grace") if request.HasField("grace") else None
        async for beat in self._tasks.hold(caller, request.task_id, grace):
            until = None if beat.until is None else convert.timestamp(beat.until)
            yield pb.HoldTaskResponse(task=convert.task(beat.task), held_until=until)

    async def RequestCredential(
        self, request: pb.RequestCredentialRequest, caller: Caller, context: Any
    ) -> pb.RequestCredentialResponse:
        """A credential, once."""
        asked = convert.access_request(request)
        return _answer(await self._issuer.request(caller, asked, validate_only=request.validate_only), caller)

    async def RedeemAccessRequest(
        self, request: requests_pb.RedeemAccessRequestRequest, caller: Caller, context: Any
    ) -> pb.RequestCredentialResponse:
        """A credential for what people approved, once."""
        return _answer(await self._issuer.redeem(caller, request.access_request_id, request.request_id), caller)

    async def GetAccessRequest(
        self, request: requests_pb.GetAccessRequestRequest, caller: Caller, context: Any
    ) -> requests_pb.AccessRequest:
        """One access request."""
        found = await self._requests.get(caller, request.access_request_id)
        return convert_requests.access_request(found, caller.deploy, caller.now)

    async def ListAccessRequests(
        self, request: requests_pb.ListAccessRequestsRequest, caller: Caller, context: Any
    ) -> requests_pb.ListAccessRequestsResponse:
        """A page of the caller's access requests. The page token is the last one's id, checked against the caller."""
        after, limit = request.page_token, request.page_size or DEFAULT_PAGE
        found, token = await self._requests.list(caller, open_only=request.open_only, after=after, limit=limit)
        return requests_pb.ListAccessRequestsResponse(
            access_requests=[convert_requests.access_request(each, caller.deploy, caller.now) for each in found],
            next_page_token=token,
        )

    async def WatchAccessRequests(
        self, request: requests_pb.WatchAccessRequestsRequest, caller: Caller, context: Any
    ) -> AsyncIterator[requests_pb.AccessRequestEvent]:
        """The events of the caller's access requests, with heartbeats."""
        async for event in self._requests.watch(caller, request.after_sequence):
            if isinstance(event, int):
                yield requests_pb.AccessRequestEvent(sequence=event, previous_sequence=event)
            else:
                yield convert_requests.access_request_event(event, caller.deploy, caller.now)

    async def WithdrawAccessRequest(
        self, request: requests_pb.WithdrawAccessRequestRequest, caller: Caller, context: Any
    ) -> requests_pb.AccessRequest:
        """Take an access request back."""
        found = await self._requests.withdraw(caller, request.access_request_id)
        return convert_requests.access_request(found, caller.deploy, caller.now)

    async def ConfirmDelivery(
        self, request: pb.ConfirmDeliveryRequest, caller: Caller, context: Any
    ) -> lease_pb2.Lease:
        """The credential has arrived."""
        return convert.lease(await self._leases.confirm(caller, request.lease_id, request.attempt_id), caller.now)

    async def GetLease(self, request: pb.GetLeaseRequest, caller: Caller, context: Any) -> lease_pb2.Lease:
        """One lease."""
        found = await self._leases.get(caller, request.lease_id)
        return convert.lease(found, caller.now, promised(found, caller.deploy, self._connectors))

    async def ListLeases(self, request: pb.ListLeasesRequest, caller: Caller, context: Any) -> pb.ListLeasesResponse:
        """A page of the caller's leases. The page token is the last lease's id, checked against the caller."""
        after = request.page_token
        if after and not after.startswith("lease-"):
            raise InvalidInput(
                Reason.PAGE_TOKEN_INVALID,
                "page_token is not one that this broker gave.",
                hint="Pass next_page_token of the page before, or leave it out.",
                metadata={"field": "page_token"},
            )
        leases, token = await self._leases.list(
            caller,
            task_id=request.task_id,
            living_only=request.living_only,
            after=after,
            limit=request.page_size or DEFAULT_PAGE,
        )
        told = [
            convert.listed_lease(each, caller.now, promised(each, caller.deploy, self._connectors)) for each in leases
        ]
        return pb.ListLeasesResponse(leases=told, next_page_token=token)

    async def WatchLeases(
        self, request: pb.WatchLeasesRequest, caller: Caller, context: Any
    ) -> AsyncIterator[lease_pb2.LeaseEvent]:
        """The caller's lease events, with heartbeats."""
        async for event in self._leases.watch(caller, request.after_sequence):
            if isinstance(event, int):
                yield lease_pb2.LeaseEvent(sequence=event, previous_sequence=event)
            else:
                yield convert.lease_event(event)

    async def RevokeLease(self, request: pb.RevokeLeaseRequest, caller: Caller, context: Any) -> lease_pb2.Lease:
        """End one lease now."""
        wait = convert.duration(request.wait, "wait")
        return convert.lease(await self._leases.revoke(caller, request.lease_id, wait), caller.now)


def _answer(grant: Grant, caller: Caller) -> pb.RequestCredentialResponse:
    """What a request came to: the one place from which a credential goes out."""
    asked = grant.access_request
    answer = pb.RequestCredentialResponse(
        decision=convert.decision(grant.decision, grant.contract),
        lease=None if grant.lease is None else convert.lease(grant.lease),
        access_request=None if asked is None else convert_requests.access_request(asked, caller.deploy, caller.now),
    )
    if grant.lease is None or grant.credential is None:
        return answer
    if grant.recipient_public_key:
        to = SealedTo(grant.lease.id, grant.lease.attempt_id, caller.id, grant.lease.request_id)
        sealed = convert.sealed_credential(grant.credential, grant.recipient_public_key, to)
        answer.sealed_credential.CopyFrom(sealed)
    else:
        answer.credential.CopyFrom(convert.credential(grant.credential))
    return answer
