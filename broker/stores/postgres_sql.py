"""The store's statements as PostgreSQL understands them.

There is one set of statements (``sql/*.sql``), in SQL that both databases know as far as it goes. What is left is said
otherwise by the few rules here: how parameters are written, which index SQLite shall take (PostgreSQL decides by its
statistics), JSON, and in migrations the names of types. Where that does not do, ``sql/postgres/`` has a statement of
the same name, and ``migrations/postgres/`` more of the step of the same number. That every statement is understood by
both is tested, on real servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from broker.stores.queries import load, migrations, packed, texts

# Literals, casts and comments are passed over; then parameters by number, by place, by name.
_TOKEN = re.compile(r"'(?:[^']|'')*'|::|--[^\n]*|\?(?P<number>[0-9]+)|(?P<place>\?)|:(?P<name>[a-z_]+)")
_WRITES = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|WITH\b(?s:.)*\b(?:INSERT|UPDATE|DELETE))\b")
_JSON_EACH = re.compile(r"\bjson_each\((CASE (?:(?!\bEND\b)(?s:.))*END|:[a-z_]+|\?)\)")
_RULES = (
    (re.compile(r"\s+(?:NOT INDEXED|INDEXED BY [a-z_]+)\b"), ""),
    (_JSON_EACH, r"json_array_elements_text((\1)::json)"),
)
# In migrations alone. Texts are compared by their bytes, as SQLite does; no index depends on a locale.
_COMMENT = re.compile(r"--(?! readable from: )[^\n]*")
_DDL_RULES = (
    (re.compile(r"\bINTEGER\b"), "BIGINT"),
    (re.compile(r"\bBLOB\b"), "BYTEA"),
    (re.compile(r"\bTEXT\b"), 'TEXT COLLATE "C"'),
    (re.compile(r"\)\s*STRICT(?:, WITHOUT ROWID)?;"), ");"),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement for the wire: ``$1, $2, ...``, and by which names their values come, if by names."""

    text: str
    names: tuple[str, ...]
    writes: bool

    def values(self, parameters: Mapping[str, Any] | tuple[Any, ...]) -> tuple[Any, ...]:
        """The values in the order of their numbers."""
        if isinstance(parameters, Mapping):
            return tuple([parameters[name] for name in self.names])
        return tuple(parameters)


def statement(text: str) -> Statement:
    """``text``, in the SQL of ``sql/*.sql``, for the wire."""
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    names: list[str] = []
    places = 0

    def numbered(match: re.Match[str]) -> str:
        nonlocal places
        if match["number"]:
            return f"${match['number']}"
        if match["place"]:
            places += 1
            return f"${places}"
        if name := match["name"]:
            if name not in names:
                names.append(name)
            return f"${names.index(name) + 1}"
        return match[0]

    made = _TOKEN.sub(numbered, text)
    return Statement(made, tuple(names), _WRITES.match(text) is not None)


def _packed(columns: str) -> str:
    return packed(columns, "json_build_array({})::text", "encode({}, 'hex')")


SQL = load(texts("sql"), instead=texts("sql/postgres"), pack=_packed)


def postgres_migrations() -> Mapping[int, str]:
    """The schema's steps by number: SQLite's by rule, with what is PostgreSQL's own."""
    own = {int(name.split("_", 1)[0]): text for name, text in texts("migrations/postgres").items()}
    return MappingProxyType({number: _ddl(text) + own.get(number, "") for number, text in migrations().items()})


def _ddl(text: str) -> str:
    text = _COMMENT.sub("", text)
    for pattern, instead in _DDL_RULES:
        text = pattern.sub(instead, text)
    return text
