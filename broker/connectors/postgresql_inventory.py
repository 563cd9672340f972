"""What lives in a cluster and was made by the broker's own login: the note on each role, and the list of them.

PostgreSQL keeps no time of creation, so each login carries a comment that says when it was made, by which attempt and
for whom. Anybody who may list roles reads it; nothing in it is secret. The login itself cannot change it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from psycopg import sql

from broker.connectors.postgresql_session import Sessions, system_of
from broker.ports.connectors import Carried, Handle

# Whom it made: PostgreSQL 16 gives ADMIN OPTION on a role to who made it, and to nobody else.
_MADE_BY_US = sql.SQL(
    "SELECT r.rolname, shobj_description(r.oid, 'pg_authid')"
    " FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid"
    " JOIN pg_roles me ON me.oid = m.member AND me.rolname = current_user"
    " WHERE m.admin_option AND starts_with(r.rolname, %s) GROUP BY r.oid, r.rolname ORDER BY r.rolname"
)
_MARK = "jit-broker"


def note(attempt_id: str, holder: str, made_at: datetime) -> str:
    """The comment on a login."""
    return f"{_MARK} " + json.dumps({"attempt": attempt_id, "holder": holder, "made": made_at.isoformat()})


def carried(sessions: Sessions, prefix: str) -> list[Carried]:
    """Every login with such a comment that our login made. Raises PostgresqlFailure."""
    with sessions.open() as session:
        rows = session.execute(_MADE_BY_US, [prefix]).fetchall()
        here = where_made(system_of(session))
    found = [_read(str(name), str(comment or "")) for name, comment in rows]
    return [replace(each, handle={**each.handle, **here}) for each in found if each is not None]


def where_made(system: str) -> Handle:
    """In the handle: the server that made it; nothing where it does not tell."""
    return {"system": system} if system else {}


def _read(login: str, comment: str) -> Carried | None:
    """None: it is some other role of an operator's, made with the same login."""
    mark, _, said = comment.partition(" ")
    if mark != _MARK:
        return None
    try:
        told = json.loads(said)
        attempt, made_at = str(told["attempt"]), datetime.fromisoformat(told["made"])
        holder = str(told["holder"])
        if made_at.tzinfo is None:
            raise ValueError("a time of no time zone")
    except (ValueError, KeyError, TypeError, RecursionError):
        # Somebody wrote over the note. The login is ours by who made it, and one such hides no other.
        return Carried(login, None, None, {"login": login})
    return Carried(login, attempt, made_at, {"attempt": attempt, "login": login, "holder": holder})
