"""HoldTask and WatchLeases over connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pytest

import broker.client
from broker.api.v1 import lease_pb2, task_pb2
from broker.client import AsyncClient, LeaseEvent
from broker.client.hold import silence
from broker.client.streams import FIRST_WAIT, LAST_WAIT, wait_before
from broker.errors import Denied, Exhausted, NotFound, NotReady, Reason, Unauthenticated, WrongState
from tests.client.fake_broker import FakeBroker, SvidFiles
from tests.patience import PATIENCE
from tests.stores.wire import Wire

LEASE = lease_pb2.Lease(id="lease-1", state=lease_pb2.Lease.STATE_ACTIVE)


async def take(events: AsyncGenerator[LeaseEvent, None], count: int) -> list[int]:
    async with asyncio.timeout(PATIENCE):
        return [(await anext(events)).sequence for _ in range(count)]


@pytest.mark.parametrize(
    ("attempt", "fraction", "seconds"),
    [
        (1, 0.0, 0.05),  # 0.1 * 1 * 0.5
        (1, 0.5, 0.1),  # 0.1 * 1 * 1.0
        (4, 0.5, 0.8),  # 0.1 * 8 * 1.0
        (7, 0.5, 5.0),  # 0.1 * 64 = 6.4, capped at 5, * 1.0
        (10_000, 0.0, 2.5),  # still the cap, 5 * 0.5
    ],
)
def test_waits_double_up_to_a_cap(attempt: int, fraction: float, seconds: float) -> None:
    assert wait_before(attempt, fraction) == pytest.approx(seconds)
    assert FIRST_WAIT * 0.5 <= wait_before(attempt, fraction) <= LAST_WAIT * 1.5


async def test_watching_goes_on_after_a_broken_stream_without_loss_or_repeat(
    client: AsyncClient, fake: FakeBroker
) -> None:
    for _ in range(2):
        fake.emit("lease.active", LEASE)
    events = client.watch(after_sequence=0)
    assert await take(events, 2) == [1, 2]
    fake.break_streams()
    fake.emit("lease.revoked", LEASE)
    fake.emit("lease.revoked", LEASE)
    assert await take(events, 2) == [3, 4]
    assert [request.after_sequence for request in fake.asked("WatchLeases")] == [0, 2]
    await events.aclose()


async def test_watching_from_now_on_resumes_from_where_now_was(client: AsyncClient, fake: FakeBroker) -> None:
    """The opening heartbeat says where "now" is; what happens while the stream is broken is not missed."""
    for _ in range(3):
        fake.emit("lease.active", LEASE)
    events = client.watch()
    first = asyncio.ensure_future(anext(events))
    await asyncio.to_thread(fake.wait_until, lambda: bool(fake.asked("WatchLeases")))
    async with asyncio.timeout(PATIENCE):
        while not fake._streams:
            await asyncio.sleep(0.01)
    await client.whoami()  # an answer on the same connection: the heartbeat has arrived before it
    fake.break_streams()
    fake.emit("lease.revoked", LEASE)
    assert (await asyncio.wait_for(first, PATIENCE)).sequence == 4
    assert [request.after_sequence for request in fake.asked("WatchLeases")] == [-1, 3]
    await events.aclose()


async def test_a_gap_is_looked_at_twice_and_then_told(client: AsyncClient, fake: FakeBroker) -> None:
    fake.emit("lease.active", LEASE)
    fake.emit("lease.revoked", LEASE, gap=True)  # 3 after 2; 2 is gone
    events = client.watch(after_sequence=0)
    assert await take(events, 1) == [1]
    with pytest.raises(NotReady) as refused:
        await take(events, 1)
    assert refused.value.reason is Reason.STREAM_TOO_OLD
    assert refused.value.metadata == {"lastSequence": "1", "sequence": "3"}
    assert [request.after_sequence for request in fake.asked("WatchLeases")] == [0, 1]


async def test_the_brokers_own_too_old_is_final(client: AsyncClient, fake: FakeBroker) -> None:
    fake.faults["WatchLeases"] = [NotReady(Reason.STREAM_TOO_OLD, "Gone.")]
    with pytest.raises(NotReady, match="Gone"):
        await take(client.watch(after_sequence=1), 1)
    assert len(fake.asked("WatchLeases")) == 1


async def test_a_refused_watch_is_not_tried_again(client: AsyncClient, fake: FakeBroker) -> None:
    fake.faults["WatchLeases"] = [Denied(Reason.AGENT_NOT_REGISTERED, "Who?")]
    with pytest.raises(Denied):
        await take(client.watch(), 1)
    assert len(fake.asked("WatchLeases")) == 1


async def test_a_stream_outliving_its_svid_is_opened_again(client: AsyncClient, fake: FakeBroker) -> None:
    """The broker ends a stream whose SVID expired; ours is valid (it was renewed), so back we go."""
    fake.emit("lease.active", LEASE)
    fake.faults["WatchLeases"] = [Unauthenticated(Reason.SVID_EXPIRED, "Expired on an open stream.")]
    events = client.watch(after_sequence=0)
    assert await take(events, 1) == [1]
    assert len(fake.asked("WatchLeases")) == 2
    await events.aclose()


async def test_a_held_task_is_held_before_its_block_begins(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("held", hold=True, grace="30s") as task:
        assert fake.held == [task.id]
        assert fake.asked("HoldTask")[0].grace.seconds == 30
    await asyncio.to_thread(fake.wait_until, lambda: not fake.held)
    names = [name for name, _ in fake.calls]
    assert names == ["StartTask", "HoldTask", "CompleteTask"]


async def test_a_hold_comes_back_after_a_broken_stream(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("held", hold=True) as task:
        fake.break_streams()
        await asyncio.to_thread(fake.wait_until, lambda: len(fake.asked("HoldTask")) == 2 and fake.held == [task.id])
        assert task.hold is not None
        assert not task.hold.ended.is_set()


async def test_a_task_that_ends_under_its_holder_is_noticed(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("held", hold=True) as task:
        await client.complete_task(task.id)  # as an operator would
        assert task.hold is not None
        async with asyncio.timeout(PATIENCE):
            await task.hold.ended.wait()
        assert task.hold.error is None


async def test_a_task_that_cannot_be_held_is_completed_again(client: AsyncClient, fake: FakeBroker) -> None:
    fake.faults["HoldTask"] = [NotFound(Reason.TASK_NOT_FOUND, "No such task.")]
    with pytest.raises(NotFound):
        async with client.task("held", hold=True):
            pytest.fail("the block must not run")
    assert [name for name, _ in fake.calls] == ["StartTask", "HoldTask", "CompleteTask"]


async def test_holding_with_a_closed_client_is_refused(client: AsyncClient) -> None:
    task = await client.start_task("late")
    await client.close()
    hold = client.hold(task.id)
    with pytest.raises(RuntimeError, match="this client is closed"):
        async with asyncio.timeout(PATIENCE):
            await hold.__aenter__()
    assert not hold.lost


async def test_an_answer_that_cannot_be_read_ends_the_hold(client: AsyncClient, fake: FakeBroker) -> None:
    """Whether it is the first, which the holder waits for, or a later one."""
    task = await client.start_task("strange")
    async with client.hold(task.id) as hold:
        fake.tasks[task.id].deadline.seconds = 1 << 62  # no date
        fake.emit("task.strange", lease_pb2.Lease())
        async with asyncio.timeout(PATIENCE):
            await hold.ended.wait()
        assert isinstance(hold.error, ValueError | OverflowError)
        assert hold.lost
    with pytest.raises(type(hold.error)):
        async with asyncio.timeout(PATIENCE):
            await client.hold(task.id).__aenter__()


async def test_what_was_held_and_has_ended_is_lost_and_what_never_was_is_not(
    client: AsyncClient, fake: FakeBroker
) -> None:
    task = await client.start_task("short")
    async with client.hold(task.id) as hold:
        assert not hold.lost
        fake.tasks[task.id].state = task_pb2.Task.STATE_ENDED
        fake.emit("task.ended", lease_pb2.Lease())
        await hold.ended.wait()
        assert hold.lost
    never = client.hold(task.id)
    assert not never.lost
    with pytest.raises(WrongState):
        await never.__aenter__()
    assert never.ended.is_set()
    assert not never.lost


async def test_holding_retries_while_the_broker_is_away(client: AsyncClient, fake: FakeBroker) -> None:
    task = await client.start_task("patient")
    fake.faults["HoldTask"] = [grpc.StatusCode.UNAVAILABLE] * 3
    async with client.hold(task.id) as hold:
        assert fake.held == [task.id]
        assert hold.task is not None
        assert hold.task.is_open
    assert len(fake.asked("HoldTask")) == 4


async def test_a_hold_comes_back_to_a_broker_that_has_too_much_in_hand_for_a_moment(
    client: AsyncClient, fake: FakeBroker
) -> None:
    """As where all that were connected to a replica that died come to the others at once."""
    too_many = Exhausted(Reason.TOO_MANY_CONCURRENT_REQUESTS, "1000 calls are in hand here.", retry_after=1.0)
    async with client.task("held", hold=True) as task:
        events = client.watch(after_sequence=0)
        fake.faults["HoldTask"] = [too_many, too_many]
        fake.faults["WatchLeases"] = [too_many]
        fake.break_streams()
        fake.emit("lease.active", LEASE)
        assert await take(events, 1) == [1]
        await asyncio.to_thread(fake.wait_until, lambda: len(fake.asked("HoldTask")) == 4 and fake.held == [task.id])
        assert task.hold is not None
        assert not task.hold.ended.is_set()
        await events.aclose()


@pytest.mark.parametrize("grace", [2.0, 3.0, 10.0, 600.0])
def test_a_beat_may_be_late_and_one_that_does_not_come_is_noticed_in_time(grace: float) -> None:
    assert grace / 3 + 0.5 < silence(grace) < grace


async def test_a_hold_whose_broker_is_not_heard_any_more_is_opened_on_another_connection(
    fake: FakeBroker, files: SvidFiles
) -> None:
    """Its machine is gone, or stands still, and nothing breaks; what watches moves with it, and misses nothing.

    By the connection's own keepalive it would be noticed after half a minute: the task would have ended by then.
    """
    host, _, port = fake.address.rpartition(":")
    wire = Wire(host, int(port))
    address = f"127.0.0.1:{wire.port}"
    try:
        async with (
            broker.client.connect(
                address, "brokerd", certificate=files.certificate, key=files.key, bundle=files.bundle
            ) as client,
            client.task("held", hold=True, grace="3s") as task,
        ):
            events = client.watch(after_sequence=0)
            fake.emit("lease.active", LEASE)
            assert await take(events, 1) == [1]
            wire.silence()
            async with asyncio.timeout(15):
                while len(fake.asked("HoldTask")) < 2:
                    await asyncio.sleep(0.01)
            fake.emit("lease.active", LEASE)
            assert await take(events, 1) == [2]
            await events.aclose()
            assert task.hold is not None
            assert not task.hold.ended.is_set()
    finally:
        wire.close()
