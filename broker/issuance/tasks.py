"""Tasks: starting, holding and ending the units of work that bound every lease."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.audit.report import TaskReport
from broker.errors import Denied, InvalidInput, NotFound, Reason, WrongState
from broker.issuance.behalf import Proofs, behind
from broker.issuance.caller import Caller
from broker.issuance.ending import Ending
from broker.issuance.gate import Gate
from broker.issuance.stopped import check_suspended
from broker.issuance.waiting import until
from broker.ports.clock import Clock, Rng
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause, Lease
from broker.ports.tasks import NewTask, Task, TaskState
from broker.scope.blank import refuse_blank
from broker.scope.canonical import canonical_json
from broker.secret import Secret

TASK_PREFIX = "task-"
DEFAULT_GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class TaskOrder:
    """What an agent says to start a task. ``max_duration`` is None where it said nothing."""

    request_id: str
    purpose: str
    max_duration: timedelta | None
    participants: Sequence[str]
    ticket: str
    sponsor: str
    task_type: str = ""
    on_behalf_of_token: Secret | None = None  # the ID token of whom it acts for

    def digest(self, human: str = "") -> str:
        """SHA-256 (hex) of everything said, for idempotency; ``human`` is whom the token proved."""
        # Only where it was said: an order of before there were types has the digest it had.
        typed = {"task_type": self.task_type} if self.task_type else {}
        typed |= {"on_behalf_of": human} if human else {}
        return hashlib.sha256(
            canonical_json(
                {
                    **typed,
                    "request_id": self.request_id,
                    "purpose": self.purpose,
                    "max_duration_us": None
                    if self.max_duration is None
                    else self.max_duration // timedelta(microseconds=1),
                    "participants": sorted(self.participants),
                    "ticket": self.ticket,
                    "sponsor": self.sponsor,
                }
            )
        ).hexdigest()


@dataclass(frozen=True, slots=True)
class Held:
    """One beat of a hold."""

    task: Task
    until: datetime | None


class TaskDesk:
    """Everything agents do with tasks."""

    def __init__(
        self,
        store: LeaseStore,
        kick: Callable[[str], None],
        gate: Gate,
        clock: Clock,
        rng: Rng,
        *,
        default_duration: timedelta,
        max_duration: timedelta,
        proofs: Proofs | None = None,
    ) -> None:
        """``proofs`` verifies for whom a task acts; None: that is not taken."""
        self._store = store
        self._ending = Ending(store, kick, clock)
        self._gate = gate
        self._clock = clock
        self._rng = rng
        self._default = default_duration
        self._max = max_duration
        self._proofs = proofs

    async def start(self, caller: Caller, order: TaskOrder) -> Task:
        """A new task, or the one that this request id already started."""
        self._gate.check(caller.now)
        await check_suspended(self._store, caller)
        refuse_blank("purpose", order.purpose)
        duration = self._default if order.max_duration is None else order.max_duration
        if not timedelta(seconds=1) <= duration <= self._max:
            raise InvalidInput(
                Reason.FIELD_INVALID,
                f"max_duration is {duration.total_seconds():g} s; allowed is 1 s to {self._max.total_seconds():g} s.",
                hint="Ask for a shorter task, or leave max_duration out.",
                metadata={"field": "max_duration"},
            )
        token = order.on_behalf_of_token
        acts_for = None if token is None else behind(caller, order.request_id, token, self._proofs)
        human = None if acts_for is None else acts_for.human
        return await self._store.start_task(
            NewTask(
                tenant=caller.tenant,
                id=TASK_PREFIX + self._rng.id(),
                request_id=order.request_id,
                request_digest=order.digest("" if human is None else human.id),
                creator=caller.id,
                participants=_participants(caller, order.participants),
                purpose=order.purpose,
                ticket=order.ticket,
                sponsor=order.sponsor,
                created_at=caller.now,
                deadline=caller.now + duration,
                max_open=caller.agent.quotas.open_tasks,
                task_type=order.task_type,
                on_behalf_of=human,
                id_token="" if acts_for is None else acts_for.token_digest,
            )
        )

    async def get(self, caller: Caller, task_id: str) -> Task:
        """The task, for those who have a part in it."""
        try:
            task = await self._store.get_task(caller.tenant, task_id)
        except NotFound:
            # In our words, not the store's: a difference would tell which ids are real.
            raise _not_found(task_id) from None
        if caller.id not in task.participants:
            raise _not_found(task_id)
        return task

    async def complete(
        self, caller: Caller, task_id: str, wait: timedelta, report: TaskReport | None = None
    ) -> tuple[Task, Sequence[Lease]]:
        """End the task and its leases; their states after at most ``wait``. Repeating it is harmless.

        A second ``report``, with other content, is refused (Conflict TASK_REPORTED); the task ends all the same.
        """
        await self._own(caller, task_id)
        return await self._ending.task(caller.tenant, task_id, EndCause.COMPLETED, caller.id, wait, report)

    async def hold(self, caller: Caller, task_id: str, grace: timedelta | None) -> AsyncIterator[Held]:
        """Keep the task held for as long as this is iterated: one beat each third of the grace time.

        What ends the task when its holder is gone is the ``hold_until`` in the ledger, so it works
        also where the broker died with the stream.
        """
        await self._own(caller, task_id)
        grace = DEFAULT_GRACE if grace is None else grace

        async def ended() -> bool:
            # A suspension is an event of the ledger like the task's end, so that it cuts the hold at once.
            await check_suspended(self._store, replace(caller, now=self._clock.now()), task_id)
            return (await self._store.get_task(caller.tenant, task_id)).state is not TaskState.OPEN

        while True:
            now = self._clock.now()
            await check_suspended(self._store, replace(caller, now=now), task_id)
            try:
                task = await self._store.hold_task(caller.tenant, task_id, grace, now + grace, now)
            except WrongState:
                yield Held(await self._store.get_task(caller.tenant, task_id), None)
                return
            yield Held(task, task.hold_until)
            await until(ended, self._store, grace.total_seconds() / 3)

    async def _own(self, caller: Caller, task_id: str) -> None:
        task = await self.get(caller, task_id)
        if task.creator != caller.id:
            raise Denied(
                Reason.NOT_TASK_CREATOR,
                f"task {task_id} was started by another agent.",
                hint="Only its creator completes or holds a task; revoke your own leases instead.",
                metadata={"taskId": task_id},
            )


def _participants(caller: Caller, named: Sequence[str]) -> frozenset[str]:
    """The creator and the named agents, each registered: a typo must not open a task to nobody."""
    for text in named:
        caller.deploy.registry.named(text, "participants")
    return frozenset({caller.id, *named})


def _not_found(task_id: str) -> NotFound:
    return NotFound(
        Reason.TASK_NOT_FOUND,
        f"there is no task {task_id!a} that you have a part in.",
        hint="StartTask gives a task's id.",
        metadata={"taskId": task_id},
    )
