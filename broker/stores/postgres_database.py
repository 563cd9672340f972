"""PostgreSQL as :mod:`broker.stores.database` asks for it.

Several brokers may write one ledger, one at a time: each batch begins with a lock that lives and dies with its
transaction, so that what happens is one series of batches, as in a file (docs/decisions/one-writer-at-a-time.md). What
is right does not hang on the lock: rows are compared and swapped, and the audit chain has one record of a number.

Every batch that writes leaves its number in its writer's row. Where the answer to a COMMIT is lost, that row is read
back: under the lock, and so not before the server is through with the transaction that nobody could hear about. No
answer in time is a lost one: the session is given up, and what came of its transaction is asked on another.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any

import psycopg
import structlog

from broker.errors import BrokerError, Defect, InvalidInput, NotReady, Reason
from broker.stores.database import Answers, Connection, NotAsTaken, Questions
from broker.stores.postgres_clock import ServerClock
from broker.stores.postgres_connection import (
    BOUNDS_TRANSACTIONS,
    HOLD_SECONDS,
    IDLE_SECONDS,
    LOCK_SPACE,
    PATIENCE,
    PostgresConnection,
    ServerAddress,
    connect,
    words,
)
from broker.stores.postgres_sql import SQL, postgres_migrations
from broker.stores.schema import Schema, refuse_other

log = structlog.get_logger("broker.stores")

_REFUSALS = (psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.InterfaceError, psycopg.InternalError)
# SQLSTATEs: read-only, and no disk, memory or connections left. Not 53400, which one statement meets by itself.
_FOR_EVERYBODY = frozenset({"25006", "53000", "53100", "53200", "53300"})
# Rows whose page is damaged, and rows that the schema refuses.
_OF_ONE_ROW = (psycopg.IntegrityError, psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted)
# For so long a COMMIT without an answer is asked about before its callers are told that nobody knows.
_SETTLE_SECONDS = 15.0
_LEAST_PATIENCE = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_SAID = """
SELECT set_config('broker.lock', ('last_batch'::regclass::oid::bigint | ?1)::text, false),
    set_config('broker.writer', ?2, false), set_config('broker.hold', ?3, false)
"""
_LOCK = """
BEGIN;
SELECT pg_advisory_xact_lock(current_setting('broker.lock')::bigint);
"""
# A writer that stops while it sends a batch leaves the server with half of it: neither idle nor at work. By this alone
# the server ends that. Said under the lock, so that the wait for it takes nothing away. A COMMIT's wait for a standby
# is not cut short.
_NO_LONGER = "SELECT set_config('transaction_timeout', current_setting('broker.hold'), true);"
# The time is rounded down, as everywhere: nobody's clock may be ahead of the server's.
_WHERE_WE_ARE = """
SELECT number, writer, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, version, readable_from
FROM last_batch, schema_version WHERE last_batch."only" = 1
"""
_BEGIN, _BEGIN_BOUNDED = _LOCK + _WHERE_WE_ARE, _LOCK + _NO_LONGER + _WHERE_WE_ARE
# Where the server does not (PostgreSQL 16), whoever waits for the lock in vain ends it: who has the lock and has had
# nothing to do for so long but to wait for its client, in the middle of what it sends or is sent. Not a COMMIT, which
# waits for the disk or a standby; and not the idle, whom the server ends itself.
_END_WHO_STANDS = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(l.pid)) FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32 | l.objid::bigint) = current_setting('broker.lock')::bigint
    AND a.state = 'active' AND a.wait_event IN ('ClientRead', 'ClientWrite')
    AND a.state_change < clock_timestamp() - make_interval(secs => ?1)
"""
# The batch's number, in the transaction itself.
_LEAVE = """
WITH batch AS (
    UPDATE last_batch SET number = number + 1, writer = current_setting('broker.writer') WHERE "only" = 1
    RETURNING writer, number
)
INSERT INTO writer_batches (writer, number, at)
SELECT writer, number, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM batch
ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at = excluded.at
"""
_READ_BACK = """
BEGIN;
SELECT pg_advisory_xact_lock(current_setting('broker.lock')::bigint);
SELECT coalesce(max(number), 0) FROM writer_batches WHERE writer = current_setting('broker.writer');
COMMIT
"""
# Writers that are gone: nobody asks about their last batch any more.
_TIDY = """
DELETE FROM writer_batches WHERE at < (extract(epoch FROM clock_timestamp() - interval '30 days') * 1000)::bigint;
COMMIT
"""
_WRITER = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What a COMMIT is answered with that was cut short while it waited for a standby: it is on this server alone.
_UNREPLICATED = "canceling wait for synchronous replication"


class PostgresDialect:
    """A :class:`broker.stores.database.Dialect`."""

    sql: Mapping[str, str] = SQL
    errors: type[Exception] = psycopg.Error
    unreadable: type[Exception] = UnicodeDecodeError

    def told(self, error: Exception) -> BrokerError:
        """See Dialect.told."""
        if isinstance(error, psycopg.DataError):
            return InvalidInput(Reason.MESSAGE_MALFORMED, f"the ledger cannot keep it: {error}.")
        if isinstance(error, _REFUSALS) and not isinstance(error, _OF_ONE_ROW[1:]):
            return Defect(Reason.INTERNAL, f"the ledger's schema refused a write ({_name(error)}).")
        return self.unavailable(error)

    def unavailable(self, error: Exception) -> NotReady:
        """See Dialect.unavailable."""
        return NotReady(
            Reason.STORE_UNAVAILABLE,
            f"the ledger cannot be used ({_name(error)}): nothing was committed.",
            hint="Nothing was granted by this call. Look at the ledger's PostgreSQL server.",
            metadata={"cause": _name(error)},
        )

    def refused(self, error: Exception, where: object) -> NotReady:
        """One of its errors as whoever opens a ledger, or runs a command on it, is told: in the server's words."""
        return NotReady(
            Reason.STORE_UNAVAILABLE,
            f"the ledger's server {where} refuses: {words(error)}.",
            hint="Nothing was changed. docs/postgresql-store.md says which database, roles and rights it takes.",
            metadata={"cause": _name(error)},
        )

    def refuses_everybody(self, error: Exception) -> bool:
        """See Dialect.refuses_everybody. A server that turned read-only, or has no disk, memory or room any more."""
        return getattr(error, "sqlstate", None) in _FOR_EVERYBODY

    def spoils_one_row(self, error: Exception) -> bool:
        """See Dialect.spoils_one_row."""
        return isinstance(error, _OF_ONE_ROW)

    def leniently(self, connection: Connection, statement: str, parameters: Any, error: Exception) -> list[Any]:
        """The server refuses such text when it is written; where a page is damaged, the row is not read at all."""
        raise error


POSTGRES = PostgresDialect()


def _name(error: Exception) -> str:
    state = getattr(error, "sqlstate", None)
    return f"{state} {type(error).__name__}" if state else type(error).__name__


class PostgresWriting:
    """A :class:`broker.stores.database.Writing` that outlives its sessions."""

    dialect = POSTGRES
    far = True

    def __init__(self, address: ServerAddress, writer: str, clock: ServerClock, connection: PostgresConnection) -> None:
        """``writer``: a name of its own in the ledger, never used before. Raises psycopg.Error."""
        if not _WRITER.fullmatch(writer):
            raise ValueError(f"not the name of a writer: {writer!r}")
        self._address, self.writer, self._clock = address, writer, clock
        self.connection = self._session(connection)
        self.at_once = False
        self._known = len(postgres_migrations())
        self._number = -1  # of the last batch in the database that this writer knows of
        self._changes = 0
        self._doubtful = True
        self._pause, self._again = _FIRST_PAUSE, 0.0
        self._read_only = False  # the last server, when it was written to
        # So that the clock follows the server before anything is judged by it.
        self._open()
        self.connection.together(_TIDY)

    @property
    def written_through(self) -> PostgresConnection | None:
        """The session of the server that is written to, or was last. None: that is read-only, no other is found yet."""
        return None if self._read_only else self.connection

    def begin(self) -> bool:
        """See Writing.begin. One round trip, and the wait for the others."""
        try:
            number, writer = self._open()
        except psycopg.OperationalError:
            if not self.connection.lost:
                raise
            # Nothing was under way: the server was restarted, or what is between us has forgotten this session.
            self._connect()
            number, writer = self._open()
        strange = self._doubtful or (number, writer) != (self._number, self.writer)
        self._number, self._changes = number, self.connection.total_changes
        self.connection.puts_off = not self.at_once
        return strange

    def ask(self, questions: Questions) -> Answers:
        """See Writing.ask."""
        try:
            answered = self.connection.ask(questions)
        except (psycopg.Error, TypeError) as error:  # what one operation would ask may be what no server answers
            raise NotAsTaken from error
        return {name: {row[0]: row[1:] for row in rows} for name, rows in answered.items()}

    def commit(self) -> None:
        """See Writing.commit."""
        if self.connection.total_changes == self._changes:
            self.connection.together("COMMIT")
            self._doubtful = False
            return
        number = self._number + 1
        self.connection.warnings.clear()
        try:
            self.connection.finish(_LEAVE, "COMMIT")
        except psycopg.Error as error:
            if not self.connection.lost:  # the server's own word that it was not committed
                if self.at_once:
                    raise
                raise NotAsTaken from error
            self._doubtful = True
            self._settle(number)
            return
        if any(warning.startswith(_UNREPLICATED) for warning in self.connection.warnings):
            self._doubtful = True
            raise unknown("it waited for a standby and was told not to")
        self._number, self._doubtful = number, False

    def roll_back(self) -> None:
        """See Writing.roll_back."""
        self._doubtful = True
        self.connection.puts_off = False
        self.connection.forget_what_was_put_off()
        with contextlib.suppress(psycopg.Error):
            if self.connection.in_transaction:
                self.connection.together("ROLLBACK")

    def short_of_room(self, error: Exception) -> bool:
        """See Writing.short_of_room. The server's disk is the server's matter."""
        return False

    def make_room(self, error: Exception) -> bool:
        """See Writing.make_room. Where the server turned read-only, the next batch looks for one that is written to."""
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            self._read_only = True
            self.connection.close()
        return False

    def close(self) -> None:
        """See Writing.close."""
        self.connection.close()

    def _open(self) -> tuple[int, str]:
        sent = self._clock.running()
        begin = _BEGIN_BOUNDED if self.connection.release >= BOUNDS_TRANSACTIONS else _BEGIN
        ((number, writer, server_ms, version, readable_from),) = self._locked(begin)
        self._clock.observe(sent, server_ms)
        # Whoever migrates has the lock, too: no batch begins under one schema and ends under another.
        refuse_other(Schema(version, readable_from), self._known)
        return number, writer

    def _settle(self, number: int) -> None:
        """Whether batch ``number`` was committed: returns if so.

        Raises psycopg.Error if not, NotReady (COMMIT_UNKNOWN) if nobody knows.
        """
        until = monotonic() + _SETTLE_SECONDS
        while True:
            try:
                self._connect(patiently=True)
                # So that two waits that both come to nothing are no longer than one of them and this.
                self.connection.wait_no_longer_than(max(until - monotonic(), _LEAST_PATIENCE))
                found = self._read_back()
                self.connection.wait_no_longer_than(PATIENCE)
                break
            except (psycopg.Error, NotReady) as error:
                if monotonic() > until:
                    raise unknown(_name(error)) from error
                sleep(self._pause * random.uniform(0.5, 1))  # nosec B311 # noqa: S311 - jitter
        if found < number:
            raise psycopg.OperationalError("the connection was lost, and the server has not committed")

    def _read_back(self) -> int:
        """The number of this writer's last batch, once no transaction that was open is open any more."""
        ((number,),) = self._locked(_READ_BACK)
        return int(number)

    def _locked(self, script: str) -> list[tuple[Any, ...]]:
        """Run what begins with the lock. Raises psycopg.errors.LockNotAvailable; whom it was waited for may be gone."""
        try:
            return self.connection.together(script)
        except psycopg.errors.LockNotAvailable:
            # What this cannot do, for want of rights, time does.
            with contextlib.suppress(psycopg.Error):
                self.connection.together("ROLLBACK")
                if ended := self.connection.execute(_END_WHO_STANDS, (IDLE_SECONDS,)).fetchone()[0]:
                    log.warning("a broker that stands in the middle of a batch had the ledger's lock", ended=ended)
            raise

    def _connect(self, *, patiently: bool = False) -> None:
        """A new session. Without patience, one that was not to be had a moment ago is not tried for again."""
        self._doubtful = True
        self.connection.close()
        if not patiently and monotonic() < self._again:
            raise psycopg.OperationalError("the server could not be reached a moment ago")
        try:
            self.connection = self._session(connect(self._address, role="writer", patience=PATIENCE))
        except (psycopg.Error, NotReady):
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._again = monotonic() + self._pause * random.uniform(0.5, 1)  # nosec B311 # noqa: S311 - jitter
            raise
        self._pause, self._again, self._read_only = _FIRST_PAUSE, 0.0, False

    def _session(self, connection: PostgresConnection) -> PostgresConnection:
        """What the scripts above name is said once to each session."""
        try:
            connection.execute(_SAID, (LOCK_SPACE << 32, self.writer, f"{round(HOLD_SECONDS * 1000)}ms"))
        except BaseException:
            connection.close()
            raise
        return connection


def unknown(why: str) -> NotReady:
    """What callers get of whom nobody can say whether what they asked for is in the ledger."""
    return NotReady(
        Reason.COMMIT_UNKNOWN,
        f"the ledger's server was lost during a COMMIT ({why}): whether it was committed is not known.",
        hint="Ask again under the same request id: nothing is done twice.",
        metadata={"cause": why},
    )
