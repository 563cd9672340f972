"""A database login really ends: real OpenBao, real PostgreSQL, and an agent that does not want it to."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from broker.dev.postgres import PostgresFacts
from broker.errors import BrokerError
from broker.lease.credential import DatabaseLogin
from broker.ports.connectors import Issued, NotYet, Revoked
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, conninfo, vault_connector
from tests.connectors.support import HOLDER, Ledger
from tests.connectors.upstream_vault import CLOCK, WRITE, Upstream
from tests.patience import PATIENCE, Pauses


@pytest.fixture
async def upstream(openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts) -> AsyncIterator[Upstream]:
    connector = vault_connector(openbao_server)
    yield Upstream(connector, postgres_server, openbao_server.database.target.database)
    await connector.close()


async def test_the_login_works_and_is_refused_after_revocation(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    assert can_log_in(login)
    assert str(ledger.handle["attempt"]) in login.username
    assert isinstance(await upstream.revoke(ledger), Revoked)
    assert not can_log_in(login)
    assert upstream.roles_of(ledger) == []


async def test_the_attempt_has_a_token_of_its_own_that_nothing_can_prolong(
    upstream: Upstream, openbao_server: ConfiguredOpenBao
) -> None:
    ledger, begun = Ledger(), CLOCK.now()
    await upstream.issue(ledger, ttl=timedelta(minutes=5))
    took = CLOCK.now() - begun
    token = openbao_server.root_client().auth.token.lookup_accessor(ledger.handle["accessor"])["data"]
    assert token["display_name"] == f"token-{ledger.handle['attempt']}"
    assert token["meta"] == {"attempt": ledger.handle["attempt"], "holder": HOLDER}
    assert token["policies"] == ["jit-attempt-orders-readonly"]
    assert (token["orphan"], token["renewable"], token["type"]) == (True, False, "service")
    # 300 s asked, less what was gone when it was asked for, in whole seconds.
    assert 299 - took.total_seconds() <= token["explicit_max_ttl"] <= 300
    assert isinstance(await upstream.revoke(ledger), Revoked)
    assert ledger.handle["accessor"] not in openbao_server.root_client().auth.token.list_accessors()["data"]["keys"]


async def test_the_database_refuses_it_after_its_time_even_without_the_upstream(upstream: Upstream) -> None:
    ledger, ttl = Ledger(), timedelta(minutes=5)
    login = await upstream.login(ledger, ttl=ttl)
    ((valid_until,),) = upstream.ask("SELECT rolvaliduntil FROM pg_roles WHERE rolname = %s", login.username)
    assert isinstance(valid_until, datetime)
    # The role's own TTL is an hour; VALID UNTIL is the renewed lease's end + 5 s (OpenBao), and a moment for the calls.
    assert valid_until.astimezone(UTC) <= CLOCK.now() + ttl + timedelta(seconds=6)
    assert isinstance(await upstream.revoke(ledger), Revoked)


async def test_an_open_session_is_ended(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    with psycopg.connect(conninfo(login)) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
        assert isinstance(await upstream.revoke(ledger), Revoked)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


@pytest.mark.parametrize("round_", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in range(1, 6))])
async def test_a_reconnect_loop_is_defeated(upstream: Upstream, round_: int) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    stop, begun = threading.Event(), threading.Event()
    held: list[psycopg.Connection[tuple[object, ...]]] = []

    def reconnect() -> None:
        while not stop.is_set():
            try:
                held.append(psycopg.connect(conninfo(login), autocommit=True))
            except psycopg.OperationalError:
                continue
            begun.set()

    loops = [threading.Thread(target=reconnect) for _ in range(2)]
    for loop in loops:
        loop.start()
    try:
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        assert isinstance(await upstream.revoke(ledger), Revoked)
    finally:
        stop.set()
        for loop in loops:
            await asyncio.to_thread(loop.join)
    assert upstream.sessions_of(login) == []
    for session in held:
        with session, pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


async def test_an_agent_that_made_objects_is_ended_with_them(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger, WRITE)
    with psycopg.connect(conninfo(login), autocommit=True) as session:
        session.execute("CREATE TABLE public.hideout (note text)")
        session.execute("CREATE FUNCTION public.back_door() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'")
        assert isinstance(await upstream.revoke(ledger), Revoked)
    assert upstream.roles_of(ledger) == []
    assert upstream.ask("SELECT to_regclass('public.hideout'), to_regproc('public.back_door')") == [(None, None)]


async def used(upstream: Upstream, ledger: Ledger) -> tuple[Issued, psycopg.Connection[tuple[object, ...]]]:
    """A login of three seconds, or of more where the machine takes so long, and a session in use with it."""
    for seconds in (3, 15, 60):
        begun = time.monotonic()
        try:
            issued = await upstream.issue(ledger, WRITE, timedelta(seconds=seconds))
            assert isinstance(issued.credential, DatabaseLogin)
            session = psycopg.connect(conninfo(issued.credential), autocommit=True)
            session.execute(f"CREATE TABLE public.three_seconds_{seconds}_{secrets.token_hex(4)} (note text)".encode())
            return issued, session
        except (BrokerError, psycopg.OperationalError):
            if time.monotonic() - begun < seconds / 2:
                raise
    raise AssertionError("a minute was not enough")


async def test_three_seconds_end_it_with_nobody_asking(upstream: Upstream) -> None:
    """Measured again where it was late: so may be whatever runs on a busy machine."""
    late = [await _late(upstream)]
    while late[-1] > timedelta(0) and len(late) < 3:
        late.append(await _late(upstream))
    assert min(late) <= timedelta(0), late


async def _late(upstream: Upstream) -> timedelta:
    """How much longer than promised one lived that nobody ended; everything else is as it has to be."""
    ledger = Ledger()
    issued, session = await used(upstream, ledger)
    # The broker is dead from here on: nothing revokes. Only the upstream's own time runs.
    with session, Pauses() as pauses:
        last_alive = CLOCK.now()
        while upstream.roles_of(ledger) and CLOCK.now() < issued.expires_at + timedelta(seconds=PATIENCE):
            last_alive = CLOCK.now()
            await asyncio.sleep(0.05)
        found_gone = CLOCK.now()
        assert upstream.roles_of(ledger) == []
        # Ended because of its TTL: not before it (less a second, for whole seconds), not long after.
        assert issued.expires_at - timedelta(seconds=1) <= last_alive + pauses.span
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    # The revoker that comes back finds the proof.
    assert isinstance(await upstream.revoke(ledger), Revoked)
    return found_gone - pauses.span - issued.expires_at - upstream.connector.contract.on_expiry


async def test_one_second_is_the_shortest_and_ends_it(upstream: Upstream) -> None:
    """The floor: made, and gone again with nobody asking. A busy machine may miss the second itself, or its end."""
    for _ in range(20):
        ledger = Ledger()
        with Pauses() as pauses:
            try:
                issued = await upstream.issue(ledger, ttl=timedelta(seconds=1))
            except BrokerError:
                continue
            while upstream.roles_of(ledger) and CLOCK.now() < issued.expires_at + timedelta(seconds=PATIENCE):
                await asyncio.sleep(0.05)
            assert upstream.roles_of(ledger) == []
            late = CLOCK.now() - pauses.span > issued.expires_at + upstream.connector.contract.on_expiry
        if not late:
            return
    raise AssertionError("in 20 tries no login of a second was made that ended in time")


async def test_a_login_that_cannot_be_dropped_is_not_yet_ended_and_later_is(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    upstream.ask(f'ALTER ROLE "{login.username}" SUPERUSER')  # an administrator without that right cannot drop it
    outcome = await upstream.revoke(ledger)
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert "SQLSTATE 42501" in outcome.why  # insufficient_privilege
    assert login.username not in outcome.why
    assert login.password.reveal() not in outcome.why
    upstream.ask(f'ALTER ROLE "{login.username}" NOSUPERUSER')
    assert isinstance(await upstream.revoke(ledger), Revoked)
    assert upstream.roles_of(ledger) == []


async def test_two_attempts_end_apart(upstream: Upstream) -> None:
    mine, yours = Ledger(), Ledger()
    my_login, your_login = await upstream.login(mine), await upstream.login(yours)
    assert isinstance(await upstream.revoke(mine), Revoked)
    assert not can_log_in(my_login)
    assert can_log_in(your_login)
    assert isinstance(await upstream.revoke(yours), Revoked)
