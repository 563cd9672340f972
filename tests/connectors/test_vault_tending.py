"""The broker's own token is kept alive, and one that cannot be is told."""

from __future__ import annotations

from typing import Any

import pytest

from broker.connectors.vault_database import VaultDatabase, VaultDatabaseSettings
from broker.errors import Reason, UpstreamFailed
from broker.secret import Secret
from tests.clock import ManualClock
from tests.conftest import ConfiguredOpenBao
from tests.patience import until


def connector(openbao: ConfiguredOpenBao, token: str) -> VaultDatabase:
    settings = VaultDatabaseSettings(openbao.facts.address, "database", "postgresql", "127.0.0.1", 1, "orders")
    return VaultDatabase("openbao", settings, lambda: Secret(token), ManualClock())


async def test_a_periodic_token_gets_its_period_again(openbao_server: ConfiguredOpenBao) -> None:
    root = openbao_server.root_client()
    made = root.auth.token.create_orphan(period="10m", policies=["default"])["auth"]

    def token() -> dict[str, Any]:
        found: dict[str, Any] = root.auth.token.lookup_accessor(made["accessor"])["data"]
        return found

    before = token()
    until(lambda: token()["ttl"] < before["ttl"])  # OpenBao's own clock, in whole seconds
    vault = connector(openbao_server, made["client_token"])
    await vault.tend()
    assert token()["expire_time"] > before["expire_time"]
    await vault.close()


async def test_a_token_without_an_end_is_left_alone(openbao_server: ConfiguredOpenBao) -> None:
    vault = connector(openbao_server, openbao_server.facts.root_token.reveal())
    await vault.tend()
    await vault.close()


async def test_a_dead_token_is_told_without_being_shown(openbao_server: ConfiguredOpenBao) -> None:
    vault = connector(openbao_server, "s.canary-token-value")
    with pytest.raises(UpstreamFailed) as told:
        await vault.tend()
    assert told.value.reason is Reason.UPSTREAM_ROOT_REFUSED
    assert "canary" not in str(told.value)
    await vault.close()
