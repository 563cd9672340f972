"""The life of one task in a program: started, perhaps held, completed whatever happens.

``async with client.task("purpose") as task: login = await task.request(...)``
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Required, Self, TypedDict, TypeVar, Unpack

from broker.api.v1.broker_service_pb2 import StartTaskRequest
from broker.audit.report import Artifact, Mutation, TaskReport
from broker.client.hold import Hold
from broker.client.model import AccessRequest as FiledRequest
from broker.client.model import Completion, Decision, Delegation, Grant, Plan, PlannedAction, TaskFacts
from broker.client.spans import parse_span
from broker.errors import BrokerError, Reason, WrongState
from broker.scope.request import AccessRequest

if TYPE_CHECKING:
    from broker.client.client import AsyncClient

T = TypeVar("T")
_log = logging.getLogger("broker.client")


class Ask(TypedDict, total=False):
    """What a credential is asked for with, beside its template. A template says which of these it demands."""

    account: Required[str]
    environment: Required[str]
    resource: Required[str]
    # For how long: "5m" or a timedelta. There is no default and no renewal: ask again within the task.
    ttl: Required[timedelta | str]
    parameters: Mapping[str, str]
    step: str
    intent: str
    reason: str
    ticket: str
    # As the agent tells it; the broker keeps their digests.
    prompt: str
    tool_call: str
    plan: str
    # The registered plan that `step` is a step of, or the delegation that this redeems; not both.
    plan_id: str
    delegation_id: str
    # The agent's own public key, where a template's credential is a certificate for it.
    subject_public_key: str
    # For how long the upstream keeps it for one reader, who unwraps it there; absent: it is delivered itself.
    wrap: timedelta | str
    # Made if absent. The same one again replaces the credential; with another content it is refused.
    request_id: str


class Task:
    """One task, open inside its ``async with`` block. Made by :meth:`AsyncClient.task`.

    ``outcome`` is None inside; afterwards it says what became of the leases. Those whose end is not
    proven yet are also logged: the broker goes on ending them by itself.
    """

    def __init__(
        self, client: AsyncClient, request: StartTaskRequest, *, grace: timedelta | str | None, wait: timedelta
    ) -> None:
        self._client = client
        self._request = request
        self._grace = grace
        self._wait = wait
        self._hold: Hold | None = None
        self._facts: TaskFacts | None = None
        self.outcome: Completion | None = None
        self._made: list[Artifact] = []
        self._changed: list[Mutation] = []

    @property
    def facts(self) -> TaskFacts:
        """The task as the broker told it when it was started."""
        if self._facts is None:
            raise RuntimeError("a task is started by entering its `with` block")
        return self._facts

    @property
    def id(self) -> str:
        """The id the broker gave it."""
        return self.facts.id

    @property
    def hold(self) -> Hold | None:
        """The hold on it, if it was asked to be held; ``hold.ended`` tells when it ended under us."""
        return self._hold

    def made(self, uri: str, *, sha256: str = "", media_type: str = "", description: str = "") -> None:
        """Tell the audit trail, with the task's end, of something that it made. No secrets."""
        self._made.append(Artifact(uri, sha256, media_type, description))

    def changed(self, resource: str, action: str, *, description: str = "", count: int = 0, lease_id: str = "") -> None:
        """Likewise of something that it changed. ``action``: CREATED, UPDATED, DELETED or OTHER."""
        self._changed.append(Mutation(resource, action, description, count, lease_id))

    async def request(
        self,
        template: str,
        *,
        confirm: bool = True,
        wait_for_approval: timedelta | None = None,
        on_waiting: Callable[[FiledRequest], object] | None = None,
        **ask: Unpack[Ask],
    ) -> Grant:
        """A credential under this task.

        Its arrival is confirmed to the broker, unless ``confirm`` is False: then the caller must do so
        within 30 s, with :meth:`AsyncClient.confirm`. Raises :class:`BrokerError` where it is refused. Where people
        must agree first, they are waited for as long as ``wait_for_approval``; without it, or after it,
        :class:`ApprovalNeeded` is raised, and carries the access request, which goes on waiting. ``on_waiting`` is told
        of it when the wait begins.
        """
        asked, wait = self._asked(template, ask), wait_for_approval
        return await self._client.request(asked, confirm=confirm, wait_for_approval=wait, on_waiting=on_waiting)

    async def validate(self, template: str, **ask: Unpack[Ask]) -> Decision:
        """Whether :meth:`request` would be granted now; nothing is issued."""
        return await self._client.validate(self._asked(template, ask))

    def _asked(self, template: str, ask: Ask) -> AccessRequest:
        ttl, wrap = ask["ttl"], ask.get("wrap")
        return AccessRequest(
            request_id=ask.get("request_id") or self._client.new_id(),
            template=template,
            task_id=self.id,
            account=ask["account"],
            environment=ask["environment"],
            resource=ask["resource"],
            ttl=parse_span(ttl, "ttl", Reason.TTL_INVALID) if isinstance(ttl, str) else ttl,
            parameters=ask.get("parameters", {}),
            step=ask.get("step", ""),
            intent=ask.get("intent", ""),
            reason=ask.get("reason", ""),
            ticket=ask.get("ticket", ""),
            prompt=ask.get("prompt", ""),
            tool_call=ask.get("tool_call", ""),
            plan=ask.get("plan", ""),
            plan_id=ask.get("plan_id", ""),
            delegation_id=ask.get("delegation_id", ""),
            subject_public_key=ask.get("subject_public_key", ""),
            wrap=parse_span(wrap, "wrap", Reason.WRAP_TTL_INVALID) if isinstance(wrap, str) else wrap,
        )

    async def register_plan(
        self,
        text: str,
        actions: Sequence[PlannedAction],
        *,
        valid_for: timedelta | str | None = None,
        request_id: str = "",
    ) -> Plan:
        """Register what is to be done under this task; see :meth:`AsyncClient.register_plan`."""
        return await self._client.register_plan(self.id, text, actions, valid_for=valid_for, request_id=request_id)

    async def plans(self) -> tuple[Plan, ...]:
        """The plans of this task, oldest first."""
        return await self._client.plans(self.id)

    async def delegations(self) -> tuple[Delegation, ...]:
        """What we gave and were given on this task, oldest first."""
        return await self._client.delegations(self.id)

    async def __aenter__(self) -> Self:
        self._facts = await self._client.start(self._request)
        if self._grace is not None:
            self._hold = self._client.hold(self.id, grace=self._grace)
            try:
                await self._hold.__aenter__()
            except BaseException:
                await uninterrupted(self._complete(raising=False))
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An exception on its way must not be replaced by one of tidying up.
        await uninterrupted(self._complete(raising=error is None))

    async def _complete(self, *, raising: bool) -> None:
        try:
            self.outcome = await self._completion()
            for lease in self.outcome.may_be_alive:
                _log.warning("lease %s of completed task %s is still %s", lease.id, self.id, lease.state)
        except BrokerError as error:
            if raising:
                raise
            _log.warning("task %s could not be completed: %s", self.id, error)
        finally:
            # Not before: a task let go of would end by itself, for another cause.
            if self._hold is not None:
                await self._hold.release()

    async def _completion(self) -> Completion:
        try:
            report = TaskReport(tuple(self._made), tuple(self._changed))
            return await self._client.complete_task(self.id, wait=self._wait, report=report or None)
        except WrongState as error:
            if error.reason is not Reason.TASK_ENDED:
                raise
            # Its deadline or a dropped hold was faster.
            return Completion(await self._client.get_task(self.id), await self._client.leases(task_id=self.id))


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which runs to its end although the caller is cancelled; then that goes on.

    For work with deadlines of its own.
    """
    running = asyncio.ensure_future(work)
    interruption: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as cancelled:
            interruption = cancelled
    if interruption is not None:
        await asyncio.gather(running, return_exceptions=True)
        raise interruption
    return running.result()
