"""Our SVID rotates under load, and nobody notices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509

from broker.client.channel import Connection, Generation
from broker.client.client import AsyncClient
from broker.client.svid import Material
from broker.client.target import Target
from broker.clock import SystemRng
from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import TrustBundle
from tests.client.fake_broker import FakeBroker
from tests.forge import Forged
from tests.patience import PATIENCE, becomes_true

ROTATIONS = 12
CALLERS = 8
SHUTDOWN = grpc.ChannelConnectivity.SHUTDOWN


@dataclass
class PushedSource:
    """A source the test pushes SVIDs into, as the Workload API does, from another thread."""

    fake: FakeBroker
    svid: Forged
    poll_seconds: float = 3600.0
    endpoint: str = "a test"
    error: Exception | None = None
    subscribers: list[Callable[[], None]] = field(default_factory=list)
    looks: int = 0

    def current(self) -> Material:
        self.looks += 1
        if self.error:
            raise self.error
        return Material.of(self.svid.pem, self.svid.key_pem, lambda name: TrustBundle.from_pem(name, self.fake.ca.pem))

    def subscribe(self, changed: Callable[[], None]) -> None:
        self.subscribers.append(changed)

    def push(self, svid: Forged) -> None:
        self.svid = svid
        pushing = threading.Thread(target=lambda: [changed() for changed in self.subscribers])
        pushing.start()
        pushing.join()

    def close(self) -> None:
        self.subscribers.clear()


def connect(source: PushedSource, fake: FakeBroker, ahead: timedelta = timedelta()) -> AsyncClient:
    """A client whose clock is ``ahead`` of the broker's."""
    rng = SystemRng()
    connection = Connection(source, Target.parse(fake.address), lambda: datetime.now(UTC) + ahead)
    return AsyncClient(connection, rng.id, rng.fraction)


async def rotated(client: AsyncClient, serial: int) -> None:
    """Until the client uses the SVID with this serial number."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with client.connection.use() as generation:
                if _serial(generation.material) == serial:
                    return
            await asyncio.sleep(0.005)


def _serial(material: Material) -> int:
    return x509.load_pem_x509_certificate(material.chain_pem).serial_number


async def test_rotation_fails_no_call_and_no_stream(fake: FakeBroker) -> None:
    """SVIDs pushed one after the other under eight callers, a held task and a watcher: not one error."""
    short = timedelta(minutes=5)
    source = PushedSource(fake, fake.agent(ends=short))
    stop = asyncio.Event()
    done = 0

    async with connect(source, fake) as client:

        async def call() -> None:
            nonlocal done
            while not stop.is_set():
                await client.whoami()
                done += 1

        async def follow() -> None:
            async for event in client.watch(after_sequence=0):
                seen[event.sequence] = event.type

        seen: dict[int, str] = {}
        lease_task = await client.start_task("watched")
        async with client.task("held", hold=True) as task:
            grant = await task.request("t", account="a", environment="e", resource="r", ttl="5m")
            lease = fake.leases[grant.lease.id]
            watching = asyncio.create_task(follow())
            callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
            for number in range(ROTATIONS):
                fresh = fake.agent(ends=short)
                source.push(fresh)
                await rotated(client, fresh.certificate.serial_number)
                await becomes_true(lambda fresh=fresh: fresh.pem in fake.serials)
                fake.emit(f"lease.changed-{number}", lease)
            async with asyncio.timeout(PATIENCE):
                while len(seen) < ROTATIONS:
                    await asyncio.sleep(0.01)
            stop.set()
            await asyncio.gather(*callers)
            assert task.hold is not None
            assert not task.hold.ended.is_set()
            assert task.hold.error is None
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        assert list(seen) == list(range(1, ROTATIONS + 1))
        assert done > ROTATIONS
        assert lease_task.is_open
    used = len(set(fake.serials))
    assert used == ROTATIONS + 1  # each SVID was really used


async def test_a_call_in_flight_ends_on_its_old_channel(fake: FakeBroker) -> None:
    source = PushedSource(fake, fake.agent())
    loop = asyncio.get_running_loop()
    entered, go_on = asyncio.Event(), threading.Event()

    def slow() -> None:
        loop.call_soon_threadsafe(entered.set)
        go_on.wait(PATIENCE)

    async with connect(source, fake) as client:
        await client.templates()
        async with client.connection.use() as old:
            pass
        fake.before["WhoAmI"] = slow
        in_flight = asyncio.create_task(client.whoami())
        await entered.wait()
        fresh = fake.agent()
        source.push(fresh)
        await rotated(client, fresh.certificate.serial_number)
        assert old.retired.is_set()
        assert old.users == 1
        go_on.set()
        assert (await in_flight).owner == "Ada"
        assert old.users == 0


async def test_an_unusable_new_svid_does_not_replace_a_working_one(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker refuses the new one (not yet valid); calls go on with the old one."""
    source = PushedSource(fake, fake.agent())
    async with connect(source, fake) as client:
        await client.whoami()
        monkeypatch.setattr("broker.client.channel.READY_SECONDS", 0.3)
        working = _serial(client.connection.material)  # type: ignore[arg-type]
        source.push(fake.agent(begins=timedelta(hours=1), ends=timedelta(hours=2)))
        async with asyncio.timeout(PATIENCE):
            for _ in range(20):
                await client.whoami()
                await asyncio.sleep(0.05)
        assert _serial(client.connection.material) == working  # type: ignore[arg-type]


async def test_a_source_that_fails_keeps_the_svid_in_use(fake: FakeBroker, caplog: pytest.LogCaptureFixture) -> None:
    source = PushedSource(fake, fake.agent())
    async with connect(source, fake) as client:
        await client.whoami()
        source.error = Unauthenticated(Reason.SVID_MISSING, "The agent is away.")
        source.push(source.svid)
        async with asyncio.timeout(PATIENCE):
            while "could not be renewed" not in caplog.text:
                await asyncio.sleep(0.01)
        assert (await client.whoami()).owner == "Ada"


async def test_the_same_svid_again_keeps_the_channel(fake: FakeBroker) -> None:
    source = PushedSource(fake, fake.agent(), poll_seconds=0.005)
    async with connect(source, fake) as client:
        await client.whoami()
        async with client.connection.use() as before:
            pass
        async with asyncio.timeout(PATIENCE):
            while source.looks < 5:  # each look is acted upon before the next
                await asyncio.sleep(0.005)
        async with client.connection.use() as after:
            assert after is before
        assert not before.retired.is_set()


EXPIRED = Unauthenticated(Reason.SVID_EXPIRED, "Your SVID expired.", hint="Fetch another.")
HOUR = timedelta(hours=1)


async def test_an_expired_svid_is_exchanged_before_the_call_is_made(fake: FakeBroker) -> None:
    """Nobody pushed, and the next look is an hour away: it is the call that asks, and it is not lost."""
    source = PushedSource(fake, fake.agent(begins=-2 * HOUR, ends=-HOUR))
    async with connect(source, fake) as client:
        # Opened with what there was; nothing was called yet.
        await client.connection._open()
        fresh = source.svid = fake.agent()
        assert (await client.whoami()).owner == "Ada"
        assert _serial(client.connection.material) == fresh.certificate.serial_number  # type: ignore[arg-type]
    assert len(fake.asked("WhoAmI")) == 1


async def test_calls_with_an_expired_svid_do_not_storm_the_source(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.client.channel.RENEW_SECONDS", 3600.0)
    source = PushedSource(fake, fake.agent())
    async with connect(source, fake, ahead=2 * HOUR) as client:
        await client.whoami()
        source.error = Unauthenticated(Reason.SVID_MISSING, "The agent is away.")
        before = source.looks
        # By its own clock the SVID is over; the broker, whose clock is right, still takes it.
        await asyncio.gather(*(client.whoami() for _ in range(50)))
        assert source.looks - before <= 1
        assert len(fake.asked("WhoAmI")) == 51


async def test_the_caller_hears_that_it_expired_and_why_it_was_not_renewed(fake: FakeBroker) -> None:
    source = PushedSource(fake, fake.agent(begins=-2 * HOUR, ends=-HOUR))
    async with connect(source, fake) as client:
        await client.connection._open()
        source.error = Unauthenticated(Reason.SVID_MISSING, "The agent is away.")
        with pytest.raises(Unauthenticated) as refused:
            await client.whoami()
    assert refused.value.reason is Reason.SVID_EXPIRED
    assert refused.value.message.endswith("The last try to renew it failed: The agent is away.")
    assert refused.value.hint


async def test_a_source_that_breaks_in_an_unknown_way_is_asked_again(fake: FakeBroker) -> None:
    source = PushedSource(fake, fake.agent())
    async with connect(source, fake) as client:
        await client.whoami()
        source.error = RuntimeError("a library's bug")
        source.push(source.svid)
        async with asyncio.timeout(PATIENCE):
            while client.connection.renewal_error is None:
                await asyncio.sleep(0.01)
        assert "a library's bug" not in str(client.connection.renewal_error)
        source.error = None
        fresh = fake.agent()
        source.push(fresh)
        await rotated(client, fresh.certificate.serial_number)
        assert client.connection.renewal_error is None


def rotate_within(client: AsyncClient, source: PushedSource, rpc: str) -> Forged:
    """The next call of ``rpc`` finds the SVID rotated, and the client on the new one, before it is answered."""
    fresh, loop = source.fake.agent(), asyncio.get_running_loop()

    def rotate() -> None:
        source.fake.before.clear()
        source.push(fresh)
        asyncio.run_coroutine_threadsafe(rotated(client, fresh.certificate.serial_number), loop).result(PATIENCE)

    source.fake.before[rpc] = rotate
    return fresh


async def test_a_call_refused_for_its_old_svid_is_made_again_with_the_new_one(fake: FakeBroker) -> None:
    """It expired on its way, or its root went out of the broker's bundle; the new one came meanwhile."""
    source = PushedSource(fake, fake.agent())
    async with connect(source, fake) as client:
        await client.templates()
        fresh = rotate_within(client, source, "WhoAmI")
        fake.faults["WhoAmI"] = [EXPIRED]
        assert (await client.whoami()).owner == "Ada"
    assert len(fake.asked("WhoAmI")) == 2
    assert fake.serials[-1] == fresh.pem


async def test_a_refused_svid_with_no_newer_one_is_told_at_once(fake: FakeBroker) -> None:
    source = PushedSource(fake, fake.agent())
    async with connect(source, fake) as client:
        fake.faults["WhoAmI"] = [EXPIRED]
        with pytest.raises(Unauthenticated):
            await client.whoami()
    assert len(fake.asked("WhoAmI")) == 1


async def test_a_stream_that_its_svid_ended_goes_on_with_the_next_one(fake: FakeBroker) -> None:
    """Nobody pushed the next one: the source is asked because the stream ended, and the stream is not lost."""
    source = PushedSource(fake, fake.agent())
    async with connect(source, fake) as client:
        async with client.task("t") as task:
            grant = await task.request("t", account="a", environment="e", resource="r", ttl="5m")
        fake.emit("lease.issued", fake.leases[grant.lease.id])
        fresh = fake.agent(ends=3 * HOUR)

        def expire() -> None:
            fake.before.clear()
            source.svid = fresh
            client.connection.now = lambda: datetime.now(UTC) + 2 * HOUR

        fake.before["WatchLeases"] = expire
        fake.faults["WatchLeases"] = [EXPIRED]
        stream = client.watch(after_sequence=0)
        async with asyncio.timeout(PATIENCE):
            assert (await anext(stream)).type == "lease.issued"
        await stream.aclose()
    assert len(fake.asked("WatchLeases")) == 2
    assert fresh.pem in fake.serials


async def test_rotation_while_calls_renew_leaves_no_channel_open(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push and fifty calls with an expired SVID meet; whoever is first, nothing is left behind."""
    source = PushedSource(fake, fake.agent(begins=-2 * HOUR, ends=-HOUR))
    made: list[Generation] = []
    create = Generation.__init__

    def noted(self: Generation, *arguments: object) -> None:
        create(self, *arguments)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Generation, "__init__", noted)
    async with connect(source, fake) as client:
        await client.connection._open()
        source.push(fake.agent())
        answers = await asyncio.gather(*(client.whoami() for _ in range(50)))
        assert {answer.owner for answer in answers} == {"Ada"}
        async with asyncio.timeout(PATIENCE):
            while [each for each in made if each.channel.get_state() is not SHUTDOWN] != [client.connection._current]:
                await asyncio.sleep(0.01)
    assert len(made) >= 2


async def test_a_client_closed_while_it_opens_stays_closed(fake: FakeBroker) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(PushedSource):
        def current(self) -> Material:
            entered.set()
            go_on.wait(PATIENCE)
            return super().current()

    client = connect(Slow(fake, fake.agent()), fake)
    calling = asyncio.create_task(client.whoami())
    await asyncio.to_thread(entered.wait, PATIENCE)
    await client.close()
    go_on.set()
    with pytest.raises(RuntimeError, match="closed"):
        await calling
    assert client.connection.material is None
