"""A server that is sealed in the middle of ending something, and an engine that is taken away under living leases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.connectors.vault_database import VaultDatabase
from broker.dev.openbao import OpenBaoServer
from broker.dev.openbao_database import configure_database
from broker.errors import Reason, UpstreamFailed
from broker.ports.connectors import Issued, NotYet, Revoked
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, vault_connector
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt
from tests.patience import eventually

SCOPE = make_scope({"role": "orders-readonly"})
TTL = timedelta(minutes=5)


@pytest.fixture(scope="module")
def own(openbao_server: ConfiguredOpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfiguredOpenBao]:
    """A server of one's own, to the same database: nobody else is sealed with it."""
    directory = tmp_path_factory.mktemp("own-openbao")
    server = OpenBaoServer(directory)
    try:
        facts = server.start()
        target, token_file = openbao_server.database.target, directory / "broker.token"
        yield ConfiguredOpenBao(facts, configure_database(facts, target, token_file=token_file))
    finally:
        server.destroy()


async def issue(connector: VaultDatabase, ledger: Ledger) -> Issued:
    expires_at = SystemClock().now() + TTL
    ledger.handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, SCOPE, expires_at, ledger.checkpoint))


def unseal(own: ConfiguredOpenBao) -> None:
    keys = json.loads((Path(own.facts.audit_log).parent / "keys.json").read_text())
    own.root_client().write_data("sys/unseal", data={"key": keys["unseal_key"]})


async def test_what_is_to_be_ended_waits_for_a_sealed_server_and_then_ends(own: ConfiguredOpenBao) -> None:
    connector, ledger, other = vault_connector(own), Ledger(), Ledger()
    issued = await issue(connector, ledger)
    await issue(connector, other)
    own.root_client().sys.seal()
    try:
        outcome = await connector.revoke(ledger.handle, ledger.context())
        assert isinstance(outcome, NotYet)
        assert outcome.failed
        assert "sealed" in outcome.why
        assert can_log_in(issued.credential)  # nobody says that it is over while it is not
        with pytest.raises(UpstreamFailed) as refused:
            await issue(connector, Ledger())
        assert refused.value.reason is Reason.UPSTREAM_UNAVAILABLE
    finally:
        unseal(own)

    async def ended() -> bool:
        return isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)

    await eventually(ended)
    assert not can_log_in(issued.credential)
    assert isinstance(await connector.revoke(other.handle, other.context()), Revoked)
    await connector.close()


async def test_an_engine_that_is_unmounted_under_living_leases_ends_them(own: ConfiguredOpenBao) -> None:
    connector, ledger = vault_connector(own), Ledger()
    issued = await issue(connector, ledger)
    root = own.root_client()
    root.delete("sys/mounts/database")
    # Unmounting revokes the engine's leases first, and fails where one cannot be revoked.
    assert not can_log_in(issued.credential)
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    with pytest.raises(UpstreamFailed) as refused:
        await issue(connector, Ledger())
    assert refused.value.reason is Reason.UPSTREAM_REFUSED
    assert await connector.inventory() == []
    configure_database(own.facts, own.database.target, token_file=own.database.broker_token_file)
    assert can_log_in((await issue(connector, Ledger())).credential)
    await connector.close()
