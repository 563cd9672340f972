"""The contract, on a SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.stores.sqlite import SqliteStore
from tests.stores.contract import LeaseStoreContract
from tests.stores.contract_access import AccessContract
from tests.stores.contract_allocations import AllocationContract
from tests.stores.contract_canaries import CanaryContract
from tests.stores.contract_foreign import ForeignContract
from tests.stores.contract_forgetting import ForgettingContract
from tests.stores.contract_quotas import QuotaContract
from tests.stores.contract_replicas import ReplicaContract
from tests.stores.contract_retention import RetentionContract
from tests.stores.contract_reviews import ReviewContract
from tests.stores.contract_suspensions import SuspensionContract
from tests.stores.contract_trail import TrailContract
from tests.stores.contract_views import ViewContract
from tests.stores.contract_webhooks import WebhookContract
from tests.stores.make import Keys


class TestSqlite(LeaseStoreContract, AccessContract, QuotaContract, ForeignContract, WebhookContract, TrailContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
        yield store
        await store.close()


class TestSqliteEndings(RetentionContract, ForgettingContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
        yield store
        await store.close()


class TestSqliteSuspensions(SuspensionContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
        yield store
        await store.close()


class TestSqliteReviews(ReviewContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
        yield store
        await store.close()


class TestSqliteViews(ViewContract, CanaryContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
        yield store
        await store.close()


class TestSqliteAllocations(AllocationContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
        yield store
        await store.close()


class TestSqliteReplicas(ReplicaContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
        yield store
        await store.close()
