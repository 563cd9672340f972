"""SQLite as :mod:`broker.stores.database` asks for it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from typing import Any, cast

from broker.errors import BrokerError, Defect, NotReady, Reason
from broker.stores.ballast import Ballast
from broker.stores.database import GARBLED, Answers, Connection, Questions
from broker.stores.ledger_file import CHECKPOINT_PAGES, keep_log
from broker.stores.queries import SQL

# On a full disk the write-ahead log is moved into the file after so many pages (1 MiB), and does not grow beyond.
TIGHT_PAGES = 256
_REFUSALS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


class SqliteDialect:
    """A :class:`broker.stores.database.Dialect`."""

    sql: Mapping[str, str] = SQL
    errors: type[Exception] = sqlite3.Error
    unreadable: type[Exception] = sqlite3.OperationalError

    def told(self, error: Exception) -> BrokerError:
        """See Dialect.told."""
        if isinstance(error, _REFUSALS):
            return Defect(Reason.INTERNAL, f"the ledger's schema refused a write ({error.sqlite_errorname}).")
        return unavailable(error)

    def unavailable(self, error: Exception) -> NotReady:
        """See Dialect.unavailable."""
        return unavailable(error)

    def refuses_everybody(self, error: Exception) -> bool:
        """See Dialect.refuses_everybody. A full disk is told by the writing (short_of_room)."""
        return False

    def spoils_one_row(self, error: Exception) -> bool:
        """A flipped byte in an index entry makes SQLite refuse every change of that row (SQLITE_CORRUPT)."""
        if isinstance(error, (sqlite3.IntegrityError, *GARBLED)):  # of a damaged constraint, which it quotes
            return True
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT

    def leniently(self, connection: Connection, statement: str, parameters: Any, error: Exception) -> list[Any]:
        """Where not SQLite failed but the module, on text that is no UTF-8."""
        if hasattr(error, "sqlite_errorcode"):
            raise error
        ours = cast(sqlite3.Connection, connection)
        ours.text_factory = _lenient
        try:
            return ours.execute(statement, parameters).fetchall()
        finally:
            ours.text_factory = str


SQLITE = SqliteDialect()


class SqliteWriting:
    """A :class:`broker.stores.database.Writing` on one connection, which is its own from start to close."""

    dialect = SQLITE
    far = False
    at_once = True

    def __init__(self, connection: sqlite3.Connection, ballast: Ballast | None = None) -> None:
        self.connection = connection
        self._ballast = ballast
        self._tight = False  # the disk is full: what the ballast gave back must last
        self._version = -1

    def begin(self) -> bool:
        """See Writing.begin. Costs one look at the header of the write-ahead log's index."""
        if self._tight and self._ballast is not None and self._ballast.held:
            self._keep_log(CHECKPOINT_PAGES)
            self._tight = False
        self.connection.execute("BEGIN IMMEDIATE")
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return False
        self._version = version
        return True

    def ask(self, questions: Questions) -> Answers:
        """See Writing.ask. Never needed: a question costs next to nothing here."""
        return {
            name: {
                n: found
                for n, row in enumerate(rows)
                if (found := self.connection.execute(SQL[name], row).fetchone()) is not None
            }
            for name, rows in questions.items()
        }

    def commit(self) -> None:
        """See Writing.commit."""
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        """See Writing.roll_back."""
        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def short_of_room(self, error: Exception) -> bool:
        """See Writing.short_of_room."""
        return self._ballast is not None and self._ballast.relevant(error)

    def make_room(self, error: Exception) -> bool:
        """See Writing.make_room."""
        if self._ballast is None or not self._ballast.make_room(error):
            return False
        self._keep_log(TIGHT_PAGES)
        self._tight = True
        return True

    def _keep_log(self, pages: int) -> None:
        with contextlib.suppress(sqlite3.Error):
            keep_log(self.connection, pages)

    def close(self) -> None:
        """See Writing.close. The last connection moves the write-ahead log into the file."""
        self.connection.close()


def unavailable(error: Exception) -> NotReady:
    """A failure of the file, or of its disk."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return NotReady(
        Reason.STORE_UNAVAILABLE,
        f"the ledger cannot be used ({name}): nothing was committed.",
        hint="Nothing was granted by this call. Look at the disk of the ledger's directory.",
        metadata={"cause": name},
    )


def _lenient(stored: bytes) -> str:
    return stored.decode("utf-8", "replace")
