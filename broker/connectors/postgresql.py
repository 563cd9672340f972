"""Logins of a PostgreSQL database, made by the broker itself (kind ``postgresql``), for who has no Vault.

Issuing is one transaction: the role, its limits, its privileges. Its name carries the attempt's id and is chosen before
anything is asked, so whatever dies in between, the name is all that is needed to end it. The password is hashed here;
the server, and what it logs, sees a SCRAM verifier. The transaction commits only while the server's clock is inside
the call's time, so what comes late makes nothing.

Nothing runs in PostgreSQL at a role's end: VALID UNTIL refuses new logins, and an open session lives on if the broker
is dead. ``docs/connectors/postgresql.md`` says so, as does the contract.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import psycopg
from psycopg import errors

from broker.connectors import postgresql_sql as statements
from broker.connectors.postgresql_end import MadeElsewhere, end_login
from broker.connectors.postgresql_examine import doubts, unreachable
from broker.connectors.postgresql_inventory import carried, note, where_made
from broker.connectors.postgresql_session import (
    PostgresqlFailure,
    PostgresqlSettings,
    Session,
    Sessions,
    check_tls,
    guarded,
    system_of,
    told,
)
from broker.connectors.postgresql_use import log_in
from broker.connectors.refusals import replaced, too_late
from broker.connectors.threads import Closing, Threads, being_replaced
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import Binding, Contract, ContractClass, Credential, DatabaseLogin
from broker.lease.deadlines import no_late_create_after
from broker.ports.clock import Clock
from broker.ports.connectors import (
    Carried,
    Checkpoint,
    Doubt,
    Handle,
    Issued,
    NotYet,
    Refused,
    RevokeContext,
    Revoked,
    RevokeOutcome,
    Use,
)
from broker.scope.model import Scope
from broker.secret import Secret

_T = TypeVar("_T")
_ATTEMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*\Z", re.ASCII)
# Two that change the same object's privileges: one waits, then fails, and does it again.
_TRIES = 10
_UNSUPPORTED = "0A000"
_NOT_GRANTED = "01007"  # a warning: privilege_not_granted
_OLDEST_VERSION = 160000

CONTRACT = Contract(
    cls=ContractClass.IMMEDIATE,
    binding=Binding.NONE,
    ttl_floor=timedelta(seconds=1),
    ttl_ceiling=timedelta(hours=1),
    on_expiry=timedelta(seconds=5),
    on_revoke=timedelta(seconds=5),
    broker_dead="PostgreSQL refuses new logins after the TTL (VALID UNTIL); an open session goes on as long as its"
    " holder keeps it, or until the broker is back.",
    upstream_dead="The login cannot be used either.",
    on_broker_dead=None,  # of the open sessions
    on_upstream_dead=timedelta(0),
    gives=DatabaseLogin,
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one call is about to make."""

    login: str
    want: statements.Wanted
    password: Secret
    note: str
    begun: datetime
    expires_at: datetime


class Postgresql:
    """The connector. ``password`` yields that of the broker's own login, and is asked at every session."""

    def __init__(self, name: str, settings: PostgresqlSettings, password: Callable[[], Secret], clock: Clock) -> None:
        check_tls(name, settings)
        self._name = name
        self._settings = settings
        self._clock = clock
        self._sessions = Sessions(settings, password)
        # Two pools: a storm of requests must not keep credentials from being ended.
        self._issuing = Threads(f"{name}-issue", settings.threads)
        self._revoking = Threads(f"{name}-revoke", settings.threads)
        self._using = Threads(f"{name}-use", 2)
        # One changes privileges at a time: PostgreSQL would fail the second. Others may, too, hence the tries.
        self._privileges = threading.Lock()
        self._closing = Closing()

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    @property
    def contract(self) -> Contract:
        """IMMEDIATE: the login and its sessions are ended when asked, and it is proven."""
        return CONTRACT

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """The login's name. Raises InvalidInput for a grant that is none, or a name that PostgreSQL would cut."""
        statements.wanted(scope)
        login = self._settings.login_prefix + attempt_id
        size = len(login.encode())
        if not _ATTEMPT.match(attempt_id) or size > statements.LONGEST_NAME:
            raise InvalidInput(
                Reason.SCOPE_TOO_LARGE,
                f"the login of attempt {attempt_id!a} would have {size} bytes or no plain name: PostgreSQL takes"
                f" {statements.LONGEST_NAME}, letters, digits and hyphens.",
                metadata={"attempt": ascii(attempt_id)[:100], "size": str(size), "limit": str(statements.LONGEST_NAME)},
            )
        return {"attempt": attempt_id, "login": login, "holder": holder}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A login until ``expires_at``.

        Raises UpstreamFailed, its outcome unknown only where no answer came to the commit.
        """
        if self._closing.closed:
            raise replaced(self._name)
        with self._closing.call():
            return await self._issue(handle, scope, expires_at, checkpoint)

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """End the login, its sessions and what it made. A login that is not there yet is waited for."""
        if self._closing.closed:
            return NotYet(f"{self._name} is being replaced.", failed=False)
        with self._closing.call():
            try:
                return await self._revoking.run(partial(self._end, handle, context))
            except MadeElsewhere as elsewhere:
                return self._made_elsewhere(handle, elsewhere.here)
            except PostgresqlFailure as failure:
                if failure.refused:
                    return Refused(f"{self._name} refuses the broker's own login.")
                return NotYet(f"{self._name} could not end it: {failure.what}.")

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Log in to the database and select a constant. Raises UpstreamFailed."""
        with self._closing.call():
            return await self._using.run(partial(log_in, self._name, credential, self._settings.timeout))

    async def inventory(self) -> Sequence[Carried]:
        """Every login that the broker's own login made. Raises UpstreamFailed."""
        if self._closing.closed:
            raise replaced(self._name)
        try:
            with self._closing.call():
                return await self._revoking.run(partial(carried, self._sessions, self._settings.login_prefix))
        except PostgresqlFailure as failure:
            raise self._failed("list its logins", failure, known=True) from None

    async def tend(self) -> None:
        """Nothing of ours ages: the password is read at every session."""

    async def examine(self) -> Sequence[Doubt]:
        """Whether it answers, is new enough, and what the broker's own login, and everybody, may do there."""
        if self._closing.closed:
            return [being_replaced()]
        try:
            with self._closing.call():
                return await self._revoking.run(partial(doubts, self._sessions, self._clock))
        except PostgresqlFailure as failure:
            return [unreachable(failure)]

    async def close(self) -> None:
        """Let calls under way finish, then let go of threads."""
        await self._closing.close()
        for threads in (self._issuing, self._revoking, self._using):
            await threads.close()

    # ------------------------------------------------------------------ issuing

    async def _issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        begun, login = self._clock.now(), str(handle["login"])
        if expires_at <= begun:
            raise too_late(self._name)
        plan = _Plan(
            login,
            statements.wanted(scope),
            Secret(secrets.token_urlsafe(32)),
            note(str(handle["attempt"]), str(handle["holder"]), begun),
            begun,
            expires_at,
        )
        # What cannot be reached is told before the ledger notes a name.
        session, system = await self._attempt("be asked", self._connect, undo=lambda made: made[0].close())
        try:
            await checkpoint({**handle, **where_made(system)}, login)
        except BaseException:
            session.close()
            raise
        version = await self._attempt(
            "make a login", partial(self._make, plan, session), undo=lambda _: self._take_back(login)
        )
        where = self._settings
        return Issued(
            DatabaseLogin("postgresql", where.host, where.port, where.database, login, plan.password),
            expires_at=expires_at,
            observed={"username": login, "server_version": version},
        )

    async def _attempt(self, what: str, call: Callable[[], _T], undo: Callable[[_T], object]) -> _T:
        try:
            return await self._issuing.run(call, undo=undo)
        except _CommitUnknown as failure:
            raise self._failed(what, failure, known=False) from None
        except PostgresqlFailure as failure:
            raise self._failed(what, failure, known=True) from None

    def _connect(self) -> tuple[Session, str]:
        """A session, and which server that is."""
        session = self._sessions.connect()
        version = session.info.server_version
        if version < _OLDEST_VERSION:
            session.close()
            what = f"it is PostgreSQL {version // 10000}, and CREATEROLE is confined from 16 on"
            raise PostgresqlFailure(what, _UNSUPPORTED)
        try:
            return session, system_of(session)
        except psycopg.Error as error:
            session.close()
            raise told(error) from None

    def _make(self, plan: _Plan, session: Session) -> int:
        """The server's version. Raises PostgresqlFailure; nothing was made unless it is _CommitUnknown."""
        warned: list[str] = []
        session.add_notice_handler(lambda notice: warned.append(notice.sqlstate or ""))
        with guarded(session):
            for left in reversed(range(_TRIES)):
                try:
                    with self._alone():
                        self._make_once(plan, session, warned)
                    break
                except errors.InternalError_:  # "tuple concurrently updated", and the transaction with it
                    session.execute("ROLLBACK")
                    if not left:
                        raise
            return session.info.server_version

    def _make_once(self, plan: _Plan, session: Session, warned: list[str]) -> None:
        row = session.execute("SELECT clock_timestamp()").fetchone()
        present: datetime = row[0]  # type: ignore[index]
        # By the server's own clock: one that is wrong neither shortens nor lengthens the time.
        left = plan.expires_at - self._clock.now()
        made = statements.creation(
            plan.login,
            _verifier(session, plan),
            present + left,
            left,
            plan.note,
            plan.want,
            version=session.info.server_version,
        )
        session.execute(made)
        if _NOT_GRANTED in warned:
            what = "the broker's own login may not grant all of what the template grants"
            raise PostgresqlFailure(what, _NOT_GRANTED)
        self._commit(session, present + timedelta(seconds=self._settings.timeout))

    def _alone(self) -> _Held:
        return _Held(self._privileges, self._settings.timeout)

    def _commit(self, session: Session, latest: datetime) -> None:
        try:
            session.execute(statements.commit_before(latest))
        except errors.DivisionByZero:
            raise PostgresqlFailure("it was too slow, and made nothing", "57014") from None
        except psycopg.Error as error:
            # Any other failure may have come after the commit: a shutdown, a session that was ended.
            failure = told(error)
            raise _CommitUnknown(failure.what, failure.sqlstate) from None

    def _take_back(self, login: str) -> None:
        end_login(self._sessions, login, self._alone)

    # ------------------------------------------------------------------ ending

    def _made_elsewhere(self, handle: Handle, here: str) -> NotYet:
        now = f"is {here} now" if here else "does not tell which it is"
        return NotYet(
            f"it was made at the server {handle['system']}, and that of {self._name} {now}: that it is not there proves"
            " nothing. Point the connector there again, or give the new server a connector with a name of its own.",
            alone=True,
        )

    def _end(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        login = str(handle["login"])
        ended = end_login(self._sessions, login, self._alone, str(handle.get("system", "")))
        latest = no_late_create_after(context.created_at, context.issue_deadline)
        if ended is None and not context.outcome_known and context.now < latest:
            wait = (context.issue_deadline if context.now < context.issue_deadline else latest) - context.now
            return NotYet("a login may still be made late; it is looked for again.", wait, failed=False)
        if ended is None:
            return Revoked({"login": login, "proof": "no role of that name"})
        return Revoked(
            {
                "login": login,
                "sessions_ended": ended.sessions,
                "prepared_rolled_back": ended.prepared,
                "databases_cleared": list(ended.databases),
                "proof": "no role of that name, and no session of its number",
            }
        )

    def _failed(self, step: str, failure: PostgresqlFailure, *, known: bool) -> UpstreamFailed:
        reason, hint = Reason.UPSTREAM_UNAVAILABLE, "Retry later with the same request_id."
        if failure.refused:
            reason = Reason.UPSTREAM_ROOT_REFUSED
            hint = "Operators: the connector's own login or its password is refused; nothing can be issued."
        elif failure.sqlstate[:2] in _REFUSED_CLASSES:
            reason = Reason.UPSTREAM_REFUSED
            hint = "Operators: see the connector's page for what its own login must be allowed to grant."
        return UpstreamFailed(
            reason,
            f"{self._name} could not {step}: {failure.what}.",
            outcome_known=known,
            hint=hint,
            metadata={"connector": self._name, "sqlstate": failure.sqlstate},
        )


# Classes of SQLSTATE that trying again does not mend: unsupported, bad grant, unknown names, no rights.
_REFUSED_CLASSES = frozenset({"0A", "0L", "0P", "01", "3D", "3F", "42"})


class _CommitUnknown(PostgresqlFailure):
    """The commit was sent, and its answer did not come."""


class _Held:
    """The lock if it can be had in time; without it the work is done all the same, and done again where it collides."""

    def __init__(self, lock: threading.Lock, seconds: float) -> None:
        self._lock = lock
        self._seconds = seconds
        self._held = False

    def __enter__(self) -> None:
        self._held = self._lock.acquire(timeout=self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._held:
            self._lock.release()


def _verifier(session: Session, plan: _Plan) -> str:
    """The SCRAM verifier of the password, made on this side (libpq, PQencryptPasswordConn)."""
    made = session.pgconn.encrypt_password(plan.password.reveal().encode(), plan.login.encode(), b"scram-sha-256")
    return made.decode()
