"""What an examination of a PostgreSQL cluster finds: the broker's own login, and what everybody may do there.

Nothing is made or changed by any of it. Each row is one question in SQL whose answer should be empty or false.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.connectors.postgresql_session import PostgresqlFailure, Session, Sessions
from broker.ports.clock import Clock
from broker.ports.connectors import Doubt, Severity

_OLDEST_VERSION = 160000
_SKEW = timedelta(seconds=5)
_MINE = "FROM pg_roles WHERE rolname = current_user"


@dataclass(frozen=True, slots=True)
class _Question:
    """``sql`` yields one text for each thing that is wrong; ``what`` is told with them."""

    severity: Severity
    sql: str
    what: str
    remedy: str


_QUESTIONS = (
    _Question(
        Severity.ERROR,
        f"SELECT 'superuser' {_MINE} AND rolsuper",
        "The broker's own login is a {}: it may do everything.",
        "Make one as the connector's page says: LOGIN CREATEROLE, and nothing more.",
    ),
    _Question(
        Severity.ERROR,
        f"SELECT 'CREATEROLE' {_MINE} AND NOT rolcreaterole AND NOT rolsuper",
        "The broker's own login lacks {}: it cannot make logins.",
        "ALTER ROLE ... CREATEROLE.",
    ),
    _Question(
        Severity.ERROR,
        "SELECT unnest(array_remove(ARRAY[CASE WHEN rolreplication THEN 'REPLICATION' END,"
        f" CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END], NULL)) {_MINE}"
        " AND NOT rolsuper",
        "The broker's own login has {}, which it does not need, and could give to what it makes.",
        "ALTER ROLE ... NOREPLICATION NOBYPASSRLS NOCREATEDB.",
    ),
    _Question(
        Severity.ERROR,
        "SELECT r.rolname FROM pg_roles r, pg_roles me WHERE me.rolname = current_user AND NOT me.rolsuper"
        " AND r.rolname ~ '^pg_' AND r.rolname <> 'pg_database_owner' AND pg_has_role(me.oid, r.oid, 'MEMBER')",
        "The broker's own login is a member of {}, which it does not need.",
        "REVOKE it from the login.",
    ),
    _Question(
        Severity.WARNING,
        "SELECT datname FROM pg_database WHERE datallowconn AND datname <> current_database()"
        " AND has_database_privilege('public', oid, 'CONNECT')",
        "Everybody may connect to the database {}, so every login may, and what it makes there is dropped only if the"
        " broker's own login may connect, too.",
        "REVOKE CONNECT ON DATABASE ... FROM PUBLIC.",
    ),
    _Question(
        Severity.WARNING,
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        " AND has_schema_privilege('public', oid, 'CREATE')",
        "Everybody may make objects in the schema {}.",
        "REVOKE CREATE ON SCHEMA ... FROM PUBLIC.",
    ),
    _Question(
        Severity.WARNING,
        "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
        " AND has_table_privilege('public', pg_class.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')",
        "Everybody may use {}, whatever a template grants.",
        "REVOKE ALL ON ... FROM PUBLIC.",
    ),
    _Question(
        Severity.WARNING,
        "SELECT name FROM pg_settings WHERE name = 'lo_compat_privileges' AND setting = 'on'",
        "{} is on: every login may read and change every large object.",
        "Set it off.",
    ),
    _Question(
        Severity.WARNING,
        "SELECT name FROM pg_settings WHERE name = 'max_prepared_transactions' AND setting <> '0'",
        "{} is not 0: a login's prepared transactions outlive its sessions, until the broker rolls them back.",
        "Set it to 0 unless something needs it.",
    ),
)
# Of one doubt; more are counted.
_MOST_NAMES = 5


def unreachable(failure: PostgresqlFailure) -> Doubt:
    """The very first question was not answered, or the login is refused."""
    if failure.refused:
        remedy = "Check the connector's username, its password and pg_hba.conf; nothing is issued or revoked."
        return Doubt(Severity.ERROR, f"It refuses the broker: {failure.what}.", remedy)
    remedy = "Check the connector's login, tls and ca_file, the network between, and whether it is a primary."
    return Doubt(Severity.ERROR, f"It cannot be asked: {failure.what}.", remedy)


def doubts(sessions: Sessions, clock: Clock) -> Sequence[Doubt]:
    """Everything that is not as it must be. Raises PostgresqlFailure."""
    with sessions.open() as session:
        return [*_of_server(session, clock), *(each for question in _QUESTIONS for each in _ask(session, question))]


def _of_server(session: Session, clock: Clock) -> Iterator[Doubt]:
    version = session.info.server_version
    if version < _OLDEST_VERSION:
        what = f"It is PostgreSQL {version // 10000}, where CREATEROLE is nearly a superuser."
        yield Doubt(Severity.ERROR, what, "Use PostgreSQL 16 or later; nothing is issued here.")
    row = session.execute("SELECT clock_timestamp()").fetchone()
    present: datetime = row[0]  # type: ignore[index]
    if abs(skew := present - clock.now()) > _SKEW:
        what = f"Its clock is {skew.total_seconds():+.0f} s from the broker's."
        yield Doubt(Severity.WARNING, what, "Synchronise both clocks.")


def _ask(session: Session, question: _Question) -> Iterator[Doubt]:
    names = [str(name) for (name,) in session.execute(question.sql.encode()).fetchall()]
    if not names:
        return
    listed = ", ".join(ascii(name).strip("'") for name in names[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    yield Doubt(question.severity, question.what.format(listed + more), question.remedy)
