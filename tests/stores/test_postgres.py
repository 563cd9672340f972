"""The contract, on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.stores.postgres import PostgresStore
from tests.stores.conftest import LedgerDatabase
from tests.stores.contract import LeaseStoreContract
from tests.stores.contract_access import AccessContract
from tests.stores.contract_canaries import CanaryContract
from tests.stores.contract_foreign import ForeignContract
from tests.stores.contract_forgetting import ForgettingContract
from tests.stores.contract_orphans import OrphanContract
from tests.stores.contract_pipelines import PipelineStoreContract
from tests.stores.contract_quotas import QuotaContract
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


class TestPostgres(LeaseStoreContract, WebhookContract, TrailContract):
    pass


class TestPostgresEndings(RetentionContract, ForgettingContract):
    pass


# The rest of the contract takes long, and is in make test-slow.


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
