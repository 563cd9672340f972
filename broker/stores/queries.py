"""SQL is kept as SQL: named, commented queries in ``sql/*.sql``, read once.

A line ``-- name --`` starts a query; a line ``-- fragment name --`` starts a text that queries quote
as ``{name}`` (column lists, so that every reader of a table gets its columns in one order).

Each column list ``x_columns`` can also be quoted as ``{x_packed}``: the same columns as one JSON array, the MAC in
hex. Python's sqlite3 lets go of the interpreter for every single column of a row and takes it back, which on a
busy broker costs more than the read itself; one column costs it once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from types import MappingProxyType

_HEADING = re.compile(r"^-- (fragment )?([a-z_]+) --\n", re.MULTILINE)


def parse(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """(queries, fragments) of one SQL file. Raises ValueError for a name used twice or text before a name."""
    parts = _HEADING.split(text)
    if parts[0].strip():
        raise ValueError("SQL before the first heading")
    queries: dict[str, str] = {}
    fragments: dict[str, str] = {}
    for kind, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if name in queries or name in fragments:
            raise ValueError(f"{name} is defined twice")
        (fragments if kind else queries)[name] = _without_comments(body)
    return queries, fragments


def _without_comments(body: str) -> str:
    return "\n".join(line for line in body.splitlines() if line.strip() and not line.startswith("--"))


def packed(columns: str, array: str = "json_array({})", hexed: str = "hex({})") -> str:
    """A column list as one JSON array, the MAC in hex."""
    return array.format(re.sub(r"[a-z]+[.]mac,", lambda mac: hexed.format(mac[0][:-1]) + ",", columns))


def load(
    texts: Mapping[str, str], instead: Mapping[str, str] | None = None, pack: Callable[[str], str] = packed
) -> Mapping[str, str]:
    """The queries of several files by name, fragments filled in; those of ``instead`` take the place of others.

    Raises ValueError for whatever is amiss.
    """
    queries, fragments = _gathered(texts)
    for known, found in zip((queries, fragments), _gathered(instead or {}), strict=True):
        if strange := found.keys() - known.keys():
            raise ValueError(f"{', '.join(sorted(strange))}: instead of nothing")
        known.update(found)
    lists = [name for name in fragments if name.endswith("_columns")]
    fragments |= {name.removesuffix("columns") + "packed": pack(fragments[name]) for name in lists}
    return MappingProxyType({name: _fill(body, fragments) for name, body in queries.items()})


def _gathered(texts: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    queries: dict[str, str] = {}
    fragments: dict[str, str] = {}
    for file, text in texts.items():
        for known, found in zip((queries, fragments), parse(text), strict=True):
            if twice := known.keys() & found.keys():
                raise ValueError(f"{file}: {', '.join(sorted(twice))} defined twice")
            known.update(found)
    return queries, fragments


def _fill(body: str, fragments: Mapping[str, str]) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda match: fragments[match[1]], body)


def texts(folder: str) -> dict[str, str]:
    """The SQL files of a folder by name, in order."""
    entries = sorted(files("broker.stores").joinpath(folder).iterdir(), key=lambda entry: entry.name)
    return {entry.name: entry.read_text(encoding="utf-8") for entry in entries if entry.name.endswith(".sql")}


SQL = load(texts("sql"))


def migrations() -> Mapping[int, str]:
    """The schema's steps by number (``0001_ledger.sql`` is step 1), in order, without gaps."""
    steps = {int(name.split("_", 1)[0]): text for name, text in texts("migrations").items()}
    if list(steps) != list(range(1, len(steps) + 1)):
        raise ValueError(f"migrations are numbered 1, 2, ...: {list(steps)}")
    return MappingProxyType(steps)
