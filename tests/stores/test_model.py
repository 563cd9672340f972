"""The store against the model: any order of operations leaves both in the same state."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.audit.record import decode
from broker.errors import BrokerError
from broker.lease.machine import TERMINAL, TRANSITIONS, Event, State
from broker.ports.leases import Attempt, EndCause, Lease, Selector
from broker.ports.tasks import TaskLimits, TaskState
from broker.stores.audit_reader import AuditReader
from broker.stores.revoke_ops import PATIENCE
from broker.stores.sqlite import SqliteStore
from tests.stores.make import ALICE, T0, TENANT, Keys, at, intent, new_task
from tests.stores.model import Model, ModelAttempt, ModelTask, Refused

pytestmark = pytest.mark.long
T = TypeVar("T")
ENOUGH = 1_000
# The model knows of no limits: ten retries of one lease are rare, and happen.
UNLIMITED = TaskLimits(attempts_per_lease=ENOUGH)


class StoreAgainstModel(RuleBasedStateMachine):
    """Every rule does one thing to both; the invariant compares all that can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.names = 0
        self.model = Model()
        self.claims: list[Attempt] = []
        self.told = 0  # records of the trail that were looked at
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.store = self.run(SqliteStore.open(self.directory / "ledger.sqlite3", Keys(), "w"))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        # Not Runner.run: it exchanges the handler of SIGINT each time, which takes longer than most calls.
        return self.runner.get_loop().run_until_complete(call)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        with AuditReader(self.directory / "ledger.sqlite3") as audit:
            assert list(audit.verify(Keys().find)) == []
            records = list(audit.records())
        assert [record.seq for record in records[: self.told]] == list(range(1, self.told + 1))
        self._replay(records)
        shutil.rmtree(self.directory)

    def _replay(self, records: list[Any]) -> None:
        """The audit trail alone tells the state of every attempt: nothing changed without a record."""
        states: dict[str, str] = {}
        for record in records:
            if record.type.startswith("lease.") and record.type != "lease.stuck":
                word = record.type.removeprefix("lease.").upper()
                states[record.attempt_id] = {"INTENT": "ISSUING", "ISSUED": "ACTIVE"}.get(word, word)
        assert states == {attempt.id: attempt.state.value for attempt in self.model.attempts()}

    def same(self, expected: Any, call: Coroutine[Any, Any, T]) -> T | None:
        """Run ``call``; it is refused exactly if (and why) the model refuses."""
        reason = None
        try:
            expected()
        except Refused as refusal:
            reason = refusal.reason
        try:
            result = self.run(call)
        except BrokerError as error:
            assert error.reason is reason, (error, reason)
            return None
        assert reason is None, f"the model refuses: {reason}"
        return result

    def begin(self, seconds: int) -> None:
        name, deadline = f"task-{len(self.model.tasks)}", self.now + seconds
        self.model.tasks[name] = ModelTask(deadline)
        self.run(self.store.start_task(new_task(name, created_at=at(self.now), deadline=at(deadline))))

    @initialize()
    def start(self) -> None:
        """Two tasks, and something alive under the first: most rules find work from the first step on."""
        self.begin(600)
        self.begin(100)
        for request in ("a", "b"):
            self.ask("task-0", f"task-0/{request}")
        first = self.model.leases[0].attempts[0]
        self.model.activate(first, 1, self.now)
        self.run(self.store.activate(TENANT, first.id, 1, at(first.expires), at(self.now + 30), {}, at(self.now)))

    @precondition(lambda self: not all(task.over(self.now) is None for task in [*self.model.tasks.values()][-2:]))
    @rule(seconds=st.sampled_from([100, 600]))
    def start_task(self, seconds: int) -> None:
        self.begin(seconds)

    def recent(self) -> list[str]:
        return [*self.model.tasks][-2:]

    @rule(seconds=st.sampled_from([1, 9, 10, 30, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(latest=st.booleans(), request=st.sampled_from(["{task}/a", "{task}/b", "shared"]))
    def open_intent(self, latest: bool, request: str) -> None:
        task = self.recent()[latest]
        self.ask(task, request.format(task=task))

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.model.leases[-4:]), "lease")
        self.ask(lease.task, lease.request)

    def ask(self, task: str, request: str) -> None:
        self.names += 1
        name = str(self.names)
        again: dict[str, Any] = {"request_id": request, "request_digest": f"{task}/{request}"}
        asked = intent(name, task=task, now=self.now, limits=UNLIMITED, **again)
        told: list[tuple[str, list[str]]] = []
        opened = self.same(
            lambda: told.append(self.model.open(name, task, request, self.now)), self.store.open_intent(asked)
        )
        if opened is not None:
            previous = [attempt.id for attempt in opened.previous]
            assert [(opened.lease_id, previous)] == told
            self.claims += opened.previous
            self.claims = self.claims[-6:]

    def attempts(self, *states: State) -> list[ModelAttempt]:
        return [attempt for attempt in self.model.attempts() if not states or attempt.state in states]

    @precondition(lambda self: self.attempts())
    @rule(data=st.data(), stale=st.booleans())
    def activate(self, data: st.DataObject, stale: bool) -> None:
        attempt = data.draw(st.sampled_from(self.attempts(State.ISSUING) or self.attempts()), "attempt")
        epoch = attempt.epoch + stale
        confirm_by = at(self.now + 30)
        call = self.store.activate(TENANT, attempt.id, epoch, at(attempt.expires + 5), confirm_by, {}, at(self.now))
        self.same(lambda: self.model.activate(attempt, epoch, self.now), call)

    @precondition(lambda self: self.attempts())
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.attempts(State.ACTIVE) or self.attempts()), "attempt")
        call = self.store.confirm_delivery(TENANT, attempt.lease.id, ALICE, attempt.id, at(self.now))
        self.same(lambda: self.model.confirm(attempt, self.now), call)

    @precondition(lambda self: self.attempts())
    @rule(
        data=st.data(),
        event=st.sampled_from([Event.END, Event.NEVER_ISSUED]),
        cause=st.sampled_from([EndCause.OUTCOME_UNKNOWN, EndCause.ABANDONED]),
    )
    def end_attempt(self, data: st.DataObject, event: Event, cause: EndCause) -> None:
        attempt = data.draw(st.sampled_from(self.attempts()), "attempt")
        state = self.run(self.store.end_attempt(TENANT, attempt.id, event, cause, at(self.now)))
        if event is Event.END:
            attempt.end(cause, self.now)
        elif (attempt.state, event) in TRANSITIONS:
            attempt.state = State.VOID
            attempt.cause = attempt.cause or cause
        assert state is attempt.state

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), cause=st.sampled_from([EndCause.RELEASED, EndCause.UNCONFIRMED]))
    def end_leases(self, data: st.DataObject, cause: EndCause) -> None:
        lease = data.draw(st.sampled_from(self.model.leases), "lease")
        ended = self.run(self.store.end_leases(Selector(TENANT, lease_id=lease.id), cause, ALICE, at(self.now)))
        assert ended == self.model.end_lease(lease, cause, self.now)

    @rule(latest=st.booleans())
    def complete_task(self, latest: bool) -> None:
        task = self.recent()[latest]
        self.model.end_task(task, EndCause.COMPLETED, self.now)
        call = self.store.end_task(TENANT, task, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(self.now))
        assert self.run(call).state is not TaskState.OPEN

    @precondition(lambda self: self.model.tasks[self.recent()[1]].over(self.now) is None)
    @rule(seconds=st.integers(1, 90))
    def hold_task(self, seconds: int) -> None:
        until, task = self.now + seconds, self.recent()[1]
        self.model.tasks[task].hold_until = max(until, self.model.tasks[task].hold_until or 0)
        self.run(self.store.hold_task(TENANT, task, timedelta(seconds=seconds), at(until), at(self.now)))

    @rule()
    def end_due_tasks(self) -> None:
        assert self.run(self.store.end_due_tasks(at(self.now), ENOUGH)) == self.model.end_due_tasks(self.now)

    @rule(limit=st.sampled_from([1, 2, ENOUGH]))
    def claim(self, limit: int) -> None:
        due = {attempt.id: attempt for attempt in self.model.due(self.now)}
        urgencies = sorted(self.urgency(attempt) for attempt in due.values())
        claimed = self.run(self.store.claim_due("bao", at(self.now), limit, timedelta(seconds=30)))
        assert len(claimed) == min(limit, len(due))
        assert [self.urgency(due[attempt.id]) for attempt in claimed] == urgencies[: len(claimed)]
        for attempt in claimed:
            self.model.claim(due[attempt.id], self.now, self.now + 30)
            assert attempt.epoch == due[attempt.id].epoch
        self.claims = [*self.claims, *claimed][-6:]

    def urgency(self, attempt: ModelAttempt) -> int:
        """What ends soonest by itself is taken first; before it, what has been due for long, in its order."""
        assert attempt.due is not None
        return attempt.due if attempt.due <= self.now - PATIENCE.total_seconds() else attempt.expires

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        event=st.sampled_from([None, Event.REVOKE_CONFIRMED, Event.TIME_ENDED, Event.NEVER_ISSUED]),
        error=st.sampled_from(["", "down"]),
        wait=st.integers(1, 20),
    )
    def record(self, data: st.DataObject, event: Event | None, error: str, wait: int) -> None:
        claim = data.draw(st.sampled_from(self.claims), "claim")
        attempt = next(attempt for attempt in self.model.attempts() if attempt.id == claim.id)
        due = at(self.now + wait)
        recorded = self.run(self.store.record_revocation(claim, event, at(self.now), due, error, False))
        assert recorded is (claim.epoch == attempt.epoch and attempt.state not in TERMINAL)
        if not recorded:
            return
        if event is None:
            attempt.retry_at = self.now + wait
            attempt.failures = attempt.failures + 1 if error else 0
            if not error:
                attempt.owed_since = attempt.retry_at
        else:
            attempt.state, attempt.failures = TRANSITIONS[State.REVOKING, event], 0

    @rule()
    def recover(self) -> None:
        assert self.run(self.store.recover(at(self.now))) == self.model.recover(self.now)

    @precondition(lambda self: self.names % 5 == 0)
    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store = self.run(SqliteStore.open(self.directory / "ledger.sqlite3", Keys(), "w"))

    async def everything(self) -> tuple[dict[str, Lease], dict[str, tuple[Attempt, ...]]]:
        """Every lease, and every lease's living attempts, by the lease's id."""
        leases = {lease.id: lease for task in self.model.tasks for lease in await self.store.task_leases(TENANT, task)}
        return leases, {lease: tuple(await self.store.living_attempts(TENANT, lease)) for lease in leases}

    @invariant()
    def both_say_the_same(self) -> None:
        stored, living_attempts = self.run(self.everything())
        assert stored.keys() == {lease.id for lease in self.model.leases}
        for model in self.model.leases:
            lease = stored[model.id]
            dues = [attempt.due for attempt in model.attempts if attempt.due is not None]
            living = [attempt for attempt in model.attempts if attempt.state not in TERMINAL]
            assert (lease.state, lease.cause) == (model.state, model.cause)
            assert (lease.attempt_id, lease.attempts) == (model.attempts[-1].id, len(model.attempts))
            assert lease.next_due == (at(min(dues)) if dues else None)
            assert (lease.next_due is None) is (lease.state in TERMINAL)  # what may be alive has a due time
            assert lease.failures == max((attempt.failures for attempt in living), default=0)
            assert (lease.ended_at is not None) is (model.state in TERMINAL)
            confirm_by = model.confirm_by if model.state is State.ACTIVE else None
            assert lease.confirm_by == (None if confirm_by is None else at(confirm_by))
            assert (lease.confirmed_at is not None) is model.confirmed
            assert lease.expires_at >= lease.created_at > T0 - timedelta(seconds=1)
            found = living_attempts[model.id]
            told = {a.id: (a.state, a.cause, a.epoch, a.expires_at, a.due_at) for a in found}
            assert told == {a.id: (a.state, a.cause, a.epoch, at(a.expires), at(a.due or 0)) for a in living}
            # Never two live credentials of one lease.
            assert sum(attempt.state is State.ACTIVE for attempt in found) <= 1

    @invariant()
    def the_trail_is_without_gaps(self) -> None:
        bodies = self.run(self.store.audit_since(self.told, 100_000))
        first, self.told = self.told + 1, self.told + len(bodies)
        assert [decode(body).seq for body in bodies] == list(range(first, self.told + 1))


TestStoreAgainstModel = pytest.mark.slow(StoreAgainstModel.TestCase)
TestStoreAgainstModel.settings = settings(
    max_examples=50, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
