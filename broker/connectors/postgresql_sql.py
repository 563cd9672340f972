"""The SQL by which a login is made and ended, composed from data: identifiers and literals, never pasted text.

Belongs here: what is said to the server, and in which order. Pure: sessions, failures and proofs are elsewhere. Every
name is qualified by its schema, because our sessions look up nothing but ``pg_catalog``: what an agent makes in another
schema is never found in place of what we mean (CVE-2018-1058).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import sql

from broker.errors import InvalidInput, Reason
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

# NAMEDATALEN - 1: longer identifiers are cut by the server, silently.
LONGEST_NAME = 63
_PRIVILEGES: Mapping[str, frozenset[str]] = {
    # Not TRIGGER, REFERENCES or MAINTAIN: the first runs the agent's code as whoever writes to the table.
    "tables": frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"}),
    "sequences": frozenset({"USAGE", "SELECT", "UPDATE"}),
    "schemas": frozenset({"USAGE", "CREATE"}),
}


@dataclass(frozen=True, slots=True)
class Rights:
    """Privileges on objects of one schema, or (``kind`` schemas) on schemas."""

    kind: str  # "tables", "sequences" or "schemas"
    schema: str  # empty for schemas
    names: tuple[str, ...]
    privileges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one template's login may do."""

    rights: tuple[Rights, ...]
    roles: tuple[str, ...]
    connections: int


def wanted(scope: Scope) -> Wanted:
    """The grant of ``scope``, its parameters put in. Raises InvalidInput for anything that is not of its form."""
    grants = scope.grant.get("grants")
    connections = scope.grant.get("connections", 5)
    if not isinstance(grants, list) or not grants:
        raise _malformed(scope, "it has no grants")
    if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
        raise _malformed(scope, "connections is no number above 0")
    read = [_entry(scope, each) for each in grants]
    rights = tuple(each for each in read if isinstance(each, Rights))
    roles = tuple(name for each in read if not isinstance(each, Rights) for name in each)
    return Wanted(rights, roles, connections)


def _entry(scope: Scope, entry: JsonValue) -> Rights | tuple[str, ...]:
    if not isinstance(entry, Mapping):
        raise _malformed(scope, "an entry is no object")
    if "roles" in entry:
        return _names(scope, entry["roles"])
    kind = next((kind for kind in _PRIVILEGES if kind in entry), "")
    if not kind:
        raise _malformed(scope, "an entry grants neither tables, sequences, schemas nor roles")
    said = entry.get("privileges")
    privileges = tuple(str(each).upper() for each in said) if isinstance(said, list) else ()
    if not privileges or not _PRIVILEGES[kind].issuperset(privileges):
        raise _malformed(scope, f"privileges on {kind} are of {', '.join(sorted(_PRIVILEGES[kind])).lower()}")
    schema = "" if kind == "schemas" else _name(scope, entry.get("in_schema"))
    return Rights(kind, schema, _names(scope, entry[kind]), privileges)


def _names(scope: Scope, names: JsonValue) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise _malformed(scope, "an entry names nothing")
    return tuple(_name(scope, each) for each in names)


def _name(scope: Scope, name: JsonValue) -> str:
    if isinstance(name, Mapping):
        name = scope.parameters.get(str(name.get("parameter")))
    if not isinstance(name, str) or not name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise _malformed(scope, f"a name is 1 to {LONGEST_NAME} bytes of printable text")
    return name


def _malformed(scope: Scope, what: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} is not one of postgresql: {what}.",
        hint="Operators: `broker check` tells file and line.",
        metadata={"template": scope.template},
    )


def creation(
    login: str, verifier: str, valid_until: datetime, left: timedelta, note: str, want: Wanted, *, version: int
) -> sql.Composed:
    """One transaction, still open at its end: the login, its limits, its rights.

    ``verifier`` is the SCRAM verifier, so that no log of the server ever holds the password; ``note`` is for whoever
    lists roles, and for ``postgresql_inventory.py``.
    """
    role = sql.Identifier(login)
    statements = [
        sql.SQL("BEGIN"),
        sql.SQL(
            "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT"
            " CONNECTION LIMIT {} PASSWORD {} VALID UNTIL {}"
        ).format(role, want.connections, verifier, valid_until.isoformat()),
        sql.SQL("COMMENT ON ROLE {} IS {}").format(role, note),
        *_own_limits(role, left, version),
        *_grants(role, want),
    ]
    return _script(statements)


def commit_before(moment: datetime) -> sql.Composed:
    """Commit, unless the server gets to it after ``moment`` of its own clock: what comes late makes nothing.

    Where it does come late, the division fails, and with it the transaction.
    """
    return _script([sql.SQL("SELECT 1 / (clock_timestamp() < {}::timestamptz)::int").format(moment), sql.SQL("COMMIT")])


def _own_limits(role: sql.Identifier, left: timedelta, version: int) -> Iterator[sql.Composed]:
    """For sessions that are forgotten. The agent can lift them, so nothing is promised by them."""
    names = ["idle_session_timeout", "idle_in_transaction_session_timeout"]
    if version >= 170000:
        names.append("transaction_timeout")
    milliseconds = max(1, left // timedelta(milliseconds=1))
    for name in names:
        yield sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.SQL(name), milliseconds)


def _grants(role: sql.Identifier, want: Wanted) -> Iterator[sql.Composed]:
    usage = sorted({rights.schema for rights in want.rights if rights.schema})
    for schema in usage:
        yield sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), role)
    for rights in want.rights:
        yield _grant(role, rights)
    for name in want.roles:
        # Without SET it has the role's privileges and cannot become it: what it makes stays its own, and goes with it.
        yield sql.SQL("GRANT {} TO {} WITH INHERIT TRUE, SET FALSE, ADMIN FALSE").format(sql.Identifier(name), role)


def _grant(role: sql.Identifier, rights: Rights) -> sql.Composed:
    kind = {"tables": sql.SQL("TABLE"), "sequences": sql.SQL("SEQUENCE"), "schemas": sql.SQL("SCHEMA")}[rights.kind]
    # Keywords, each one of _PRIVILEGES.
    privileges = sql.SQL(", ").join(sql.SQL(each) for each in rights.privileges)
    qualified = [(rights.schema, name) if rights.schema else (name,) for name in rights.names]
    names = sql.SQL(", ").join(sql.Identifier(*each) for each in qualified)
    return sql.SQL("GRANT {} ON {} {} TO {}").format(privileges, kind, names, role)


def shut(login: str) -> sql.Composed:
    """Nobody gets in any more."""
    return sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0").format(sql.Identifier(login))


def drop_owned(login: str) -> sql.Composed:
    """Everything it owns in this database, and every privilege it has there or on shared objects.

    Never REASSIGN OWNED: it would hand the agent's SECURITY DEFINER functions to the broker's own login.
    """
    return sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(login))


def drop(login: str) -> sql.Composed:
    """The role itself."""
    return sql.SQL("DROP ROLE {}").format(sql.Identifier(login))


def roll_back_prepared(login: str, transaction: str) -> Sequence[sql.Composed]:
    """A prepared transaction outlives its session and holds what it made; only its owner may roll it back."""
    return (
        sql.SQL("SET ROLE {}").format(sql.Identifier(login)),
        sql.SQL("ROLLBACK PREPARED {}").format(transaction),
        sql.SQL("RESET ROLE").format(),
    )


def _script(statements: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL("; ").join(statements)
