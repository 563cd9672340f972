"""Sessions of a PostgreSQL server, used as ``sqlite3`` connections are, and what must be true of them.

Values go to the server as texts without a type, which it takes as what they are compared with or stored as: numbers
and truth values alike, as SQLite has them. Statements are prepared once per session.

An answered COMMIT must survive a power cut: ``fsync`` and ``full_page_writes`` are on, ``synchronous_commit`` is at
least ``on``. They are read from the server, and not believed.

A server may stop without a word: its process is stopped, its disk hangs, a proxy forgets to forward. TCP does not
notice what still acknowledges bytes, so whoever waits for an answer waits for ``patience`` seconds and then takes the
session for lost, whatever the server does about it (:class:`_Session`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PipelineStatus, TransactionStatus

from broker.errors import InvalidInput, NotReady, Reason
from broker.secret import Secret
from broker.stores.database import Cursor
from broker.stores.postgres_many import MANY, QUESTIONS, Document, asked_for
from broker.stores.postgres_putting_off import Done, PuttingOff
from broker.stores.postgres_sql import Statement, statement

log = structlog.get_logger("broker.ledger")

# The oldest release whose SQL is enough: IS JSON, derived tables without a name.
OLDEST = 160_000
# For so long a transaction may wait for its client: one that was stopped in the middle holds up all the others. Not
# less, because one that is starved of processors looks the same, and its batch must still be written.
IDLE_SECONDS = 5
# For so long a writer waits for the others' transactions.
LOCK_SECONDS = 10
# For so long an answer is waited for: longer than the server itself lets anybody wait for a lock.
PATIENCE = LOCK_SECONDS + 5.0
# The first release that ends a transaction for its length (transaction_timeout).
BOUNDS_TRANSACTIONS = 170_000
# For so long a batch may have the lock, whatever it does: whoever needs longer has lost patience with an answer.
HOLD_SECONDS = PATIENCE
# Of the lock without which nothing is written: beside the number of our table, so that what else uses advisory locks in
# this database is not held up.
LOCK_SPACE = 0x6A62
_CONNECT_SECONDS = 5
_LONGEST_WORDS = 500
# For so long (seconds) nobody is told again that the server cannot be reached, for the same reason.
_SAID_ALREADY = 60.0
# What holds of every session on the way. A peer that says nothing: seconds until it is asked, between questions, and
# how many; and how long (ms) what was sent may go without being acknowledged.
WAY: dict[str, str | int] = {
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",
}
# Of the writer, which looks for single rows by their keys. A plan that is kept was made when tables were small, and
# reading all of one looked cheap then.
_BY_KEYS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
_SESSION = {
    "timezone": "UTC",
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    # None: it would also cut a COMMIT's wait for a standby short, and leave the commit on this server alone. What a
    # client has given up ends by the next line; a commit that is being replicated does not.
    "statement_timeout": "0",
    "client_connection_check_interval": "5s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
_SETTINGS = """
SELECT name, setting FROM pg_settings
WHERE name IN ('server_version_num', 'fsync', 'full_page_writes', 'synchronous_commit', 'synchronous_standby_names')
"""
# What makes an answered COMMIT durable, on the server's own disk at least; from the weakest that is enough.
_DURABLE = ("on", "remote_apply")
_VERIFIED = "verify-full"


class Reaching:
    """Says in the log that a server cannot be reached, and why: once in a while, however many sessions try."""

    def __init__(self) -> None:
        self._why, self._said = "", 0.0
        self._said_unprotected: float | None = None

    def failed(self, shown: str, error: Exception) -> None:
        """A session was not to be had."""
        why = words(error)
        if why != self._why or monotonic() - self._said > _SAID_ALREADY:
            self._why, self._said = why, monotonic()
            log.error("the ledger's server cannot be reached", server=shown, why=why)

    def reached(self, shown: str) -> None:
        """One was."""
        if self._why:
            self._why = ""
            log.warning("the ledger's server is reached again", server=shown)

    def unprotected(self, shown: str) -> None:
        """One was whose commits no other server has when they are answered."""
        last = self._said_unprotected
        if last is None or monotonic() - last > _SAID_ALREADY:
            self._said_unprotected = monotonic()
            log.warning(
                "the ledger's server waits for no standby (synchronous_standby_names): after a failover to another one,"
                " commits that were answered may be lost",
                server=shown,
            )


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A DSN, which may hold a password, and whether a server elsewhere may be one that proves nothing."""

    dsn: Secret
    allow_unverified: bool = False
    # What is told of it: no password.
    shown: str = field(init=False, default="")
    # Whether it names servers of which one is to take another's place.
    several: bool = field(init=False, default=False)
    reaching: Reaching = field(init=False, default_factory=Reaching, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raises InvalidInput (CONFIG_INVALID) for a DSN that is none, or that would trust whoever answers."""
        try:
            parts = conninfo_to_dict(self.dsn.reveal())
        except psycopg.Error:
            raise _refused("the ledger's DSN is not one that libpq understands.") from None
        hosts = str(parts.get("host") or parts.get("hostaddr") or "").split(",")
        object.__setattr__(self, "shown", f"{','.join(hosts)}/{parts.get('dbname') or ''}")
        object.__setattr__(self, "several", len(hosts) > 1)
        remote = [host for host in hosts if not _is_here(host)]
        if remote and parts.get("sslmode") != _VERIFIED and not self.allow_unverified:
            raise _refused(
                f"the ledger's DSN trusts whoever answers for {remote[0]}: its sslmode is not {_VERIFIED}.",
                f"Write sslmode={_VERIFIED} and sslrootcert into it.",
            )

    def __str__(self) -> str:
        return self.shown


def _is_here(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(message: str, hint: str = "") -> InvalidInput:
    return InvalidInput(Reason.CONFIG_INVALID, message, hint=hint)


def words(error: Exception) -> str:
    """What the server, or libpq on the way to it, says is wrong: for operators. There is no password in it."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) and error.sqlstate else ""
    return " ".join((said or str(error) or type(error).__name__).split())[:_LONGEST_WORDS]


T = TypeVar("T")


class ServerSilent(psycopg.OperationalError):
    """The server did not answer in time. The session is closed: nothing that it says later is taken for an answer."""


class _Session(psycopg.Connection[tuple[Any, ...]]):
    """One that waits no longer than ``patience`` (seconds) for the answer to anything; None: for ever.

    Where waiting fails by anything but the server's word it is closed. libpq may not know that there is nobody any more
    (psycopg, "connection socket closed": a reset while a pipeline was being sent), and calls such a session sound; it
    is not, and whether what was sent was done nobody has heard.
    """

    patience: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """See psycopg.Connection.wait. Raises ServerSilent."""
        begun, patience = monotonic(), self.patience
        try:
            return super().wait(gen, interval, patience if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is not None or isinstance(error, psycopg.errors.PipelineAborted):
                raise
            self.close()
            if patience is None or monotonic() - begun < patience:
                raise
            raise ServerSilent(f"the server has not answered for {patience:g} s") from None


class PostgresConnection:
    """A :class:`broker.stores.database.Connection`. Transactions are opened and closed by name."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self.process = session.info.backend_pid  # the server's
        self.release = session.info.server_version  # the server's, as 180004
        self._statements: dict[str, Statement] = {}
        # Warnings since they were last looked at.
        self.warnings: list[str] = []
        session.add_notice_handler(self._warned)
        self.total_changes = 0
        # Whether writes wait until something is asked, or the end of the transaction.
        self.puts_off = False
        self._put_off = PuttingOff(self._send)

    def wait_no_longer_than(self, patience: float) -> None:
        """For the answer to whatever is asked from now on, in seconds."""
        self._session.patience = patience

    @property
    def in_transaction(self) -> bool:
        """Whether one is open, be it one that can only be undone."""
        return self._session.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    @property
    def lost(self) -> bool:
        """Whether there is nobody at the other end any more, as far as is known."""
        session = self._session
        # Outside of a pipeline: one that could not be left ends nothing any more.
        return session.broken or session.closed or session.pgconn.pipeline_status != PipelineStatus.OFF

    def execute(self, statement: str, parameters: Any = (), /) -> Cursor:
        """Run one statement of ``sql/``, or put it off."""
        known = self._known(statement)
        values = known.values(parameters)
        if self.puts_off and known.writes:
            self.total_changes += 1
            many = MANY.get(statement)
            return self._put_off.one(known.text, values) if many is None else self._put_off.row(many, values)
        if self._put_off:
            return self._send((known.text, values))[0]
        cursor = self._session.execute(known.text, values)
        if known.writes:
            self.total_changes += max(cursor.rowcount, 0)
        return cursor

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> Cursor:
        """Run one for each of several rows, in one go."""
        if self.puts_off and statement in MANY:
            rows = 0
            for each in parameters:
                self.execute(statement, each)
                rows += 1
            return Done(rows)
        known = self._known(statement)
        self._send_what_was_put_off()
        cursor = self._session.cursor()
        cursor.executemany(known.text, [known.values(each) for each in parameters])
        self.total_changes += max(cursor.rowcount, 0)
        return cursor

    def together(self, script: str) -> list[tuple[Any, ...]]:
        """Run several statements without parameters in one round trip; the rows of the last one that has any."""
        self._send_what_was_put_off()
        cursor = self._session.execute(script, prepare=False)
        rows: list[tuple[Any, ...]] = []
        while True:
            if cursor.description is not None:
                rows = cursor.fetchall()
            if not cursor.nextset():
                return rows

    def put_off(self, statement: str) -> None:
        """Send a statement, which has no parameters, with the next one."""
        self._put_off.one(statement, None)

    def finish(self, *statements: str) -> None:
        """Send what was put off, then these, which have no parameters, in one round trip; nothing after an error."""
        self._send(*((each, None) for each in statements))

    def ask(self, questions: Mapping[str, Sequence[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
        """The answers to questions of ``postgres_many``, each for many parameters, in one round trip."""
        asked = {name: rows for name, rows in questions.items() if rows}
        cursors = self._send(*((QUESTIONS[name], (asked_for(rows),)) for name, rows in asked.items()))
        return {name: cursor.fetchall() for name, cursor in zip(asked, cursors, strict=True)}

    def forget_what_was_put_off(self) -> None:
        """Its transaction is undone."""
        self._put_off.forget()

    def _send_what_was_put_off(self) -> None:
        if self._put_off:
            self._send()

    def _send(self, *last: tuple[str, Any]) -> list[Cursor]:
        """Send what was put off, then ``last``, in one round trip; the cursors of ``last``."""
        with self._session.pipeline():
            self._put_off.send(self._session.execute)
            return [self._session.execute(text, values) for text, values in last]

    def stream(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a query without parameters, few at a time; in a transaction, which an error ends."""
        self._send_what_was_put_off()
        with self._session.cursor("stream") as cursor:
            cursor.execute(self._known(statement).text.rstrip().removesuffix(";"))
            yield from cursor

    def copy_in(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """``COPY ... FROM STDIN``: rows in bulk; how many."""
        self._send_what_was_put_off()
        with self._session.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
            return cursor.rowcount

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def _known(self, text: str) -> Statement:
        known = self._statements.get(text)
        if known is None:
            known = self._statements[text] = statement(text)
        return known

    def _warned(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self.warnings.append(diagnostic.message_primary or "")


def connect(address: ServerAddress, *, role: str, patience: float | None = None) -> PostgresConnection:
    """A session that can write. Raises psycopg.Error, or NotReady (STORE_UNAVAILABLE) where a COMMIT would not last.

    ``patience``: seconds for which an answer is waited for; None, for tools that people watch: as long as it takes.
    """
    try:
        session = _Session.connect(
            make_conninfo(address.dsn.reveal(), application_name=f"brokerd {role}", **WAY),
            autocommit=True,
            prepare_threshold=0,
            cursor_factory=psycopg.RawCursor,
            context=_ADAPTERS,
        )
    except psycopg.Error as error:
        if patience is not None:  # whoever watches is told by the tool
            address.reaching.failed(address.shown, error)
        raise
    address.reaching.reached(address.shown)
    session.patience = patience
    session.prepared_max = None
    session.server_cursor_factory = psycopg.RawServerCursor
    connection = PostgresConnection(session)
    try:
        settings = {**_SESSION, **(_BY_KEYS if role == "writer" else {})}
        connection.together("".join(f"SET {name} = '{value}';" for name, value in settings.items()))
        _own(connection, address)
        _durable(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _own(connection: PostgresConnection, address: ServerAddress) -> None:
    """Whether a session of the server's is this connection's, with what was set in it, or each transaction has another.

    A pooler does not tell. It gives a process number of its own, for cancelling; and the session that it has just taken
    back is the one that it gives to the next who asks.
    """
    seen = _process(connection)
    if seen == connection.process:
        return
    patience, connection._session.patience = connection._session.patience, float(_CONNECT_SECONDS)
    try:
        with psycopg.connect(make_conninfo(address.dsn.reveal(), **WAY)) as other:
            other.execute("SELECT 1")  # in a transaction that is open until it is closed
            mine = _process(connection) == seen
    except ServerSilent:  # there is one session for all
        mine = False
    if not mine:
        raise _unfit(
            address,
            "what is between gives each transaction another session of the server's, as a pooler in transaction mode"
            " does, and brokerd's sessions have settings, locks and prepared statements",
            "Set the pooler to session mode, or name the server itself in the DSN.",
        )
    connection._session.patience, connection.process = patience, seen


def _process(connection: PostgresConnection) -> int:
    return int(connection.together("SELECT pg_backend_pid()")[0][0])


def _durable(connection: PostgresConnection, address: ServerAddress) -> None:
    # Said in any case: what is not said to a session follows the server's files while it goes on.
    given = connection.execute("SELECT current_setting('synchronous_commit')").fetchone()[0]
    said = given if given in _DURABLE else _DURABLE[0]
    connection.execute("SELECT set_config('synchronous_commit', ?1, false)", (said,))
    settings = dict(connection.execute(_SETTINGS).fetchall())
    if int(settings["server_version_num"]) < OLDEST:
        raise _unfit(address, f"it is release {settings['server_version_num']}, and {OLDEST} is needed")
    for name, wanted in (("fsync", ("on",)), ("full_page_writes", ("on",)), ("synchronous_commit", _DURABLE)):
        if settings.get(name) not in wanted:
            raise _unfit(address, f"{name} is {settings.get(name)}; an answered commit would not be durable")
    if address.several and not settings["synchronous_standby_names"]:
        address.reaching.unprotected(address.shown)


def _unfit(
    address: ServerAddress,
    why: str,
    hint: str = "Set it in postgresql.conf; docs/postgresql-store.md says what brokerd relies on.",
) -> NotReady:
    return NotReady(
        Reason.STORE_UNAVAILABLE,
        f"the ledger's server {address.shown} cannot be used: {why}.",
        hint=hint,
        metadata={"server": address.shown},
    )


class _Untyped(Dumper):
    """Of texts: the server finds out what they are."""

    oid = 0

    def dump(self, obj: str) -> Buffer:
        if "\x00" in obj:
            raise psycopg.DataError("a text holds a NUL, which PostgreSQL does not keep")
        return obj.encode()


class _UntypedNumber(Dumper):
    """Of numbers, and of truth values as numbers."""

    oid = 0

    def dump(self, obj: int) -> Buffer:
        return b"%d" % obj

    def quote(self, obj: int) -> Buffer:
        """Where psycopg itself writes one into a statement."""
        return b"%d" % obj


class _AsItIs(Dumper):
    """Of documents."""

    oid = 0

    def dump(self, obj: Document) -> Buffer:
        return obj


_ADAPTERS = AdaptersMap(psycopg.adapters)
_ADAPTERS.register_dumper(Document, _AsItIs)
_ADAPTERS.register_dumper(str, _Untyped)
_ADAPTERS.register_dumper(int, _UntypedNumber)
_ADAPTERS.register_dumper(bool, _UntypedNumber)
