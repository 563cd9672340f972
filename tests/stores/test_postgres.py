"""The contract, on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.stores.postgres import PostgresStore
from tests.stores.conftest import LedgerDatabase
from tests.stores.contract import (
    AuditContract,
    IntentContract,
    IssuingContract,
    LeaseStoreContract,
    RevokerContract,
)
from tests.stores.contract_access import AccessContract
from tests.stores.contract_allocations import AllocationContract
from tests.stores.contract_canaries import CanaryContract
from tests.stores.contract_foreign import ForeignContract
from tests.stores.contract_forgetting import ForgettingContract
from tests.stores.contract_orphans import OrphanContract
from tests.stores.contract_pipelines import PipelineStoreContract
from tests.stores.contract_quotas import QuotaContract
from tests.stores.contract_replicas import ReplicaContract
from tests.stores.contract_retention import RetentionContract
from tests.stores.contract_reviews import ReviewContract
from tests.stores.contract_suspensions import SuspensionContract
from tests.stores.contract_trail import TrailContract
from tests.stores.contract_views import ViewContract
from tests.stores.contract_webhooks import WebhookContract


@pytest.fixture
async def store(ledger_database: LedgerDatabase) -> AsyncIterator[PostgresStore]:
    store = await ledger_database.open()
    yield store
    await store.close()


class TestPostgres(IntentContract, IssuingContract, RevokerContract, AuditContract):
    """What a grant and its end are made of, in every run. The whole contract takes long: make test-slow."""


@pytest.mark.slow
class TestPostgresWhole(LeaseStoreContract, WebhookContract, TrailContract):
    pass


@pytest.mark.slow
class TestPostgresEndings(RetentionContract, ForgettingContract):
    pass


@pytest.mark.slow
class TestPostgresAccess(AccessContract, QuotaContract, ForeignContract):
    pass


@pytest.mark.slow
class TestPostgresSuspensions(SuspensionContract):
    pass


@pytest.mark.slow
class TestPostgresPipelines(PipelineStoreContract):
    pass


@pytest.mark.slow
class TestPostgresReviews(ReviewContract):
    pass


@pytest.mark.slow
class TestPostgresViews(ViewContract, CanaryContract, OrphanContract):
    pass


@pytest.mark.slow
class TestPostgresAllocations(AllocationContract):
    pass


class TestPostgresReplicas(ReplicaContract):
    pass
