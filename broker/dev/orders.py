"""The demo's database ``orders``: one table with a few rows, and the administrator OpenBao logs in as.

The administrator is no superuser. It owns the database, may create logins, and inherits from those it
creates, which PostgreSQL demands before it may drop what they own or end their sessions.
"""

from __future__ import annotations

from importlib.resources import files
from typing import LiteralString

import psycopg
from psycopg import sql

from broker.dev.openbao_database import DatabaseTarget
from broker.dev.postgres import PostgresFacts
from broker.secret import Secret

DATABASE = "orders"
ADMINISTRATOR = "openbao"


def create_orders(server: PostgresFacts, password: Secret) -> DatabaseTarget:
    """Make database, table, rows and administrator if they are not there; the administrator gets ``password``."""
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        if admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ADMINISTRATOR]).fetchone() is None:
            admin.execute(_identifier("CREATE ROLE {} LOGIN CREATEROLE", ADMINISTRATOR))
        admin.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ADMINISTRATOR), sql.Literal(password.reveal()))
        )
        # Without this a CREATEROLE user gets only the right to grant what it created (CREATE ROLE, PostgreSQL 16+).
        admin.execute(_identifier("ALTER ROLE {} SET createrole_self_grant = 'set, inherit'", ADMINISTRATOR))
        if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
            admin.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(ADMINISTRATOR))
            )
        # A login that may enter another database can own large objects there, where DROP OWNED does not reach.
        for other in ("postgres", "template1"):
            admin.execute(_identifier("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", other))
    target = DatabaseTarget(server.host, server.port, DATABASE, ADMINISTRATOR, password)
    with psycopg.connect(server.conninfo(DATABASE, user=ADMINISTRATOR, password=password)) as owner:
        owner.execute(files("broker.dev").joinpath("orders.sql").read_bytes())
    return target


def _identifier(statement: LiteralString, name: str) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier(name))
