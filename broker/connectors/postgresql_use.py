"""Whether PostgreSQL takes a login: log in as an agent would, select a constant, log out.

libpq has no error code for a login that was refused, only the server's text. So a refusal is what says, in PostgreSQL's
own English words, that *this* login is not let in. Anything else proves nothing about the login and is told as such:
another language, a full server, pg_hba.conf, a session that was ended, as a shutdown ends it too.
src/backend/libpq/auth.c and utils/init/miscinit.c have the words.
"""

from __future__ import annotations

import psycopg

from broker.connectors.unknown_use import cannot_tell
from broker.lease.credential import Credential, DatabaseLogin
from broker.ports.connectors import Use

_REFUSALS = (
    'password authentication failed for user "{}"',  # gone, changed, or past VALID UNTIL: nobody is told which
    'role "{}" does not exist',
    'role "{}" is not permitted to log in',
)
# libpq's smallest (libpq, 34.1.2, connect_timeout).
_SHORTEST_TIMEOUT = 2


def log_in(connector: str, credential: Credential, timeout: float) -> Use:
    """Blocks for about ``timeout`` seconds at most. Raises UpstreamFailed (CREDENTIAL_USE_UNKNOWN)."""
    if not isinstance(credential, DatabaseLogin):
        raise cannot_tell(connector, f"a {type(credential).__name__} is no login of a database")
    try:
        with psycopg.connect(
            host=credential.host,
            port=credential.port,
            dbname=credential.database,
            user=credential.username,
            password=credential.password.reveal(),
            connect_timeout=max(_SHORTEST_TIMEOUT, round(timeout)),
            application_name="jit-broker canary",
            options=f"-c statement_timeout={round(timeout * 1000)}",
        ) as session:
            session.execute("SELECT 1")
    except psycopg.Error as failure:
        text, kind = str(failure), type(failure).__name__
    else:
        return Use.WORKS
    if any(refusal.format(credential.username) in text for refusal in _REFUSALS):
        return Use.REFUSED
    # Neither the text, which is another's, nor its cause goes on.
    raise cannot_tell(connector, f"the database gave no answer that says whether the login is refused ({kind})")
