"""Writes that wait for the end of their batch, and then go to the server together: one way there and back for all.

The operations of a batch write the same few kinds of rows. Sent one by one, each statement costs more on the way, and
at both ends, than its row; so they are put off. Nobody can read between them: whoever asks the server anything, or what
a statement did, has what was put off before sent first.

What is put off for many rows (:mod:`broker.stores.postgres_many`) is taken for done. Where it was not so, the server
says so before the COMMIT, and the batch is undone and run again, each statement at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import psycopg

from broker.stores.database import Cursor
from broker.stores.postgres_many import Many

Send = Callable[[str, Any], Cursor]


class _PutOff(Protocol):
    def send(self, send: Send) -> None:
        """Its statements, in order. Raises TypeError for what cannot be said."""
        ...


class Done:
    """What is known of a statement for many rows before it was sent: that it meets as many as were put off."""

    def __init__(self, rows: int = 1) -> None:
        self.rowcount = rows

    def fetchone(self) -> Any:
        """It returns nothing."""
        return None

    def fetchall(self) -> list[Any]:
        """It returns nothing."""
        return []

    def __iter__(self) -> Iterator[Any]:
        return iter(())


DONE = Done()


class Later:
    """A statement that was put off. Whoever asks what it did has it sent."""

    def __init__(self, text: str, values: Any, now: Callable[[], object]) -> None:
        self._text, self._values, self._now = text, values, now
        self._cursor: Cursor | None = None

    def send(self, send: Send) -> None:
        """See _PutOff.send."""
        self._cursor = send(self._text, self._values)

    def _sent(self) -> Cursor:
        if self._cursor is None:
            self._now()
        if self._cursor is None:
            raise psycopg.OperationalError("its transaction was undone before it was sent")
        return self._cursor

    @property
    def rowcount(self) -> int:
        """See Cursor.rowcount."""
        return self._sent().rowcount

    def fetchone(self) -> Any:
        """See Cursor.fetchone."""
        return self._sent().fetchone()

    def fetchall(self) -> list[Any]:
        """See Cursor.fetchall."""
        return self._sent().fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._sent())


class _Sheaf:
    """Rows of several statements, each of which can be sent once for all its rows: no row is changed twice."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[Many, list[tuple[Any, ...]]]] = {}
        self._changed: set[tuple[str, ...]] = set()

    def take(self, many: Many, row: tuple[Any, ...]) -> bool:
        """False, and not taken: that row was changed already."""
        if many.key:
            # Attempts and leases do not share ids; if they did, it would be a sheaf more.
            key = tuple([row[place] for place in many.key])
            if key in self._changed:
                return False
            self._changed.add(key)
        self._rows.setdefault(many.place, (many, []))[1].append(row)
        return True

    def send(self, send: Send) -> None:
        """See _PutOff.send."""
        for place in sorted(self._rows):
            many, rows = self._rows[place]
            send(many.text, many.parameters(rows))


class PuttingOff:
    """What waits, in the order in which it has to be sent."""

    def __init__(self, now: Callable[[], object]) -> None:
        """``now`` sends it."""
        self._now = now
        self._waiting: list[_PutOff] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def one(self, text: str, values: Any) -> Cursor:
        """Put a statement off."""
        later = Later(text, values, self._now)
        self._waiting.append(later)
        return later

    def row(self, many: Many, row: tuple[Any, ...]) -> Cursor:
        """Put one row of a statement for many off."""
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, _Sheaf) or not last.take(many, row):
            sheaf = _Sheaf()
            sheaf.take(many, row)
            self._waiting.append(sheaf)
        return DONE

    def send(self, send: Send) -> None:
        """All of it. Raises psycopg.DataError for what cannot be said to the server."""
        waiting, self._waiting = self._waiting, []
        try:
            for each in waiting:
                each.send(send)
        except (TypeError, ValueError) as error:
            raise psycopg.DataError("a value is none that the ledger keeps") from error

    def forget(self) -> None:
        """Their transaction is undone."""
        self._waiting.clear()
