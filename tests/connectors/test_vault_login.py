"""Logging in at a real OpenBao with the broker's own JWT-SVID, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from broker.clock import SystemClock
from broker.connectors.own_identity import NoOwnToken, OwnToken
from broker.connectors.vault_database import VaultDatabase
from broker.connectors.vault_http import VaultAdapter, VaultFailure
from broker.connectors.vault_login import JwtLogin, JwtRole
from broker.dev import openbao_jwt
from broker.dev.stack import BROKER_ID
from broker.dev.trust_domain import TrustDomain
from broker.errors import Reason, UpstreamFailed
from broker.identity.spiffe_id import SpiffeId
from broker.ports.clock import Clock
from broker.ports.connectors import Issued, Refused, Revoked, Severity
from broker.secret import Secret
from tests.clock import Clocks
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, vault_settings
from tests.connectors.support import HOLDER, Ledger, assert_tells_no_secret, make_scope, new_attempt

SCOPE = make_scope({"role": "orders-readonly"})
TTL = timedelta(minutes=5)


@dataclass
class ShiftedClock:
    """The real time, and more of it when told so."""

    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return SystemClock().now() + self.ahead


@dataclass
class Minted:
    """An identity that mints what it is told to."""

    domain: TrustDomain
    spiffe_id: SpiffeId = BROKER_ID
    clock: Clock = field(default_factory=SystemClock)
    ttl: timedelta = timedelta(minutes=5)
    audience: str | None = None  # instead of the one that is asked for
    asked: int = 0
    given: list[str] = field(default_factory=list)

    def own_token(self, audience: str) -> OwnToken:
        self.asked += 1
        now = SystemClock().now()
        token = self.domain.jwt_svid(self.spiffe_id, audience=[self.audience or audience], now=now, ttl=self.ttl)
        self.given.append(token)
        return OwnToken(Secret(token), self.clock.now() + self.ttl)


@pytest.fixture(scope="module")
def domain(openbao_server: ConfiguredOpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustDomain]:
    """A trust domain whose broker may log in at the test's OpenBao."""
    directory: Path = tmp_path_factory.mktemp("trust-domain")
    domain = TrustDomain.load(BROKER_ID.trust_domain, directory, SystemClock().now())
    openbao_jwt.configure_jwt(openbao_server.facts, domain, BROKER_ID)
    yield domain


class Broker:
    """A connector that logs in, with what it has to do with."""

    def __init__(self, openbao: ConfiguredOpenBao, domain: TrustDomain, **identity: Any) -> None:
        self.clock = ShiftedClock()
        self.own = Minted(domain, clock=self.clock, **identity)
        self.root = openbao.root_client()
        role = JwtRole(openbao_jwt.MOUNT, openbao_jwt.ROLE, openbao_jwt.AUDIENCE)
        self.login = JwtLogin(role, self.own, self.clock)
        # OpenBao's leases live by the real clock, so only the login's is moved.
        self.connector = VaultDatabase("orders-db", vault_settings(openbao), self.login, SystemClock())
        self.ledger = Ledger()

    async def issue(self) -> Issued:
        expires_at = SystemClock().now() + TTL
        self.ledger.handle = self.connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
        return await self.ledger.issued(
            self.connector.issue(self.ledger.handle, SCOPE, expires_at, self.ledger.checkpoint)
        )

    def token(self) -> str:
        """The one in use. Asking for it asks no server: it is held."""
        held = self.login._held
        assert held is not None
        return held.token.reveal()


async def test_no_token_is_kept_and_one_login_serves_many_credentials(
    openbao_server: ConfiguredOpenBao, domain: TrustDomain
) -> None:
    broker = Broker(openbao_server, domain)
    for _ in range(2):
        issued = await broker.issue()
        assert can_log_in(issued.credential)
        assert isinstance(await broker.connector.revoke(broker.ledger.handle, broker.ledger.context()), Revoked)
        assert not can_log_in(issued.credential)
    assert broker.own.asked == 1
    facts = broker.root.auth.token.lookup(broker.token())["data"]
    assert facts["policies"] == ["jit-broker"]
    await broker.connector.close()


async def test_what_was_issued_outlives_the_login_and_another_login_ends_it(
    openbao_server: ConfiguredOpenBao, domain: TrustDomain
) -> None:
    broker = Broker(openbao_server, domain)
    issued = await broker.issue()
    first = broker.token()
    broker.root.auth.token.revoke(first)
    assert can_log_in(issued.credential)
    # As young as it is, it might be refused for what it may do: no storm of logins.
    assert isinstance(await broker.connector.revoke(broker.ledger.handle, broker.ledger.context()), Refused)
    assert broker.own.asked == 1
    broker.clock.ahead = timedelta(minutes=1)
    assert isinstance(await broker.connector.revoke(broker.ledger.handle, broker.ledger.context()), Revoked)
    assert not can_log_in(issued.credential)
    assert broker.own.asked == 2
    await broker.connector.close()


async def test_tending_logs_in_anew_at_half_of_its_life_and_not_sooner(
    openbao_server: ConfiguredOpenBao, domain: TrustDomain
) -> None:
    broker = Broker(openbao_server, domain)
    await broker.connector.tend()
    first = broker.token()
    half = timedelta(seconds=openbao_jwt.LOGIN_SECONDS / 2)
    broker.clock.ahead = half - timedelta(minutes=1)
    await broker.connector.tend()
    assert broker.token() == first
    broker.clock.ahead = half + timedelta(minutes=1)
    await broker.connector.tend()
    assert broker.token() != first
    # What is held is kept where a new one cannot be had: half of its life is left for that to be noticed.
    held, broker.own.spiffe_id = broker.token(), SpiffeId(BROKER_ID.trust_domain, "/agent/reporter")
    broker.clock.ahead += half + timedelta(minutes=1)
    with pytest.raises(UpstreamFailed) as told:
        await broker.connector.tend()
    assert told.value.reason is Reason.UPSTREAM_ROOT_REFUSED
    assert broker.token() == held
    await broker.connector.close()


@pytest.mark.parametrize(
    "identity",
    [
        {"spiffe_id": SpiffeId(BROKER_ID.trust_domain, "/agent/reporter")},
        {"spiffe_id": SpiffeId(BROKER_ID.trust_domain, "/broker/other")},
        {"audience": "another.service"},
    ],
    ids=["an agent", "another broker", "another audience"],
)
async def test_nobody_else_gets_in_and_no_token_is_told(
    openbao_server: ConfiguredOpenBao, domain: TrustDomain, identity: dict[str, Any]
) -> None:
    broker = Broker(openbao_server, domain, **identity)
    with pytest.raises(UpstreamFailed) as refused:
        await broker.issue()
    assert refused.value.reason is Reason.UPSTREAM_ROOT_REFUSED
    assert refused.value.outcome_known
    assert not broker.ledger.handles
    assert_tells_no_secret(refused.value, *broker.own.given)
    outcome = await broker.connector.revoke({**broker.ledger.handle, "accessor": "a"}, broker.ledger.context())
    assert isinstance(outcome, Refused)
    await broker.connector.close()


async def test_a_key_of_another_trust_domain_is_refused(
    openbao_server: ConfiguredOpenBao, domain: TrustDomain, tmp_path: Path
) -> None:
    forged = TrustDomain.load(BROKER_ID.trust_domain, tmp_path / "forged", SystemClock().now())
    broker = Broker(openbao_server, forged)
    with pytest.raises(UpstreamFailed) as refused:
        await broker.issue()
    assert refused.value.reason is Reason.UPSTREAM_ROOT_REFUSED
    await broker.connector.close()


async def test_a_token_whose_end_is_over_is_never_sent(openbao_server: ConfiguredOpenBao, domain: TrustDomain) -> None:
    broker = Broker(openbao_server, domain)
    broker.own.clock = ShiftedClock(-2 * TTL)  # it says that it ended a while ago
    with pytest.raises(UpstreamFailed, match="has expired") as refused:
        await broker.issue()
    assert refused.value.outcome_known
    await broker.connector.close()


async def test_where_brokers_time_is_ahead_it_logs_in_with_what_the_wall_clock_takes(
    openbao_server: ConfiguredOpenBao, domain: TrustDomain
) -> None:
    """The wall clock was three hours fast for a moment: what lived is due, and has to be ended."""
    broker, clocks = Broker(openbao_server, domain), Clocks()
    issued = await broker.issue()
    kept = clocks.kept()
    for clocks.set_by in (timedelta(0), timedelta(hours=3), timedelta(0)):
        kept.look()
    assert kept.now() > SystemClock().now() + timedelta(hours=2)
    role = JwtRole(openbao_jwt.MOUNT, openbao_jwt.ROLE, openbao_jwt.AUDIENCE)
    login = JwtLogin(role, Minted(domain), kept)
    connector = VaultDatabase("orders-db", vault_settings(openbao_server), login, SystemClock())
    assert isinstance(await connector.revoke(broker.ledger.handle, broker.ledger.context()), Revoked)
    assert not can_log_in(issued.credential)
    await connector.close()
    await broker.connector.close()


async def test_a_broker_without_a_jwt_svid_says_so(openbao_server: ConfiguredOpenBao) -> None:
    login = JwtLogin(JwtRole("jwt", "jit-broker", "openbao"), NoOwnToken(), SystemClock())
    connector = VaultDatabase("orders-db", vault_settings(openbao_server), login, SystemClock())
    expires_at = SystemClock().now() + TTL
    ledger = Ledger()
    handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
    with pytest.raises(UpstreamFailed, match="JWT-SVID only comes from") as refused:
        await ledger.issued(connector.issue(handle, SCOPE, expires_at, ledger.checkpoint))
    assert refused.value.outcome_known
    await connector.close()


class Answers(VaultAdapter):
    """A server that says yes to whatever it is asked, with this in ``auth``."""

    def __init__(self, auth: object) -> None:
        super().__init__(urllib3.PoolManager(), "http://127.0.0.1:9", None, timeout=1.0)
        self.auth = auth

    def request(self, *asked: Any, **more: Any) -> dict[str, Any]:
        return {"auth": self.auth}


@pytest.mark.parametrize(
    "auth",
    [
        None,
        "s.token",
        {},
        {"client_token": "s.token"},
        {"client_token": "", "lease_duration": 60},
        {"client_token": 7, "lease_duration": 60},
        {"client_token": "s.token", "lease_duration": True},
        {"client_token": "s.token", "lease_duration": "60"},
        {"client_token": "s.token", "lease_duration": 0},
        {"client_token": "s.token", "lease_duration": -1},
    ],
)
def test_half_an_answer_is_no_login(domain: TrustDomain, auth: object) -> None:
    clock, own = ShiftedClock(), Minted(domain)
    login = JwtLogin(JwtRole("jwt", "role", "openbao"), own, clock)
    for _ in range(3):
        with pytest.raises(VaultFailure) as failed:
            login.token(Answers(auth))
        assert failed.value.proves_nothing_was_made
    assert own.asked == 1  # those who waited for a login that failed do not each try it again
    clock.ahead = timedelta(seconds=2)
    assert login.token(Answers({"client_token": "s.good", "lease_duration": 60})).reveal() == "s.good"


async def test_an_examination_is_as_content_with_a_login_as_with_a_token(
    openbao_server: ConfiguredOpenBao, domain: TrustDomain
) -> None:
    broker = Broker(openbao_server, domain)
    assert await broker.connector.examine() == []
    await broker.connector.close()


async def test_an_examination_tells_a_login_that_is_refused(
    openbao_server: ConfiguredOpenBao, domain: TrustDomain
) -> None:
    broker = Broker(openbao_server, domain, spiffe_id=SpiffeId(BROKER_ID.trust_domain, "/somebody-else"))
    (doubt,) = await broker.connector.examine()
    assert doubt.severity is Severity.ERROR
    assert doubt.what.startswith("The broker itself is refused")
    assert broker.own.given[0] not in repr(doubt)
    await broker.connector.close()
