"""What must be true after every commit and every change upstream, whatever went wrong before (faults.md, I1-I14)."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from broker.lease.credential import ContractClass
from broker.lease.deadlines import no_late_create_after
from broker.lease.machine import TERMINAL, State
from broker.ports.clock import Clock
from broker.ports.leases import EndCause
from broker.stores.high_water import REFRESH_MS
from broker.stores.queries import SQL
from broker.stores.times import from_ms
from broker.suspension.suspension import Kind
from broker.timekeeping import TOLERANCE_MS
from tests.simulation.ages import Ages
from tests.simulation.approvals import Approvals
from tests.simulation.broken import Broken
from tests.simulation.broker import ISSUE_TIMEOUT
from tests.simulation.hearing import Hearing
from tests.simulation.leaks import look_at
from tests.simulation.machine import Machine
from tests.simulation.process import Process
from tests.simulation.restored import Known, Recoveries, Told
from tests.simulation.truth import Made, Truth, Try

_KINDS = {Kind.EVERYTHING.value, Kind.AGENT.value}
_STATES = {
    "lease.issued": State.ACTIVE,
    "lease.void": State.VOID,
    "lease.revoking": State.REVOKING,
    "lease.revoked": State.REVOKED,
    "lease.expired": State.EXPIRED,
}
_RACES = {
    EndCause.SUSPENDED: "suspended",
    EndCause.PARENT_ENDED: "its whole ended",
    EndCause.COMPLETED: "its task completed",
}

# What was claimed is at work some seconds later, on a slow disk; its claim lasts for 30.
_CLAIM_HOLDS = timedelta(seconds=15)
_MARK_IS_OLD = timedelta(milliseconds=REFRESH_MS)


@dataclass
class Checks:
    """Reads the trail as it grows, from the ledger's file, and holds it against the truth."""

    clock: Clock
    told: Counter[str]
    fail: Callable[[Broken], None]
    machine: Callable[[str], Machine | None]  # that the process of this name runs on, while it does
    owners: Mapping[str, str]  # of each agent, by SPIFFE ID, its owner's id
    executors: frozenset[str]  # SPIFFE IDs
    truth: Truth = field(init=False)
    ledger: Told = field(default_factory=Told)
    recoveries: Recoveries = field(init=False)
    approvals: Approvals = field(init=False)
    before: dict[str, Known] = field(default_factory=dict)  # what any ledger that was there has known last
    excused: set[str] = field(default_factory=set)  # what was said to be over by a clock that nobody could doubt
    connection: sqlite3.Connection | None = None
    ages: Ages = field(default_factory=Ages)
    hearing: Hearing = field(init=False)

    def __post_init__(self) -> None:
        self.truth = Truth(self.clock, self.made, self.trying)
        self.ledger.plans.executors = self.executors
        self.hearing = Hearing(self.clock, self.machine)
        self.recoveries = Recoveries(self.told)
        self.approvals = Approvals(self.told, self.owners)

    def told_until_now(self) -> Told:
        """What a backup has that is taken now."""
        return self.ledger.copy()

    def put_back(self, told: Told, running: frozenset[str]) -> None:
        """The ledger is the one that had told this, under these processes. What it has forgotten was, all the same."""
        forgotten = self.ledger.attempts.keys() - told.attempts.keys()
        self.told["forgotten by a restore, and alive"] += sum(map(self.truth.usable, forgotten))
        self.before |= self.ledger.attempts
        self.ledger = told.copy()
        self.ages.put_back(self.ledger.attempts.values())
        self.recoveries.put_back(running, self.clock.now())

    def read(self) -> list[dict[str, Any]]:
        """What was committed since the last time, checked."""
        assert self.connection is not None
        rows = self.connection.execute(
            "SELECT seq, body FROM audit WHERE seq > ? ORDER BY seq", (self.ledger.seen,)
        ).fetchall()
        records = []
        for seq, body in rows:
            self.ledger.seen = seq
            look_at("the trail", body)
            record = json.loads(body)
            self.ledger.latest = max(self.ledger.latest, from_ms(record["at_ms"]))
            records.append(record)
            self._take(record)
        self.ledger.glass.look()
        self.ledger.plans.look()
        self._look_at_parts()
        self._look_at_what_is_due()
        self.hearing.look(self.connection, self.recoveries.since)
        self.ages.look(self.ledger.attempts, self.clock.now())
        return records

    def _look_at_what_is_due(self) -> None:
        """Between two commits: what lives will be looked at, when its time is over at the latest."""
        assert self.connection is not None
        for _, attempt, detail in self.connection.execute(SQL["broken_bounded_life"]):
            raise Broken(f"I14: {attempt}: {detail}")

    def _look_at_parts(self) -> None:
        """Between two commits: what was handed on lives no longer, and no wider, than what it is a part of."""
        for lease in sorted(self.ledger.parts):
            whole = self.ledger.part_of[lease]
            living = [self.ledger.attempts[each] for each in self.ledger.of_lease[lease]]
            living = [each for each in living if each.state in (State.ISSUING, State.ACTIVE)]
            if not living:
                self.ledger.parts.discard(lease)
                continue
            wholes = [self.ledger.attempts[each] for each in self.ledger.of_lease[whole]]
            if not any(each.state is State.ACTIVE for each in wholes):
                raise Broken(f"I4: {lease} lives on, and {whole}, which it is a part of, has ended")
            if max(each.expires_at for each in living) > max(each.expires_at for each in wholes):
                raise Broken(f"I4: {lease} is longer than {whole}, which it is a part of")

    def _take(self, record: dict[str, Any]) -> None:
        kind, data = record["type"], record["data"]
        self.approvals.take(record)
        if kind == "lease.intent":
            self._intended(record)
        elif kind in _STATES:
            self._moved(record, _STATES[kind])
        elif kind in ("task.completed", "task.ended"):
            self.ledger.tasks_over.add(record["task_id"])
        elif kind == "suspension.suspended":
            self.ledger.suspended[data["suspension"]] = data
        elif kind in ("suspension.resumed", "suspension.expired"):
            self.ledger.suspended.pop(data["suspension"], None)
        elif kind == "upstream.unknown_found":
            self._swept(data)
        elif kind == "delegation.used":
            self.ledger.part_of[data["used_for"]] = data["part_of"]
            self.ledger.parts.add(data["used_for"])
            self.ledger.plans.handed_on(record)
        elif kind.startswith("plan.") or kind == "delivery.confirmed":
            self.ledger.plans.take(record, self.told, self._is_over)
        elif kind.startswith("break_glass."):
            self._of_an_emergency(record, kind.removeprefix("break_glass."))
        elif kind.startswith("recovery."):
            self.recoveries.take(record, self.ledger.attempts)
        elif kind == "clock.doubted":
            self._doubted(record)

    def _intended(self, record: dict[str, Any]) -> None:
        attempt, emergency = record["attempt_id"], "break_glass" in record["data"]
        if "plan_id" in record["data"]:
            self.ledger.plans.intended(record)
        if emergency:
            self.ledger.glass.intended(record)
        else:
            self.recoveries.intended(attempt, record["writer"])
        if record["task_id"] in self.ledger.tasks_over:
            raise Broken(f"I2: {attempt} was intended on a task that is over")
        if covering := self._covering(record):
            raise Broken(f"I7: {attempt} was intended under {covering}")
        if attempt in self.truth.ever:
            raise Broken(f"I2: {attempt} was made before it was intended")
        data = record["data"]
        expires_at, intended_at = from_ms(data["expires_ms"]), from_ms(record["at_ms"])
        if expires_at <= intended_at:
            raise Broken(f"I11: {attempt} is intended at {intended_at}, until {expires_at}")
        if not emergency:
            self._at_a_time_to_be_believed(attempt, intended_at, record["writer"])
        about = (attempt, record["lease_id"], record["task_id"], record["holder"], data["request_id"])
        only_time = data["contract_class"] == ContractClass.EXPIRY_ONLY
        known = Known(*about, expires_at, intended_at, record["writer"], only_time)
        known.over_by = self.ages.intended(attempt, expires_at - intended_at)
        self.ledger.attempts[attempt] = known
        self.ledger.of_request.setdefault((record["holder"], data["request_id"]), []).append(attempt)
        self.ledger.of_lease.setdefault(record["lease_id"], []).append(attempt)

    def _of_an_emergency(self, record: dict[str, Any], what: str) -> None:
        lease, data = record["lease_id"], record["data"]
        states = {self.ledger.attempts[each].state for each in self.ledger.of_lease.get(lease, ())}
        if what == "used":
            if not data["gates_passed_over"]:  # what it passes over it says
                self._at_a_time_to_be_believed(lease, from_ms(record["at_ms"]), record["writer"])
            self.recoveries.intended(lease, record["writer"], passes_over=bool(data["gates_passed_over"]))
            void = frozenset(name for name in self.ledger.glass.uses if self._is_void(name))
            self.ledger.glass.used(record, self.owners.get(data["for_agent"], ""), void)
        elif what == "ended":
            self.ledger.glass.ended(lease)
            self.told[f"an emergency ended: {data['cause']}"] += 1
        elif what == "reviewed":
            living = bool(states & {State.ISSUING, State.ACTIVE})
            self.ledger.glass.reviewed(lease, record["actor"], living=living)

    def _is_over(self, lease: str) -> bool:
        return all(self.ledger.attempts[each].state in TERMINAL for each in self.ledger.of_lease[lease])

    def _is_void(self, lease: str) -> bool:
        return all(self.ledger.attempts[each].state is State.VOID for each in self.ledger.of_lease[lease])

    def _at_a_time_to_be_believed(self, attempt: str, intended_at: datetime, process: str) -> None:
        machine = self.machine(process)
        if machine is None:
            return
        ahead = (intended_at - self.clock.now()).total_seconds()
        if machine.set_since_it_runs() and ahead > TOLERANCE_MS / 1000 + 1:
            raise Broken(f"F38: {attempt} was intended by a clock that is {ahead:.0f} s fast")
        doubt = machine.doubt()
        if doubt is not None and from_ms(doubt.since_ms) < intended_at:
            raise Broken(f"F38: {attempt} was intended while {process} doubted what time it is ({doubt.why})")

    def _doubted(self, record: dict[str, Any]) -> None:
        why, machine = record["data"]["why"], self.machine(record["writer"])
        self.told[f"clock doubted: {why}"] += 1
        if machine is not None and not machine.may_doubt():
            raise Broken(f"F40: {record['writer']} doubts a clock that nobody has touched: {record['data']}")

    def booted(self, process: str, now: datetime, seen: datetime) -> None:
        """A broker has begun, at ``now`` by its own time. ``seen``: the latest in the trail when it was opened."""
        seen = min(seen, self.ledger.latest)  # another one may have been put back since
        # Of several the last record need not be the latest, and the mark is as old as this.
        if now + _MARK_IS_OLD < seen:
            raise Broken(f"I8: {process} begins at {now}, and in the trail it was {seen} before")

    def _moved(self, record: dict[str, Any], state: State) -> None:
        attempt = record["attempt_id"]
        known = self.ledger.attempts.get(attempt)
        if known is None:
            raise Broken(f"I2: {attempt} is {state} and was never intended")
        if known.state in TERMINAL:
            raise Broken(f"I8: {attempt} was {known.state} and is {state}")
        if state in TERMINAL and self._proven_usable(attempt) and not self._believed_a_wrong_clock(attempt, record):
            raise Broken(f"I1: {attempt} is said to be {state} and lets people in")
        if state is State.ACTIVE:
            self._activated(attempt, known, record)
        if state is State.REVOKING and known.state is State.ISSUING:
            self._broken_off(attempt, known, record)
        if state in TERMINAL:
            machine = self.machine(record["writer"])
            known.by_a_fast_clock = machine is not None and self._seems_over(known, machine)
        known.state = state

    def _activated(self, attempt: str, known: Known, record: dict[str, Any]) -> None:
        if known.state is not State.ISSUING:
            raise Broken(f"I8: {attempt} was {known.state} and is usable again")
        if known.task in self.ledger.tasks_over:
            raise Broken(f"I1: {attempt} became usable on a task that is over")
        if covering := self._covering(record):
            raise Broken(f"I7: {attempt} became usable under {covering}")
        if attempt not in self.truth.ever:
            raise Broken(f"I2: {attempt} is said to be issued, and the upstream never made it")
        same = self.ledger.of_request[known.holder, known.request]
        if others := [each for each in same if each != attempt and self._proven_usable(each)]:
            raise Broken(f"I9: {attempt} is usable, and of the same request so is {others}")
        known.activated_by = record["writer"]

    def _proven_usable(self, attempt: str) -> bool:
        """Of what an upstream lied about, its word is all that a broker has, until it lists it again."""
        return self.truth.usable(attempt) and attempt not in self.excused and attempt not in self.truth.lied_about

    def _believed_a_wrong_clock(self, attempt: str, record: dict[str, Any]) -> bool:
        """A clock that is a little fast, or was wrong when the broker began: it cannot know."""
        machine, known = self.machine(record["writer"]), self.ledger.attempts[attempt]
        if machine is None or not self._seems_over(known, machine):
            return False
        self.told["said to be over by a clock that is fast"] += 1
        self.excused.add(attempt)
        return True

    def _seems_over(self, known: Known, machine: Machine) -> bool:
        """By a clock that is fast, and not doubted: its time, or the time in which a late create may land."""
        issue_deadline = min(known.intended_at + ISSUE_TIMEOUT, known.expires_at)
        over = known.expires_at if known.only_time_ends_it else no_late_create_after(known.intended_at, issue_deadline)
        fast = machine.fast_by()
        return machine.doubt() is None and fast > 0 and over <= self.clock.now() + timedelta(seconds=fast)

    def _broken_off(self, attempt: str, known: Known, record: dict[str, Any]) -> None:
        """Who is issuing says when that failed; others may say so when it has had its time, or is gone."""
        cause, other = record["data"].get("cause"), record["writer"] != known.process
        if cause in _RACES:
            self.told[f"{_RACES[cause]} while it was issued"] += 1
            self.told["ended by one while another issued it"] += other
        early = from_ms(record["at_ms"]) < min(known.intended_at + ISSUE_TIMEOUT, known.expires_at)
        if cause == EndCause.OUTCOME_UNKNOWN and other and early and self.hearing.is_heard(known.process):
            raise Broken(f"I10: {attempt}, which {known.process} is issuing, was given up by {record['writer']}")

    def _swept(self, data: dict[str, Any]) -> None:
        """The reconciler may only end what the ledger does not hold alive."""
        known = self.ledger.attempts.get(data["attempt_id"])
        forgotten = known is None and data["attempt_id"] in self.before
        if not forgotten and (known is None or known.state not in TERMINAL):
            raise Broken(f"I10: {data['name']} is ended behind its lease's back")
        self.told["forgotten, and found by its mark"] += forgotten
        self.told["lie found in an inventory"] += data["attempt_id"] in self.truth.lied_about

    def _covering(self, record: dict[str, Any]) -> str:
        for name, data in self.ledger.suspended.items():
            over = data["until_ms"] is not None and record["at_ms"] >= data["until_ms"]
            if not over and data["kind"] in _KINDS and data["value"] in ("", record["holder"]):
                return name
        return ""

    def made(self, made: Made) -> None:
        """The upstream makes a credential, now."""
        known = self.ledger.attempts.get(made.attempt) or self.before.get(made.attempt)
        if known is None:
            raise Broken(f"I2: {made.attempt} is made, and its intent is not durable")
        if known.state in TERMINAL and self.clock.now() < made.until and not known.by_a_fast_clock:
            raise Broken(f"I1: {made.attempt} is made after it was said to be {known.state}")
        self.ledger.plans.made(known.lease, made.scope)
        if known.state is State.REVOKING:
            self.told["made after it was swept or given up"] += 1
        if made.until > known.expires_at:
            raise Broken(f"I11: {made.attempt} lives until {made.until}, intended until {known.expires_at}")

    def trying(self, attempt: str, process: Process | None, other: Try | None) -> Try:
        """A process begins to end a credential. Nobody else may be at it whose claim holds, who runs and is heard."""
        now = self.clock.now()
        if other is not None and other.process is not None and process is not None:
            runs = other.process.alive and not (other.process.has_stood_still or process.has_stood_still)
            runs = runs and self.hearing.is_heard(other.process.name)
            runs = runs and not self.hearing.set_lately(process.name)  # claims run out by that
            if runs and now - other.begun < _CLAIM_HOLDS and self._is_being_ended(attempt, other):
                # Not raised: to the revoker, a connector that raises is one that has failed.
                self.fail(Broken(f"I10: {process.name} and {other.process.name} are both at work on {attempt}"))
        if process is not None and not process.has_stood_still and not self._has_claimed(attempt, process.name):
            self.fail(Broken(f"I10: {process.name} is at work on {attempt}, and has not claimed it"))
        return Try(process, now)

    def _has_claimed(self, attempt: str, process: str) -> bool:
        """A try begins some seconds after its claim, which nobody can have taken from it yet; else nobody can say."""
        known = self.ledger.attempts.get(attempt)
        ending = known is not None and known.state is State.REVOKING
        if not ending or not self.hearing.keeps_its_claims(process, self.recoveries.since):
            return True
        assert self.connection is not None
        row = self.connection.execute("SELECT held_by FROM attempts WHERE id = ?", (attempt,)).fetchone()
        return row is not None and row[0] == process

    def _is_being_ended(self, attempt: str, other: Try) -> bool:
        """By a claim that the ledger knows of."""
        known = self.ledger.attempts.get(attempt)
        return known is not None and known.state is State.REVOKING and other.begun > self.recoveries.since

    def delivered(self, attempt: str, process: str) -> None:
        """An agent was handed this credential."""
        known = self.ledger.attempts.get(attempt)
        if known is None or not known.activated_by:
            known = self.before.get(attempt)  # the answer was under way when the ledger was put back
        if known is None or not known.activated_by:
            raise Broken(f"I3: {attempt} was delivered, and that it is usable was not durable")
        if known.activated_by != process:
            raise Broken(f"I10: {attempt} was delivered by {process}, and made usable by {known.activated_by}")

    def at_the_end(self) -> None:
        """With everything healed, and time given: nothing is left (I14, I3)."""
        left = {
            name: known.state
            for name, known in self.ledger.attempts.items()
            if known.state not in TERMINAL and not (known.only_time_ends_it and known.expires_at > self.clock.now())
        }
        if left:
            raise Broken(f"I14: these never came to an end: {left}")
        if untold := self.ledger.glass.left():
            raise Broken(f"T21: that these are over was never told: {untold}")
        if alive := self._ended_nowhere():
            raise Broken(f"I3: alive, and nobody knows: {alive}")

    def healed_for_a_while(self) -> None:
        """What a ledger that was put back has forgotten was found by its mark, and ended long before its time."""
        if alive := [each for each in self._ended_nowhere() if each not in self.ledger.attempts]:
            raise Broken(f"I8: forgotten by a ledger that was put back, and alive: {alive}")

    def _ended_nowhere(self) -> list[str]:
        known = self.before | self.ledger.attempts
        alive = [each for each in list(self.truth.alive) if self.truth.usable(each)]
        return [each for each in alive if not (each in known and known[each].only_time_ends_it)]
