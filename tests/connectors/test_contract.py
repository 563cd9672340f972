"""The Connector port, proven on every adapter: the fake, OpenBao with PostgreSQL, AWS STS against its double."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.errors import Reason, UpstreamFailed, WrongState
from broker.lease.credential import AwsSession, ContractClass, Credential, DatabaseLogin
from broker.ports import Carried, Connector, Expired, Issued, NotYet, Revoked
from broker.scope.canonical import canonical_json
from tests.connectors.harness import Harness
from tests.connectors.support import HOLDER, Ledger, assert_tells_no_secret, new_attempt
from tests.patience import eventually

TTL = timedelta(minutes=5)
ALLOWANCE = timedelta(seconds=10)


def secrets_of(credential: Credential) -> tuple[str, ...]:
    if isinstance(credential, DatabaseLogin):
        return (credential.password.reveal(),)
    assert isinstance(credential, AwsSession)
    return (credential.secret_access_key.reveal(), credential.session_token.reveal())


async def issue(harness: Harness, connector: Connector, ledger: Ledger, ttl: timedelta = TTL) -> Issued:
    expires_at = harness.clock.now() + ttl
    ledger.handle = connector.prepare(harness.scope, new_attempt(), HOLDER, expires_at)
    return await connector.issue(ledger.handle, harness.scope, expires_at, ledger.checkpoint)


async def gone(connector: Connector, ledger: Ledger, harness: Harness) -> bool:
    """Whether, asked until it is no longer a matter of a login in flight, the adapter says that all is over."""
    created_at = harness.clock.now() - 2 * ALLOWANCE

    async def revoked() -> bool:
        context = ledger.context(harness.clock.now(), created_at=created_at, allowance=ALLOWANCE, outcome_known=False)
        return isinstance(await connector.revoke(ledger.handle, context), Revoked)

    await eventually(revoked)
    return True


def test_the_handle_is_chosen_before_any_call_and_is_json(harness: Harness) -> None:
    connector, attempt, expires_at = harness.connector(), new_attempt(), harness.clock.now() + TTL
    handle = connector.prepare(harness.scope, attempt, HOLDER, expires_at)
    assert handle["attempt"] == attempt
    assert canonical_json(handle) == canonical_json(connector.prepare(harness.scope, attempt, HOLDER, expires_at))


async def test_what_is_issued_is_what_was_asked(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    asked_from = harness.clock.now()
    issued = await issue(harness, connector, ledger)
    asked_by = harness.clock.now()
    # Whole seconds, rounded down: at most 1 s short.
    assert asked_from + TTL - timedelta(seconds=1) <= issued.expires_at <= asked_by + TTL + connector.contract.on_expiry
    assert harness.works is None or harness.works(issued.credential)


async def test_what_the_ledger_and_the_trail_keep_holds_no_secret(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    issued = await issue(harness, connector, ledger)
    kept = canonical_json([*ledger.handles, ledger.handle, issued.observed]).decode() + repr(issued)
    for secret in (*secrets_of(issued.credential), *harness.secrets):
        assert secret not in kept


async def test_the_handle_alone_ends_it_after_a_restart(harness: Harness) -> None:
    ledger, asked_from = Ledger(), harness.clock.now()
    issued = await issue(harness, harness.connector(), ledger)
    after_restart = harness.connector()
    now = harness.clock.now()
    outcome = await after_restart.revoke(ledger.handle, ledger.context(now, expires_at=issued.expires_at))
    if after_restart.contract.cls is ContractClass.IMMEDIATE:
        assert isinstance(outcome, Revoked)
        assert harness.works is not None
        assert not harness.works(issued.credential)
    else:
        # Only time ends it, so nothing has failed, and the time left is the time to wait.
        assert outcome == NotYet(outcome.why, issued.expires_at - now, failed=False)  # type: ignore[union-attr]
        at_its_end = ledger.context(issued.expires_at, created_at=asked_from, expires_at=issued.expires_at)
        assert await after_restart.revoke(ledger.handle, at_its_end) == Expired()


async def test_ending_it_twice_is_ending_it_once(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    issued = await issue(harness, connector, ledger)
    if connector.contract.cls is not ContractClass.IMMEDIATE:
        pytest.skip("only time ends it")
    first = await connector.revoke(ledger.handle, ledger.context(expires_at=issued.expires_at))
    second = await connector.revoke(ledger.handle, ledger.context(expires_at=issued.expires_at))
    assert isinstance(first, Revoked)
    assert isinstance(second, Revoked)


async def test_an_intent_that_was_never_carried_out_ends_when_no_late_create_can_land(harness: Harness) -> None:
    connector, ledger, now = harness.connector(), Ledger(), harness.clock.now()
    ledger.handle = connector.prepare(harness.scope, new_attempt(), HOLDER, now + TTL)
    # Intent 15 s ago, given up 5 s ago: a late create may land until 2 * 10 s after the intent, 5 s from now.
    early = ledger.context(now, created_at=now - timedelta(seconds=15), outcome_known=False, expires_at=now + TTL)
    outcome = await connector.revoke(ledger.handle, early)
    assert isinstance(outcome, NotYet)
    assert not outcome.failed
    wait = TTL if connector.contract.cls is ContractClass.EXPIRY_ONLY else timedelta(seconds=5)
    assert outcome.retry_after == wait
    late = ledger.context(now, created_at=now - TTL, outcome_known=False, expires_at=now)
    assert isinstance(await connector.revoke(ledger.handle, late), Revoked | Expired)


async def test_a_refused_checkpoint_stops_it_and_leaves_nothing(harness: Harness) -> None:
    connector = harness.connector()
    probe = Ledger()
    await issue(harness, connector, probe)
    if not probe.handles:
        pytest.skip("a single call, named beforehand: nothing to note in between")
    for number in range(1, len(probe.handles) + 1):
        refusal = WrongState(Reason.LEASE_ENDED, "the attempt was ended meanwhile.")
        ledger = Ledger(refuse_from=number, error=refusal)
        with pytest.raises(WrongState) as caught:
            await issue(harness, connector, ledger)
        assert caught.value is refusal
        assert await gone(connector, ledger, harness)


async def test_a_cancelled_issue_is_swept(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    if connector.contract.cls is not ContractClass.IMMEDIATE:
        pytest.skip("only time ends it")
    work = asyncio.ensure_future(issue(harness, connector, ledger))
    while not ledger.handles and not work.done():
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await gone(connector, ledger, harness)


async def carried(harness: Harness, connector: Connector, ledger: Ledger) -> list[Carried]:
    """What the inventory lists of this ledger's attempt: by its id, or by the name that was noted."""
    listed = await connector.inventory()
    if listed is None:
        pytest.skip("this upstream cannot tell what it has given out")
    attempt = str(ledger.handle["attempt"])
    return [each for each in listed if each.attempt_id == attempt or each.name in ledger.noted]


async def test_what_is_issued_is_in_the_inventory_and_what_is_revoked_is_not(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    issued = await issue(harness, connector, ledger)
    (found,) = await carried(harness, harness.connector(), ledger)
    assert found.created_at is None or abs(harness.clock.now() - found.created_at) < timedelta(minutes=1)
    kept = canonical_json([found.name, found.handle]).decode()
    assert not any(secret in kept for secret in (*secrets_of(issued.credential), *harness.secrets))
    if connector.contract.cls is ContractClass.IMMEDIATE:
        context = ledger.context(expires_at=issued.expires_at)
        assert isinstance(await connector.revoke(ledger.handle, context), Revoked)
        assert await carried(harness, connector, ledger) == []


async def test_the_handle_of_the_inventory_ends_it_without_a_ledger(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    issued = await issue(harness, connector, ledger)
    (found,) = await carried(harness, connector, ledger)
    if connector.contract.cls is not ContractClass.IMMEDIATE:
        pytest.skip("only time ends it")
    assert isinstance(await connector.revoke(found.handle, ledger.context()), Revoked)
    assert harness.works is not None
    assert not harness.works(issued.credential)
    assert await carried(harness, connector, ledger) == []


async def test_nothing_is_asked_when_the_time_is_over(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    with pytest.raises(UpstreamFailed) as caught:
        await issue(harness, connector, ledger, ttl=timedelta(0))
    assert caught.value.outcome_known
    assert not ledger.handles


async def test_an_upstream_that_cannot_be_reached_made_nothing(harness: Harness) -> None:
    if harness.make_unreachable is None:
        pytest.skip("in memory")
    connector, ledger = harness.make_unreachable(), Ledger()
    harness.stack.push_async_callback(connector.close)
    with pytest.raises(UpstreamFailed) as caught:
        await issue(harness, connector, ledger)
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE
    assert caught.value.outcome_known
    assert not ledger.handles
    assert_tells_no_secret(caught.value, *harness.secrets)
    if connector.contract.cls is ContractClass.IMMEDIATE:
        outcome = await connector.revoke({**ledger.handle, "accessor": "a", "lease": "b"}, ledger.context())
        assert isinstance(outcome, NotYet)
        assert outcome.failed
