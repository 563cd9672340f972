"""What must be true after every commit and every change upstream, whatever went wrong before (faults.md, I1-I14)."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from broker.lease.machine import TERMINAL, State
from broker.ports import Clock
from broker.stores.times import from_ms
from broker.suspension.suspension import Kind
from tests.simulation.truth import Made, Truth

_KINDS = {Kind.EVERYTHING.value, Kind.AGENT.value}
_STATES = {
    "lease.issued": State.ACTIVE,
    "lease.void": State.VOID,
    "lease.revoking": State.REVOKING,
    "lease.revoked": State.REVOKED,
    "lease.expired": State.EXPIRED,
}


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass
class Known:
    """One attempt, as the trail has told it so far."""

    lease: str
    task: str
    holder: str
    expires_at: datetime
    state: State = State.ISSUING
    was_active: bool = False


@dataclass
class Checks:
    """Reads the trail as it grows, from the ledger's file, and holds it against the truth."""

    clock: Clock
    told: Counter[str]
    truth: Truth = field(init=False)
    seen: int = 0
    attempts: dict[str, Known] = field(default_factory=dict)
    of_lease: dict[str, list[str]] = field(default_factory=dict)
    tasks_over: set[str] = field(default_factory=set)
    suspended: dict[str, dict[str, Any]] = field(default_factory=dict)
    redeemed: set[str] = field(default_factory=set)
    connection: sqlite3.Connection | None = None

    def __post_init__(self) -> None:
        self.truth = Truth(self.clock, self.made)

    def read(self) -> list[dict[str, Any]]:
        """What was committed since the last time, checked."""
        assert self.connection is not None
        rows = self.connection.execute(
            "SELECT seq, body FROM audit WHERE seq > ? ORDER BY seq", (self.seen,)
        ).fetchall()
        records = []
        for seq, body in rows:
            self.seen = seq
            record = json.loads(body)
            records.append(record)
            self._take(record)
        return records

    def _take(self, record: dict[str, Any]) -> None:
        kind, data = record["type"], record["data"]
        if kind == "lease.intent":
            self._intended(record)
        elif kind in _STATES:
            self._moved(record, _STATES[kind])
        elif kind in ("task.completed", "task.ended"):
            self.tasks_over.add(record["task_id"])
        elif kind == "suspension.suspended":
            self.suspended[data["suspension"]] = data
        elif kind in ("suspension.resumed", "suspension.expired"):
            self.suspended.pop(data["suspension"], None)
        elif kind == "upstream.unknown_found":
            self._swept(data)
        elif kind == "access.redeemed":
            self._once(data["access_request"])

    def _intended(self, record: dict[str, Any]) -> None:
        attempt = record["attempt_id"]
        if record["task_id"] in self.tasks_over:
            raise Broken(f"I2: {attempt} was intended on a task that is over")
        if covering := self._covering(record):
            raise Broken(f"kill switch: {attempt} was intended under {covering}")
        if attempt in self.truth.ever:
            raise Broken(f"I2: {attempt} was made before it was intended")
        self.attempts[attempt] = Known(
            record["lease_id"], record["task_id"], record["holder"], from_ms(record["data"]["expires_ms"])
        )
        self.of_lease.setdefault(record["lease_id"], []).append(attempt)

    def _moved(self, record: dict[str, Any], state: State) -> None:
        attempt = record["attempt_id"]
        known = self.attempts.get(attempt)
        if known is None:
            raise Broken(f"I2: {attempt} is {state} and was never intended")
        if known.state in TERMINAL:
            raise Broken(f"final: {attempt} was {known.state} and is {state}")
        if state in TERMINAL and self.truth.usable(attempt):
            raise Broken(f"I1: {attempt} is said to be {state} and lets people in")
        if state is State.ACTIVE:
            if known.task in self.tasks_over:
                raise Broken(f"I1: {attempt} became usable on a task that is over")
            if covering := self._covering(record):
                raise Broken(f"kill switch: {attempt} became usable under {covering}")
            if attempt not in self.truth.ever:
                raise Broken(f"{attempt} is said to be issued, and the upstream never made it")
            others = [each for each in self.of_lease[known.lease] if each != attempt and self.truth.usable(each)]
            if others:
                raise Broken(f"I5: {attempt} is usable, and of the same request so is {others}")
            known.was_active = True
        known.state = state

    def _swept(self, data: dict[str, Any]) -> None:
        """The reconciler may only end what the ledger does not hold alive."""
        known = self.attempts.get(data["attempt_id"])
        if known is None or known.state not in TERMINAL:
            raise Broken(f"reconciled: {data['name']} is ended behind its lease's back")

    def _covering(self, record: dict[str, Any]) -> str:
        for name, data in self.suspended.items():
            over = data["until_ms"] is not None and record["at_ms"] >= data["until_ms"]
            if not over and data["kind"] in _KINDS and data["value"] in ("", record["holder"]):
                return name
        return ""

    def _once(self, access_request: str) -> None:
        if access_request in self.redeemed:
            raise Broken(f"I7: the approval of {access_request} was used twice")
        self.redeemed.add(access_request)

    def made(self, made: Made) -> None:
        """The upstream makes a credential, now."""
        known = self.attempts.get(made.attempt)
        if known is None:
            raise Broken(f"I2: {made.attempt} is made, and its intent is not durable")
        if known.state in TERMINAL and self.clock.now() < made.until:
            raise Broken(f"I1: {made.attempt} is made after it was said to be {known.state}")
        if known.state is State.REVOKING:
            self.told["made after it was swept or given up"] += 1
        if made.until > known.expires_at:
            raise Broken(f"I11: {made.attempt} lives until {made.until}, intended until {known.expires_at}")

    def delivered(self, attempt: str) -> None:
        """An agent was handed this credential."""
        if attempt not in self.attempts or not self.attempts[attempt].was_active:
            raise Broken(f"I2: {attempt} was delivered and never active")

    def at_the_end(self) -> None:
        """With everything healed, and time given: nothing is left (I14, I3)."""
        left = {name: known.state for name, known in self.attempts.items() if known.state not in TERMINAL}
        if left:
            raise Broken(f"I14: these never came to an end: {left}")
        if alive := [attempt for attempt in list(self.truth.alive) if self.truth.usable(attempt)]:
            raise Broken(f"I3: alive, and nobody knows: {alive}")
