"""What every LeaseStore remembers of webhook destinations; an adapter gives the ``store`` fixture."""

from __future__ import annotations

from broker.ports.lease_store import LeaseStore
from tests.stores.make import TENANT


class WebhookContract:
    """Positions in the audit trail."""

    async def test_a_destination_that_is_new_has_no_position(self, store: LeaseStore) -> None:
        assert await store.webhook_position(TENANT, "soc") is None

    async def test_a_position_only_goes_forward(self, store: LeaseStore) -> None:
        for upto, then in ((0, 0), (5, 5), (3, 5), (6, 6)):
            await store.webhook_delivered(TENANT, "soc", upto)
            assert await store.webhook_position(TENANT, "soc") == then

    async def test_each_destination_and_tenant_has_its_own(self, store: LeaseStore) -> None:
        await store.webhook_delivered(TENANT, "soc", 5)
        await store.webhook_delivered("other", "soc", 7)
        assert await store.webhook_position(TENANT, "chat") is None
        assert await store.webhook_position(TENANT, "soc") == 5
        assert await store.webhook_position("other", "soc") == 7
