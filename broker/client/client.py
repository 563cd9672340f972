"""The SDK's calls, one method for each thing an agent can do.

Belongs here: building requests and reading answers. How a call travels is ``calls.py``; the life of a
task is ``task.py``; following leases is ``watch.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import broker_service_pb2 as pb
from broker.approval.intent_digest import task_nonce
from broker.audit.report import TaskReport
from broker.client import read
from broker.client.approval import ApprovalNeeded, approved, look, refuse_sealed
from broker.client.calls import READ_SECONDS, Calls
from broker.client.channel import Connection
from broker.client.hold import Hold
from broker.client.model import (
    AccessRequest,
    AccessRequestEvent,
    Completion,
    Decision,
    Grant,
    Identity,
    Lease,
    LeaseEvent,
    ScopeTemplate,
    TaskFacts,
)
from broker.client.pipelines import PipelineCalls
from broker.client.report import put
from broker.client.spans import to_duration
from broker.client.task import Task, uninterrupted
from broker.client.unseal import unsealed
from broker.client.watch import watch, watch_requests
from broker.errors import BrokerError, InvalidInput, NotReady, Reason
from broker.lease.sealing import Recipient
from broker.scope.request import AccessRequest as Asked
from broker.secret import Secret

# Deadlines in seconds. Issuing waits for an upstream; ending waits as long as it was asked to, and this.
ISSUE_SECONDS = 30.0
PAGE_SIZE = 500
DEFAULT_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(seconds=60)


class AsyncClient(PipelineCalls):
    """A connection to the broker as the workload this process is.

    Made by :func:`broker.client.connect`; belongs to the event loop it is first used in. Every method
    raises :class:`broker.errors.BrokerError`: the broker's refusal under its own type and reason, or
    what this side found to be wrong with the connection.
    """

    def __init__(
        self,
        connection: Connection,
        new_id: Callable[[], str],
        fraction: Callable[[], float],
        *,
        seals: bool = False,
    ) -> None:
        self.connection = connection
        self.seals = seals  # whether credentials are asked for sealed to a fresh key, and opened here
        self.calls = Calls(connection, fraction)
        self.new_id = new_id
        self._fraction = fraction

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Nothing is revoked by it."""
        await self.connection.close()

    # ------------------------------------------------------------------ who, and what there is

    async def whoami(self) -> Identity:
        """Who the broker thinks we are, and what we are registered for."""
        return read.read(Identity, await self.calls.unary("WhoAmI", pb.WhoAmIRequest(), READ_SECONDS))

    async def templates(self) -> tuple[ScopeTemplate, ...]:
        """The ways to ask that operators have written."""
        answer = await self.calls.unary("ListTemplates", pb.ListTemplatesRequest(), READ_SECONDS)
        return tuple(read.read(ScopeTemplate, each) for each in answer.templates)

    # ------------------------------------------------------------------ tasks

    def task(
        self,
        purpose: str,
        *,
        participants: Iterable[str] = (),
        max_duration: timedelta | str | None = None,
        ticket: str = "",
        sponsor: str = "",
        task_type: str = "",
        on_behalf_of_token: Secret | None = None,
        hold: bool = False,
        grace: timedelta | str = timedelta(seconds=10),
        wait: timedelta = DEFAULT_WAIT,
        request_id: str = "",
    ) -> Task:
        """A task for an ``async with`` block: started on entry, completed on exit, whatever happened inside.

        ``participants`` are SPIFFE IDs of other agents that may request under it; ``task_type`` is a word for the kind
        of work that policies know. ``on_behalf_of_token`` is the ID token of the human it acts for, who
        logged in with the nonce of :meth:`task_nonce` for the same ``request_id``. With ``hold`` the
        task ends ``grace`` after this process has gone, however it went. On exit the broker is given
        ``wait`` to prove every lease's end; see :attr:`Task.outcome` for what it could not prove yet.
        """
        request = _start_request(
            request_id or self.new_id(),
            purpose,
            participants,
            max_duration,
            ticket,
            sponsor,
            task_type,
            on_behalf_of_token,
        )
        return Task(self, request, grace=grace if hold else None, wait=wait)

    async def start_task(
        self,
        purpose: str,
        *,
        participants: Iterable[str] = (),
        max_duration: timedelta | str | None = None,
        ticket: str = "",
        sponsor: str = "",
        task_type: str = "",
        on_behalf_of_token: Secret | None = None,
        request_id: str = "",
    ) -> TaskFacts:
        """Start a task that somebody else will complete, or its deadline. See :meth:`task` for the usual way."""
        request = _start_request(
            request_id or self.new_id(),
            purpose,
            participants,
            max_duration,
            ticket,
            sponsor,
            task_type,
            on_behalf_of_token,
        )
        return await self.start(request)

    async def task_nonce(self, request_id: str) -> str:
        """The nonce with which a person logs in so that we act for them in the task of this ``request_id``."""
        return task_nonce((await self.whoami()).spiffe_id, request_id)

    async def start(self, request: pb.StartTaskRequest) -> TaskFacts:
        """Send one StartTask; the same message again is the same task."""
        return read.read(TaskFacts, await self.calls.unary("StartTask", request, READ_SECONDS))

    async def get_task(self, task_id: str) -> TaskFacts:
        """A task we started or take part in."""
        request = pb.GetTaskRequest(task_id=task_id)
        return read.read(TaskFacts, await self.calls.unary("GetTask", request, READ_SECONDS))

    async def complete_task(
        self, task_id: str, *, wait: timedelta = DEFAULT_WAIT, report: TaskReport | None = None
    ) -> Completion:
        """Complete a task we started: all its leases end. Waits for the proof, ``wait`` (60 s) at most.

        ``report`` tells the audit trail what the task made and changed, once; no secrets belong in it.
        """
        request = pb.CompleteTaskRequest(task_id=task_id, request_id=self.new_id())
        if report is not None:
            put(report, request)
        request.wait.FromTimedelta(_checked_wait(wait))
        answer = await self.calls.unary("CompleteTask", request, READ_SECONDS + wait.total_seconds())
        return read.read(Completion, answer)

    def hold(self, task_id: str, *, grace: timedelta | str = timedelta(seconds=10)) -> Hold:
        """Hold a task we started, in an ``async with`` block: it ends ``grace`` after the block, or this process."""
        return Hold(self.calls, task_id, to_duration(grace, "grace"), self._fraction, self.new_id())

    # ------------------------------------------------------------------ credentials

    async def request(
        self,
        asked: Asked,
        *,
        confirm: bool = True,
        wait_for_approval: timedelta | None = None,
        on_waiting: Callable[[AccessRequest], object] | None = None,
    ) -> Grant:
        """Ask for one credential. The usual way is :meth:`Task.request`.

        With ``confirm=False`` the caller must call :meth:`confirm` within 30 s, once the credential is
        where it is needed; otherwise the broker takes it back. Where people must agree first, this waits for them for
        as long as ``wait_for_approval``, and raises :class:`ApprovalNeeded`, which carries the access request, then or,
        with None, at once; a no is a :class:`WrongState`. ``on_waiting`` is told of the access request when the wait
        begins, so that those whom it waits for can be told.
        """
        recipient = Recipient() if self.seals else None
        message = _access_request(asked, recipient)
        answer = await self.calls.unary("RequestCredential", message, ISSUE_SECONDS)
        if answer.HasField("access_request"):
            filed = read.read(AccessRequest, answer.access_request)
            if wait_for_approval is None:
                raise ApprovalNeeded(filed, contract=read.read(Decision, answer.decision).contract)
            if on_waiting is not None:
                on_waiting(filed)
            filed = await approved(self.calls, filed, wait_for_approval, self._fraction)
            return await self._redeem(filed.id, self.new_id(), recipient, confirm=confirm)
        return await self._granted(answer, recipient, asked.request_id, confirm=confirm)

    async def _redeem(
        self, access_request_id: str, request_id: str, recipient: Recipient | None, *, confirm: bool
    ) -> Grant:
        message = requests_pb.RedeemAccessRequestRequest(access_request_id=access_request_id, request_id=request_id)
        answer = await self.calls.unary("RedeemAccessRequest", message, ISSUE_SECONDS)
        return await self._granted(answer, recipient, request_id, confirm=confirm)

    async def _granted(
        self, answer: pb.RequestCredentialResponse, recipient: Recipient | None, request_id: str, *, confirm: bool
    ) -> Grant:
        grant = read.grant(answer if recipient is None else await self._open(answer, recipient, request_id))
        if not confirm:
            return grant
        try:
            return await self.confirm(grant)
        except BaseException:
            # The broker may have heard it all the same, and the caller is not told which lease to end.
            await uninterrupted(self._give_back(grant.lease.id))
            raise

    async def _give_back(self, lease_id: str) -> None:
        with contextlib.suppress(BrokerError):
            await self.revoke(lease_id, wait=timedelta())

    async def validate(self, asked: Asked) -> Decision:
        """Whether ``asked`` would be granted now, or needs approval; nothing is issued, and nobody is asked.

        A refusal is raised as for the real thing.
        """
        message = _access_request(asked, Recipient() if self.seals else None)
        message.validate_only = True
        answer = await self.calls.unary("RequestCredential", message, READ_SECONDS)
        return read.read(Decision, answer.decision)

    async def confirm(self, grant: Grant) -> Grant:
        """Say that the credential has arrived; the grant with its lease as it is now."""
        request = pb.ConfirmDeliveryRequest(
            lease_id=grant.lease.id, attempt_id=grant.lease.attempt_id, request_id=self.new_id()
        )
        lease = read.read(Lease, await self.calls.unary("ConfirmDelivery", request, READ_SECONDS))
        return Grant(lease, grant.credential, grant.decision)

    async def _open(
        self, answer: pb.RequestCredentialResponse, recipient: Recipient, request_id: str
    ) -> pb.RequestCredentialResponse:
        """The answer with its credential in clear; one that our key does not open is given back at once."""
        material = self.connection.material
        assert material is not None  # noqa: S101 - a call has been made
        try:
            return unsealed(answer, recipient, str(material.spiffe_id), request_id)
        except NotReady:
            await self._give_back(answer.lease.id)
            raise

    # ------------------------------------------------------------------ what waits for people

    async def access_request(self, access_request_id: str) -> AccessRequest:
        """One of our access requests."""
        return await look(self.calls, access_request_id)

    async def access_requests(self, *, open_only: bool = False) -> tuple[AccessRequest, ...]:
        """Our access requests, newest first, all pages."""
        found: list[AccessRequest] = []
        request = requests_pb.ListAccessRequestsRequest(page_size=PAGE_SIZE, open_only=open_only)
        while True:
            page = await self.calls.unary("ListAccessRequests", request, READ_SECONDS)
            found.extend(read.read(AccessRequest, each) for each in page.access_requests)
            if not page.next_page_token:
                return tuple(found)
            request.page_token = page.next_page_token

    def watch_access_requests(self, *, after_sequence: int = -1) -> AsyncGenerator[AccessRequestEvent, None]:
        """Follow our access requests, as :meth:`watch` follows leases."""
        return watch_requests(self.calls, after_sequence, self._fraction)

    async def redeem(self, access_request_id: str, *, request_id: str = "", confirm: bool = True) -> Grant:
        """Turn an approved access request into its credential, once; its time begins now.

        ``request_id`` is made if absent; the same one again is a retry. Raises :class:`WrongState` where it is not
        approved (any more), :class:`InvalidInput` where the credential would be sealed to a key that only the process
        has that asked.
        """
        refuse_sealed(await self.access_request(access_request_id))
        return await self._redeem(access_request_id, request_id or self.new_id(), None, confirm=confirm)

    async def withdraw(self, access_request_id: str) -> AccessRequest:
        """Take one of our access requests back."""
        request = requests_pb.WithdrawAccessRequestRequest(
            access_request_id=access_request_id, request_id=self.new_id()
        )
        return read.read(AccessRequest, await self.calls.unary("WithdrawAccessRequest", request, READ_SECONDS))

    # ------------------------------------------------------------------ leases

    async def lease(self, lease_id: str) -> Lease:
        """One of our leases."""
        request = pb.GetLeaseRequest(lease_id=lease_id)
        return read.read(Lease, await self.calls.unary("GetLease", request, READ_SECONDS))

    async def leases(self, *, task_id: str = "", living_only: bool = False) -> tuple[Lease, ...]:
        """Our leases, newest first, all pages."""
        found: list[Lease] = []
        request = pb.ListLeasesRequest(page_size=PAGE_SIZE, task_id=task_id, living_only=living_only)
        while True:
            page = await self.calls.unary("ListLeases", request, READ_SECONDS)
            found.extend(read.read(Lease, each) for each in page.leases)
            if not page.next_page_token:
                return tuple(found)
            request.page_token = page.next_page_token

    def watch(self, *, after_sequence: int = -1) -> AsyncGenerator[LeaseEvent, None]:
        """Follow our leases: from now on (-1), from the beginning (0), or from the last sequence seen.

        Goes on across dropped connections and rotated SVIDs. Raises :class:`NotReady` (STREAM_TOO_OLD)
        if the broker no longer has events in between: list the leases then, and watch from now on.
        """
        return watch(self.calls, after_sequence, self._fraction)

    async def revoke(self, lease_id: str, *, wait: timedelta = DEFAULT_WAIT) -> Lease:
        """End one of our leases now. Waits for the proof, ``wait`` (60 s) at most; look at ``Lease.state``."""
        request = pb.RevokeLeaseRequest(lease_id=lease_id, request_id=self.new_id())
        request.wait.FromTimedelta(_checked_wait(wait))
        return read.read(Lease, await self.calls.unary("RevokeLease", request, READ_SECONDS + wait.total_seconds()))


def _start_request(
    request_id: str,
    purpose: str,
    participants: Iterable[str],
    max_duration: timedelta | str | None,
    ticket: str,
    sponsor: str,
    task_type: str,
    on_behalf_of_token: Secret | None,
) -> pb.StartTaskRequest:
    return pb.StartTaskRequest(
        request_id=request_id,
        purpose=purpose,
        participants=list(participants),
        max_duration=None if max_duration is None else to_duration(max_duration, "max_duration"),
        ticket=ticket,
        sponsor=sponsor,
        task_type=task_type,
        on_behalf_of_token="" if on_behalf_of_token is None else on_behalf_of_token.reveal(),
    )


def _access_request(asked: Asked, recipient: Recipient | None) -> pb.RequestCredentialRequest:
    return pb.RequestCredentialRequest(
        request_id=asked.request_id,
        task_id=asked.task_id,
        template=asked.template,
        parameters=asked.parameters,
        account=asked.account,
        environment=asked.environment,
        resource=asked.resource,
        ttl=to_duration(asked.ttl, "ttl", Reason.TTL_INVALID),
        step=asked.step,
        intent=asked.intent,
        reason=asked.reason,
        ticket=asked.ticket,
        prompt=asked.prompt,
        tool_call=asked.tool_call,
        plan=asked.plan,
        recipient_public_key=b"" if recipient is None else recipient.public_key,
        plan_id=asked.plan_id,
        delegation_id=asked.delegation_id,
        subject_public_key=asked.subject_public_key,
        wrap=None if asked.wrap is None else to_duration(asked.wrap, "wrap", Reason.WRAP_TTL_INVALID),
    )


def _checked_wait(wait: timedelta) -> timedelta:
    if not timedelta() <= wait <= LONGEST_WAIT:
        raise InvalidInput(
            Reason.FIELD_INVALID,
            f"wait {wait} is not between nothing and {LONGEST_WAIT}.",
            hint="The broker goes on ending leases after the wait; ask again with `leases`.",
            metadata={"field": "wait"},
        )
    return wait
