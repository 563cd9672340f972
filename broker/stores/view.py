"""Queries by name on one connection: what the writer and the readers of a ledger have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from broker.stores.database import Connection, Dialect
from broker.stores.seal import RowSeal

if TYPE_CHECKING:
    from broker.stores.images import Images

T = TypeVar("T")

Raw = tuple[Any, ...]
# By name, or by place (?) where it must be fast: each name costs two changes of the interpreter's lock. Not by number
# (?1), which is a name to Python's sqlite3.
Parameters = Mapping[str, Any] | tuple[Any, ...]


class View:
    """Queries by name on one connection, and the seal to check what they return."""

    # Only the writer has any: what it knows without a read.
    images: Images | None = None

    def __init__(self, connection: Connection, dialect: Dialect, seal: RowSeal) -> None:
        self.connection = connection
        self.dialect = dialect
        self.sql = dialect.sql
        self.seal = seal

    def one(self, query: str, parameters: Parameters) -> Raw | None:
        """The first row, or None."""
        try:
            row: Raw | None = self.connection.execute(self.sql[query], parameters).fetchone()
        except self.dialect.unreadable as error:
            rows = self.dialect.leniently(self.connection, self.sql[query], parameters, error)
            return rows[0] if rows else None
        return row

    def row(self, query: str, parameters: Parameters) -> Raw:
        """The one row of an aggregate."""
        row: Raw = self.connection.execute(self.sql[query], parameters).fetchone()
        return row

    def made(self, query: str, parameters: Parameters, make: Callable[[Raw], T]) -> list[T]:
        """What ``make``, which is pure, makes of each row: of very many rows, all are never in memory at once."""
        try:
            return [make(raw) for raw in self.connection.execute(self.sql[query], parameters)]
        except self.dialect.unreadable as error:
            return list(map(make, self.dialect.leniently(self.connection, self.sql[query], parameters, error)))

    def all(self, query: str, parameters: Parameters) -> list[Raw]:
        """All rows; the query has a LIMIT, or is bounded by what one lease or task has."""
        try:
            return self.connection.execute(self.sql[query], parameters).fetchall()
        except self.dialect.unreadable as error:
            return self.dialect.leniently(self.connection, self.sql[query], parameters, error)
