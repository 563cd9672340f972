"""What every CanaryStore keeps of what canaries measured. An adapter gives the ``store`` fixture."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.audit.event import EventType, Vouch
from broker.canary.canary import Kind
from broker.canary.measurement import Measurement, Outcome
from broker.ports.canaries import KEPT_MEASUREMENTS
from broker.ports.ledger import Ledger
from tests.stores.contract import records
from tests.stores.make import TENANT, at


def measurement(number: int = 1, **changes: Any) -> Measurement:
    """One that was in time: begun at ``number`` seconds."""
    made = Measurement(
        tenant=TENANT,
        id=f"canary-{number:04}",
        connector="bao",
        kind=Kind.ON_REVOKE,
        by="broker",
        outcome=Outcome.WITHIN,
        began_at=at(number),
        told_at=at(number + 0.25),
        bound=timedelta(seconds=5),
        lease_id=f"lease-{number}",
        since=at(number + 0.125),
        measured=timedelta(milliseconds=40),
        at_least=timedelta(milliseconds=31),
        confirmed_at=at(number + 0.2),
        looks=3,
    )
    return replace(made, **changes)


class CanaryContract:
    """What is kept, for how long, and what is told of it."""

    @pytest.mark.parametrize(
        ("changes", "event"),
        [
            ({}, EventType.CANARY_MEASURED),
            ({"outcome": Outcome.LATE, "measured": timedelta(seconds=9)}, EventType.CANARY_MEASURED),
            ({"outcome": Outcome.ALIVE, "measured": None, "confirmed_at": None}, EventType.CANARY_BOUND_BROKEN),
            ({"kind": Kind.ON_EXPIRY, "measured": timedelta(seconds=-2), "at_least": None}, EventType.CANARY_MEASURED),
            (
                {"outcome": Outcome.UNMEASURED, "lease_id": "", "since": None, "measured": None, "why": "no answer"},
                EventType.CANARY_UNMEASURED,
            ),
        ],
    )
    async def test_a_measurement_comes_back_as_it_was(
        self, store: Ledger, changes: dict[str, Any], event: EventType
    ) -> None:
        kept = measurement(**changes)
        await store.record_measurement(kept)
        assert await store.measurements(TENANT, "bao", 10) == [kept]
        told = (await records(store))[-1]
        assert (told.type, told.actor, told.lease_id) == (event, "broker", kept.lease_id)
        assert (told.vouched_by == Vouch.UPSTREAM) is (kept.outcome is not Outcome.UNMEASURED)
        assert told.data["outcome"] == kept.outcome

    async def test_the_same_run_takes_its_own_place(self, store: Ledger) -> None:
        alive = measurement(outcome=Outcome.ALIVE, measured=None)
        late = replace(alive, outcome=Outcome.LATE, measured=timedelta(seconds=60), told_at=at(61))
        await store.record_measurement(alive)
        await store.record_measurement(late)
        assert await store.measurements(TENANT, "bao", 10) == [late]

    async def test_the_newest_come_first_and_old_ones_go_by_connector(self, store: Ledger) -> None:
        other = measurement(1, id="canary-other", connector="aws")
        await store.record_measurement(other)
        for number in range(1, KEPT_MEASUREMENTS + 4):
            await store.record_measurement(measurement(number))
        kept = await store.measurements(TENANT, "bao", 1_000)
        assert [each.began_at for each in kept] == [at(number) for number in range(KEPT_MEASUREMENTS + 3, 3, -1)]
        assert await store.measurements(TENANT, "bao", 1) == kept[:1]
        assert await store.measurements(TENANT, "aws", 10) == [other]
        assert await store.measurements("another", "bao", 10) == []

    async def test_what_was_measured_last_of_a_kind_outlives_any_number_of_runs_that_measured_nothing(
        self, store: Ledger
    ) -> None:
        """Its connector is suspended, say, because of it: the alarm must not go with the hundredth such run."""
        broken = measurement(2, outcome=Outcome.ALIVE, measured=None)
        expiry = measurement(3, kind=Kind.ON_EXPIRY)
        for each in (measurement(1), broken, expiry):
            await store.record_measurement(each)
        for number in range(4, KEPT_MEASUREMENTS + 7):
            await store.record_measurement(
                measurement(number, outcome=Outcome.UNMEASURED, measured=None, why="suspended")
            )
        kept = await store.measurements(TENANT, "bao", 1_000)
        assert kept[-2:] == [expiry, broken]
        assert len(kept) == KEPT_MEASUREMENTS + 2
