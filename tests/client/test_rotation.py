"""Our SVID rotates under load, and nobody notices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from broker.client.channel import Connection
from broker.client.client import AsyncClient
from broker.client.svid import Material
from broker.client.target import Target
from broker.clock import SystemRng
from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import TrustBundle
from tests.client.fake_broker import FakeBroker
from tests.forge import Forged

ROTATIONS = 12
CALLERS = 8


@dataclass
class PushedSource:
    """A source the test pushes SVIDs into, as the Workload API does, from another thread."""

    fake: FakeBroker
    svid: Forged
    poll_seconds: float = 3600.0
    endpoint: str = "a test"
    error: Unauthenticated | None = None
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


def connect(source: PushedSource, fake: FakeBroker) -> AsyncClient:
    rng = SystemRng()
    connection = Connection(source, Target.parse(fake.address), lambda: datetime.now(UTC))
    return AsyncClient(connection, rng.id, rng.fraction)


async def rotated(client: AsyncClient, serial: int) -> None:
    """Until the client uses the SVID with this serial number."""
    async with asyncio.timeout(10):
        while True:
            async with client.connection.use() as generation:
                if _serial(generation.material) == serial:
                    return
            await asyncio.sleep(0.005)


def _serial(material: Material) -> int:
    return x509.load_pem_x509_certificate(material.chain_pem).serial_number


async def test_rotation_fails_no_call_and_no_stream(fake: FakeBroker) -> None:
    """Short SVIDs pushed under eight callers, a held task and a watcher: not one error."""
    short = timedelta(seconds=30)
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
                fake.emit(f"lease.changed-{number}", lease)
            async with asyncio.timeout(10):
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
        go_on.wait(10)

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
    monkeypatch.setattr("broker.client.channel.READY_SECONDS", 0.3)
    source = PushedSource(fake, fake.agent())
    async with connect(source, fake) as client:
        await client.whoami()
        working = _serial(client.connection.material)  # type: ignore[arg-type]
        source.push(fake.agent(begins=timedelta(hours=1), ends=timedelta(hours=2)))
        async with asyncio.timeout(5):
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
        async with asyncio.timeout(5):
            while "could not be renewed" not in caplog.text:
                await asyncio.sleep(0.01)
        assert (await client.whoami()).owner == "Ada"


async def test_the_same_svid_again_keeps_the_channel(fake: FakeBroker) -> None:
    source = PushedSource(fake, fake.agent(), poll_seconds=0.005)
    async with connect(source, fake) as client:
        await client.whoami()
        async with client.connection.use() as before:
            pass
        async with asyncio.timeout(5):
            while source.looks < 5:  # each look is acted upon before the next
                await asyncio.sleep(0.005)
        async with client.connection.use() as after:
            assert after is before
        assert not before.retired.is_set()
