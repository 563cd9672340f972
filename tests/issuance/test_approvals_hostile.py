"""Approvals under attack: replayed a thousand ways, voted away, and in any order that hypothesis finds."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.approval.machine import OPEN, RequestState
from broker.audit.record import decode
from broker.errors import BrokerError, Denied, Reason, Tampered
from broker.lease.machine import State
from broker.ports.leases import LeaseFilter
from broker.ports.tasks import Task
from tests.connectors.fake import IssueMishap
from tests.issuance.world import ALICE, BOB, TENANT, World

T = TypeVar("T")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.gated(tmp_path)
    yield made
    await made.close()


async def leases(world: World) -> list[Any]:
    return list(await world.store.list_leases(LeaseFilter(TENANT, str(ALICE.spiffe_id)), "", 1000))


def mutated(text: str, chance: random.Random) -> str:
    """``text`` with something small done to it, which may be nothing."""
    at = chance.randrange(len(text))
    return chance.choice(
        [
            lambda: text,
            lambda: text.upper(),
            lambda: f" {text}",
            lambda: f"{text} ",
            lambda: f"{text}\n",
            lambda: f"{text}\0",
            lambda: f"{text}/../{text}",
            lambda: text[:at] + chr(chance.randrange(33, 0x2FF)) + text[at + 1 :],
            lambda: text[:at] + text[at:].capitalize(),
            lambda: text[:at],
            lambda: text + text,
            lambda: text.replace("a", "\u0430"),
            lambda: text.replace("-", "\u2010"),
            lambda: text[::-1],
            lambda: f"{text}' OR '1'='1",
            lambda: "%" + text[1:],
            lambda: "",
        ]
    )()


async def test_an_approval_replayed_a_thousand_ways_funds_one_lease(world: World) -> None:
    task = await world.task(ALICE, BOB)
    filed = await world.file(task)
    await world.approve(filed)
    assert (await world.redeem(filed)).lease is not None
    chance = random.Random(5)
    calls = list(world.upstream.calls)
    accepted = 0
    for number in range(1000):
        who = chance.choice([ALICE, BOB])
        name = chance.choice([f"again-{number}", mutated("redeem-1", chance) + f"-{number}"])
        try:
            await world.issuer.redeem(world.caller(who), mutated(filed.id, chance), name)
            accepted += 1
        except BrokerError as refused:
            assert refused.reason in (Reason.ACCESS_REQUEST_REDEEMED, Reason.ACCESS_REQUEST_NOT_FOUND)
    assert (accepted, world.upstream.calls) == (0, calls)
    assert [each.state for each in await leases(world)] == [State.ACTIVE]


async def test_a_yes_with_a_thousand_other_digests_approves_nothing(world: World) -> None:
    filed = await world.file(await world.task())
    chance = random.Random(7)
    for _ in range(1000):
        digest = mutated(filed.digest, chance)
        if digest == filed.digest:
            continue
        with pytest.raises(BrokerError) as refused:
            await world.approvals.approve(world.person("bea"), filed.id, digest, fresh_id_token=world.fresh(filed))
        assert refused.value.reason is Reason.APPROVAL_DIGEST_MISMATCH
    assert (await world.store.get_access_request(TENANT, filed.id)).votes == ()
    assert (await world.approve(filed)).state is RequestState.APPROVED


async def test_a_vote_that_is_deleted_from_the_database_is_missing(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed)

    def delete(tx: Any) -> None:
        assert tx.connection.execute("DELETE FROM access_votes").rowcount == 1

    await world.store._writer.submit(delete)
    with pytest.raises(Denied) as refused:
        await world.redeem(filed)
    assert refused.value.reason is Reason.APPROVAL_NOT_HELD
    assert await leases(world) == []


async def test_a_changed_row_is_neither_shown_nor_approved_nor_redeemed(world: World) -> None:
    task = await world.task()
    waiting, approved = await world.file(task), await world.file(task, name="r2", reason="b")
    await world.approve(approved)

    def widen(tx: Any) -> None:
        tx.connection.execute("""UPDATE access_requests SET request = replace(request, 'orders"', 'secret"')""")

    await world.store._writer.submit(widen)
    for call in (
        world.approve(waiting),
        world.redeem(approved),
        world.approvals.review(world.person("bea"), waiting.id),
        world.requests.get(world.caller(), approved.id),
    ):
        with pytest.raises(Tampered):
            await call
    assert (await leases(world), world.upstream.calls) == ([], [])


async def test_an_approval_whose_upstream_fails_is_spent(world: World) -> None:
    filed = await world.file(await world.task())
    await world.approve(filed)
    world.upstream.issue_mishaps.append(IssueMishap.REFUSED)
    with pytest.raises(BrokerError):
        await world.redeem(filed)
    with pytest.raises(BrokerError) as again:
        await world.redeem(filed, name="redeem-2")
    assert again.value.reason is Reason.ACCESS_REQUEST_REDEEMED


async def test_who_votes_at_once_is_counted_once_each(world: World) -> None:
    """Bea ten times and Cyd ten times, at once: two votes, one approval."""
    filed = await world.file(await world.task(), account="bank")
    votes = [world.approve(filed, key) for key in ("bea", "cyd") * 10]
    outcomes = await asyncio.gather(*votes, return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in outcomes) == 2
    after = await world.store.get_access_request(TENANT, filed.id)
    assert (after.state, len(after.votes)) == (RequestState.APPROVED, 2)


class AnyOrder(RuleBasedStateMachine):
    """Whatever people, the agent and time do to one request: its state is the model's, it funds one lease at most."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.world = self.run(World.gated(self.directory))
        self.task: Task
        self.state = RequestState.AWAITING_APPROVAL
        self.votes: set[str] = set()
        self.redemption = ""
        self.due = self.world.clock.now()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.get_loop().run_until_complete(call)

    def teardown(self) -> None:
        self.run(self.world.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    @initialize()
    def file(self) -> None:
        """Two of SRE, or a DBA; five minutes to decide, two to redeem."""
        self.task = self.run(self.world.task())
        self.filed = self.run(self.world.file(self.task, account="bank"))
        self.due = self.filed.expires_at

    def _in_time(self) -> bool:
        return self.state in OPEN and self.world.clock.now() < self.due

    def _try(self, call: Coroutine[Any, Any, Any], *, allowed: bool) -> None:
        try:
            self.run(call)
            done = True
        except BrokerError:
            done = False
        assert done is allowed

    @rule(who=st.sampled_from(["ada", "bea", "cyd", "dee", "eli", "fay"]))
    def approve(self, who: str) -> None:
        counts = who in ("bea", "cyd", "fay") and who not in self.votes
        allowed = self.state is RequestState.AWAITING_APPROVAL and self._in_time() and counts
        self._try(self.world.approve(self.filed, who), allowed=allowed)
        if allowed:
            self.votes.add(who)
            if "fay" in self.votes or {"bea", "cyd"} <= self.votes:
                self.state, self.due = RequestState.APPROVED, self.world.clock.now() + timedelta(minutes=2)

    @rule(who=st.sampled_from(["ada", "bea", "eli", "fay"]))
    def deny(self, who: str) -> None:
        allowed = self._in_time() and who != "eli"
        self._try(self.world.approvals.deny(self.world.person(who), self.filed.id, self.filed.digest), allowed=allowed)
        if allowed:
            self.state = RequestState.DENIED

    @rule()
    def withdraw(self) -> None:
        # Taking back is also possible between the deadline and the sweep that tells of it.
        allowed = self.state in OPEN or self.state is RequestState.WITHDRAWN
        self._try(self.world.requests.withdraw(self.world.caller(), self.filed.id), allowed=allowed)
        if self.state in OPEN:
            self.state = RequestState.WITHDRAWN

    @rule(name=st.sampled_from(["one", "two"]))
    def redeem(self, name: str) -> None:
        first = self.state is RequestState.APPROVED and self._in_time()
        retry = self.state is RequestState.REDEEMED and name == self.redemption
        # What has run its course lives on in the ledger until a sweep, and is not given again.
        now = self.world.clock.now()
        living = [each for each in self.run(leases(self.world)) if each.state is State.ACTIVE and now < each.expires_at]
        allowed = first or (retry and bool(living))
        self._try(self.world.redeem(self.filed, name=name), allowed=allowed)
        if first:
            self.state, self.redemption = RequestState.REDEEMED, name

    @rule(seconds=st.sampled_from([1, 119, 120, 300]), swept=st.booleans())
    def wait(self, seconds: int, swept: bool) -> None:
        self.world.later(timedelta(seconds=seconds))
        if swept:
            self.run(self.world.upkeep.tick())
            if self.state in OPEN and self.world.clock.now() >= self.due:
                self.state = RequestState.LAPSED

    @invariant()
    def the_ledger_agrees(self) -> None:
        if not hasattr(self, "filed"):
            return
        stored = self.run(self.world.store.get_access_request(TENANT, self.filed.id))
        assert stored.state is self.state
        assert {vote.subject for vote in stored.votes if vote.yes} <= self.votes
        found = self.run(leases(self.world))
        assert len(found) == (self.state is RequestState.REDEEMED)
        types = [decode(body).type for body in self.run(self.world.store.audit_since(0, 10_000))]
        ends = ("access.denied", "access.withdrawn", "access.lapsed", "access.redeemed")
        assert sum(types.count(each) for each in ends) == (self.state not in OPEN)


AnyOrder.TestCase.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyOrder = pytest.mark.long(AnyOrder.TestCase)


async def test_a_digest_of_the_same_request_by_another_agent_is_another(world: World) -> None:
    """What one agent had approved, word for word, does not carry another's."""
    task = await world.task(ALICE, BOB)
    mine, theirs = await world.file(task), await world.file(task, BOB)
    assert mine.digest != theirs.digest
    await world.approve(mine)
    with pytest.raises(BrokerError) as refused:
        await world.redeem(replace(mine, id=theirs.id), BOB)
    assert refused.value.reason is Reason.ACCESS_REQUEST_PENDING
