"""The broker's own sessions with PostgreSQL: how one is opened, and what its failures mean.

Belongs here: connection settings that nothing in the environment or in a database may change, and the failures in the
port's words. One session per piece of work: a rotated password is used at once, and no powerful session lies about.
What a server says is never passed on (it may quote what an agent chose); SQLSTATE and its name are.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from broker.errors import BrokerError, InvalidInput, Reason
from broker.secret import Secret

Session = psycopg.Connection[tuple[Any, ...]]

# libpq's smallest (libpq, 34.1.2, connect_timeout).
_SHORTEST_CONNECT = 2
_REFUSALS = ("password authentication failed", "is not permitted to log in", "no pg_hba.conf entry")


@dataclass(frozen=True, slots=True)
class PostgresqlSettings:
    """What the operator says about one database. Times in seconds."""

    host: str  # a name, an address, or the directory of a unix socket
    port: int
    database: str
    username: str  # the broker's own: CREATEROLE, and nothing more
    tls: bool = True
    ca_file: str | None = None  # None: the system's roots
    login_prefix: str = ""  # before the attempt's id, in the names of logins
    timeout: float = 5.0
    threads: int = 8


class PostgresqlFailure(Exception):
    """PostgreSQL did not do what it was asked. ``sqlstate`` is empty where it did not say."""

    def __init__(self, what: str, sqlstate: str = "", *, refused: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.sqlstate = sqlstate
        self.refused = refused  # it refuses the broker's own login


def check_tls(name: str, settings: PostgresqlSettings) -> None:
    """Raises InvalidInput where a password would cross a network in clear."""
    if not settings.tls and not is_local(settings.host):
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"connector {name}: tls may be off only for loopback addresses and unix sockets.",
            hint="Leave `tls` out: verify-full is the default.",
            metadata={"connector": name, "field": "tls"},
        )


def is_local(host: str) -> bool:
    """Whether ``host`` is loopback or the directory of a unix socket."""
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Sessions:
    """Opens sessions as the broker's own login. Safe to use from several threads."""

    def __init__(self, settings: PostgresqlSettings, password: Callable[[], Secret]) -> None:
        self._settings = settings
        self._password = password

    @contextmanager
    def open(self, database: str | None = None) -> Iterator[Session]:
        """A session of ``database`` (default: the connector's) for one block. Raises PostgresqlFailure alone."""
        with guarded(self.connect(database)) as session:
            yield session

    def connect(self, database: str | None = None) -> Session:
        """A session in autocommit, for :func:`guarded`. Raises PostgresqlFailure."""
        settings = self._settings
        milliseconds = round(settings.timeout * 1000)
        options = {
            "statement_timeout": str(milliseconds),
            "lock_timeout": str(milliseconds),
            "idle_in_transaction_session_timeout": str(2 * milliseconds),
            "search_path": "pg_catalog",
            # Without it a CREATEROLE login may not end sessions of, nor drop what is owned by, those it made (16+).
            "createrole_self_grant": "set,inherit",
            "standard_conforming_strings": "on",
        }
        try:
            return psycopg.connect(
                host=settings.host,
                port=settings.port,
                dbname=database or settings.database,
                user=settings.username,
                password=self._password().reveal(),
                connect_timeout=max(_SHORTEST_CONNECT, round(settings.timeout)),
                application_name="jit-broker",
                options=" ".join(f"-c {name}={value}" for name, value in options.items()),
                target_session_attrs="read-write",
                # Whatever answers in the server's place gets neither the password nor a hash it can use again.
                require_auth="scram-sha-256",
                autocommit=True,
                **self._transport(),
            )
        except psycopg.Error as error:
            # Not the cause: its text is the server's, and the arguments that hang on it hold the password.
            failure = _not_connected(error)
        except (BrokerError, OSError, ValueError) as error:
            what = f"the broker's own password cannot be read ({type(error).__name__})"
            failure = PostgresqlFailure(what, refused=True)
        raise failure

    def _transport(self) -> dict[str, Any]:
        if not self._settings.tls:
            return {"sslmode": "disable", "gssencmode": "disable"}
        return {
            "sslmode": "verify-full",
            "sslrootcert": self._settings.ca_file or _system_roots(),
            "ssl_min_protocol_version": "TLSv1.2",
            "gssencmode": "disable",
        }


def _system_roots() -> str:
    """The system's roots as Python knows them: psycopg's own libpq looks for its "system" where nobody has any."""
    return ssl.get_default_verify_paths().cafile or "system"


def system_of(session: Session) -> str:
    """What its storage was made with, the same on its standbys and in its copies; empty where nobody may ask."""
    try:
        row = session.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    except (errors.InsufficientPrivilege, errors.UndefinedFunction):
        return ""
    return "" if row is None else str(row[0])


@contextmanager
def guarded(session: Session) -> Iterator[Session]:
    """Around work in ``session``, which is closed then: what psycopg raises comes out as PostgresqlFailure."""
    try:
        yield session
    except psycopg.Error as error:
        raise told(error) from None
    finally:
        session.close()


def _not_connected(error: psycopg.Error) -> PostgresqlFailure:
    # libpq has no code for a refused login, only the server's words.
    text = str(error)
    if any(refusal in text for refusal in _REFUSALS):
        return PostgresqlFailure("it refuses the broker's own login", refused=True)
    return PostgresqlFailure(f"it cannot be connected to ({type(error).__name__})")


def told(error: psycopg.Error) -> PostgresqlFailure:
    """The failure without the server's text."""
    state = error.sqlstate or ""
    if not state:
        return PostgresqlFailure(f"the session broke off ({type(error).__name__})")
    try:
        name = errors.lookup(state).__name__
    except KeyError:
        name = "an unknown error"
    return PostgresqlFailure(f"SQLSTATE {state} ({name})", state)
