"""Whether a role's statements end what they make, whatever its holder does: looked for by word, not by meaning.

Belongs here: which defence a text of SQL lacks, and what its lack lets an agent do. The statements themselves are
``broker/dev/revocation.sql``, and why each is there is told by the connector's page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from broker.ports.connectors import Doubt, Severity

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_SHUT_FIRST = re.compile(r"nologin.*\bcommit\b.*pg_terminate_backend", re.DOTALL)
_REVOKES = (
    ("pg_terminate_backend", "open sessions outlive their login"),
    ("NOLOGIN", "an agent that reconnects in a loop keeps a session"),
    ("DROP OWNED", "a login that owns something survives its end"),
    ("lock_timeout", "an agent that locks its own role keeps its login, and everybody else waits for the engine"),
    ("search_path", "a function that an agent made in public may be run as the engine's own login"),
)
_PAGE = "Write the revocation statements of the connector's page, as they are."


def doubts_of_revocation(role: str, statements: str) -> Iterator[Doubt]:
    """By what ends a login."""
    said = _plain(statements)
    lacks = [(word, what) for word, what in _REVOKES if word.casefold() not in said]
    for word, what in lacks:
        yield Doubt(Severity.ERROR, f"Role {role} does not revoke by {word}: {what}.", _PAGE)
    if not lacks and not _SHUT_FIRST.search(said):
        what = "does not commit NOLOGIN before it ends sessions: an agent that reconnects in a loop keeps one"
        yield Doubt(Severity.ERROR, f"Role {role} {what}.", _PAGE)
    if "reassign owned" in said:
        what = "revokes by REASSIGN OWNED: an agent's SECURITY DEFINER functions go to somebody who may do more"
        yield Doubt(Severity.ERROR, f"Role {role} {what}.", _PAGE)


def doubts_of_creation(role: str, statements: str) -> Iterator[Doubt]:
    """By what makes a login."""
    said = _plain(statements)
    if "valid until" not in said:
        yield Doubt(
            Severity.ERROR,
            f"Role {role} makes logins without VALID UNTIL: with the server down they have no end.",
            "Add VALID UNTIL '{{expiration}}' to its creation statements.",
        )
    if "connection limit" not in said:
        yield Doubt(
            Severity.WARNING,
            f"Role {role} makes logins without CONNECTION LIMIT: one of them can take every connection of the database,"
            " and the engine finds none to end it by.",
            "Add CONNECTION LIMIT 20 to its creation statements.",
        )


def _plain(statements: str) -> str:
    """Without comments, in lower case, with single spaces."""
    return " ".join(_COMMENT.sub(" ", statements).casefold().split())
