"""What a real OpenBao keeps for one reader: fetched once, never after its lease, and no sooner told than it can end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import hvac
import hvac.exceptions
import pytest

from broker.clock import SystemClock
from broker.connectors.contracts import CONTRACTS
from broker.connectors.vault_database import VaultDatabase
from broker.connectors.vault_kv import VaultKv
from broker.connectors.vault_wrapping import seconds_of
from broker.dev.openbao_database import broker_policy
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.issuance.verdicts import within_contract
from broker.lease.credential import DatabaseLogin, StaticSecret, WrappedSecret
from broker.ports.connectors import Issued, NotYet, Revoked
from broker.scope.model import Scope
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, vault_connector, vault_settings
from tests.connectors.harness_vault_kv import VALUE, configure_kv, kv_connector, kv_scope
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt
from tests.patience import eventually

TTL = timedelta(minutes=5)
WRAP = timedelta(minutes=1)
SCOPE = make_scope({"role": "orders-readonly"}, wrap=WRAP)


@pytest.fixture
def kv(openbao_server: ConfiguredOpenBao) -> Iterator[ConfiguredOpenBao]:
    configure_kv(openbao_server)
    yield openbao_server


async def issue(connector: VaultDatabase | VaultKv, ledger: Ledger, scope: Scope = SCOPE) -> Issued:
    expires_at = SystemClock().now() + TTL
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint))


def wrapped_in(issued: Issued) -> WrappedSecret:
    assert isinstance(issued.credential, WrappedSecret)
    return issued.credential


def unwrap(wrapped: WrappedSecret) -> dict[str, Any]:
    """As an agent does it: with the wrapping token, and nothing else."""
    client = hvac.Client(wrapped.address, token=wrapped.wrapping_token.reveal(), namespace=wrapped.namespace or None)
    data: dict[str, Any] = client.sys.unwrap()["data"]
    return data


def refused(wrapped: WrappedSecret) -> bool:
    try:
        unwrap(wrapped)
    except (hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden):
        return True
    return False


def login_in(data: dict[str, Any]) -> DatabaseLogin:
    return DatabaseLogin(**{**data, "password": Secret(data["password"])})


async def test_it_is_unwrapped_once_and_the_second_reader_knows(openbao_server: ConfiguredOpenBao) -> None:
    connector, ledger = vault_connector(openbao_server), Ledger()
    issued = await issue(connector, ledger)
    wrapped = wrapped_in(issued)
    assert (wrapped.kind, wrapped.address, wrapped.namespace) == (
        "database_login",
        openbao_server.facts.address,
        "",
    )
    assert wrapped.expires_at <= SystemClock().now() + WRAP
    login = login_in(unwrap(wrapped))
    assert login == issued.inside
    assert can_log_in(login)
    assert refused(wrapped)
    # What was fetched ends with its lease, as always.
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    assert not can_log_in(login)
    await connector.close()


async def test_nothing_is_unwrapped_after_the_lease(openbao_server: ConfiguredOpenBao) -> None:
    connector, ledger = vault_connector(openbao_server), Ledger()
    issued = await issue(connector, ledger)
    wrapped = wrapped_in(issued)
    assert ledger.handle["wrapping"] == wrapped.wrapping_accessor == issued.observed["wrapping_accessor"]
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    assert refused(wrapped)
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)  # and again
    await connector.close()


async def test_what_ends_it_is_noted_before_it_is_delivered(openbao_server: ConfiguredOpenBao) -> None:
    root = openbao_server.root_client()

    def wrapping_tokens() -> set[str]:
        found = set()
        for accessor in root.auth.token.list_accessors()["data"]["keys"]:
            try:
                if "response-wrapping" in root.auth.token.lookup_accessor(accessor)["data"]["policies"]:
                    found.add(accessor)
            except (hvac.exceptions.InvalidPath, hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest):
                continue  # ended meanwhile
        return found

    before = wrapping_tokens()
    connector, ledger = vault_connector(openbao_server), Ledger(refuse_from=3, error=RuntimeError("the ledger is away"))
    with pytest.raises(RuntimeError, match="away"):
        await issue(connector, ledger)

    async def gone() -> bool:
        return wrapping_tokens() <= before

    await eventually(gone)
    assert isinstance(await connector.revoke(ledger.handle, ledger.context(outcome_known=False)), Revoked)
    await connector.close()


async def test_a_broker_that_may_not_wrap_delivers_nothing(openbao_server: ConfiguredOpenBao) -> None:
    root = openbao_server.root_client()
    text = broker_policy(openbao_server.database.mount).replace("sys/wrapping/wrap", "sys/wrapping/not-this")
    root.write_data("sys/policies/acl/no-wrapping", data={"policy": text})
    made = root.auth.token.create_orphan(policies=["no-wrapping"], period="1h", no_default_policy=True)
    token = Secret(made["auth"]["client_token"])
    connector = VaultDatabase("orders-db", vault_settings(openbao_server), lambda: token, SystemClock())
    ledger = Ledger()
    with pytest.raises(UpstreamFailed) as failure:
        await issue(connector, ledger)
    assert not failure.value.outcome_known
    assert "wrap the login" in failure.value.message
    assert isinstance(await connector.revoke(ledger.handle, ledger.context(outcome_known=False)), Revoked)
    await connector.close()


async def test_a_secret_of_the_store_is_kept_for_one_reader_and_not_after_its_lease(kv: ConfiguredOpenBao) -> None:
    connector, ledger, other = kv_connector(kv), Ledger(), Ledger()
    scope = replace(kv_scope(), wrap=WRAP)
    issued = await issue(connector, ledger, scope)
    wrapped = wrapped_in(issued)
    assert wrapped.kind == "static_secret"
    assert isinstance(issued.inside, StaticSecret)
    assert unwrap(wrapped)["values"] == {"api-key": VALUE}
    assert refused(wrapped)
    late = wrapped_in(await issue(connector, other, scope))
    # The secret itself only rotation ends; who has not fetched it yet does not get it any more.
    assert isinstance(await connector.revoke(other.handle, other.context()), NotYet)
    assert refused(late)
    await connector.close()


def test_it_is_kept_no_longer_than_it_lives() -> None:
    now = datetime(2031, 5, 1, tzinfo=UTC)
    assert seconds_of(WRAP, now, now + TTL) == 60
    assert seconds_of(WRAP, now, now + timedelta(seconds=7.9)) == 7
    assert seconds_of(timedelta(seconds=1.9), now, now + TTL) == 1
    assert seconds_of(WRAP, now, now) == 1


@pytest.mark.parametrize("kind", CONTRACTS)
def test_who_cannot_wrap_is_refused_by_name(kind: str) -> None:
    contract, scope = CONTRACTS[kind]({}), replace(SCOPE, connector=f"our-{kind}", ttl=timedelta(minutes=15))
    if kind in ("vault-database", "vault-kv"):
        within_contract(scope, contract)
        return
    with pytest.raises(InvalidInput) as refusal:
        within_contract(scope, contract)
    assert refusal.value.reason is Reason.WRAPPING_UNSUPPORTED
    assert f"our-{kind}" in refusal.value.message
    assert refusal.value.metadata["connector"] == f"our-{kind}"
