"""The Connector port, proven on every adapter: the fake, OpenBao with PostgreSQL, AWS STS against its double."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import pytest

from broker.errors import Reason, UpstreamFailed, WrongState
from broker.lease.credential import ContractClass, Credential
from broker.lease.fingerprint import secrets_in
from broker.ports.connectors import Carried, Connector, Expired, Issued, NotYet, Refused, Revoked
from broker.scope.canonical import canonical_json
from tests.connectors.harness import Harness
from tests.connectors.misbehaving import RETRY_AFTER, Mishap
from tests.connectors.support import HOLDER, Ledger, assert_tells_no_secret, new_attempt
from tests.patience import eventually

# What keeps its caller waiting is for make test-slow.
_WAITING = {Mishap.HANG, Mishap.LATE}
MISHAPS = [pytest.param(each, id=each.name, marks=[pytest.mark.slow] if each in _WAITING else []) for each in Mishap]

TTL = timedelta(minutes=5)
ALLOWANCE = timedelta(seconds=10)


def ends_when_asked(harness: Harness, connector: Connector) -> bool:
    """Whether a revocation is one at once: by the upstream itself, or by a list that it publishes."""
    return connector.contract.cls is ContractClass.IMMEDIATE or harness.ends_when_asked


def secrets_of(credential: Credential) -> tuple[str, ...]:
    return tuple(secret.reveal() for _, secret in secrets_in(credential))


async def issue(harness: Harness, connector: Connector, ledger: Ledger, ttl: timedelta = TTL) -> Issued:
    expires_at = harness.clock.now() + ttl
    ledger.handle = connector.prepare(harness.scope, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, harness.scope, expires_at, ledger.checkpoint))


async def gone(connector: Connector, ledger: Ledger, harness: Harness) -> bool:
    """Whether, asked until it is no longer a matter of a login in flight, the adapter says that all is over."""
    created_at = harness.clock.now() - 2 * ALLOWANCE

    async def revoked() -> bool:
        context = ledger.context(harness.clock.now(), created_at=created_at, allowance=ALLOWANCE, outcome_known=False)
        return isinstance(ledger.kept(await connector.revoke(ledger.handle, context)), Revoked)

    await eventually(revoked)
    return True


@pytest.fixture(autouse=True)
def applies(request: pytest.FixtureRequest) -> None:
    """Every case runs on every connector, or its harness says in one line why it cannot apply."""
    if "harness" in request.fixturenames:
        call = getattr(request.node, "callspec", None)
        params = {} if call is None else call.params
        cannot = cases_of(request, params.get("harness"))
        assert {each.partition("[")[0] for each in cannot} <= globals().keys(), "a case that is not there"
        name, mishap = request.function.__name__, params.get("mishap")
        whole, part = cannot.get(name), cannot.get(f"{name}[{getattr(mishap, 'name', '')}]")
        if (why := whole or part) is not None:
            pytest.skip(why)


_CANNOT: dict[str, Mapping[str, str]] = {}


def cases_of(request: pytest.FixtureRequest, kind: str | None) -> Mapping[str, str]:
    """Those that cannot apply. A kind says it once: for a case that is left out there is no upstream to be made."""
    if kind in _CANNOT:
        return _CANNOT[kind]
    harness: Harness = request.getfixturevalue("harness")
    if kind is not None:
        _CANNOT[kind] = harness.cannot
    return harness.cannot


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
    # Whole seconds, rounded down.
    assert asked_from + TTL - harness.short_by <= issued.expires_at <= asked_by + TTL + connector.contract.on_expiry
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
    if ends_when_asked(harness, after_restart):
        assert isinstance(outcome, Revoked)
        assert harness.works is not None
        assert not harness.works(issued.credential)
    elif after_restart.contract.cls is ContractClass.STATIC:
        # Only rotation ends it, so after its time that is a failure.
        assert isinstance(outcome, NotYet)
        late = ledger.context(issued.expires_at, created_at=asked_from, expires_at=issued.expires_at)
        too_late = await after_restart.revoke(ledger.handle, late)
        assert isinstance(too_late, NotYet)
        assert (outcome.failed, too_late.failed) == (False, True)
        assert harness.works is not None
        assert harness.works(issued.credential)
    else:
        # Only time ends it, or proves it: nothing has failed, and how long that takes is the time to wait.
        wait = after_restart.contract.on_revoke or issued.expires_at - now
        assert outcome == NotYet(outcome.why, wait, failed=False)  # type: ignore[union-attr]
        at_its_end = ledger.context(issued.expires_at, created_at=asked_from, expires_at=issued.expires_at)
        assert await after_restart.revoke(ledger.handle, at_its_end) == Expired()


async def test_ending_it_twice_is_ending_it_once(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    issued = await issue(harness, connector, ledger)
    if not ends_when_asked(harness, connector):
        pytest.skip("only time ends it, or proves it")
    first = await connector.revoke(ledger.handle, ledger.context(expires_at=issued.expires_at))
    second = await connector.revoke(ledger.handle, ledger.context(expires_at=issued.expires_at))
    assert isinstance(first, Revoked)
    assert isinstance(second, Revoked)


async def test_an_intent_that_was_never_carried_out_ends_when_no_late_create_can_land(harness: Harness) -> None:
    connector, ledger, now = harness.connector(), Ledger(), harness.clock.now()
    if connector.contract.cls is ContractClass.STATIC:
        pytest.skip("reading makes nothing that could land late")
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
    if not ends_when_asked(harness, connector):
        pytest.skip("only time ends it, or proves it")
    work = asyncio.ensure_future(issue(harness, connector, ledger))
    if harness.notes_last:
        await asyncio.sleep(0)
    while not (harness.notes_last or ledger.handles or work.done()):
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await gone(connector, ledger, harness)


async def carried(harness: Harness, connector: Connector, ledger: Ledger) -> list[Carried]:
    """What the inventory lists of this ledger's attempt: by its id, or by the name that was noted."""
    listed = await connector.inventory()
    assert listed is not None
    attempt = str(ledger.handle["attempt"])
    return [each for each in listed if each.attempt_id == attempt or each.name in ledger.noted]


async def test_what_is_issued_is_in_the_inventory_and_what_is_revoked_is_not(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    issued = await issue(harness, connector, ledger)
    (found,) = await carried(harness, harness.connector(), ledger)
    assert found.created_at is None or abs(harness.clock.now() - found.created_at) < timedelta(minutes=1)
    kept = canonical_json([found.name, found.handle]).decode()
    assert not any(secret in kept for secret in (*secrets_of(issued.credential), *harness.secrets))
    if ends_when_asked(harness, connector):
        context = ledger.context(expires_at=issued.expires_at)
        assert isinstance(await connector.revoke(ledger.handle, context), Revoked)
        assert await carried(harness, connector, ledger) == []


async def test_the_handle_of_the_inventory_ends_it_without_a_ledger(harness: Harness) -> None:
    connector, ledger = harness.connector(), Ledger()
    issued = await issue(harness, connector, ledger)
    (found,) = await carried(harness, connector, ledger)
    if not ends_when_asked(harness, connector):
        pytest.skip("only time ends it, or proves it")
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
    assert harness.make_unreachable is not None
    connector, ledger = harness.make_unreachable(), Ledger()
    harness.stack.push_async_callback(connector.close)
    with pytest.raises(UpstreamFailed) as caught:
        await issue(harness, connector, ledger)
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE
    assert caught.value.outcome_known
    assert not ledger.handles
    assert_tells_no_secret(caught.value, *harness.secrets)
    if ends_when_asked(harness, connector):
        made = {"accessor": "a", "lease": "b", "account": "c"}  # as the handles of one or another say
        outcome = await connector.revoke({**ledger.handle, **made}, ledger.context())
        assert isinstance(outcome, NotYet)
        assert outcome.failed


@contextmanager
def misbehaving(harness: Harness, mishap: Mishap) -> Iterator[Connector]:
    assert harness.misbehaving is not None
    with harness.misbehaving(mishap) as connector:
        if connector is not harness.make():
            harness.stack.push_async_callback(connector.close)
        yield connector


@pytest.mark.parametrize("mishap", MISHAPS)
async def test_an_issue_that_is_not_answered_is_a_failure_and_leaves_nothing(harness: Harness, mishap: Mishap) -> None:
    ledger = Ledger()
    with misbehaving(harness, mishap) as connector, pytest.raises(UpstreamFailed) as caught:
        await issue(harness, connector, ledger)
    failure = caught.value
    assert_tells_no_secret(failure, *harness.secrets)
    if mishap is Mishap.FORBIDDEN:
        assert failure.reason is Reason.UPSTREAM_ROOT_REFUSED
    if mishap in (Mishap.FORBIDDEN, Mishap.BUSY):
        assert failure.outcome_known  # the upstream itself says that it did nothing
        assert not ledger.noted
    if mishap in (Mishap.GARBLED, Mishap.LOST, Mishap.HANG, Mishap.LATE):
        assert not failure.outcome_known  # unknown is issued
    if mishap is Mishap.BUSY and failure.retry_after is not None:
        assert failure.retry_after == RETRY_AFTER
    if connector.contract.cls is ContractClass.IMMEDIATE:
        assert await gone(harness.connector(), ledger, harness)


@pytest.mark.parametrize("mishap", MISHAPS)
async def test_a_revocation_that_is_not_answered_is_no_proof(harness: Harness, mishap: Mishap) -> None:
    connector, ledger = harness.connector(), Ledger()
    if connector.contract.cls is ContractClass.EXPIRY_ONLY and mishap is not Mishap.BROKEN:
        pytest.skip("only time ends it: nobody is asked, so one mishap stands for all")
    issued = await issue(harness, connector, ledger)
    context = ledger.context(expires_at=issued.expires_at)
    with misbehaving(harness, mishap) as behind:
        outcome = await behind.revoke(ledger.handle, context)  # returns, whatever happens
    if connector.contract.cls is ContractClass.EXPIRY_ONLY:
        # Nobody is asked, so nothing has failed, and nothing has ended either.
        assert isinstance(outcome, NotYet)
        assert not outcome.failed
        assert harness.works is None or harness.works(issued.credential)
        return
    if mishap is Mishap.FORBIDDEN:
        assert isinstance(outcome, Refused)
    else:
        assert isinstance(outcome, NotYet)
        assert outcome.failed
    if mishap is Mishap.BUSY:
        assert outcome == NotYet(outcome.why, timedelta(seconds=RETRY_AFTER))
    if mishap not in (Mishap.LOST, Mishap.HANG, Mishap.LATE) and harness.works is not None:
        assert harness.works(issued.credential)  # nothing was done: the case is what it says
    if harness.rotate is not None:
        harness.rotate()
    assert isinstance(await connector.revoke(ledger.handle, context), Revoked)
    assert harness.works is None or not harness.works(issued.credential)


async def test_a_revocation_that_is_a_lie_is_no_proof(harness: Harness) -> None:
    assert harness.lying is not None
    assert harness.works is not None
    connector, ledger = harness.connector(), Ledger()
    issued = await issue(harness, connector, ledger)
    context = ledger.context(expires_at=issued.expires_at)
    with harness.lying() as behind:
        harness.stack.push_async_callback(behind.close)
        outcome = await behind.revoke(ledger.handle, context)
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert harness.works(issued.credential)
    assert isinstance(await connector.revoke(ledger.handle, context), Revoked)
    assert not harness.works(issued.credential)


@pytest.mark.parametrize("mishap", MISHAPS)
async def test_an_inventory_that_is_not_answered_is_not_empty(harness: Harness, mishap: Mishap) -> None:
    with misbehaving(harness, mishap) as connector:
        try:
            await connector.inventory()
        except UpstreamFailed as failure:
            assert_tells_no_secret(failure, *harness.secrets)
            if mishap is Mishap.FORBIDDEN:
                assert failure.reason is Reason.UPSTREAM_ROOT_REFUSED
            return
    raise AssertionError("what was not answered was taken for an empty list, or for no list at all")
