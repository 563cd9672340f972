"""Signing off access reports: once each, about the set in force, and due again by the schedule."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.event import EventType
from broker.audit.record import Record, decode
from broker.errors import BrokerError, Conflict, InvalidInput, Reason, WrongState
from broker.issuance.access_reviews import AccessReviewDesk, SignOff
from tests.clock import START
from tests.issuance.world import TENANT, World

DAY = timedelta(days=1)
SAID = SignOff("q1", "a" * 64, "d" * 64, START, "Fine.")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


async def signed(world: World) -> list[Record]:
    records = [decode(body) for body in await world.store.audit_since(0, 1_000)]
    return [each for each in records if each.type == EventType.ACCESS_REVIEW_SIGNED_OFF]


async def test_it_is_kept_with_the_person_the_digest_and_when_the_next_is_due(world: World) -> None:
    desk = AccessReviewDesk(world.store, 90 * DAY)
    done = await desk.sign_off(world.person("bea"), SAID)
    assert (done.at, done.due, done.own_agents) == (START, START + 90 * DAY, 0)
    (record,) = await signed(world)
    assert record.actor == world.person("bea").id
    assert {key: record.data[key] for key in ("digest", "findings", "agents", "own_agents")} == {
        "digest": "a" * 64,
        "findings": "Fine.",
        "agents": 3,
        "own_agents": 0,
    }


async def test_that_somebody_answers_for_what_they_sign_off_is_told(world: World) -> None:
    done = await AccessReviewDesk(world.store, None).sign_off(world.person("ada"), SAID)
    assert (done.due, done.own_agents) == (None, 3)


async def test_the_same_again_is_the_same_and_other_content_is_refused(world: World) -> None:
    desk = AccessReviewDesk(world.store, DAY)
    first = await desk.sign_off(world.person("bea"), SAID)
    world.clock.advance(timedelta(minutes=1))
    assert await desk.sign_off(world.person("bea"), SAID) == first
    with pytest.raises(Conflict) as refused:
        await desk.sign_off(world.person("bea"), replace(SAID, findings="Not so fine."))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    await desk.sign_off(world.person("cyd"), SAID)  # another person's ids are another's
    assert len(await signed(world)) == 2


@pytest.mark.parametrize(
    ("said", "family", "reason"),
    [
        (replace(SAID, findings="\u200b"), InvalidInput, Reason.FIELD_INVALID),
        (replace(SAID, deploy_digest="e" * 64), WrongState, Reason.ACCESS_REPORT_STALE),
        (replace(SAID, report_time=START + timedelta(hours=1)), InvalidInput, Reason.FIELD_INVALID),
    ],
)
async def test_a_report_about_something_else_is_refused(
    world: World, said: SignOff, family: type[BrokerError], reason: Reason
) -> None:
    desk = AccessReviewDesk(world.store, DAY)
    with pytest.raises(family) as refused:
        await desk.sign_off(world.person("bea"), said)
    assert refused.value.reason is reason
    assert (await signed(world), await world.store.last_access_review(TENANT)) == ([], None)


async def test_when_it_is_overdue(world: World) -> None:
    desk, without = AccessReviewDesk(world.store, DAY), AccessReviewDesk(world.store, None)
    assert await desk.overdue(TENANT, START)  # nobody ever looked
    await desk.sign_off(world.person("bea"), SAID)
    assert not await desk.overdue(TENANT, START + DAY)
    assert await desk.overdue(TENANT, START + DAY + timedelta(milliseconds=1))
    assert await desk.overdue("another", START)
    assert not await without.overdue(TENANT, START + 1_000 * DAY)
