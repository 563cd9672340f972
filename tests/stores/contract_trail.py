"""What every ledger does for checkpoints, their outbox, and recovery; an adapter gives the ``store`` fixture."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.audit.checkpoint import FIRST, REACH
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.record import decode
from broker.errors import Denied, NotFound, NotReady, Reason, WrongState
from broker.lease.machine import State
from broker.ports.leases import EndCause
from broker.ports.ledger import Ledger
from broker.ports.suspensions import Lifting
from broker.ports.tasks import TaskState
from broker.ports.trail import Evidence, HighWater, NewCheckpoint
from tests.stores.make import ALICE, TASK, TENANT, at, intent, new_task

EVIDENCE = Evidence("bucket", "it has seen more", "a note", 99, 5_000)


def event(type_: EventType = EventType.DAEMON_STARTED) -> AuditEvent:
    return AuditEvent(type_, "broker", Vouch.BROKER, tenant=TENANT)


def checkpoint(count: int, after: int | None = None) -> NewCheckpoint:
    """Of ``count`` records, following the one of ``after``."""
    previous = FIRST if after is None else bytes([after]) * 32
    return NewCheckpoint(f"note {count}", count, 1000 * count, bytes([count]) * 32, previous)


def word(recovery: str, by: str, seconds: float = 20.0, request_id: str = "r1") -> Lifting:
    return Lifting(TENANT, recovery, request_id, by, by.upper(), "looked at it", at(seconds))


class TrailContract:
    """One test per promise of TrailStore."""

    async def test_an_empty_trail_has_no_end(self, store: Ledger) -> None:
        assert await store.trail_end(TENANT) is None

    async def test_the_end_moves_with_the_trail_and_knows_its_last_checkpoint(self, store: Ledger) -> None:
        await store.append([event(), event()], at(0))
        end = await store.trail_end(TENANT)
        assert end is not None
        assert (end.count, end.checkpoint_seq, end.checkpoint_digest) == (2, 0, FIRST)
        assert end.head != end.log
        assert await store.add_checkpoint(TENANT, checkpoint(2), at(1))
        later = await store.trail_end(TENANT)
        assert later is not None
        assert (later.count, later.checkpoint_seq, later.checkpoint_count) == (3, 3, 2)
        assert (later.checkpoint_ms, later.checkpoint_digest, later.log) == (2000, bytes([2]) * 32, end.log)

    async def test_a_checkpoint_is_a_record_of_the_trail(self, store: Ledger) -> None:
        await store.append([event()], at(0))
        await store.add_checkpoint(TENANT, checkpoint(1), at(1))
        record = decode((await store.audit_since(1, 1))[0])
        assert (record.type, record.data) == ("audit.checkpoint", {"note": "note 1"})

    async def test_one_that_the_trail_has_outrun_is_not_written(self, store: Ledger) -> None:
        await store.append([event()] * (REACH + 1), at(0))
        assert not await store.add_checkpoint(TENANT, checkpoint(1), at(1))
        end = await store.trail_end(TENANT)
        assert end is not None
        assert (end.count, end.checkpoint_seq) == (REACH + 1, 0)
        assert await store.checkpoints_since(0, 10) == []

    async def test_of_two_signed_at_the_same_end_one_is_written(self, store: Ledger) -> None:
        await store.append([event()], at(0))
        twins = (checkpoint(1), replace(checkpoint(1), note="twin", digest=b"t" * 32))
        written = await asyncio.gather(*(store.add_checkpoint(TENANT, each, at(1)) for each in twins))
        assert sorted(written) == [False, True]
        assert [each.count for each in await store.checkpoints_since(0, 10)] == [1]
        end = await store.trail_end(TENANT)
        assert end is not None
        assert (end.count, end.checkpoint_seq) == (2, 2)

    async def test_each_witness_has_a_position_that_only_goes_forward(self, store: Ledger) -> None:
        for upto, then in ((0, 0), (5, 5), (3, 5)):
            await store.witnessed(TENANT, "bucket", upto)
            assert await store.witness_position(TENANT, "bucket") == then
        assert await store.witness_position(TENANT, "file") == 0
        assert await store.witness_position("other", "bucket") == 0

    async def test_checkpoints_come_out_in_order(self, store: Ledger) -> None:
        for count, after in ((1, None), (3, 1), (5, 3)):
            await store.append([event()], at(count))
            assert await store.add_checkpoint(TENANT, checkpoint(count, after), at(count))
        found = await store.checkpoints_since(0, 10)
        assert [(each.seq, each.count, each.note) for each in found] == [
            (2, 1, "note 1"),
            (4, 3, "note 3"),
            (6, 5, "note 5"),
        ]
        assert [each.seq for each in await store.checkpoints_since(2, 1)] == [4]

    async def test_what_a_witness_has_not_been_sent_has_an_age(self, store: Ledger) -> None:
        lag = await store.witness_lag(0, at(99))
        assert (lag.records, lag.age) == (0, timedelta(0))
        await store.append([event()], at(0))
        await store.append([event()], at(5))
        lag = await store.witness_lag(0, at(10))
        assert (lag.records, lag.age) == (2, timedelta(seconds=10))
        await store.add_checkpoint(TENANT, checkpoint(2), at(11))
        # A checkpoint does not wait for one.
        lag = await store.witness_lag(3, at(20))
        assert (lag.records, lag.age) == (0, timedelta(0))
        await store.append([event()], at(30))
        lag = await store.witness_lag(3, at(40))
        assert (lag.records, lag.age) == (1, timedelta(seconds=10))

    # -- recovery

    async def test_there_is_none_at_first(self, store: Ledger) -> None:
        assert await store.recovery(TENANT) is None

    async def test_it_begins_once_and_stays_what_it_is(self, store: Ledger) -> None:
        first = await store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(10))
        assert (first.open, first.evidence, first.ledger_count) == (True, EVIDENCE, 0)
        again = await store.enter_recovery(TENANT, "rec-2", replace(EVIDENCE, count=100), at(11))
        assert again == first == await store.recovery(TENANT)
        types = [decode(body).type for body in await store.audit_since(0, 10)]
        assert types == ["recovery.entered"]

    async def test_what_is_found_later_of_an_open_one_takes_two_people_of_its_own(self, store: Ledger) -> None:
        """A copy that was taken in recovery, after one had spoken, and put back after its release."""
        await store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(10))
        await store.release_recovery(word("rec-1", "dana"))
        later = replace(EVIDENCE, at_ms=EVIDENCE.at_ms + 1, count=100, note="another note")
        again = await store.enter_recovery(TENANT, "rec-2", later, at(50))
        assert (again.id, again.evidence, again.first, again.open) == ("rec-1", later, None, True)
        assert await store.enter_recovery(TENANT, "rec-3", later, at(51)) == again
        assert (await store.release_recovery(word("rec-1", "erin", 60))).open
        released = await store.release_recovery(word("rec-1", "dana", 70, "r2"))
        assert (released.open, released.first is not None and released.first.by) == (False, "erin")
        types = [decode(body).type for body in await store.audit_since(0, 10)]
        assert types.count("recovery.entered") == 2

    async def test_what_is_open_is_burnt(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await store.start_task(new_task("task-2"))
        await store.open_intent(intent())
        await store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(10))
        assert await store.burn_open(TENANT, at(10)) == 2
        assert await store.burn_open(TENANT, at(10)) == 0
        task = await store.get_task(TENANT, TASK)
        assert (task.state, task.cause) == (TaskState.ENDED, EndCause.RECOVERY)
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.cause) == (State.REVOKING, EndCause.RECOVERY)
        with pytest.raises(NotReady):
            await store.open_intent(intent("9"))
        for who in ("dana", "erin"):
            await store.release_recovery(word("rec-1", who))
        with pytest.raises(WrongState):
            await store.open_intent(intent("9"))

    async def test_no_intent_commits_from_the_moment_it_is_entered_until_it_is_released(self, store: Ledger) -> None:
        """F35: also before what is open was burnt, and by who has task and counts in memory and did not hear of it."""
        await store.start_task(new_task())
        await store.open_intent(intent())
        together = await asyncio.gather(
            store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(3)),
            *(store.open_intent(intent(str(number), now=3)) for number in (7, 8)),
            return_exceptions=True,
        )
        assert [getattr(each, "reason", None) for each in together[1:]] == [Reason.RECOVERY_MODE] * 2
        before = await store.audit_since(0, 100)
        for asked in (intent("2", now=4), intent(now=30), intent("3", now=5)):
            for call in (store.open_intent(asked), store.check_intent(asked)):
                with pytest.raises(NotReady) as caught:
                    await call
                assert caught.value.reason is Reason.RECOVERY_MODE
        await store.release_recovery(word("rec-1", "dana"))
        with pytest.raises(NotReady):
            await store.open_intent(intent("4", now=21))
        assert len(await store.audit_since(0, 100)) == len(before) + 1
        await store.release_recovery(word("rec-1", "erin", 30))
        assert (await store.open_intent(intent("5", now=31))).lease_id == "lease-5"

    async def test_two_people_release_it(self, store: Ledger) -> None:
        await store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(10))
        begun = await store.release_recovery(word("rec-1", "dana"))
        assert begun.open
        assert begun.first is not None
        assert begun.first.by == "dana"
        assert await store.release_recovery(word("rec-1", "dana", 25)) == begun  # the same word again
        before = await store.audit_since(0, 100)
        with pytest.raises(Denied) as caught:
            await store.release_recovery(word("rec-1", "dana", 30, "r2"))
        assert caught.value.reason is Reason.SECOND_PERSON_REQUIRED
        assert (await store.recovery(TENANT), await store.audit_since(0, 100)) == (begun, before)
        released = await store.release_recovery(word("rec-1", "erin", 40))
        assert (released.open, released.released is not None and released.released.by) == (False, "erin")
        assert await store.release_recovery(word("rec-1", "erin", 50)) == released
        types = [decode(body).type for body in await store.audit_since(0, 10)]
        assert types == ["recovery.entered", "recovery.release_begun", "recovery.released"]

    @pytest.mark.parametrize("recovery", ["rec-9", ""])
    async def test_only_what_is_there_is_released(self, store: Ledger, recovery: str) -> None:
        await store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(10))
        with pytest.raises((WrongState, NotFound)) as caught:
            await store.release_recovery(word(recovery, "dana"))
        assert caught.value.reason is Reason.NOT_IN_RECOVERY

    async def test_after_a_release_another_one_can_begin(self, store: Ledger) -> None:
        await store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(10))
        for who in ("dana", "erin"):
            await store.release_recovery(word("rec-1", who))
        with pytest.raises(WrongState):
            await store.release_recovery(word("rec-1", "frida"))
        second = await store.enter_recovery(TENANT, "rec-2", EVIDENCE, at(50))
        assert (second.id, second.open, await store.recovery(TENANT)) == ("rec-2", True, second)

    async def test_what_a_witness_had_seen_is_a_floor_of_time(self, store: Ledger) -> None:
        await store.append([event()], at(0))
        await store.enter_recovery(TENANT, "rec-1", EVIDENCE, at(10))
        end = await store.trail_end(TENANT)
        assert end is not None
        assert end.checkpoint_ms == EVIDENCE.at_ms

    async def test_a_ledger_that_has_seen_nothing_has_no_high_water_mark(self, store: Ledger) -> None:
        assert await store.high_water() == HighWater(None)

    async def test_the_high_water_mark_is_the_highest_time_and_never_falls(self, store: Ledger) -> None:
        """F39, I8: what is durable has raised it, with no word from anybody; a tick raises it where nothing happens."""
        await store.append([event()], at(5))
        assert await store.high_water() == HighWater(at(5))
        await store.append([event()], at(3))
        assert await store.high_water() == HighWater(at(5))
        await store.keep_time(at(8))
        await store.keep_time(at(7))
        assert await store.high_water() == HighWater(at(8))

    async def test_what_happened_within_a_second_is_in_the_trail(self, store: Ledger) -> None:
        """F39: the row is not written for it; the record's own time counts."""
        await store.append([event()], at(5))
        await store.append([event()], at(5.9))
        assert await store.high_water() == HighWater(at(5.9))
