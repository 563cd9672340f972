"""Break-glass on a PostgreSQL server."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import psycopg
import pytest

from broker.clock import SystemClock
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_clock import ServerClock
from tests.issuance.emergency import Emergency
from tests.issuance.world import StaticKeys
from tests.stores.conftest import LedgerDatabase
from tests.stores.contract_break_glass import BreakGlassContract, GlassLedger


class _Server:
    refusals: type[Exception] = psycopg.IntegrityError

    def __init__(self, database: LedgerDatabase, directory: Path) -> None:
        self._database, self._directory = database, directory
        self._writers = count()

    async def open(self) -> Emergency:
        writer, clock = f"writer-{next(self._writers)}", ServerClock(SystemClock())
        store = await PostgresStore.open(self._database.address, StaticKeys(), writer, clock)
        return await Emergency.open(self._directory, store)

    def edit(self, statement: str) -> int:
        with self._database.session() as session:
            return session.execute(statement.encode()).rowcount


@pytest.mark.slow
class TestOnAServer(BreakGlassContract):
    @pytest.fixture
    def ledger(self, ledger_database: LedgerDatabase, tmp_path: Path) -> GlassLedger:
        return _Server(ledger_database, tmp_path)
