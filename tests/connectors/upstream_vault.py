"""A connector to a real database engine, and the superuser's view of the database behind it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import psycopg

from broker.clock import SystemClock
from broker.connectors.vault_database import VaultDatabase
from broker.dev.postgres import PostgresFacts
from broker.lease.credential import DatabaseLogin
from broker.ports.connectors import Issued, Revoked
from broker.scope.model import Scope
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt

READ, WRITE = make_scope({"role": "orders-readonly"}), make_scope({"role": "orders-readwrite"})
CLOCK = SystemClock()


@dataclass
class Upstream:
    """The connector under test, and whom to ask what has become of its logins."""

    connector: VaultDatabase
    postgres: PostgresFacts
    database: str

    async def issue(self, ledger: Ledger, scope: Scope = READ, ttl: timedelta = timedelta(minutes=5)) -> Issued:
        expires_at = CLOCK.now() + ttl
        ledger.handle = self.connector.prepare(scope, new_attempt(), HOLDER, expires_at)
        return await ledger.issued(self.connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint))

    async def login(self, ledger: Ledger, scope: Scope = READ, ttl: timedelta = timedelta(minutes=5)) -> DatabaseLogin:
        credential = (await self.issue(ledger, scope, ttl)).credential
        assert isinstance(credential, DatabaseLogin)
        return credential

    async def revoke(self, ledger: Ledger) -> object:
        return await self.connector.revoke(ledger.handle, ledger.context(CLOCK.now()))

    async def revoked(self, ledger: Ledger) -> None:
        """End it, and see that there is no such login any more."""
        outcome = await self.revoke(ledger)
        assert isinstance(outcome, Revoked), outcome
        assert self.roles_of(ledger) == []

    def ask(self, statement: str, *values: object, database: str = "") -> list[tuple[object, ...]]:
        with psycopg.connect(self.postgres.conninfo(database or self.database), autocommit=True) as admin:
            cursor = admin.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def roles_of(self, ledger: Ledger) -> list[tuple[object, ...]]:
        return self.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", f"%{ledger.handle['attempt']}%")

    def sessions_of(self, login: DatabaseLogin) -> list[tuple[object, ...]]:
        return self.ask("SELECT pid FROM pg_stat_activity WHERE usename = %s", login.username)
