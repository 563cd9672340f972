"""What the store asks of a database, so that its operations are the same on each.

A :class:`Connection` is used as one of ``sqlite3`` is. A :class:`Dialect` is what is true of a kind of database: its
statements by name, and what its errors mean. A :class:`Writing` opens and closes the transactions of one writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from broker.errors import BrokerError, NotReady, Reason

# What a statement raises beside the dialect's errors: it failed, and says why in words of a damaged schema, which are
# no text.
GARBLED: tuple[type[Exception], ...] = (UnicodeDecodeError,)


# Parameters of statements by name, each to be run for all of them; and the first row for each that has one, by its
# place among them.
Questions = Mapping[str, Sequence[tuple[Any, ...]]]
Answers = Mapping[str, Mapping[int, tuple[Any, ...]]]


class NotAsTaken(Exception):
    """What was put off and taken for done was not: nothing of the transaction is, and it is to be run at once."""


class Cursor(Protocol):
    """What a statement returned."""

    @property
    def rowcount(self) -> int:
        """How many rows a write changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """The same, one by one."""
        ...


class Connection(Protocol):
    """One session of a database, used by one thread at a time."""

    @property
    def total_changes(self) -> int:
        """Grows with every row that is written through it."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, and can still be undone from here."""
        ...

    def execute(self, statement: str, parameters: Any = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> Cursor:
        """Run one statement for each of several rows."""
        ...

    def close(self) -> None:
        """End the session. What is not committed is undone."""
        ...


class Dialect(Protocol):
    """What is true of one kind of database."""

    @property
    def sql(self) -> Mapping[str, str]:
        """Its statements by name; see :mod:`broker.stores.queries`."""
        ...

    @property
    def errors(self) -> type[Exception]:
        """Whatever the database, or the way to it, raises."""
        ...

    @property
    def unreadable(self) -> type[Exception]:
        """What a read raises where it meets text that is none; other errors may be of this type, too."""
        ...

    def told(self, error: Exception) -> BrokerError:
        """One of its errors as whoever's operation it was is told: nothing of that was committed."""
        ...

    def unavailable(self, error: Exception) -> NotReady:
        """One of its errors as everybody is told whose transaction it ended: nothing was committed."""
        ...

    def refuses_everybody(self, error: Exception) -> bool:
        """Whether nobody's write would fare better than the one that failed, so that the whole batch is refused."""
        ...

    def spoils_one_row(self, error: Exception) -> bool:
        """Whether only what was asked of one row failed, so that others can go on."""
        ...

    def leniently(self, connection: Connection, statement: str, parameters: Any, error: Exception) -> list[Any]:
        """All rows of a query that failed, where it was the text of a damaged row; else raises ``error``.

        Such a row fails its MAC; read as far as it goes, it does not stand in the way of the others.
        """
        ...


class Writing(Protocol):
    """Where the write transactions of one writer begin and end."""

    @property
    def dialect(self) -> Dialect:
        """The kind of database."""
        ...

    @property
    def connection(self) -> Connection:
        """Its session. After :meth:`begin` it may be another one."""
        ...

    # Whether the database is a way there and back: then what can be asked together is, and others may be waited for.
    far: bool
    # Nothing is put off, and taken for done before it is: set for the second run of a batch in which something was not.
    at_once: bool

    def begin(self) -> bool:
        """Open the one write transaction that there can be; True if somebody else may have written since our last.

        Then nothing that was remembered of the database is to be believed. Raises Tampered (SCHEMA_VERSION) where it
        was migrated meanwhile, and not for this release.
        """
        ...

    def ask(self, questions: Questions) -> Answers:
        """The answers to many questions of few kinds at once. Raises NotAsTaken: each has to be asked by itself."""
        ...

    def commit(self) -> None:
        """Make it durable.

        Raises NotAsTaken, unless all was done at once; one of the dialect's errors where nothing was committed,
        NotReady (COMMIT_UNKNOWN) where nobody can say.
        """
        ...

    def roll_back(self) -> None:
        """Undo what is open. Never raises: a connection that cannot is of no more use, and says so at :meth:`begin`."""
        ...

    def short_of_room(self, error: Exception) -> bool:
        """Whether ``error`` came of a full disk, and :meth:`make_room` would help."""
        ...

    def make_room(self, error: Exception) -> bool:
        """Give up what was kept for when ``error`` happens; True: what failed may be tried once more."""
        ...

    def close(self) -> None:
        """End the session."""
        ...


def closed() -> NotReady:
    """What is asked of a ledger after its close."""
    return NotReady(Reason.SHUTTING_DOWN, "the ledger is closed.", hint="Ask again after the restart.")
