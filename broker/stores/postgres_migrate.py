"""Brings a ledger on a server to the schema of this release: by ``broker migrate``, as the role that owns it.

All missing steps are one transaction, under a lock of their own, so that two who start it do it once. brokerd itself
only looks (:func:`check_version`): its role makes no tables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import psycopg
from psycopg.sql import SQL, Identifier

from broker.errors import NotReady, Reason
from broker.ports.replicas import REPLICA_DEAD_AFTER
from broker.stores.postgres_connection import LOCK_SPACE, PostgresConnection
from broker.stores.postgres_sql import postgres_migrations
from broker.stores.schema import Schema, Step, after, missing, not_migrated, schema_of

# Of pg_advisory_xact_lock: by which two who migrate wait for each other.
_LOCK = 0x6A69_7462_726F_6B00
# And brokers' batches, so that each is of one schema from its beginning to its end; the next one looks at everything
# anew, whoever wrote last.
_WRITERS = "SELECT pg_advisory_xact_lock('last_batch'::regclass::oid::bigint | ?1)"
_WROTE = """UPDATE last_batch SET writer = '' WHERE "only" = 1"""
# By the server's clock, in both directions: what one told while that was hours fast says nothing of now.
_AT_WORK = (
    "SELECT count(*) FROM replicas WHERE abs(seen_at - (extract(epoch FROM clock_timestamp()) * 1000)::bigint) < ?1"
)
_RIGHTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {daemon}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {daemon}",
    "REVOKE UPDATE, DELETE ON {schema}.audit, {schema}.audit_checkpoints FROM {daemon}",
    "REVOKE DELETE ON {schema}.audit_head, {schema}.audit_export FROM {daemon}",
    "REVOKE INSERT, DELETE ON {schema}.last_batch FROM {daemon}",
    "REVOKE INSERT, UPDATE, DELETE ON {schema}.schema_version FROM {daemon}",
)
_REACHED = """
INSERT INTO schema_version ("only", version, readable_from) VALUES (1, ?1, ?2)
ON CONFLICT ("only") DO UPDATE SET version = excluded.version, readable_from = excluded.readable_from
"""
_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_version (
    "only"        BIGINT PRIMARY KEY CHECK ("only" = 1),
    version       BIGINT NOT NULL CHECK (version >= 0),
    readable_from BIGINT NOT NULL
)
"""


def schema(connection: PostgresConnection) -> Schema:
    """What the ledger has; (0, 0) where there is none yet. Raises psycopg.Error."""
    if connection.execute("SELECT to_regclass('schema_version')").fetchone()[0] is None:
        return Schema(0, 0)
    return schema_of(connection)


def pending(connection: PostgresConnection) -> list[Step]:
    """The missing steps. Raises Tampered (SCHEMA_VERSION) for a newer ledger, psycopg.Error."""
    return missing(schema(connection), postgres_migrations())


def check_version(connection: PostgresConnection) -> None:
    """Raises NotReady (STORE_UNAVAILABLE) before the migration, Tampered (SCHEMA_VERSION) for a newer ledger."""
    if pending(connection):
        raise not_migrated(schema(connection), len(postgres_migrations()))


def migrate(connection: PostgresConnection, daemon: str = "") -> Sequence[Step]:
    """Carry out what is missing, and give the role ``daemon``, if named, its rights; what was carried out.

    Raises Tampered (SCHEMA_VERSION), NotReady (STORE_UNAVAILABLE) while brokers are at work who could not go on
    afterwards, psycopg.Error: then nothing was.
    """
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT pg_advisory_xact_lock(?1)", (_LOCK,))
        begun = connection.execute("SELECT to_regclass('last_batch')").fetchone()[0] is not None
        if begun:
            connection.execute(_WRITERS, (LOCK_SPACE << 32,))
        connection.together(_VERSION_TABLE)
        steps, found = pending(connection), schema(connection)
        _refuse_beside_brokers(connection, found, steps)
        for step in steps:
            connection.together(step.text)
            found = after(found, step)
        connection.execute(_REACHED, (found.version, found.readable_from))
        if begun and steps:
            connection.together(_WROTE)
        if daemon:
            connection.together(_rights(connection, daemon))
        connection.together("COMMIT")
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            connection.together("ROLLBACK")
        raise
    return steps


def _refuse_beside_brokers(connection: PostgresConnection, found: Schema, steps: Sequence[Step]) -> None:
    """They would be cut off at once, and nobody would revoke until the new ones are there."""
    ending = [step.number for step in steps if step.readable_from > found.version]
    if not ending or connection.execute("SELECT to_regclass('replicas')").fetchone()[0] is None:
        return
    seconds = round(REPLICA_DEAD_AFTER.total_seconds())
    (brokers,) = connection.execute(_AT_WORK, (seconds * 1000,)).fetchone()
    if brokers:
        raise NotReady(
            Reason.STORE_UNAVAILABLE,
            f"step {ending[0]} ends the work of brokers of the release before, and {brokers} are at work on it.",
            hint=f"Nothing was changed. Stop every one of them; of one that was killed it is known {seconds} s later.",
            metadata={"step": str(ending[0]), "brokers": str(brokers)},
        )


def _rights(connection: PostgresConnection, daemon: str) -> str:
    """Rows to read and write, and of the audit trail only to add to: the rest is for whoever owns the tables."""
    (schema_name,) = connection.execute("SELECT current_schema()").fetchone()
    names = {"schema": Identifier(schema_name), "daemon": Identifier(daemon)}
    return SQL("; ").join(SQL(each).format(**names) for each in _RIGHTS).as_string()
