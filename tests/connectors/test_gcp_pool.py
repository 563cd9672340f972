"""Accounts lent to one attempt each: disabling ends for real, and enabling never brings anything back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.connectors.gcp_pool import GcpPool, Pool
from broker.connectors.gcp_upstream import GcpSettings
from broker.connectors.lending import Lending
from broker.errors import Defect, InvalidInput, Reason, UpstreamExhausted, UpstreamFailed, WrongState
from broker.lease.credential import GcpToken
from broker.lease.quarantine import QUARANTINE, accounts_needed
from broker.ports.allocations import AllocationState, Taken
from broker.ports.connectors import Expired, Issued, NotYet, Refused, Revoked, Severity
from tests.clock import ManualClock
from tests.connectors.gcp_double.rules import Mishap, Refusal
from tests.connectors.harness_gcp import BROKER, BUCKET, POOL, World, gcp_world, pool_scope
from tests.connectors.support import HOLDER, Ledger, new_attempt

TTL = timedelta(minutes=5)
OBJECT = "2031/05/a.csv"
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def world(clock: ManualClock) -> Iterator[World]:
    with gcp_world(clock) as made:
        yield made


class Lease:
    """One attempt of the world's pool, from intent to end."""

    def __init__(self, world: World, connector: GcpPool, ttl: timedelta = TTL) -> None:
        self.world, self.connector, self.ledger = world, connector, Ledger()
        self.begun = world.clock.now()
        self.expires_at = self.begun + ttl
        self.attempt = new_attempt()
        self.ledger.handle = connector.prepare(pool_scope(), self.attempt, HOLDER, self.expires_at)

    async def issue(self) -> Issued:
        return await self.connector.issue(self.ledger.handle, pool_scope(), self.expires_at, self.ledger.checkpoint)

    async def revoke(self, *, outcome_known: bool = True) -> Any:
        context = self.ledger.context(
            self.world.clock.now(),
            created_at=self.begun,
            expires_at=self.expires_at,
            outcome_known=outcome_known,
        )
        return await self.connector.revoke(self.ledger.handle, context)

    @property
    def account(self) -> str:
        return str(self.ledger.handle["account"])


def text_of(issued: Issued) -> str:
    assert isinstance(issued.credential, GcpToken)
    return issued.credential.access_token.reveal()


async def test_two_leases_have_two_accounts_and_ending_one_ends_one(world: World) -> None:
    connector = world.pool()
    first, second = Lease(world, connector), Lease(world, connector)
    one, other = text_of(await first.issue()), text_of(await second.issue())
    assert first.account != second.account
    assert isinstance(await first.revoke(), Revoked)
    assert not world.reads(one, OBJECT)
    assert world.reads(other, OBJECT)
    await connector.close()


async def test_enabling_early_would_bring_the_token_back(world: World) -> None:
    """The trap itself: without the rest, this is what would happen."""
    connector = world.pool()
    lease = Lease(world, connector)
    text = text_of(await lease.issue())
    await lease.revoke()
    world.cloud.accounts[lease.account].disabled = False
    assert world.reads(text, OBJECT)
    await connector.close()


async def test_an_account_rests_for_an_hour_after_its_tokens_end_and_is_then_ready(
    world: World, clock: ManualClock
) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    text = text_of(await lease.issue())
    await lease.revoke()
    clock.advance(TTL + QUARANTINE - timedelta(seconds=1))
    await connector.tend()
    assert world.cloud.accounts[lease.account].disabled
    assert world.allocations.rows[lease.account].state is AllocationState.RESTING
    clock.advance(timedelta(seconds=1))
    await connector.tend()
    assert not world.cloud.accounts[lease.account].disabled
    assert world.allocations.rows[lease.account].state is AllocationState.READY
    assert not world.reads(text, OBJECT)
    await connector.close()


@pytest.mark.slow
async def test_through_a_whole_day_no_token_is_ever_accepted_after_its_end(world: World, clock: ManualClock) -> None:
    """Whatever is revoked, at whatever time, stays dead through every enabling."""
    connector, dead, lent = world.pool(), [], 0
    for step in range(48):  # half an hour each
        clock.advance(timedelta(minutes=30))
        await connector.tend()
        lease = Lease(world, connector, ttl=timedelta(minutes=5 + 5 * (step % 11)))
        text = text_of(await lease.issue())
        lent += 1
        clock.advance(timedelta(seconds=step))
        assert isinstance(await lease.revoke(), Revoked)
        dead.append(text)
        assert not any(world.reads(each, OBJECT) for each in dead)
    assert lent > 2 * POOL.size  # accounts did come back
    await connector.close()


async def test_a_pool_that_is_taken_up_says_for_how_long(world: World, clock: ManualClock) -> None:
    connector = world.pool()
    leases = [Lease(world, connector) for _ in range(POOL.size)]
    for each in leases:
        await each.issue()
    asked = len(world.cloud.calls)
    with pytest.raises(UpstreamExhausted) as caught:
        await Lease(world, connector).issue()
    # All are lent: until their time is over (5 min and 10 s), the rest of an hour, and the tick after it.
    assert caught.value.retry_after == (TTL + timedelta(seconds=10) + HOUR + timedelta(minutes=1)).total_seconds()
    assert caught.value.reason is Reason.UPSTREAM_POOL_EXHAUSTED
    assert caught.value.outcome_known
    assert "3970 s" in caught.value.message
    assert len(world.cloud.calls) == asked
    clock.advance(timedelta(minutes=2))
    await leases[3].revoke()
    clock.advance(timedelta(minutes=1))
    with pytest.raises(UpstreamExhausted) as caught:
        await Lease(world, connector).issue()
    # The first rests until its token's end, 2 min from now, and for an hour.
    assert caught.value.retry_after == (timedelta(minutes=2) + HOUR + timedelta(minutes=1)).total_seconds()
    await connector.close()


async def test_what_provably_was_not_made_gives_the_account_back(world: World) -> None:
    connector = world.pool()
    world.cloud.mishaps.append(Mishap(":generateAccessToken", refuse=Refusal(429, "RESOURCE_EXHAUSTED")))
    lease = Lease(world, connector)
    with pytest.raises(UpstreamFailed) as caught:
        await lease.issue()
    assert caught.value.outcome_known
    assert all(each.state is AllocationState.READY for each in world.allocations.rows.values())
    await connector.close()


async def test_an_account_that_does_not_work_is_not_the_first_of_every_search(world: World, clock: ManualClock) -> None:
    connector = world.pool()
    world.cloud.accounts[POOL.accounts[0]].disabled = True  # by somebody
    clock.advance(timedelta(seconds=1))
    with pytest.raises(UpstreamFailed):
        await Lease(world, connector).issue()
    clock.advance(timedelta(seconds=1))
    for _ in range(POOL.size - 1):
        await Lease(world, connector).issue()
    found = await connector.examine()
    assert any(each.severity is Severity.ERROR and "although the broker did not" in each.what for each in found)
    await connector.close()


@pytest.mark.parametrize("lost", [True, False])
async def test_a_lost_or_half_reply_keeps_the_account_until_it_is_ended(world: World, lost: bool) -> None:
    connector = world.pool()
    spoil = Mishap(":generateAccessToken", lose=lost, change=None if lost else lambda answer: answer.pop("expireTime"))
    world.cloud.mishaps.append(spoil)
    lease = Lease(world, connector)
    with pytest.raises(UpstreamFailed) as caught:
        await lease.issue()
    assert not caught.value.outcome_known
    (text,) = [each for each, token in world.cloud.tokens.items() if token.principal.endswith(lease.account)]
    assert world.reads(text, OBJECT)
    assert isinstance(await lease.revoke(outcome_known=False), Revoked)
    assert not world.reads(text, OBJECT)
    # It may have been made for as long as Google gives at all, a moment ago.
    assert world.allocations.rows[lease.account].free_at == world.clock.now() + HOUR + QUARANTINE
    await connector.close()


async def test_a_token_that_was_made_for_longer_makes_the_account_rest_for_longer(world: World) -> None:
    connector = world.pool()
    ends = world.clock.now() + timedelta(hours=12)
    world.cloud.mishaps.append(
        Mishap(":generateAccessToken", change=lambda answer: answer.update(expireTime=f"{ends:%Y-%m-%dT%H:%M:%SZ}"))
    )
    lease = Lease(world, connector)
    with pytest.raises(UpstreamFailed) as caught:
        await lease.issue()
    assert caught.value.reason is Reason.UPSTREAM_GRANT_MISMATCH
    assert isinstance(await lease.revoke(outcome_known=False), Revoked)
    assert world.allocations.rows[lease.account].free_at == ends + QUARANTINE
    await connector.close()


async def test_an_attempt_that_was_ended_meanwhile_is_lent_nothing(world: World) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    world.allocations.over.add(lease.attempt)
    with pytest.raises(WrongState):
        await lease.issue()
    assert not any(":generateAccessToken" in each for each in world.cloud.calls)
    await connector.close()


# --------------------------------------------------------------------------- a crash between the two commits


async def test_a_crash_before_an_account_was_lent_leaves_nothing_to_end(world: World, clock: ManualClock) -> None:
    """The intent is durable, and nothing else: the account was to be lent next."""
    lease = Lease(world, world.pool())
    early = await lease.revoke(outcome_known=False)
    assert isinstance(early, NotYet)
    assert not early.failed
    clock.advance(timedelta(seconds=21))
    assert await lease.revoke(outcome_known=False) == Revoked({"service_account": None})
    assert {each.state for each in world.allocations.rows.values()} == {AllocationState.READY}
    assert world.cloud.calls == []
    await lease.connector.close()


async def test_a_crash_after_an_account_was_lent_ends_it_by_the_attempt_alone(world: World, clock: ManualClock) -> None:
    """The intent and the loan are durable; Google was not asked, and no handle tells the account."""
    dying = world.pool()
    lease = Lease(world, dying)
    taken = await dying._lending.take(lease.attempt, POOL.accounts, lease.expires_at)
    assert isinstance(taken, Taken)
    await dying.close()
    lease.connector = world.pool()
    assert "account" not in lease.ledger.handle
    assert isinstance(await lease.revoke(outcome_known=False), Revoked)
    row = world.allocations.rows[taken.account]
    assert row.state is AllocationState.RESTING
    # Nobody knows what was asked: as if Google's longest token had been made a moment ago.
    assert row.free_at == clock.now() + HOUR + QUARANTINE
    assert world.cloud.accounts[taken.account].disabled
    await lease.connector.close()


# --------------------------------------------------------------------------- ending


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        (Refusal(403, "PERMISSION_DENIED"), Refused),
        (Refusal(401, "UNAUTHENTICATED"), Refused),
        (Refusal(404, "NOT_FOUND"), NotYet),
        (Refusal(429, "RESOURCE_EXHAUSTED", {"Retry-After": "7"}), NotYet),
        (Refusal(500, "INTERNAL"), NotYet),
    ],
)
async def test_nothing_but_proof_ends_it(world: World, refusal: Refusal, outcome: type) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    text = text_of(await lease.issue())
    world.cloud.mishaps.append(Mishap(":disable", refuse=refusal))
    told = await lease.revoke()
    assert isinstance(told, outcome)
    if refusal.headers:
        assert told.retry_after == timedelta(seconds=7)
    assert world.reads(text, OBJECT)
    assert world.allocations.rows[lease.account].state is AllocationState.LENT
    assert isinstance(await lease.revoke(), Revoked)
    assert not world.reads(text, OBJECT)
    await connector.close()


async def test_a_disabling_that_does_not_show_is_not_believed(world: World) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    await lease.issue()
    account = world.cloud.accounts[lease.account]
    world.cloud.mishaps.append(Mishap(f"/{lease.account}", before=lambda: setattr(account, "disabled", False)))
    told = await lease.revoke()
    assert isinstance(told, NotYet)
    assert told.failed
    await connector.close()


async def test_a_lost_reply_of_a_disabling_is_asked_after_again(world: World) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    text = text_of(await lease.issue())
    world.cloud.mishaps.append(Mishap(":disable", lose=True))
    assert isinstance(await lease.revoke(), NotYet)
    assert not world.reads(text, OBJECT)
    assert isinstance(await lease.revoke(), Revoked)
    await connector.close()


async def test_where_iam_cannot_be_asked_time_ends_it_and_the_account_rests_all_the_same(
    world: World, clock: ManualClock
) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    text = text_of(await lease.issue())
    for passed in (timedelta(0), TTL, timedelta(seconds=59)):
        clock.advance(passed)
        world.cloud.mishaps.append(Mishap(":disable", refuse=Refusal(503, "UNAVAILABLE")))
        assert isinstance(await lease.revoke(), NotYet)
    clock.advance(timedelta(seconds=1))
    world.cloud.mishaps.append(Mishap(":disable", refuse=Refusal(503, "UNAVAILABLE")))
    assert await lease.revoke() == Expired()
    assert not world.reads(text, OBJECT)
    assert world.allocations.rows[lease.account].state is AllocationState.RESTING
    await connector.close()


async def test_a_late_revocation_does_not_touch_the_account_of_another(world: World, clock: ManualClock) -> None:
    connector = world.pool()
    first = Lease(world, connector)
    await first.issue()
    await first.revoke()
    clock.advance(TTL + QUARANTINE)
    await connector.tend()
    others = [Lease(world, connector) for _ in range(POOL.size)]
    texts = [text_of(await each.issue()) for each in others]
    assert first.account in [each.account for each in others]
    assert isinstance(await first.revoke(), Revoked)
    assert all(world.reads(each, OBJECT) for each in texts)
    await connector.close()


# --------------------------------------------------------------------------- what does not fit together


async def test_an_account_that_nobody_knows_rests_before_it_is_lent(world: World, clock: ManualClock) -> None:
    world.allocations.rows.clear()
    stranger = world.cloud.issue(f"serviceAccount:{POOL.accounts[0]}", HOUR)  # somebody had it
    connector = world.pool()
    with pytest.raises(UpstreamExhausted) as caught:
        await Lease(world, connector).issue()
    assert caught.value.retry_after == (2 * HOUR + timedelta(minutes=1)).total_seconds()
    await connector.tend()
    assert not world.reads(stranger, OBJECT)
    assert all(each.disabled for email, each in world.cloud.accounts.items() if email in POOL.accounts)
    clock.advance(2 * HOUR)
    await connector.tend()
    assert not world.reads(stranger, OBJECT)
    assert await Lease(world, connector).issue()
    await connector.close()


async def test_what_somebody_enables_while_it_rests_is_carried_and_disabled_again(
    world: World, clock: ManualClock
) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    text = text_of(await lease.issue())
    await lease.revoke()
    world.cloud.accounts[lease.account].disabled = False
    (found,) = await connector.inventory()
    assert found.name == lease.account
    assert not await Ledger(names=set()).known([found.name])
    told = await connector.revoke(found.handle, Ledger().context(clock.now(), outcome_known=False))
    assert isinstance(told, Revoked)
    assert not world.reads(text, OBJECT)
    assert await connector.inventory() == []
    await connector.close()


async def test_what_is_enabled_when_it_has_rested_rests_again(world: World, clock: ManualClock) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    await lease.issue()
    await lease.revoke()
    clock.advance(TTL + QUARANTINE)
    world.cloud.accounts[lease.account].disabled = False
    stranger = world.cloud.issue(f"serviceAccount:{lease.account}", HOUR)
    await connector.tend()
    assert world.cloud.accounts[lease.account].disabled
    assert not world.reads(stranger, OBJECT)
    assert world.allocations.rows[lease.account].free_at == clock.now() + 2 * HOUR
    await connector.close()


async def test_an_account_whose_attempt_is_over_and_that_nobody_ended_is_ended(world: World) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    text = text_of(await lease.issue())
    world.allocations.over.add(lease.attempt)
    await connector.tend()
    assert not world.reads(text, OBJECT)
    assert world.allocations.rows[lease.account].state is AllocationState.RESTING
    await connector.close()


async def test_a_row_that_fails_its_mac_is_neither_enabled_nor_believed(world: World, clock: ManualClock) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    text = text_of(await lease.issue())
    row = world.allocations.rows[lease.account]
    world.allocations.rows[lease.account] = replace(row, attempt_id="another", trusted=False)
    assert isinstance(await lease.revoke(), Revoked)
    assert not world.reads(text, OBJECT)
    clock.advance(timedelta(days=1))
    await connector.tend()
    assert world.cloud.accounts[lease.account].disabled
    found = await connector.examine()
    assert any("fails its MAC" in each.what for each in found)
    await connector.close()


async def test_an_account_that_left_its_pool_is_ended_and_forgotten(world: World, clock: ManualClock) -> None:
    connector = world.pool()
    lease = Lease(world, connector)
    await lease.issue()
    await connector.close()
    settings: GcpSettings = world.settings()
    lending = Lending("t", world.allocations)  # type: ignore[arg-type]
    smaller = GcpPool("gcp", settings, {"orders": replace(POOL, prefix="other-", size=1)}, lending, world.own, clock)
    lease.connector = smaller
    assert isinstance(await lease.revoke(), Revoked)
    clock.advance(TTL + QUARANTINE)
    world.cloud.account(Pool("other-", 1, POOL.project).accounts[0], manager=BROKER)
    await smaller.tend()
    assert lease.account not in world.allocations.rows
    assert world.cloud.accounts[lease.account].disabled
    await smaller.close()


async def test_a_connector_of_another_project_ends_the_account_that_was_lent_and_no_other(
    world: World, clock: ManualClock
) -> None:
    """Its pool has the same name and prefix; the handle has the account's whole address, and so its project."""
    connector = world.pool()
    lease = Lease(world, connector)
    token = text_of(await lease.issue())
    await connector.close()
    lending, elsewhere = Lending("t", world.allocations), replace(POOL, project="another-project")  # type: ignore[arg-type]
    lease.connector = GcpPool("gcp", world.settings(), {"orders": elsewhere}, lending, world.own, clock)
    namesake = elsewhere.accounts[POOL.accounts.index(lease.account)]
    world.cloud.account(namesake, manager=BROKER)
    assert isinstance(await lease.revoke(), Revoked)
    assert not world.reads(token, "2031/05/a.csv")
    assert world.cloud.accounts[lease.account].disabled
    assert not world.cloud.accounts[namesake].disabled
    await lease.connector.close()


async def test_one_account_that_cannot_be_tended_does_not_hold_up_the_others(world: World, clock: ManualClock) -> None:
    connector = world.pool()
    leases = [Lease(world, connector) for _ in range(3)]
    for each in leases:
        await each.issue()
        await each.revoke()
    clock.advance(TTL + QUARANTINE)
    world.cloud.mishaps.append(Mishap(":enable", refuse=Refusal(503, "UNAVAILABLE")))
    with pytest.raises(UpstreamFailed):
        await connector.tend()
    states = [world.allocations.rows[each.account].state for each in leases]
    assert sorted(states) == [AllocationState.READY, AllocationState.READY, AllocationState.RESTING]
    await connector.tend()
    assert all(world.allocations.rows[each.account].state is AllocationState.READY for each in leases)
    await connector.close()


# --------------------------------------------------------------------------- looking, and settings


async def test_what_is_set_up_by_the_recipe_has_no_doubt(world: World) -> None:
    connector = world.pool()
    assert not await connector.examine()
    await connector.close()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda cloud, email: cloud.accounts.pop(email), "There is no service account"),
        (lambda cloud, email: cloud.accounts[email].rights[BROKER].discard("iam.serviceAccounts.disable"), "has no"),
        (lambda cloud, email: cloud.accounts[email].rights[BROKER].add("iam.serviceAccounts.signJwt"), "may do more"),
        (lambda cloud, email: cloud.accounts[email].rights.update({"user:eve@acme.test": set()}), "2 members"),
        (lambda cloud, email: setattr(cloud.accounts[email], "user_keys", 1), "1 keys"),
        (lambda cloud, email: cloud.buckets[BUCKET].pop(f"serviceAccount:{email}"), f"no role on {BUCKET}"),
    ],
)
async def test_every_doubt_by_making_it_come_true(world: World, spoil: Any, says: str) -> None:
    spoil(world.cloud, POOL.accounts[5])
    connector = world.pool()
    found = await connector.examine()
    await connector.close()
    assert any(
        each.severity is Severity.ERROR and says in each.what and POOL.accounts[5] in each.what for each in found
    )


async def test_a_pool_that_there_is_not_is_refused(world: World) -> None:
    connector = world.pool()
    with pytest.raises(InvalidInput) as caught:
        connector.prepare(pool_scope(grant={"pool": "others", "scopes": []}), "jb-1", HOLDER, world.clock.now() + TTL)
    assert "there are orders" in caught.value.message
    await connector.close()


def test_without_a_ledger_nothing_is_lent(world: World) -> None:
    with pytest.raises(Defect):
        GcpPool("gcp", world.settings(), {"orders": POOL}, Lending("t"), world.own, world.clock)


@pytest.mark.parametrize(
    ("per_hour", "minutes", "needed"),
    [
        (1, 15, 2),  # away for 15 + 60 + 1 min = 1.27 h
        (10, 15, 13),  # 12.67
        (10, 60, 21),  # 20.17
        (60, 5, 66),
        (0.01, 5, 1),
    ],
)
def test_how_many_accounts_it_takes(per_hour: float, minutes: int, needed: int) -> None:
    assert accounts_needed(per_hour, timedelta(minutes=minutes)) == needed
