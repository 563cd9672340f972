"""Everybody's SVID rotates, brokerd's and the agents', under calls that never stop: not one of them fails.

The Workload API is the development one, which speaks the standard protocol; the SDK follows it by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

import broker.client
from broker.client.client import AsyncClient
from broker.clock import SystemClock
from broker.dev.trust_domain import TrustDomain
from broker.dev.workload_api import WorkloadApiSockets
from broker.identity.spiffe_id import SpiffeId
from tests.api.served import ANALYST, CA, DOMAIN, Served, ask, reason, serve, start_task, svid
from tests.patience import Pauses, becomes_true, eventually

BROKER, AGENT = SpiffeId(DOMAIN, "/broker"), SpiffeId.parse(ANALYST)
ROTATIONS = 6
CALLERS = 4
BETWEEN_SECONDS = 0.005  # for each of them: the other tests want to get on, too


async def workload_api(root: Path, ttl: timedelta) -> WorkloadApiSockets:
    domain = TrustDomain.load(DOMAIN, root / "ca", SystemClock().now())
    names = {BROKER: ("brokerd", "localhost")}
    sockets = WorkloadApiSockets(domain, [BROKER, AGENT], root / "api", SystemClock(), ttl, names)
    await sockets.start()
    return sockets


@asynccontextmanager
async def world(root: Path, ttl: timedelta) -> AsyncIterator[tuple[Served, WorkloadApiSockets]]:
    """brokerd and its agents on one Workload API."""
    sockets = await workload_api(root, ttl)
    try:
        async with serve(root, identity={"workload_api": sockets.endpoint(BROKER)}) as served:
            yield served, sockets
    finally:
        await sockets.stop()


class Callers:
    """Agents that call for ever: each with one client that follows rotation, or with a new one for each call."""

    def __init__(self, served: Served, sockets: WorkloadApiSockets) -> None:
        self._address = f"127.0.0.1:{served.port}"
        self._endpoint = sockets.endpoint(AGENT)
        self._stop = asyncio.Event()
        self.calls = self.connections = 0

    def client(self) -> AsyncClient:
        return broker.client.connect(self._address, workload_api=self._endpoint)

    async def keep_calling(self) -> None:
        async with self.client() as client:
            while not self._stop.is_set():
                assert (await client.whoami()).spiffe_id == ANALYST
                self.calls += 1
                await asyncio.sleep(BETWEEN_SECONDS)

    async def keep_connecting(self) -> None:
        while not self._stop.is_set():
            async with self.client() as client:
                assert (await client.whoami()).spiffe_id == ANALYST
                self.connections += 1
            await asyncio.sleep(BETWEEN_SECONDS)

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self.keep_calling())
            group.create_task(self.keep_connecting())
            try:
                yield
            finally:
                self._stop.set()


async def test_rotation_on_both_sides_fails_no_call(tmp_path: Path) -> None:
    async with world(tmp_path, timedelta(minutes=5)) as (served, sockets):
        own = served.daemon._identity.tls
        shown = {own.identity.fingerprint}
        callers = Callers(served, sockets)
        async with callers.calling():
            for _ in range(ROTATIONS):
                before, connections = own.identity.fingerprint, callers.connections
                sockets.rotate(BROKER)
                sockets.rotate(AGENT)
                await becomes_true(lambda before=before: own.identity.fingerprint != before)
                shown.add(own.identity.fingerprint)
                # The new one is really shaken hands with before the next comes.
                await becomes_true(lambda connections=connections: callers.connections > connections + 1)
        assert len(shown) == ROTATIONS + 1
        assert callers.calls > ROTATIONS
        assert await served.refusals() == []


@pytest.mark.slow
async def test_svids_that_live_for_seconds(tmp_path: Path) -> None:
    """As SPIRE would do it, by time alone: everybody is renewed at half of a few seconds, several times."""
    for seconds in (4, 20):
        with Pauses() as pauses:
            try:
                await renewed_by_time(tmp_path / str(seconds), timedelta(seconds=seconds))
                return
            except Exception:
                # Nobody can renew in time on a machine that stands still meanwhile. TLS asks the system's clock.
                if pauses.seconds < seconds / 8:
                    raise
    await renewed_by_time(tmp_path / "slowly", timedelta(seconds=40))


async def renewed_by_time(root: Path, ttl: timedelta) -> None:
    async with world(root, ttl) as (served, sockets):
        own = served.daemon._identity.tls
        shown: set[str] = set()
        callers = Callers(served, sockets)

        def renewed() -> bool:
            shown.add(own.identity.fingerprint)
            return len(shown) >= 4

        async with callers.calling():
            await becomes_true(renewed)
        assert await served.refusals() == []
        assert served.daemon._identity.alarms(datetime.now(UTC)) == []


async def test_a_workload_api_that_restarts_under_load_fails_no_call(tmp_path: Path) -> None:
    async with world(tmp_path, timedelta(minutes=5)) as (served, sockets):
        own = served.daemon._identity.tls
        before = own.identity.fingerprint
        callers = Callers(served, sockets)
        callers.keep_connecting = callers.keep_calling  # type: ignore[method-assign] - nobody new gets an SVID meanwhile
        async with callers.calling():
            await becomes_true(lambda: callers.calls > CALLERS)
            await sockets.stop()
            calls = callers.calls
            await becomes_true(lambda: callers.calls > calls + CALLERS)
            assert own.identity.fingerprint == before
            again = await workload_api(tmp_path, timedelta(minutes=5))
            await becomes_true(lambda: own.identity.fingerprint != before)
        await again.stop()


class Shifted:
    """The present, and ``by`` more."""

    by = timedelta()

    def now(self) -> datetime:
        present = datetime.now(UTC) + self.by
        return present.replace(microsecond=present.microsecond // 1000 * 1000)


async def test_after_its_own_end_brokerd_grants_nothing_and_still_ends_what_it_gave(tmp_path: Path) -> None:
    clock = Shifted()
    async with serve(tmp_path, clock=clock) as served:
        stub = served.stub(svid(ends=timedelta(hours=3)))
        task = await start_task(stub, max_duration={"seconds": 7200})
        await stub.RequestCredential(ask(task))
        assert served.upstream.alive
        clock.by = timedelta(hours=1)
        served.daemon._identity.look()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RequestCredential(ask(task, "r2"))
        assert reason(refused.value) == (grpc.StatusCode.UNAVAILABLE, "OWN_SVID_EXPIRED")
        (problem,) = served.daemon._problems()
        assert "own SVID ended" in problem
        await becomes_true(lambda: not served.upstream.alive)
        renewed = CA.svid(f"spiffe://{DOMAIN}/broker", dns=["localhost"], ends=timedelta(hours=9))
        for name, data in (("broker.key", renewed.key_pem), ("broker.pem", renewed.pem)):
            (tmp_path / "identity" / name).write_bytes(data)
        await becomes_true(lambda: served.daemon.gate.why_closed(clock.now()) is None)

        async def granted() -> bool:
            """The export of what was written before the clock leapt may not have had its turn since."""
            try:
                return bool((await stub.RequestCredential(ask(task, "r3"))).credential.database_login.username)
            except grpc.aio.AioRpcError as refused:
                assert reason(refused) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_BACKLOG")
                return False

        await eventually(granted)
