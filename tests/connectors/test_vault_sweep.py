"""What nobody noted is found and ended, and what is somebody else's is left alone. Real OpenBao and PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta

import psycopg
import pytest

from broker.clock import SystemClock
from broker.connectors.vault_database import VaultDatabase
from broker.connectors.vault_sweep import may_be_made_between
from broker.dev.postgres import PostgresFacts
from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import DatabaseLogin
from broker.ports.connectors import Handle, Issued, NotYet, Revoked, RevokeOutcome
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, vault_connector
from tests.connectors.mishap_proxy import Rule, lost, mishap_proxy
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt
from tests.patience import PATIENCE, becomes_true

SCOPE = make_scope({"role": "orders-readonly"})
CLOCK = SystemClock()
TTL = timedelta(minutes=5)
# How long an issue may take, and with it how long a login may be in flight: short, so that tests need not wait, and
# longer than any test takes, where the login is to be young.
ALLOWANCE = timedelta(milliseconds=300)
LONG_ALLOWANCE = timedelta(minutes=5)
# The calls of an issue.
TOKEN, LOGIN = "POST /v1/auth/token/create/", "GET /v1/database/creds/"
# Longer than a test takes.
PAUSE = timedelta(minutes=2)


@pytest.fixture
async def connector(openbao_server: ConfiguredOpenBao) -> AsyncIterator[VaultDatabase]:
    made = vault_connector(openbao_server)
    yield made
    await made.close()


@pytest.fixture
def roles_of(openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts) -> Callable[[Handle], int]:
    def count(handle: Handle) -> int:
        with psycopg.connect(postgres_server.conninfo()) as admin:
            found = admin.execute("SELECT count(*) FROM pg_roles WHERE rolname LIKE %s", [f"%{handle['attempt']}%"])
            return int(found.fetchone()[0])  # type: ignore[index]

    return count


async def issue(connector: VaultDatabase, ledger: Ledger) -> Issued:
    expires_at = CLOCK.now() + TTL
    ledger.handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, SCOPE, expires_at, ledger.checkpoint))


async def issued_in_vain(openbao_server: ConfiguredOpenBao, call: str) -> tuple[Ledger, UpstreamFailed]:
    """The answer to ``call`` is lost: what was noted before, and how that ended."""
    ledger = Ledger()
    with mishap_proxy(openbao_server.facts.address) as (proxy, address):
        proxy.rules.append(Rule(call, change=lost))
        behind = vault_connector(openbao_server, address)
        with pytest.raises(UpstreamFailed) as caught:
            await issue(behind, ledger)
        await behind.close()
    return ledger, caught.value


def sweep(connector: VaultDatabase, ledger: Ledger, created_at: datetime, **changes: object) -> object:
    context = ledger.context(CLOCK.now(), created_at=created_at, allowance=ALLOWANCE, outcome_known=False)
    return connector.revoke(ledger.handle, context._replace(**changes))  # type: ignore[arg-type]


async def swept(
    connector: VaultDatabase, ledger: Ledger, created_at: datetime, **changes: object
) -> list[RevokeOutcome]:
    """All outcomes until it is Revoked, asking again as it wants to be asked."""
    outcomes: list[RevokeOutcome] = []
    async with asyncio.timeout(PATIENCE):
        while not outcomes or not isinstance(outcomes[-1], Revoked):
            outcome = ledger.kept(await sweep(connector, ledger, created_at, **changes))  # type: ignore[misc]
            outcomes.append(outcome)
            if isinstance(outcome, NotYet):
                assert outcome.retry_after is not None
                await asyncio.sleep(outcome.retry_after.total_seconds())
    return outcomes


async def test_a_login_whose_reply_was_lost_is_ended_by_its_token(
    openbao_server: ConfiguredOpenBao, connector: VaultDatabase, roles_of: Callable[[Handle], int]
) -> None:
    created_at = CLOCK.now()
    ledger, failure = await issued_in_vain(openbao_server, LOGIN)
    assert not failure.outcome_known
    assert "accessor" in ledger.handle
    assert "lease" not in ledger.handle
    assert roles_of(ledger.handle) == 1  # the orphan: OpenBao has made it, nobody knows it
    outcomes = await swept(connector, ledger, created_at)
    assert roles_of(ledger.handle) == 0
    assert not any(outcome.failed for outcome in outcomes if isinstance(outcome, NotYet))


async def test_a_login_that_a_stalled_server_made_long_after_is_looked_for_until_it_has_ended(
    openbao_server: ConfiguredOpenBao, connector: VaultDatabase, roles_of: Callable[[Handle], int]
) -> None:
    """The token could not be ended before; so the login is younger than any late create that is reckoned with."""
    ledger, _ = await issued_in_vain(openbao_server, LOGIN)
    long_ago, lives = CLOCK.now() - timedelta(hours=1), {"expires_at": CLOCK.now() + TTL}
    first = await sweep(connector, ledger, long_ago, **lives)  # type: ignore[misc]
    assert isinstance(first, NotYet)
    assert not first.failed
    assert first.noted is not None
    assert CLOCK.now() - PAUSE < datetime.fromisoformat(str(first.noted["token_ended"])) < CLOCK.now()
    outcomes = await swept(connector, ledger, long_ago, **lives)
    assert roles_of(ledger.handle) == 0
    assert isinstance(outcomes[-1], Revoked)
    # What is noted stands: the next sweep begins no new time of waiting.
    assert isinstance(await sweep(connector, ledger, long_ago, **lives), Revoked)  # type: ignore[misc]


async def test_a_token_that_ended_nobody_knows_when_is_looked_after_once_more(
    openbao_server: ConfiguredOpenBao, connector: VaultDatabase
) -> None:
    ledger, _ = await issued_in_vain(openbao_server, LOGIN)
    young = CLOCK.now()
    assert isinstance(await sweep(connector, ledger, young), NotYet)  # type: ignore[misc]
    # It was ended, and what that try noted was lost with its claim.
    assert "token_ended" not in ledger.handle
    long_ago, lives = CLOCK.now() - timedelta(hours=1), {"expires_at": CLOCK.now() + TTL}
    again = await sweep(connector, ledger, long_ago, **lives)  # type: ignore[misc]
    assert isinstance(again, NotYet)
    assert again.noted is not None
    assert "token_ended" in again.noted
    assert isinstance((await swept(connector, ledger, long_ago, **lives))[-1], Revoked)


@pytest.mark.parametrize(
    ("age", "asked", "told", "may"),
    [
        (10, 10, 10, True),  # made at 0
        (12, 10, 10, True),  # at -2: an age is told in whole seconds
        (13, 10, 10, False),
        (3, 10, 10, True),  # at 7
        (2, 10, 10, False),
        (13, 10, 11, True),  # between -3 and -2: the answer took a second
        (2, 9, 30, True),  # between 7 and 28
        (2, 10, 30, False),  # between 8 and 28
        (40, 10, 30, False),  # between -30 and -10
    ],
)
def test_a_slow_answer_makes_no_lease_older_or_younger(age: float, asked: float, told: float, may: bool) -> None:
    begin = CLOCK.now()
    moments = [begin + timedelta(seconds=each) for each in (5, asked, told)]
    assert may_be_made_between(begin, moments[0], timedelta(seconds=age), *moments[1:]) is may


async def test_an_orphan_without_accessor_or_lease_id_is_found_by_its_time(
    openbao_server: ConfiguredOpenBao, connector: VaultDatabase, roles_of: Callable[[Handle], int]
) -> None:
    created_at = CLOCK.now()
    maker, ledger = Ledger(), Ledger()
    made = await issue(connector, maker)
    given_up = CLOCK.now() + ALLOWANCE  # the call was made within its allowance, however long it took here
    assert isinstance(made.credential, DatabaseLogin)
    # As if neither checkpoint had been made: the ledger knows the intent's handle only, and no name.
    ledger.handle = {name: maker.handle[name] for name in ("attempt", "mount", "role", "holder")}
    ledger.names.discard(str(maker.handle["lease"]))
    first = await sweep(connector, ledger, created_at, issue_deadline=created_at + LONG_ALLOWANCE)  # type: ignore[misc]
    assert isinstance(first, NotYet)
    assert not first.failed
    assert can_log_in(made.credential)  # it is young: it may be another attempt's, in flight
    outcomes = await swept(connector, ledger, created_at, issue_deadline=given_up)
    assert outcomes[-1] == Revoked(
        {
            "orphans_revoked": [maker.handle["lease"]],
            "proof": "no unknown lease of the role from the time of this attempt",
            "token": "never noted",
        }
    )
    assert not can_log_in(made.credential)
    assert roles_of(maker.handle) == 0


async def test_a_token_whose_reply_was_lost_leaves_nothing(
    openbao_server: ConfiguredOpenBao, connector: VaultDatabase, roles_of: Callable[[Handle], int]
) -> None:
    created_at = CLOCK.now()
    ledger, failure = await issued_in_vain(openbao_server, TOKEN)
    assert failure.reason is Reason.UPSTREAM_UNAVAILABLE
    assert not failure.outcome_known
    assert ledger.handles == []
    await swept(connector, ledger, created_at)
    assert roles_of(ledger.handle) == 0


async def test_a_sweep_leaves_a_login_in_flight_alone(connector: VaultDatabase) -> None:
    """Mine is issued upstream and its checkpoint is under way, while the sweep of another attempt runs."""
    other = Ledger()
    other.handle = connector.prepare(SCOPE, new_attempt(), HOLDER, CLOCK.now() + TTL)
    mine = Ledger()
    reached, go_on = asyncio.Event(), asyncio.Event()
    noted = mine.checkpoint

    async def slow_checkpoint(handle: Handle, upstream: str | None) -> None:
        if upstream is not None:
            reached.set()
            await go_on.wait()
        await noted(handle, upstream)

    mine.checkpoint = slow_checkpoint  # type: ignore[method-assign]
    work = asyncio.ensure_future(issue(connector, mine))
    await reached.wait()
    # The other attempt's window is long over; only my unknown login keeps its sweep from its proof.
    now = CLOCK.now()
    long_over = {"issue_deadline": now - LONG_ALLOWANCE}
    first = await sweep(connector, other, now - 2 * LONG_ALLOWANCE, **long_over)  # type: ignore[misc]
    assert isinstance(first, NotYet)
    assert not first.failed
    assert first.retry_after is not None
    assert first.retry_after <= timedelta(seconds=1)
    go_on.set()
    credential = (await work).credential
    second = await sweep(connector, other, now - 2 * LONG_ALLOWANCE, **long_over)  # type: ignore[misc]
    assert isinstance(second, Revoked)
    assert can_log_in(credential)
    assert isinstance(await connector.revoke(mine.handle, mine.context(CLOCK.now())), Revoked)


async def test_a_login_that_becomes_known_at_the_last_moment_is_left_alone(connector: VaultDatabase) -> None:
    created_at = CLOCK.now()
    mine, other = Ledger(), Ledger()
    credential = (await issue(connector, mine)).credential
    made_by = CLOCK.now()
    other.handle = connector.prepare(SCOPE, new_attempt(), HOLDER, CLOCK.now() + TTL)
    asked: list[Sequence[str]] = []

    async def known_when_asked_again(names: Sequence[str]) -> frozenset[str]:
        asked.append(names)
        known = await mine.known(names)
        return known if len(asked) > 1 else known - {str(mine.handle["lease"])}

    # Nothing may be in flight for longer than mine took: in 2 s (rounding) more, my login is old enough to be ended.
    at_once = {"issue_deadline": made_by, "known_upstream": known_when_asked_again}
    async with asyncio.timeout(PATIENCE):
        while not isinstance(outcome := await sweep(connector, other, created_at, **at_once), Revoked):  # type: ignore[misc]
            asked.clear()
            await asyncio.sleep(0.1)
    assert outcome.observed["orphans_revoked"] == []
    assert asked[1:] == [[mine.handle["lease"]]]  # it was about to be ended, and asked for once more
    assert can_log_in(credential)
    assert isinstance(await connector.revoke(mine.handle, mine.context(CLOCK.now())), Revoked)


async def test_a_login_of_another_time_is_not_ended(connector: VaultDatabase) -> None:
    mine, other = Ledger(), Ledger()
    credential = (await issue(connector, mine)).credential
    other.handle = connector.prepare(SCOPE, new_attempt(), HOLDER, CLOCK.now() + TTL)
    mine.names.discard(str(mine.handle["lease"]))  # unknown, like somebody's whose own sweep is to come
    # The other attempt was over an hour ago, also with twice its allowance and 2 s for rounding.
    outcome = await sweep(connector, other, CLOCK.now() - timedelta(hours=1))  # type: ignore[misc]
    assert isinstance(outcome, Revoked)
    assert can_log_in(credential)
    mine.names.add(str(mine.handle["lease"]))
    assert isinstance(await connector.revoke(mine.handle, mine.context(CLOCK.now())), Revoked)


async def test_a_cancelled_call_that_makes_a_login_late_takes_it_back_itself(
    openbao_server: ConfiguredOpenBao, roles_of: Callable[[Handle], int]
) -> None:
    """faults.md F18: the thread outlives its caller, and what it gets then it ends."""
    ledger, hold = Ledger(), threading.Event()
    with mishap_proxy(openbao_server.facts.address) as (proxy, address):
        proxy.rules.append(Rule("GET /v1/database/creds/", hold=hold))
        behind = vault_connector(openbao_server, address)
        work = asyncio.ensure_future(issue(behind, ledger))
        assert await asyncio.to_thread(proxy.answered.wait, PATIENCE)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert roles_of(ledger.handle) == 1
        hold.set()
        await becomes_true(lambda: not roles_of(ledger.handle))
        await behind.close()
