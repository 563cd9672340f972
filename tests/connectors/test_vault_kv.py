"""Secrets that only rotation ends, from a real OpenBao: told, pinned, and never said to be over while they are not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from broker.clock import SystemClock
from broker.connectors.vault_kv import VaultKv
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import StaticSecret
from broker.ports.connectors import Issued, NotYet, Revoked
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness_vault_kv import MOUNT, PATH, VALUE, configure_kv, kv_connector, kv_scope, rotate
from tests.connectors.support import HOLDER, Ledger, assert_tells_no_secret, new_attempt

TTL = timedelta(minutes=5)


@pytest.fixture
def kv(openbao_server: ConfiguredOpenBao) -> Iterator[ConfiguredOpenBao]:
    """The store with one secret in its first version."""
    configure_kv(openbao_server)
    yield openbao_server


async def issue(connector: VaultKv, ledger: Ledger, scope: Scope) -> Issued:
    expires_at = SystemClock().now() + TTL
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint))


async def test_only_the_named_fields_are_told(kv: ConfiguredOpenBao) -> None:
    connector = kv_connector(kv)
    issued = await issue(connector, Ledger(), kv_scope())
    assert isinstance(issued.credential, StaticSecret)
    assert {name: value.reveal() for name, value in issued.credential.values.items()} == {"api-key": VALUE}
    assert VALUE not in repr(issued)
    await connector.close()


async def test_rotation_ends_it_and_nothing_else_does(kv: ConfiguredOpenBao) -> None:
    connector, ledger = kv_connector(kv), Ledger()
    issued = await issue(connector, ledger, kv_scope())
    late = ledger.context(issued.expires_at + timedelta(days=1), expires_at=issued.expires_at)
    outcome = await connector.revoke(ledger.handle, late)
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert "only rotation" in outcome.why
    rotate(kv, "another")
    assert isinstance(await connector.revoke(ledger.handle, late), Revoked)
    # What is pinned stays what it was: the template is not followed to what nobody has looked at.
    again = await issue(connector, ledger, kv_scope())
    assert isinstance(again.credential, StaticSecret)
    assert again.credential.values["api-key"].reveal() == VALUE
    await connector.close()


@pytest.mark.parametrize("end", ["delete", "destroy"])
async def test_a_version_that_is_deleted_is_over(kv: ConfiguredOpenBao, end: str) -> None:
    connector, ledger = kv_connector(kv), Ledger()
    await issue(connector, ledger, kv_scope())
    kv.root_client().write_data(f"{MOUNT}/{end}/{PATH}", data={"versions": [1]})
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    with pytest.raises(UpstreamFailed):
        await issue(connector, ledger, kv_scope())
    await connector.close()


async def test_what_was_read_and_never_delivered_is_over(kv: ConfiguredOpenBao) -> None:
    connector, ledger = kv_connector(kv), Ledger()
    await issue(connector, ledger, kv_scope())
    assert isinstance(await connector.revoke(ledger.handle, ledger.context(outcome_known=False)), Revoked)
    await connector.close()


@pytest.mark.parametrize(
    "grant", [{"version": 2}, {"path": "shop/absent"}, {"fields": ["absent"]}, {"fields": ["port"]}]
)
async def test_what_is_not_there_is_refused_without_telling_what_is(
    kv: ConfiguredOpenBao, grant: dict[str, object]
) -> None:
    connector = kv_connector(kv)
    with pytest.raises(UpstreamFailed) as refused:
        await issue(connector, Ledger(), kv_scope(**grant))
    assert refused.value.outcome_known
    assert_tells_no_secret(refused.value, VALUE, "not-for-agents")
    await connector.close()


@pytest.mark.parametrize(
    "grant",
    [
        {"static_accepted": False},
        {"static_accepted": None},
        {"static_accepted": "true"},
        {"version": 0},
        {"version": None},
        {"version": True},
        {"version": "1"},
        {"path": "../../sys/raw"},
        {"path": "shop/../other"},
        {"path": "/shop"},
        {"path": "shop?version=2"},
        {"path": ""},
        {"fields": []},
        {"fields": ["ok", ""]},
        {"fields": None},
    ],
)
async def test_a_template_that_does_not_accept_or_name_it_is_refused(
    kv: ConfiguredOpenBao, dead_address: str, grant: dict[str, object]
) -> None:
    connector = kv_connector(kv, dead_address)
    with pytest.raises(InvalidInput) as refused:
        connector.prepare(kv_scope(**grant), new_attempt(), HOLDER, SystemClock().now() + TTL)
    assert refused.value.reason is Reason.CONFIG_INVALID
    await connector.close()
