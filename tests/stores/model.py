"""The ledger as a page of plain Python: what the store must agree with, without a database.

Times are whole seconds after T0. One tenant, one connector. Written from the port's docstrings, not from
the store's code; it knows nothing of rows, MACs, transactions or audit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.errors import Reason
from broker.lease.machine import TERMINAL, State
from broker.ports.leases import EndCause

LIVE = 60  # a credential's TTL
ISSUE = 10  # allowance of an upstream call
CONFIRM = 30
UNENDED = (State.ISSUING, State.ACTIVE)
UNDELIVERED = {
    EndCause.NEVER_ISSUED,
    EndCause.OUTCOME_UNKNOWN,
    EndCause.GRANT_MISMATCH,
    EndCause.ABANDONED,
    EndCause.UNCONFIRMED,
    EndCause.REPLACED,
}


class Refused(Exception):
    """What the store must refuse, and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class ModelTask:
    deadline: int
    hold_until: int | None = None
    open: bool = True

    def over(self, now: int) -> EndCause | None:
        """Why nothing may be granted under it any more (COMPLETED stands for closed)."""
        if not self.open:
            return EndCause.COMPLETED
        if self.hold_until is not None and now >= self.hold_until < self.deadline:
            return EndCause.HOLD_DROPPED
        return EndCause.TASK_DEADLINE if now >= self.deadline else None


@dataclass
class ModelAttempt:
    id: str
    lease: ModelLease
    issue_deadline: int
    expires: int
    state: State = State.ISSUING
    cause: EndCause | None = None
    retry_at: int = 0
    owed_since: int = 0
    epoch: int = 1
    failures: int = 0

    @property
    def due(self) -> int | None:
        if self.state in TERMINAL:
            return None
        if self.state is State.ISSUING:
            return min(self.issue_deadline, self.expires)
        if self.state is State.ACTIVE:
            confirm_by = self.lease.confirm_by
            return self.expires if confirm_by is None else min(confirm_by, self.expires)
        return self.retry_at

    def end(self, cause: EndCause, now: int, retry_at: int | None = None) -> bool:
        if self.state not in UNENDED:
            return False
        self.state, self.cause = State.REVOKING, cause
        self.retry_at = now if retry_at is None else retry_at
        self.owed_since = now
        return True


@dataclass
class ModelLease:
    id: str
    task: str
    request: str
    expires: int
    attempts: list[ModelAttempt] = field(default_factory=list)
    confirm_by: int | None = None
    confirmed: bool = False  # an attempt of it, ever

    @property
    def state(self) -> State:
        states = {attempt.state for attempt in self.attempts}
        order = (State.ACTIVE, State.ISSUING, State.REVOKING, State.EXPIRED, State.REVOKED, State.VOID)
        return next(state for state in order if state in states)

    @property
    def cause(self) -> EndCause | None:
        return None if self.state in UNENDED else self.attempts[-1].cause


class Model:
    """All tasks and leases."""

    def __init__(self) -> None:
        self.tasks: dict[str, ModelTask] = {}
        self.leases: list[ModelLease] = []

    def attempts(self) -> list[ModelAttempt]:
        return [attempt for lease in self.leases for attempt in lease.attempts]

    def open(self, name: str, task: str, request: str, now: int) -> tuple[str, list[str]]:
        """(lease id, attempts that must end first)."""
        if self.tasks[task].over(now):
            raise Refused(Reason.TASK_ENDED)
        if now + LIVE > self.tasks[task].deadline:
            raise Refused(Reason.TASK_ENDS_TOO_SOON)
        known = [lease for lease in self.leases if lease.request == request]
        lease = known[-1] if known else None
        if lease is not None and lease.task != task:
            raise Refused(Reason.REQUEST_ID_REUSED)
        if lease is not None and not (lease.state in TERMINAL and lease.cause in UNDELIVERED and not lease.confirmed):
            living = lease.state in UNENDED or (lease.state is State.REVOKING and lease.cause in UNDELIVERED)
            if not living or now >= lease.expires:
                raise Refused(Reason.LEASE_ENDED)
            if any(attempt.state is State.ISSUING and now < attempt.issue_deadline for attempt in lease.attempts):
                raise Refused(Reason.REQUEST_IN_FLIGHT)
        else:
            lease = ModelLease(f"lease-{name}", task, request, now + LIVE)
            self.leases.append(lease)
        for attempt in lease.attempts:
            attempt.end(EndCause.REPLACED, now)
        previous = [attempt.id for attempt in lease.attempts if attempt.state not in TERMINAL]
        lease.confirm_by = None
        expires = min(now + LIVE, lease.expires)
        lease.attempts.append(ModelAttempt(f"attempt-{name}", lease, now + ISSUE, expires))
        return lease.id, previous

    def activate(self, attempt: ModelAttempt, epoch: int, now: int) -> None:
        if attempt.state is not State.ISSUING or attempt.epoch != epoch:
            raise Refused(Reason.LEASE_ENDED)
        cause = self.tasks[attempt.lease.task].over(now)
        if cause is not None:
            attempt.end(cause, now)
            raise Refused(Reason.TASK_ENDED)
        if now >= attempt.expires:
            attempt.end(EndCause.EXPIRED, now)
            raise Refused(Reason.LEASE_ENDED)
        attempt.state = State.ACTIVE
        attempt.lease.confirm_by = now + CONFIRM

    def confirm(self, attempt: ModelAttempt, now: int) -> None:
        due = attempt.due
        if attempt.state is not State.ACTIVE or due is None or now >= due:
            raise Refused(Reason.LEASE_ENDED)
        attempt.lease.confirm_by, attempt.lease.confirmed = None, True

    def end_task(self, task: str, cause: EndCause, now: int) -> None:
        if self.tasks[task].open:
            self.tasks[task].open = False
            for lease in self.leases:
                if lease.task == task:
                    self.end_lease(lease, cause, now)

    def end_lease(self, lease: ModelLease, cause: EndCause, now: int) -> int:
        return sum(attempt.end(cause, now) for attempt in lease.attempts)

    def end_due_tasks(self, now: int) -> int:
        due = [(name, task.over(now)) for name, task in self.tasks.items() if task.open]
        ended = [(name, cause) for name, cause in due if cause is not None]
        for name, cause in ended:
            self.end_task(name, cause, now)
        return len(ended)

    @staticmethod
    def _overdue_cause(attempt: ModelAttempt, now: int) -> EndCause:
        if attempt.state is State.ISSUING:
            return EndCause.OUTCOME_UNKNOWN
        return EndCause.EXPIRED if now >= attempt.expires else EndCause.UNCONFIRMED

    def due(self, now: int) -> list[ModelAttempt]:
        return [attempt for attempt in self.attempts() if attempt.due is not None and attempt.due <= now]

    def claim(self, attempt: ModelAttempt, now: int, until: int) -> None:
        attempt.end(self._overdue_cause(attempt, now), now)
        attempt.retry_at = until
        attempt.epoch += 1

    def recover(self, now: int) -> int:
        found = [attempt for attempt in self.attempts() if attempt.state is State.ISSUING]
        found += [attempt for attempt in self.due(now) if attempt.state is State.ACTIVE]
        for attempt in found:
            attempt.end(self._overdue_cause(attempt, now), now)
            attempt.epoch += 1
        for attempt in self.attempts():
            claimed = attempt.owed_since <= now < attempt.retry_at and not attempt.failures
            if attempt.state is State.REVOKING and claimed:
                attempt.retry_at, attempt.epoch = now, attempt.epoch + 1
        return len(found)
