"""One statement for many rows, made of the statement for one by rule, so that there is one set of SQL.

The rows go as one JSON array, which costs both ends less than a parameter for each value, and gives one text for any
number of them, prepared once. Types are those of the columns, as the migrations have made them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from broker.stores.postgres_sql import SQL, postgres_migrations, statement

# In the order in which they can be sent: what others refer to first, a row's making before its changes.
_WRITES = (
    "insert_lease",
    "insert_attempt",
    "insert_claimed_texts",
    "update_attempt",
    "end_attempt",
    "update_lease",
    "end_lease",
    "insert_audit",
)
# Of what is changed, by which its row is known. Inserts need none: their rows are new, or the server says so.
_KEY = ("tenant", "id")
_TEXT, _NUMBER, _OCTETS = 'TEXT COLLATE "C"', "BIGINT", "BYTEA"
# Questions for one row, or none, with the types of their parameters.
_QUESTIONS = {
    "intent_facts": (_TEXT, _NUMBER, _TEXT, _TEXT, _TEXT, _TEXT),
    "intent_news": (_TEXT, _TEXT, _TEXT),
    "count_leases_of_task": (_TEXT, _TEXT, _NUMBER),
    "text_key": (_TEXT, _TEXT),
    "attempt_facts": (_TEXT, _TEXT),
}

_INSERT = re.compile(r"\s*INSERT INTO ([a-z_]+) \(([a-z_,\s]+)\) VALUES \([$0-9,\s]+\);?\s*")
_UPDATE = re.compile(r"\s*UPDATE ([a-z_]+)\s+SET ((?s:.*?))\s+WHERE ((?s:.*?));?\s*")
_SET = re.compile(r"([a-z_]+) = \$([0-9]+)")
_TABLE = re.compile(r"CREATE TABLE ([a-z_]+) \((.*?)\n\);", re.DOTALL)
_COLUMN = re.compile(r'^\s*"?([a-z_]+)"?\s+(BIGINT|BYTEA|TEXT COLLATE "C")(?!\w)', re.MULTILINE)
_ADDED = re.compile(r'ALTER TABLE ([a-z_]+) ADD COLUMN ([a-z_]+) (BIGINT|BYTEA|TEXT COLLATE "C")(?!\w)')


class Document(bytes):
    """JSON, as a parameter."""


@dataclass(frozen=True, slots=True)
class Many:
    """Writes any number of rows: $1 is a JSON array of them, $2 (of changes) how many they are.

    Changes fail, by a division by nothing, unless each met its row.
    """

    place: int
    text: str
    names: tuple[str, ...]  # of an object's members, in the order of a row's values
    octets: tuple[int, ...]  # which values are bytes
    key: tuple[int, ...]  # which values are the row's key; none of an insert

    def parameters(self, rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        """Raises TypeError for what JSON cannot say."""
        written = Document(orjson.dumps([self._member(row) for row in rows]))
        return (written, len(rows)) if self.key else (written,)

    def _member(self, row: tuple[Any, ...]) -> dict[str, Any]:
        member = dict(zip(self.names, row, strict=True))
        for number in self.octets:
            member[self.names[number]] = "\\x" + row[number].hex()
        return member


def asked_for(rows: Sequence[tuple[Any, ...]]) -> Document:
    """The parameters of one of :data:`QUESTIONS`."""
    return Document(
        orjson.dumps([{"n": n, **{f"p{k}": value for k, value in enumerate(row, 1)}} for n, row in enumerate(rows)])
    )


def _question(name: str, types: Sequence[str]) -> str:
    columns = ", ".join(f"p{number} {type_}" for number, type_ in enumerate(types, 1))
    one = re.sub(r"\$([0-9]+)", r"d.p\1", statement(SQL[name]).text.rstrip().removesuffix(";"))
    return f"SELECT d.n, f.* FROM json_to_recordset($1) AS d (n BIGINT, {columns}) CROSS JOIN LATERAL ({one}) AS f"  # nosec B608 # noqa: S608 - our own text


def _many(place: int, name: str, tables: Mapping[str, Mapping[str, str]]) -> Many:
    text = statement(SQL[name]).text
    if made := _INSERT.fullmatch(text):
        table, columns = made[1], [column.strip() for column in made[2].split(",")]
        members = ", ".join(f"r.a{number}" for number in range(len(columns)))
        many = f"INSERT INTO {table} ({made[2]}) SELECT {members} FROM {_rows(columns, tables[table])}"  # nosec B608 # noqa: S608 - our own text
        return _described(place, many, columns, tables[table])
    changed = _UPDATE.fullmatch(text)
    assert changed is not None, name  # noqa: S101 - of our own statements
    table, values, where = changed.groups()
    columns = [column for part in (values, where) for column, _ in _SET.findall(part)]
    met = (
        f"UPDATE {table} AS w SET {_SET.sub(lambda one: f'{one[1]} = r.a{int(one[2]) - 1}', values)}"  # nosec B608 # noqa: S608 - our own text
        f" FROM {_rows(columns, tables[table])}"
        f" WHERE {_SET.sub(lambda one: f'w.{one[1]} = r.a{int(one[2]) - 1}', where)} RETURNING 1"
    )
    key = tuple(columns.index(column, len(_SET.findall(values))) for column in _KEY)
    many = f"WITH met AS ({met}) SELECT 1 / (count(*) = $2)::int FROM met"  # nosec B608 # noqa: S608 - our own text
    return _described(place, many, columns, tables[table], key)


def _described(
    place: int, text: str, columns: Sequence[str], types: Mapping[str, str], key: tuple[int, ...] = ()
) -> Many:
    octets = tuple(number for number, column in enumerate(columns) if types[column] == _OCTETS)
    return Many(place, text, tuple(f"a{number}" for number in range(len(columns))), octets, key)


def _rows(columns: Sequence[str], types: Mapping[str, str]) -> str:
    typed = ", ".join(f"a{number} {types[column]}" for number, column in enumerate(columns))
    return f"json_to_recordset($1) AS r ({typed})"


def _tables() -> Mapping[str, Mapping[str, str]]:
    """The types of columns, by table and name."""
    tables: dict[str, dict[str, str]] = {}
    for _, text in sorted(postgres_migrations().items()):
        for table, columns in _TABLE.findall(text):
            tables[table] = dict(_COLUMN.findall(columns))
        for table, column, type_ in _ADDED.findall(text):
            tables[table][column] = type_
    return tables


# By the text of the statement for one row.
MANY: Mapping[str, Many] = MappingProxyType(
    {SQL[name]: _many(place, name, tables) for tables in (_tables(),) for place, name in enumerate(_WRITES)}
)
# By name. The rows are the question's, each with the number of its parameters in front.
QUESTIONS: Mapping[str, str] = MappingProxyType({name: _question(name, types) for name, types in _QUESTIONS.items()})
