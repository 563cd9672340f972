"""Denying sessions on their role: against writers that are paused, killed, doubled, lied to, and out of room."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.connectors.aws_denials import Denials
from broker.connectors.aws_deny import PREFIX, Session, epoch_of, read
from broker.connectors.aws_iam import Role
from broker.ports.connectors import NotYet, Refused, Revoked, RevokeOutcome
from tests.connectors.iam_fake import ALL_INLINE, ROLE_ID, FakeIam, World, client_error
from tests.connectors.support import NOW, Ledger, SetClock

ROLE = Role("arn:aws:iam::123456789012:role/team/orders-reader")
BOUND = timedelta(minutes=5)


class Writer:
    """A broker process: a way to IAM and its own epoch."""

    def __init__(self, world: World, clock: SetClock, epoch: str = "e1") -> None:
        self.iam, self.clock, self.epoch = FakeIam(world), clock, epoch
        self.denials = Denials("aws", self.iam, clock, epoch, BOUND)  # type: ignore[arg-type]
        self.ended: list[str] = []

    async def deny(self, name: str, *, also: bool = True) -> RevokeOutcome:
        async def together(prefix: str) -> int:
            self.ended.append(prefix)
            return 3

        context = Ledger().context(self.clock.now())._replace(end_together=together if also else None)
        return await self.denials.deny(ROLE, session(name), context)


def session(name: str) -> Session:
    return Session(f"{ROLE_ID}:{name}", NOW, NOW + timedelta(minutes=20))


def puts(world: World) -> list[str]:
    return [each.removeprefix("PutRolePolicy ") for each in world.history if each.startswith("Put")]


async def test_written_waited_for_read_back_and_only_then_revoked() -> None:
    world, clock = World({"other-peoples": '{"Version":"2012-10-17","Statement":[]}'}), SetClock()
    writer = Writer(world, clock)
    assert await writer.deny("jb-1") == NotYet(
        f"denied by policy {PREFIX}e1-0; AWS takes up to a few minutes to spread that.", BOUND, failed=False
    )
    assert world.denied(f"{ROLE_ID}:jb-1")
    assert not world.denied(f"{ROLE_ID}:jb-2")
    clock.present += BOUND - timedelta(seconds=1)
    asked = len(world.history)
    outcome = await writer.deny("jb-1")
    assert isinstance(outcome, NotYet)
    assert (outcome.retry_after, outcome.failed) == (timedelta(seconds=1), False)
    assert len(world.history) == asked  # nothing to ask yet
    clock.present += timedelta(seconds=1)
    assert await writer.deny("jb-1") == Revoked({"denied_by": f"{PREFIX}e1-0", "after_seconds": 300})
    assert puts(world) == [f"{PREFIX}e1-0"]


async def test_one_write_does_for_all_that_wait() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)
    outcomes = await asyncio.gather(*(writer.deny(f"jb-{number}") for number in range(20)))
    assert all(isinstance(each, NotYet) and not each.failed for each in outcomes)
    assert len(puts(world)) == 1
    assert all(world.denied(f"{ROLE_ID}:jb-{number}") for number in range(20))


async def test_after_a_kill_the_next_process_believes_what_stands_in_iam_and_waits_again() -> None:
    world, clock = World(), SetClock()
    await Writer(world, clock, "dead").deny("jb-1")
    clock.present += timedelta(minutes=4)
    following = Writer(world, clock, "next")
    outcome = await following.deny("jb-1")
    assert isinstance(outcome, NotYet)
    assert outcome.retry_after == BOUND  # since when it stands is not known
    clock.present += BOUND
    assert isinstance(await following.deny("jb-1"), Revoked)
    assert puts(world) == [f"{PREFIX}dead-0"]


async def test_two_writers_never_touch_each_others_names() -> None:
    world, clock = World(), SetClock()
    one, two = Writer(world, clock, "one"), Writer(world, clock, "two")
    for number in range(6):
        await (one, two)[number % 2].deny(f"jb-{number}")
    assert set(world.policies) == {f"{PREFIX}one-0", f"{PREFIX}two-0"}
    assert all(world.denied(f"{ROLE_ID}:jb-{number}") for number in range(6))


async def test_a_write_without_an_answer_is_never_written_over_and_takes_nothing_when_it_arrives() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)
    await writer.deny("jb-1")
    writer.iam.fates = [FakeIam.LATE]
    outcome = await writer.deny("jb-2")
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    await writer.deny("jb-2")
    await writer.deny("jb-3")
    assert puts(world) == [f"{PREFIX}e1-0", f"{PREFIX}e1-0", f"{PREFIX}e1-1", f"{PREFIX}e1-1"]
    world.land(0)
    assert all(world.denied(f"{ROLE_ID}:jb-{number}") for number in (1, 2, 3))


async def test_a_try_that_is_given_up_counts_as_a_write_without_an_answer() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)

    def cancelled() -> None:
        raise asyncio.CancelledError

    writer.iam.before_put = cancelled
    with pytest.raises(asyncio.CancelledError):
        await writer.deny("jb-1")
    writer.iam.before_put = lambda: None
    await writer.deny("jb-1")
    assert puts(world) == [f"{PREFIX}e1-0", f"{PREFIX}e1-1"]


FATES = st.sampled_from([None, None, FakeIam.LANDED_UNSEEN, FakeIam.LATE, "throttled"])


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), FATES), min_size=1, max_size=40),
    arrivals=st.lists(st.integers(0, 1_000), max_size=40),
)
async def test_whatever_arrives_whenever_what_was_acknowledged_stays_denied(
    steps: list[tuple[int, int, Any]], arrivals: list[int]
) -> None:
    world, clock = World(), SetClock()
    writers = [Writer(world, clock, "one"), Writer(world, clock, "two")]
    acknowledged: set[str] = set()
    landings = iter(arrivals)
    for who, number, fate in steps:
        writer = writers[who]
        writer.iam.fates = [client_error("Throttling", 400) if fate == "throttled" else fate]
        outcome = await writer.deny(f"jb-{number}")
        if isinstance(outcome, Revoked) or (isinstance(outcome, NotYet) and not outcome.failed):
            acknowledged.add(f"{ROLE_ID}:jb-{number}")
        if world.late and (at := next(landings, None)) is not None:
            world.land(at % len(world.late))
        clock.present += timedelta(seconds=20)
        assert all(world.denied(each) for each in acknowledged)
    while world.late:
        world.land(next(landings, 0) % len(world.late))
        assert all(world.denied(each) for each in acknowledged)


async def test_a_policy_that_somebody_removed_is_put_back_and_waited_for_anew() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)
    await writer.deny("jb-1")
    await writer.deny("jb-2")
    world.policies.clear()
    clock.present += BOUND
    outcome = await writer.deny("jb-1")
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert all(world.denied(f"{ROLE_ID}:jb-{number}") for number in (1, 2))
    assert isinstance(await writer.deny("jb-1"), NotYet)
    clock.present += BOUND
    assert isinstance(await writer.deny("jb-1"), Revoked)


async def test_what_was_confirmed_and_removed_later_is_put_back_by_tending() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)
    await writer.deny("jb-1")
    clock.present += BOUND
    assert isinstance(await writer.deny("jb-1"), Revoked)
    world.policies.clear()
    await writer.denials.tend()
    assert world.denied(f"{ROLE_ID}:jb-1")


async def test_a_role_that_fails_or_is_gone_keeps_no_other_from_being_looked_after() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)
    gone = Role("arn:aws:iam::123456789012:role/gone")
    for role in (gone, ROLE):
        await writer.denials.deny(role, session("jb-1"), Ledger().context(clock.present))
    fine = writer.iam.policies
    errors: dict[str, Exception] = {"gone": client_error("Throttling", 400)}

    async def policies(role: Role) -> Any:
        if role.name in errors:
            raise errors[role.name]
        return await fine(role)

    writer.iam.policies = policies  # type: ignore[method-assign]
    world.policies.clear()
    with pytest.raises(botocore.exceptions.ClientError):
        await writer.denials.tend()
    assert world.denied(f"{ROLE_ID}:jb-1")
    errors["gone"] = client_error("NoSuchEntity", 404)
    await writer.denials.tend()


# ------------------------------------------------------------------ room


async def test_ended_sessions_make_room_only_after_their_own_end() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)
    await writer.deny("jb-1")
    clock.present = NOW + timedelta(minutes=15)  # long after any deadline of the broker's
    await writer.denials.tend()
    assert world.denied(f"{ROLE_ID}:jb-1")
    clock.present = NOW + timedelta(minutes=31)  # ends 12:20:00.250, rounded up to 12:30
    await writer.denials.tend()
    assert world.policies == {}


async def test_another_writers_policy_goes_an_hour_after_the_last_end_and_what_is_not_understood_stays() -> None:
    world, clock = World(), SetClock()
    await Writer(world, clock, "dead").deny("jb-1")
    world.policies[f"{PREFIX}strange-0"] = '{"Version":"2012-10-17","Statement":[{"Effect":"Deny"}]}'
    world.policies["other-peoples"] = '{"Version":"2012-10-17","Statement":[]}'
    following = Writer(world, clock, "next")
    await following.deny("jb-1")
    clock.present = NOW + timedelta(minutes=85)
    await following.denials.tend()
    assert f"{PREFIX}dead-0" in world.policies
    clock.present = NOW + timedelta(minutes=95)
    await following.denials.tend()
    assert set(world.policies) == {f"{PREFIX}strange-0", "other-peoples"}


def others(size: int) -> str:
    shell = '{"Version":"2012-10-17","Statement":[],"Id":""}'
    return shell.replace('"Id":""', f'"Id":"{"a" * (size - len(shell))}"')


async def test_a_full_role_ends_all_its_sessions_and_tells_the_other_leases_first() -> None:
    world, clock = World({"other-peoples": others(9_700)}), SetClock()
    writer = Writer(world, clock)
    order: list[Any] = []
    writer.iam.before_put = lambda: order.append(list(writer.ended))
    await writer.deny("jb-1")
    outcome = await writer.deny("jb-" + "2" * 60)
    assert isinstance(outcome, NotYet)
    assert not outcome.failed
    while not writer.ended:
        await writer.deny(f"jb-{len(world.history)}")
    assert writer.ended == [f"{ROLE_ID}:"]
    assert order[-1] == [f"{ROLE_ID}:"]  # told before it was written
    assert world.denied(f"{ROLE_ID}:never-heard-of", issued="2031-05-01T12:00:59Z")
    assert not world.denied(f"{ROLE_ID}:never-heard-of", issued="2031-05-01T12:01:01Z")
    closed = writer.denials.closed(ROLE)
    assert closed is not None
    assert closed.until == datetime(2031, 5, 1, 12, 1, 1, tzinfo=UTC)
    assert world.size() <= ALL_INLINE
    # Those that were ended along with it need no write of their own.
    before = len(puts(world))
    assert isinstance(await writer.deny("jb-another"), NotYet)
    assert len(puts(world)) == before
    clock.present += BOUND
    assert isinstance(await writer.deny("jb-another"), Revoked)
    await writer.denials.tend()
    assert writer.denials.closed(ROLE) is None


async def test_nobody_else_is_ended_where_that_must_not_be_done() -> None:
    world = World({"other-peoples": others(ALL_INLINE - 100)})
    outcome = await Writer(world, SetClock()).deny("jb-1", also=False)
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert "10140 characters" in outcome.why
    assert puts(world) == []


async def test_iams_own_word_that_it_is_full_counts_too() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)
    writer.iam.fates = [client_error("LimitExceeded", 409)]
    outcome = await writer.deny("jb-1")
    assert isinstance(outcome, NotYet)
    assert not outcome.failed
    assert writer.ended == [f"{ROLE_ID}:"]
    assert world.denied("anybody")


async def test_where_not_even_that_fits_it_is_a_failure_that_says_what_to_do() -> None:
    world = World({"other-peoples": others(ALL_INLINE - 50)})
    outcome = await Writer(world, SetClock()).deny("jb-1")
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert "10,240" in outcome.why


async def test_many_sessions_fill_several_shards_and_all_fit_the_limit() -> None:
    world, clock = World(), SetClock()
    writer = Writer(world, clock)
    for number in range(130):
        await writer.deny(f"jb-{number:026d}")
    assert not writer.ended
    assert len(world.policies) > 1
    assert all(epoch_of(name) == "e1" for name in world.policies)
    assert all(world.denied(f"{ROLE_ID}:jb-{number:026d}") for number in range(130))


# ------------------------------------------------------------------ what IAM may say


@pytest.mark.parametrize(
    ("error", "kind", "wait", "words"),
    [
        (client_error("AccessDenied", 403), NotYet, None, "AccessDenied"),
        (client_error("InvalidClientTokenId", 403), Refused, None, "InvalidClientTokenId"),
        (client_error("Throttling", 400), NotYet, timedelta(seconds=5), "Throttling"),
        (client_error("Throttling", 400, {"retry-after": "17"}), NotYet, timedelta(seconds=17), "Throttling"),
        (client_error("Throttling", 400, {"retry-after": "soon"}), NotYet, timedelta(seconds=5), "Throttling"),
        (client_error("ConcurrentModification", 409), NotYet, timedelta(seconds=5), "ConcurrentModification"),
        (client_error("ServiceFailure", 500), NotYet, timedelta(seconds=5), "ServiceFailure"),
        (client_error("MalformedPolicyDocument", 400), NotYet, None, "MalformedPolicyDocument"),
        (client_error("NoSuchEntity", 404), NotYet, None, "the role is not there"),
        (client_error("UnmodifiableEntity", 400), NotYet, None, "only the AWS service"),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="canary-5up3r"), NotYet, None, "no usable answer"),
    ],
)
async def test_what_iam_refuses_is_told_and_nothing_is_called_revoked(
    error: Exception, kind: type, wait: timedelta | None, words: str
) -> None:
    world = World()
    writer = Writer(world, SetClock())
    for at_every_call in (True, False):
        writer.iam.down = error if at_every_call else None
        writer.iam.fates = [error]
        outcome = await writer.deny("jb-1")
        assert isinstance(outcome, kind)
        assert words in outcome.why
        assert "canary" not in outcome.why
        assert world.policies == {}
        if isinstance(outcome, NotYet):
            assert (outcome.retry_after, outcome.failed) == (wait, True)
    assert isinstance(await writer.deny("jb-1"), NotYet)
    assert world.denied(f"{ROLE_ID}:jb-1")


async def test_what_is_written_reads_back_as_what_was_meant() -> None:
    world = World()
    await Writer(world, SetClock()).deny("jb-1")
    (document,) = world.policies.values()
    contents = read(json.loads(document))
    assert contents is not None
    assert contents.sessions == {f"{ROLE_ID}:jb-1": datetime(2031, 5, 1, 12, 30, tzinfo=UTC)}
