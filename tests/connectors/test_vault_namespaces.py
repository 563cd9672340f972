"""Namespaces and bound networks, on a real OpenBao: what is issued in one is found, ended and kept apart there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import hvac
import pytest

from broker.clock import SystemClock
from broker.connectors.vault_database import VaultDatabase, VaultDatabaseSettings
from broker.dev.openbao import OpenBaoFacts, client_for
from broker.dev.openbao_database import BROKER_POLICY, TOKEN_ROLE, configure_database
from broker.errors import Reason, UpstreamFailed
from broker.ports.connectors import Issued, NotYet, Revoked
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, vault_settings
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt

TEAM = "team-orders"
ROLE = "orders-readonly"
SCOPE = make_scope({"role": ROLE})
TTL = timedelta(minutes=5)


class InTeam(OpenBaoFacts):
    """The same server, as who is in the namespace sees it."""

    def root_client(self) -> hvac.Client:
        client = client_for(self.address, self.root_token)
        client.adapter.namespace = TEAM
        return client


@pytest.fixture(scope="module")
def team(openbao_server: ConfiguredOpenBao) -> Iterator[tuple[VaultDatabaseSettings, Secret]]:
    """The engine's settings in a namespace of its own, and the token of a broker that is only there."""
    facts = openbao_server.facts
    inside = InTeam(facts.address, facts.root_token, facts.audit_log)
    facts.root_client().write_data(f"sys/namespaces/{TEAM}", data={})
    configure_database(inside, openbao_server.database.target, token_file=None)
    made = inside.root_client().auth.token.create_orphan(policies=[BROKER_POLICY], period="1h", no_default_policy=True)
    yield replace(vault_settings(openbao_server), namespace=TEAM), Secret(made["auth"]["client_token"])
    inside.root_client().delete("sys/mounts/database")
    facts.root_client().delete(f"sys/namespaces/{TEAM}")


async def issue(connector: VaultDatabase, ledger: Ledger) -> Issued:
    expires_at = SystemClock().now() + TTL
    ledger.handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, SCOPE, expires_at, ledger.checkpoint))


async def test_a_namespace_is_a_server_of_its_own(
    team: tuple[VaultDatabaseSettings, Secret], openbao_server: ConfiguredOpenBao
) -> None:
    settings, token = team
    connector, ledger = VaultDatabase("orders-db", settings, lambda: token, SystemClock()), Ledger()
    issued = await issue(connector, ledger)
    assert can_log_in(issued.credential)
    (listed,) = await connector.inventory()
    assert listed.name == ledger.handle["lease"]
    outside = VaultDatabase(
        "outside", vault_settings(openbao_server), openbao_server.database.broker_token, SystemClock()
    )
    assert listed.name not in [each.name for each in await outside.inventory()]
    for handle in (ledger.handle, listed.handle):
        elsewhere = await outside.revoke(handle, ledger.context())
        assert isinstance(elsewhere, NotYet)
        assert f"/{TEAM}, and" in elsewhere.why
    assert can_log_in(issued.credential)
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    assert not can_log_in(issued.credential)
    assert list(await connector.inventory()) == []
    await connector.close()
    await outside.close()


async def test_the_token_of_a_namespace_is_nobody_outside(
    team: tuple[VaultDatabaseSettings, Secret], openbao_server: ConfiguredOpenBao
) -> None:
    _, token = team
    outside = VaultDatabase("orders-db", vault_settings(openbao_server), lambda: token, SystemClock())
    with pytest.raises(UpstreamFailed) as refused:
        await issue(outside, Ledger())
    assert refused.value.reason is Reason.UPSTREAM_ROOT_REFUSED
    await outside.close()


@pytest.mark.parametrize(("network", "granted"), [("127.0.0.0/8", True), ("192.0.2.0/24", False)])
async def test_attempts_tokens_are_bound_to_the_network_that_the_token_role_names(
    openbao_server: ConfiguredOpenBao, network: str, granted: bool
) -> None:
    root = openbao_server.root_client()
    role = root.read(f"auth/token/roles/{TOKEN_ROLE}")["data"]
    bound = {**{name: value for name, value in role.items() if value}, "token_bound_cidrs": [network], "name": None}
    root.write_data("auth/token/roles/jit-bound", data={name: value for name, value in bound.items() if value})
    broker = root.auth.token.create_orphan(policies=[BROKER_POLICY, "jit-bound"], no_default_policy=True, ttl="10m")
    root.write_data(
        "sys/policies/acl/jit-bound",
        data={"policy": 'path "auth/token/create/jit-bound" { capabilities = ["update"] }'},
    )
    settings = replace(vault_settings(openbao_server), token_role="jit-bound")
    token = Secret(broker["auth"]["client_token"])
    connector, ledger = VaultDatabase("orders-db", settings, lambda: token, SystemClock()), Ledger()
    if granted:
        assert can_log_in((await issue(connector, ledger)).credential)
    else:
        # The token is made, and of no use to whoever is elsewhere: here, to the broker itself.
        with pytest.raises(UpstreamFailed) as refused:
            await issue(connector, ledger)
        assert refused.value.reason is Reason.UPSTREAM_REFUSED
        assert "lease" not in ledger.handle
    assert root.auth.token.lookup_accessor(ledger.handle["accessor"])["data"]["bound_cidrs"] == [network]
    root.auth.token.revoke_accessor(ledger.handle["accessor"])
    await connector.close()
