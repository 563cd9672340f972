"""Ending a login of PostgreSQL, and proving it (``postgresql.py`` makes it).

In this order and no other. *The door first*: NOLOGIN is committed before sessions are ended, so that an agent that
reconnects in a loop finds it shut. *Who had just passed it*: a login under way is in its first transaction and has no
name yet in pg_stat_activity; pg_locks shows that transaction, and it is waited for. *Sessions by number*:
the role's oid, which outlives its name in pg_stat_activity. *What outlives sessions*: prepared transactions are rolled
back as their owner, who alone may. *Everywhere*: DROP OWNED reaches one database, and pg_shdepend names the others.
*A good answer is no proof*: proof is that there is no role of that name, and no session of its number.

An agent may hold a lock on its own role (``BEGIN; ALTER ROLE ...``), and the door would wait for it. So the wait is
short, its sessions are told to end, and it is tried again at once: the broker stands in line for the lock before they
are gone, and so before anybody who logs in anew. So with every step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from psycopg import errors, sql

from broker.connectors import postgresql_sql as statements
from broker.connectors.postgresql_session import PostgresqlFailure, Session, Sessions, system_of

_TRIES = 20
_LOCK_WAIT = "200ms"
# For a session to be gone once it was told to. Not waited for where a lock is wanted: the server looks every 100 ms
# only whether it is gone, and an agent that reconnects in a loop has the lock again by then, every time.
_SESSION_END_MS, _TOLD_ONLY = 2000, 0
_OID = sql.SQL("SELECT oid FROM pg_roles WHERE rolname = %s")
# In the list and not in a condition: those may be evaluated in any order, and would end anybody's session.
_TERMINATE = sql.SQL("SELECT pid, pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE usesysid = %s")
_SESSIONS = sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE usesysid = %s")
_PREPARED = sql.SQL("SELECT gid, database FROM pg_prepared_xacts WHERE owner = %s ORDER BY gid")
_ELSEWHERE = sql.SQL(
    "SELECT DISTINCT d.datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid"
    " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s AND d.datname <> current_database() ORDER BY 1"
)
_UNDER_WAY = sql.SQL(
    "SELECT l.virtualxid FROM pg_locks l WHERE l.locktype = 'virtualxid' AND l.pid <> pg_backend_pid() AND NOT EXISTS"
    " (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND (a.usesysid IS NOT NULL OR a.datid IS NOT NULL))"
)
_STILL = sql.SQL("SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid' AND virtualxid = ANY(%s)")
# 100 times 20 ms. Who takes longer stands before the door, not behind it: its password is still being asked for, and
# the server looks again whether the role may log in when it has it (InitializeSessionUserId).
_LOOKS, _LOOK_SECONDS = 100, 0.02
# What another transaction did to the same row of a catalogue meanwhile; done again, it is done.
_PASSING = ("55P03", "40P01", "40001", "XX000")


@dataclass(slots=True)
class Ended:
    """What had to be ended besides the role."""

    pids: set[int] = field(default_factory=set)  # one that takes its time is told again, and is one all the same
    prepared: int = 0
    databases: list[str] = field(default_factory=list)

    @property
    def sessions(self) -> int:
        """How many of its sessions were told to end."""
        return len(self.pids)


class MadeElsewhere(Exception):
    """What was asked to be ended is not there, or not any more; but it was made at another server."""

    def __init__(self, here: str) -> None:
        super().__init__(here)
        self.here = here


def end_login(
    sessions: Sessions, login: str, alone: Callable[[], AbstractContextManager[None]], made_at: str = ""
) -> Ended | None:
    """End ``login`` and all it made; None: there is no such role. Raises PostgresqlFailure where it is not proven.

    ``alone`` is held where privileges of shared objects change, and not while a hostile session is waited for.
    ``made_at``: the server (:func:`system_of`) where it was made, if that is known. At another one it is ended, too,
    because a dump may have brought it along, and then MadeElsewhere is raised: its absence proves nothing.
    """
    ended = Ended()
    with sessions.open() as session:
        session.execute(sql.SQL("SET lock_timeout = {}").format(_LOCK_WAIT))
        oid = _oid(session, login)
        if oid is None:
            _check_made_here(session, made_at)
            return None
        _insist(session, statements.shut(login), oid, ended)
        _wait_for_logins_under_way(session)
        ended.pids |= _terminate(session, oid)  # all of them, before any is waited for
        ended.pids |= _terminate(session, oid, _SESSION_END_MS)
        _roll_back_prepared(sessions, session, login, ended)
        _drop_owned_elsewhere(sessions, session, login, oid, ended)
        with alone():
            _insist(session, statements.drop_owned(login), oid, ended)
            _insist(session, statements.drop(login), oid, ended)
        _prove(session, login, oid)
        _check_made_here(session, made_at)
    return ended


def _check_made_here(session: Session, made_at: str) -> None:
    if made_at and (here := system_of(session)) != made_at:
        raise MadeElsewhere(here)


def _oid(session: Session, login: str) -> int | None:
    row = session.execute(_OID, [login]).fetchone()
    return None if row is None else int(row[0])


def _terminate(session: Session, oid: int, wait_ms: int = _TOLD_ONLY) -> set[int]:
    """Tell its sessions to end, and wait that long for each, one after the other; the processes that were told."""
    return {pid for pid, _ in session.execute(_TERMINATE, [wait_ms, oid]).fetchall()}


def _roll_back_prepared(sessions: Sessions, session: Session, login: str, ended: Ended) -> None:
    for transaction, database in session.execute(_PREPARED, [login]).fetchall():
        with sessions.open(database) as there:
            for statement in statements.roll_back_prepared(login, transaction):
                there.execute(statement)
        ended.prepared += 1


def _drop_owned_elsewhere(sessions: Sessions, session: Session, login: str, oid: int, ended: Ended) -> None:
    for (database,) in session.execute(_ELSEWHERE, [oid]).fetchall():
        try:
            with sessions.open(database) as there:
                there.execute(sql.SQL("SET lock_timeout = {}").format(_LOCK_WAIT))
                _insist(there, statements.drop_owned(login), oid, ended)
        except PostgresqlFailure as failure:
            # The name is an operator's, no agent's: a CREATEROLE login makes no databases.
            what = f"it owns something in the database {database!a}, where the broker could not drop it: {failure.what}"
            raise PostgresqlFailure(what, failure.sqlstate) from None
        ended.databases.append(database)


def _wait_for_logins_under_way(session: Session) -> None:
    """Until every login that may have found the door open is a session that can be seen."""
    passing = [each for (each,) in session.execute(_UNDER_WAY).fetchall()]
    for _ in range(_LOOKS if passing else 0):
        row = session.execute(_STILL, [passing]).fetchone()
        if row is None or not row[0]:
            return
        session.execute("SELECT pg_sleep(%s)", [_LOOK_SECONDS])


def _insist(session: Session, statement: sql.Composed, oid: int, ended: Ended) -> None:
    """Do it; where another transaction was in the way, end the login's sessions and do it again."""
    for left in reversed(range(_TRIES)):
        try:
            session.execute(statement)
            return
        except errors.Error as error:
            if error.sqlstate not in _PASSING or not left:
                raise
            ended.pids |= _terminate(session, oid)


def _prove(session: Session, login: str, oid: int) -> None:
    if _oid(session, login) is not None:
        raise PostgresqlFailure("it said the login was dropped, but it is still there")
    row = session.execute(_SESSIONS, [oid]).fetchone()
    if row is None or row[0]:
        raise PostgresqlFailure("the login is dropped, but a session of it is still there")
