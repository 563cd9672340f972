"""What was made at one cluster is ended nowhere else: two real OpenBao servers, one PostgreSQL, one connector."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.connectors.vault_database import VaultDatabase
from broker.connectors.vault_login import JwtLogin, JwtRole
from broker.dev import openbao_jwt
from broker.dev.openbao_database import BROKER_POLICY
from broker.dev.stack import BROKER_ID
from broker.dev.trust_domain import TrustDomain
from broker.errors import UpstreamFailed
from broker.ports.connectors import Connector, Expired, Issued, NotYet, Refused, Revoked, RevokeOutcome, Severity
from broker.scope.model import Scope
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, vault_connector, vault_settings
from tests.connectors.harness_vault_kv import configure_kv, kv_connector, kv_scope, rotate
from tests.connectors.harness_vault_pki import configure_pki, pki_connector, pki_scope
from tests.connectors.mishap_proxy import MishapProxy, Reply, Rule, lost, mishap_proxy
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt
from tests.connectors.test_vault_login import Minted, ShiftedClock

SCOPE = make_scope({"role": "orders-readonly"})
CLOCK = SystemClock()
TTL = timedelta(minutes=5)
HEALTH, LOGIN = "GET /v1/sys/health", "GET /v1/database/creds/"


async def issue(connector: Connector, ledger: Ledger, scope: Scope = SCOPE) -> Issued:
    expires_at = CLOCK.now() + TTL
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint))


async def revoked(connector: Connector, ledger: Ledger) -> RevokeOutcome:
    return await connector.revoke(ledger.handle, ledger.context())


def cluster_of(bao: ConfiguredOpenBao) -> str:
    return str(bao.root_client().sys.read_health_status(method="GET")["cluster_id"])


def is_elsewhere(outcome: RevokeOutcome, made_at: ConfiguredOpenBao, here: ConfiguredOpenBao) -> None:
    """Told as that, with both clusters and what to do; and it is no trouble of the upstream."""
    assert isinstance(outcome, NotYet), outcome
    assert outcome.failed
    assert outcome.alone
    assert f"made at cluster {cluster_of(made_at)}" in outcome.why
    assert f"is cluster {cluster_of(here)} now" in outcome.why
    assert "point the connector there again" in outcome.why


@dataclass
class Behind:
    """A proxy in front of one server, which may be another's any time; and a connector by way of it."""

    proxy: MishapProxy
    address: str
    connector: VaultDatabase


@pytest.fixture
async def behind(openbao_server: ConfiguredOpenBao) -> AsyncIterator[Behind]:
    with mishap_proxy(openbao_server.facts.address) as (proxy, address):
        connector = vault_connector(openbao_server, address)
        yield Behind(proxy, address, connector)
        await connector.close()


@pytest.fixture
async def moved(another_openbao: ConfiguredOpenBao) -> AsyncIterator[VaultDatabase]:
    """The connector, pointed at the other server."""
    made = vault_connector(another_openbao)
    yield made
    await made.close()


async def test_at_another_cluster_nothing_ends_and_back_again_it_does(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao, moved: VaultDatabase, behind: Behind
) -> None:
    first, ledger = vault_connector(openbao_server), Ledger()
    issued = await issue(first, ledger)
    await first.close()
    is_elsewhere(await revoked(moved, ledger), openbao_server, another_openbao)
    assert can_log_in(issued.credential)
    # The same server by another address is the same server.
    assert isinstance(await revoked(behind.connector, ledger), Revoked)
    assert not can_log_in(issued.credential)


async def test_what_was_never_noted_is_looked_for_where_it_was_made(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao, moved: VaultDatabase, behind: Behind
) -> None:
    ledger, created_at = Ledger(), CLOCK.now() - timedelta(hours=1)
    behind.proxy.rules.append(Rule(LOGIN, change=lost))
    with pytest.raises(UpstreamFailed):
        await issue(behind.connector, ledger)
    assert "accessor" in ledger.handle
    assert "lease" not in ledger.handle
    context = ledger.context(created_at=created_at, expires_at=created_at, outcome_known=False)
    is_elsewhere(await moved.revoke(ledger.handle, context), openbao_server, another_openbao)
    assert isinstance(await behind.connector.revoke(ledger.handle, context), Revoked)


async def test_what_an_inventory_listed_is_ended_where_it_was_listed(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao, moved: VaultDatabase
) -> None:
    first, ledger = vault_connector(openbao_server), Ledger()
    await issue(first, ledger)
    (listed,) = [each for each in await first.inventory() if each.name == ledger.handle["lease"]]
    is_elsewhere(await moved.revoke(listed.handle, ledger.context()), openbao_server, another_openbao)
    assert isinstance(await first.revoke(listed.handle, ledger.context()), Revoked)
    await first.close()


async def test_what_an_older_ledger_holds_is_ended_as_before(openbao_server: ConfiguredOpenBao) -> None:
    connector, ledger = vault_connector(openbao_server), Ledger()
    issued = await issue(connector, ledger)
    ledger.handle = {name: value for name, value in ledger.handle.items() if name != "cluster"}
    assert isinstance(await revoked(connector, ledger), Revoked)
    assert not can_log_in(issued.credential)
    await connector.close()


async def test_it_is_asked_once_and_by_tending_and_not_by_requests(behind: Behind) -> None:
    """So that a request costs the calls that it did."""
    ledgers = [Ledger() for _ in range(3)]
    for ledger in ledgers:
        await issue(behind.connector, ledger)
    for ledger in ledgers:
        assert isinstance(await revoked(behind.connector, ledger), Revoked)
    asked = [each for each in behind.proxy.seen if each.startswith(HEALTH)]
    assert len(asked) == 1
    await behind.connector.tend()
    assert len([each for each in behind.proxy.seen if each.startswith(HEALTH)]) == 2


def without_id(reply: Reply) -> Reply:
    told = json.loads(reply.body)
    return replace(reply, body=json.dumps({name: told[name] for name in told if name != "cluster_id"}).encode())


def with_id(value: object) -> Callable[[Reply], Reply]:
    return lambda reply: replace(reply, body=json.dumps({**json.loads(reply.body), "cluster_id": value}).encode())


UNTOLD = {
    "no id": Rule(HEALTH, change=without_id),
    "an empty id": Rule(HEALTH, change=with_id("")),
    "no text": Rule(HEALTH, change=with_id(17)),
    "endless": Rule(HEALTH, change=with_id("7" * 65)),
    "sealed": Rule(HEALTH, instead=Reply(503, b'{"sealed": true, "initialized": true}')),
    "let through by no proxy": Rule(HEALTH, instead=Reply(403, b"no")),
    "another's page": Rule(HEALTH, instead=Reply(200, b"<html>")),
    "no answer": Rule(HEALTH, instead=Reply(0)),
}


@pytest.mark.parametrize("case", UNTOLD)
async def test_where_it_cannot_be_told_absence_is_no_proof_and_it_is_ended_all_the_same(
    behind: Behind, case: str
) -> None:
    ledger = Ledger()
    issued = await issue(behind.connector, ledger)
    behind.proxy.rules.append(UNTOLD[case])
    await behind.connector.tend()
    outcome = await revoked(behind.connector, ledger)
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert outcome.alone
    assert "does not tell which it is" in outcome.why
    assert not can_log_in(issued.credential)
    behind.proxy.rules.clear()
    await behind.connector.tend()
    assert isinstance(await revoked(behind.connector, ledger), Revoked)


@pytest.mark.parametrize("case", UNTOLD)
async def test_a_server_that_never_tells_is_served_as_before(behind: Behind, case: str) -> None:
    behind.proxy.rules.append(UNTOLD[case])
    for _ in range(2):
        ledger = Ledger()
        issued = await issue(behind.connector, ledger)
        assert "cluster" not in ledger.handle
        assert isinstance(await revoked(behind.connector, ledger), Revoked)
        assert not can_log_in(issued.credential)
    asked = len([each for each in behind.proxy.seen if each.startswith(HEALTH)])
    assert asked == 1 or case in ("sealed", "no answer")
    (doubt,) = [each for each in await behind.connector.examine() if "which cluster" in each.what]
    assert doubt.severity is Severity.WARNING


async def test_a_server_that_could_not_be_asked_is_asked_again_soon(
    openbao_server: ConfiguredOpenBao, behind: Behind
) -> None:
    """Not only by the next tending; and not by every request until then."""
    clock, ledger = ShiftedClock(), Ledger()
    settings, token = vault_settings(openbao_server, behind.address), openbao_server.database.broker_token
    connector = VaultDatabase("orders-db", settings, token, clock)
    behind.proxy.rules.append(UNTOLD["no answer"])
    await issue(connector, ledger)
    assert "cluster" not in ledger.handle
    behind.proxy.rules.clear()
    clock.ahead += timedelta(seconds=5)
    await issue(connector, ledger)
    assert ledger.handle["cluster"] == cluster_of(openbao_server)
    await connector.close()


@pytest.mark.parametrize("list_read_within", [None, timedelta(minutes=1)])
async def test_a_certificate_whose_own_time_is_over_is_over_everywhere(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao, list_read_within: timedelta | None
) -> None:
    for bao in (openbao_server, another_openbao):
        configure_pki(bao)
    changes = {"list_read_within": list_read_within}
    first, elsewhere = (pki_connector(bao, **changes) for bao in (openbao_server, another_openbao))
    ledger = Ledger()
    issued = await issue(first, ledger, pki_scope())
    is_elsewhere(await revoked(elsewhere, ledger), openbao_server, another_openbao)
    over = ledger.context(issued.expires_at, expires_at=issued.expires_at)
    assert isinstance(await elsewhere.revoke(ledger.handle, over), Expired)
    for each in (first, elsewhere):
        await each.close()


async def test_a_server_in_the_place_of_another_is_noticed_by_tending(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao
) -> None:
    """With a token that both take, which no server makes by itself."""
    token = Secret("the-same-at-both")
    for bao in (openbao_server, another_openbao):
        bao.root_client().auth.token.create_orphan(
            id=token.reveal(), policies=[BROKER_POLICY], period="1h", no_default_policy=True
        )
    with mishap_proxy(openbao_server.facts.address) as (proxy, address):
        connector = VaultDatabase("orders-db", vault_settings(openbao_server, address), lambda: token, CLOCK)
        ledger, later = Ledger(), Ledger()
        issued = await issue(connector, ledger)
        proxy._target = another_openbao.facts.address
        await connector.tend()
        is_elsewhere(await revoked(connector, ledger), openbao_server, another_openbao)
        assert can_log_in(issued.credential)
        await issue(connector, later)
        assert isinstance(await revoked(connector, later), Revoked)
        proxy._target = openbao_server.facts.address
        await connector.tend()
        assert isinstance(await revoked(connector, ledger), Revoked)
        await connector.close()


async def test_another_token_is_another_cluster_until_it_says_otherwise(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao
) -> None:
    """Between two tendings: the server that came in its place takes no token of it."""
    tokens = [openbao_server.database.broker_token()]
    with mishap_proxy(openbao_server.facts.address) as (proxy, address):
        connector = VaultDatabase("orders-db", vault_settings(openbao_server, address), lambda: tokens[-1], CLOCK)
        ledger = Ledger()
        issued = await issue(connector, ledger)
        proxy._target = another_openbao.facts.address
        assert isinstance(await revoked(connector, ledger), Refused)
        tokens.append(another_openbao.database.broker_token())
        is_elsewhere(await revoked(connector, ledger), openbao_server, another_openbao)
        assert can_log_in(issued.credential)
        proxy._target = openbao_server.facts.address
        tokens.pop()
        assert isinstance(await revoked(connector, ledger), Revoked)
        await connector.close()


@pytest.fixture
def domain(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao, tmp_path: Path
) -> Iterator[TrustDomain]:
    """A trust domain whose broker may log in at both."""
    domain = TrustDomain.load(BROKER_ID.trust_domain, tmp_path, CLOCK.now())
    for bao in (openbao_server, another_openbao):
        openbao_jwt.configure_jwt(bao.facts, domain, BROKER_ID)
    yield domain


async def test_a_login_that_is_made_anew_elsewhere_is_noticed_in_the_same_call(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao, domain: TrustDomain
) -> None:
    clock = ShiftedClock()
    login = JwtLogin(
        JwtRole(openbao_jwt.MOUNT, openbao_jwt.ROLE, openbao_jwt.AUDIENCE), Minted(domain, clock=clock), clock
    )
    with mishap_proxy(openbao_server.facts.address) as (proxy, address):
        connector = VaultDatabase("orders-db", vault_settings(openbao_server, address), login, CLOCK)
        ledger, later = Ledger(), Ledger()
        issued = await issue(connector, ledger)
        proxy._target = another_openbao.facts.address
        clock.ahead += timedelta(minutes=1)  # a login that is refused is old enough to be made anew
        is_elsewhere(await revoked(connector, ledger), openbao_server, another_openbao)
        assert can_log_in(issued.credential)
        proxy._target = openbao_server.facts.address
        clock.ahead += timedelta(minutes=1)
        # Refused there, it logs in, makes the attempt's token, and notes where.
        await issue(connector, later)
        assert later.handle["cluster"] == cluster_of(openbao_server)
        assert isinstance(await revoked(connector, ledger), Revoked)
        assert isinstance(await revoked(connector, later), Revoked)
        await connector.close()


async def test_a_secret_is_rotated_only_where_it_was_read(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao
) -> None:
    for bao in (openbao_server, another_openbao):
        configure_kv(bao)
    rotate(another_openbao, "another")
    first, elsewhere, ledger = kv_connector(openbao_server), kv_connector(another_openbao), Ledger()
    await issue(first, ledger, kv_scope())
    is_elsewhere(await revoked(elsewhere, ledger), openbao_server, another_openbao)
    assert isinstance(await revoked(first, ledger), NotYet)
    rotate(openbao_server, "another")
    assert isinstance(await revoked(first, ledger), Revoked)
    for each in (first, elsewhere):
        await each.close()


async def test_a_wrapped_secret_is_kept_where_it_was_wrapped(
    openbao_server: ConfiguredOpenBao, another_openbao: ConfiguredOpenBao
) -> None:
    for bao in (openbao_server, another_openbao):
        configure_kv(bao)
    first, elsewhere, ledger = kv_connector(openbao_server), kv_connector(another_openbao), Ledger()
    await issue(first, ledger, replace(kv_scope(), wrap=timedelta(seconds=60)))
    undelivered = ledger.context(outcome_known=False)
    is_elsewhere(await elsewhere.revoke(ledger.handle, undelivered), openbao_server, another_openbao)
    assert isinstance(await first.revoke(ledger.handle, undelivered), Revoked)
    for each in (first, elsewhere):
        await each.close()
