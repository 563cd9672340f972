"""Break-glass in a SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from tests.issuance.emergency import Emergency
from tests.stores.contract_break_glass import BreakGlassContract, GlassLedger


class _File:
    refusals: type[Exception] = sqlite3.IntegrityError

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def open(self) -> Emergency:
        return await Emergency.open(self._directory)

    def edit(self, statement: str) -> int:
        with contextlib.closing(sqlite3.connect(self._directory / "ledger.sqlite3")) as connection, connection:
            return connection.execute(statement).rowcount


class TestInAFile(BreakGlassContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> GlassLedger:
        return _File(tmp_path)
