"""A world for the demo's steps: a real PostgreSQL, and a broker that is honest unless told how to cheat.

The broker is played by its own superuser's hands: it makes logins and ends them as the real one does, or
says that it did. A step that comes true on every world would prove nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, cast

import psycopg

from broker.cli.demo.narrator import Narrator
from broker.cli.demo.world import World
from broker.client import AsyncClient, Completion, Decision, Grant, Lease, TaskFacts
from broker.dev.orders import create_orders
from broker.dev.postgres import PostgresFacts
from broker.dev.stack import DevStack
from broker.errors import BrokerError, Denied, InvalidInput, NotFound, Reason
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import DatabaseLogin
from broker.scope.request import AccessRequest
from broker.secret import Secret

# As in tests/conftest.py: OpenBao may be using it.
_ADMINISTRATOR = Secret("orders-administrator")


class Cheat(StrEnum):
    """What a broker could get away with, if a step did not look."""

    NONE = "NONE"
    LOGIN_LIVES = "LOGIN_LIVES"  # says REVOKED, and ends nothing
    SESSION_LIVES = "SESSION_LIVES"  # drops the role, and forgets its open sessions
    LOGIN_REOPENS = "LOGIN_REOPENS"  # ends the sessions, but not the login
    TABLE_LIVES = "TABLE_LIVES"  # hands what the agent made to somebody else
    SAYS_ACTIVE = "SAYS_ACTIVE"  # ends everything, and the ledger never says so
    LOGIN_STILLBORN = "LOGIN_STILLBORN"  # a login that never worked: refusing it later would prove nothing
    NO_DEADLINE = "NO_DEADLINE"  # the TTL is only a word
    WRITE_ALLOWED = "WRITE_ALLOWED"
    GRANTS_ALL = "GRANTS_ALL"  # no template and no policy
    WRONG_REASON = "WRONG_REASON"
    REFUSES_AND_ISSUES = "REFUSES_AND_ISSUES"
    LEASE_SEEN_BY_ALL = "LEASE_SEEN_BY_ALL"
    LEASE_LISTED_TO_ALL = "LEASE_LISTED_TO_ALL"
    TASK_ENDED_BY_ANYBODY = "TASK_ENDED_BY_ANYBODY"
    IDS_CAN_BE_PROBED = "IDS_CAN_BE_PROBED"


class FakeBroker:
    """The ledger and the hands of the fake. ``cheat`` is what it does wrong."""

    def __init__(self, server: PostgresFacts, cheat: Cheat) -> None:
        self.server, self.cheat = server, cheat
        self.tasks: dict[str, TaskFacts] = {}
        self.leases: dict[str, Lease] = {}
        self.logins: dict[str, str] = {}
        self._timers: list[threading.Timer] = []

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()
        for login in self.logins.values():
            self._end_login(login, Cheat.NONE)
        with self._superuser() as admin:
            admin.execute("DROP TABLE IF EXISTS public.kept_by_an_agent")

    def issue(self, holder: str, asked: AccessRequest) -> Grant:
        refused = self._refusal(holder, asked)
        if refused is not None and self.cheat is not Cheat.GRANTS_ALL:
            if self.cheat is Cheat.REFUSES_AND_ISSUES:
                self._make_login("jb-unknown", asked)
            raise refused
        lease = _lease(holder, asked)
        login, password = self._make_login(lease.attempt_id, asked)
        self.leases[lease.id], self.logins[lease.id] = lease, login
        if asked.ttl < timedelta(minutes=1) and self.cheat is not Cheat.NO_DEADLINE:
            timer = threading.Timer(asked.ttl.total_seconds(), self.end, (lease.id, "EXPIRED"))
            self._timers.append(timer)
            timer.start()
        given = Secret("no such password") if self.cheat is Cheat.LOGIN_STILLBORN else password
        credential = DatabaseLogin("postgresql", self.server.host, self.server.port, "orders", login, given)
        return Grant(lease, credential, Decision(("read",), (), "", "ALLOW", ()))

    def end(self, lease_id: str, cause: str) -> None:
        lease = self.leases[lease_id]
        if lease.state != "ACTIVE":
            return
        self._end_login(self.logins[lease_id], self.cheat)
        if self.cheat is not Cheat.SAYS_ACTIVE:
            self.leases[lease_id] = replace(lease, state="REVOKED", end_cause=cause)

    def complete(self, task_id: str) -> Completion:
        self.tasks[task_id] = replace(self.tasks[task_id], state="COMPLETED")
        mine = [lease.id for lease in self.leases.values() if lease.task_id == task_id]
        for lease_id in mine:
            self.end(lease_id, "COMPLETED")
        return Completion(self.tasks[task_id], tuple(self.leases[lease_id] for lease_id in mine))

    def _refusal(self, holder: str, asked: AccessRequest) -> BrokerError | None:
        if asked.resource not in ("orders", "orders-reports"):
            reason = Reason.PARAMETER_INVALID if self.cheat is Cheat.WRONG_REASON else Reason.RESOURCE_NOT_IN_TEMPLATE
            return InvalidInput(reason, "Not this resource.")
        if asked.ttl > timedelta(minutes=15):
            return InvalidInput(Reason.TTL_TOO_LONG, "Not for so long.")
        advisory_writes = holder.endswith("/analyst") and asked.template == "orders-readwrite"
        if advisory_writes or (asked.template == "reports-read" and asked.ttl > timedelta(minutes=5)):
            return Denied(Reason.POLICY_DENIED, "Policy says no.")
        return None

    def _make_login(self, attempt: str, asked: AccessRequest) -> tuple[str, Secret]:
        login, password = f"token-{attempt}-{secrets.token_hex(4)}", Secret(secrets.token_hex(16))
        rights = "SELECT"
        if asked.template == "orders-readwrite" or self.cheat is Cheat.WRITE_ALLOWED:
            rights = "SELECT, INSERT, UPDATE, DELETE"
        with self._superuser() as admin:
            admin.execute(f"CREATE ROLE \"{login}\" LOGIN PASSWORD '{password.reveal()}'".encode())
            admin.execute(f'GRANT {rights} ON ALL TABLES IN SCHEMA public TO "{login}"'.encode())
            admin.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{login}"'.encode())
        self.logins[attempt] = login
        return login, password

    def _end_login(self, login: str, cheat: Cheat) -> None:
        ends_sessions = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{login}'"
        owned = 'REASSIGN OWNED BY "{}" TO openbao' if cheat is Cheat.TABLE_LIVES else 'DROP OWNED BY "{}" CASCADE'
        with self._superuser() as admin:
            known = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [login]).fetchone()
            if known is None or cheat is Cheat.LOGIN_LIVES:
                return
            if cheat is Cheat.LOGIN_REOPENS:
                admin.execute(ends_sessions.encode())
                return
            admin.execute(f'ALTER ROLE "{login}" NOLOGIN'.encode())
            if cheat is not Cheat.SESSION_LIVES:
                admin.execute("SELECT pg_sleep(0.05)")
                admin.execute(ends_sessions.encode())
            for statement in (owned, 'DROP OWNED BY "{}"', 'DROP ROLE "{}"'):
                admin.execute(statement.format(login).encode())

    def _superuser(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server.conninfo("orders"), autocommit=True)


class FakeClient:
    """One agent's client of the fake, as far as the steps use it."""

    def __init__(self, broker: FakeBroker, agent: SpiffeId) -> None:
        self._broker, self._me = broker, str(agent)

    def new_id(self) -> str:
        return secrets.token_hex(13)

    async def start_task(self, purpose: str, **_: Any) -> TaskFacts:
        facts = TaskFacts(
            id=f"task-{self.new_id()}", creator=self._me, participants=(self._me,), purpose=purpose, ticket="",
            task_type="", sponsor="",
            create_time=None, deadline=None, state="OPEN", end_cause="", end_time=None, hold_grace=None,
        )  # fmt: skip
        self._broker.tasks[facts.id] = facts
        return facts

    @asynccontextmanager
    async def task(self, purpose: str, **_: Any) -> AsyncIterator[Any]:
        started = SimpleNamespace(id=(await self.start_task(purpose)).id, outcome=None)
        yield started
        started.outcome = self._broker.complete(started.id)

    async def request(self, asked: AccessRequest) -> Grant:
        return self._broker.issue(self._me, asked)

    async def complete_task(self, task_id: str) -> Completion:
        if task_id not in self._broker.tasks or not self._may(task_id):
            raise self._no_task(task_id)
        return self._broker.complete(task_id)

    async def get_task(self, task_id: str) -> TaskFacts:
        return self._broker.tasks[task_id]

    async def lease(self, lease_id: str) -> Lease:
        lease = self._broker.leases.get(lease_id)
        if lease is None or (lease.holder != self._me and self._broker.cheat is not Cheat.LEASE_SEEN_BY_ALL):
            raise NotFound(Reason.LEASE_NOT_FOUND, f"There is no lease {lease_id} of yours.")
        return lease

    async def leases(self, *, task_id: str = "") -> tuple[Lease, ...]:
        everybody = self._broker.cheat is Cheat.LEASE_LISTED_TO_ALL
        mine = [lease for lease in self._broker.leases.values() if everybody or lease.holder == self._me]
        return tuple(lease for lease in mine if task_id in ("", lease.task_id))

    async def close(self) -> None:
        return

    def _may(self, task_id: str) -> bool:
        mine = self._broker.tasks[task_id].creator == self._me
        return mine or self._broker.cheat is Cheat.TASK_ENDED_BY_ANYBODY

    def _no_task(self, task_id: str) -> NotFound:
        real = self._broker.cheat is Cheat.IDS_CAN_BE_PROBED and task_id in self._broker.tasks
        return NotFound(Reason.TASK_NOT_FOUND, f"Task {task_id} is {'not yours' if real else 'nobody’s'}.")


class FakeStack:
    """The running stack, as far as the steps use it."""

    def __init__(self, broker: FakeBroker, **facts: Any) -> None:
        self._broker = broker
        self._facts = SimpleNamespace(postgres=broker.server, **facts)

    def facts(self) -> Any:
        return self._facts

    async def stop_brokerd(self, *, kill: bool = False) -> None:
        return

    async def start_brokerd(self, environment: Mapping[str, str] | None = None) -> None:
        return


@asynccontextmanager
async def a_world(server: PostgresFacts, cheat: Cheat = Cheat.NONE, **facts: Any) -> AsyncIterator[World]:
    """A world whose broker cheats like this."""
    create_orders(server, _ADMINISTRATOR)
    broker = FakeBroker(server, cheat)
    world = World(
        cast(DevStack, FakeStack(broker, **facts)),
        Narrator(lambda line: None),
        dial=lambda agent: cast(AsyncClient, FakeClient(broker, agent)),
    )
    try:
        async with world:
            yield world
    finally:
        broker.close()
        create_orders(server, _ADMINISTRATOR)  # orders that a cheat let an agent delete


def _lease(holder: str, asked: AccessRequest) -> Lease:
    now = datetime.now(UTC)
    return Lease(
        id=f"lease-{secrets.token_hex(13)}", task_id=asked.task_id, holder=holder, request_id=asked.request_id,
        template=asked.template, connector="fake", account=asked.account, environment=asked.environment,
        resource=asked.resource, access="read", actions=(), parameters=asked.parameters, step="",
        contract_class="IMMEDIATE", policies=(), policy_digest="", state="ACTIVE", end_cause="", create_time=now,
        expire_time=now + asked.ttl, confirm_by=None, end_time=None, attempt_id=f"jb-{secrets.token_hex(8)}",
        attempt_count=1, revoke_failures=0, next_due_time=None,
    )  # fmt: skip
