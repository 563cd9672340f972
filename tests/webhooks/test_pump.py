"""The audit trail to one destination: in order, at least once, after whatever happened."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.cloud_event import CloudEvent
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.stores.sqlite import SqliteStore
from broker.webhooks.pump import Pump
from broker.webhooks.sender import NotDelivered
from tests.clock import START, CountingRng, ManualClock
from tests.patience import becomes_true
from tests.stores.make import TENANT, Keys


@dataclass
class Destination:
    """Takes events, or fails as often as told. ``waits`` are the pauses between tries, none of which is slept."""

    taken: list[int] = field(default_factory=list)
    failing: deque[NotDelivered] = field(default_factory=deque)
    waits: list[float] = field(default_factory=list)

    async def send(self, event: CloudEvent) -> None:
        if self.failing:
            raise self.failing.popleft()
        self.taken.append(int(json.loads(event.body)["data"]["details"]["n"]))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def until(self, count: int) -> list[int]:
        await becomes_true(lambda: len(self.taken) >= count)
        return self.taken


def pump(store: SqliteStore, to: Destination, *patterns: str) -> Pump:
    clock = ManualClock(START + timedelta(seconds=90))
    return Pump("soc", patterns or ("daemon.*",), "//x", to.send, store, clock, CountingRng(), TENANT, to.sleep)


async def happen(store: SqliteStore, *numbers: int, type_: EventType = EventType.DAEMON_STARTED) -> None:
    events = [AuditEvent(type_, "broker", Vouch.BROKER, TENANT, data={"n": number}) for number in numbers]
    await store.append(events, START)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "w1")
    yield made
    await made.close()


async def running(of: Pump) -> asyncio.Task[None]:
    await of.start()
    return asyncio.create_task(of.run())


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def test_a_new_destination_hears_what_happens_from_now_on_in_order(store: SqliteStore) -> None:
    await happen(store, 1, 2)
    to = Destination()
    task = await running(pump(store, to))
    await happen(store, 3, 4)
    await happen(store, 99, type_=EventType.DEPLOY_ACTIVATED)  # not wanted
    await happen(store, 5)
    assert await to.until(3) == [3, 4, 5]
    await stop(task)
    assert await store.webhook_position(TENANT, "soc") == 6


async def test_after_a_restart_it_goes_on_where_it_was(store: SqliteStore) -> None:
    to = Destination()
    task = await running(pump(store, to))
    await happen(store, 1)
    await to.until(1)
    await stop(task)
    await happen(store, 2, 3)
    task = await running(pump(store, to))
    assert await to.until(3) == [1, 2, 3]
    await stop(task)


async def test_a_failing_event_holds_up_the_ones_behind_it_and_is_never_skipped(store: SqliteStore) -> None:
    to = Destination(failing=deque(NotDelivered("no") for _ in range(12)))
    of = pump(store, to)
    task = await running(of)
    await happen(store, 1, 2)
    assert await to.until(2) == [1, 2]
    # Doubling from 1 s, no jitter in the middle, capped at 60 s, for ever.
    assert to.waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    assert (of.tally.delivered, of.tally.failed, of.tally.waiting_since) == (2, 12, None)
    await stop(task)


async def test_what_the_receiver_wishes_is_waited_for(store: SqliteStore) -> None:
    to = Destination(failing=deque([NotDelivered("busy", timedelta(minutes=10)), NotDelivered("busy")]))
    task = await running(pump(store, to))
    await happen(store, 1)
    await to.until(1)
    assert to.waits == [600, 2]
    await stop(task)


async def test_while_it_fails_its_age_is_told_and_what_was_delivered_stays_delivered(store: SqliteStore) -> None:
    class Stuck(Destination):
        async def send(self, event: CloudEvent) -> None:
            if len(self.taken) == 2:
                raise NotDelivered("no")
            await super().send(event)

        async def sleep(self, seconds: float) -> None:
            self.waits.append(seconds)
            await asyncio.Event().wait()  # for ever: nothing sleeps for time to pass

    to = Stuck()
    of = pump(store, to)
    task = await running(of)
    await happen(store, 1, 2, 3)
    await becomes_true(lambda: to.waits)
    assert of.tally.waiting_since == START
    assert await store.webhook_position(TENANT, "soc") == 2  # kept before waiting: a crash now repeats nothing
    await stop(task)
    again = Destination()
    task = await running(pump(store, again))
    assert await again.until(1) == [3]
    await stop(task)


async def test_a_record_that_was_tampered_with_is_not_passed_on_and_holds_up_nothing(
    store: SqliteStore, tmp_path: Path
) -> None:
    to = Destination()
    of = pump(store, to)
    await of.start()
    await happen(store, 1, 2, 3)
    damage = "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), '\"n\":2', '\"n\": 2') AS BLOB) WHERE seq = 2"
    assert store._connection.execute(damage).rowcount == 1
    task = asyncio.create_task(of.run())
    assert await to.until(2) == [1, 3]
    await stop(task)
    assert await store.webhook_position(TENANT, "soc") == 3
