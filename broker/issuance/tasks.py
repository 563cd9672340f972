"""Tasks: starting, holding and ending the units of work that bound every lease."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.audit.report import TaskReport
from broker.errors import Denied, InvalidInput, NotFound, Reason, WrongState
from broker.identity.spiffe_id import SpiffeId
from broker.issuance.caller import Caller
from broker.issuance.gate import Gate
from broker.issuance.stopped import check_suspended
from broker.issuance.waiting import only_time_ends, until
from broker.lease.machine import TERMINAL
from broker.ports import Clock, EndCause, Lease, LeaseStore, NewTask, Rng, Task, TaskState
from broker.scope.canonical import canonical_json

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

    def digest(self) -> str:
        """SHA-256 (hex) of everything said, for idempotency."""
        # Only where it was said: an order of before there were types has the digest it had.
        typed = {"task_type": self.task_type} if self.task_type else {}
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
    ) -> None:
        self._store = store
        self._kick = kick
        self._gate = gate
        self._clock = clock
        self._rng = rng
        self._default = default_duration
        self._max = max_duration

    async def start(self, caller: Caller, order: TaskOrder) -> Task:
        """A new task, or the one that this request id already started."""
        self._gate.check(caller.now)
        await check_suspended(self._store, caller)
        duration = self._default if order.max_duration is None else order.max_duration
        if not timedelta(seconds=1) <= duration <= self._max:
            raise InvalidInput(
                Reason.FIELD_INVALID,
                f"max_duration is {duration.total_seconds():g} s; allowed is 1 s to {self._max.total_seconds():g} s.",
                hint="Ask for a shorter task, or leave max_duration out.",
                metadata={"field": "max_duration"},
            )
        return await self._store.start_task(
            NewTask(
                tenant=caller.tenant,
                id=TASK_PREFIX + self._rng.id(),
                request_id=order.request_id,
                request_digest=order.digest(),
                creator=caller.id,
                participants=_participants(caller, order.participants),
                purpose=order.purpose,
                ticket=order.ticket,
                sponsor=order.sponsor,
                created_at=caller.now,
                deadline=caller.now + duration,
                max_open=caller.agent.quotas.open_tasks,
                task_type=order.task_type,
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
        try:
            task = await self._store.end_task(
                caller.tenant, task_id, TaskState.COMPLETED, EndCause.COMPLETED, caller.id, self._clock.now(), report
            )
        finally:  # also where only the report is refused
            leases = await self._store.task_leases(caller.tenant, task_id)
            for connector in {lease.connector for lease in leases if lease.state not in TERMINAL}:
                self._kick(connector)

        async def all_ended() -> bool:
            nonlocal leases
            leases = await self._store.task_leases(caller.tenant, task_id)
            return all(lease.state in TERMINAL or only_time_ends(lease) for lease in leases)

        await until(all_ended, self._store, wait.total_seconds())
        return task, leases

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
            yield Held(task, now + grace)
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
        caller.deploy.registry.find(SpiffeId.parse(text))
    return frozenset({caller.id, *named})


def _not_found(task_id: str) -> NotFound:
    return NotFound(
        Reason.TASK_NOT_FOUND,
        f"there is no task {task_id!a} that you have a part in.",
        hint="StartTask gives a task's id.",
        metadata={"taskId": task_id},
    )
