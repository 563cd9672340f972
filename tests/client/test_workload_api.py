"""The SVID through a real Workload API (the development one), with py-spiffe."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
from cryptography import x509

import broker.client
from broker.client.workload_api import WorkloadApiSource
from broker.clock import SystemClock
from broker.dev.trust_domain import TrustDomain
from broker.dev.workload_api import WorkloadApiSockets
from broker.errors import InvalidInput, Reason, Unauthenticated
from broker.identity.spiffe_id import SpiffeId
from tests.client.fake_broker import AGENT, TRUST_DOMAIN, FakeBroker
from tests.forge import Authority, authority
from tests.patience import PATIENCE

ID = SpiffeId.parse(AGENT)


@pytest_asyncio.fixture
async def domain(tmp_path: Path) -> TrustDomain:
    return TrustDomain.load(TRUST_DOMAIN, tmp_path / "ca", SystemClock().now())


@pytest_asyncio.fixture
async def sockets(domain: TrustDomain, tmp_path: Path) -> AsyncIterator[WorkloadApiSockets]:
    sockets = WorkloadApiSockets(domain, [ID], tmp_path / "s", SystemClock(), timedelta(minutes=5))
    await sockets.start()
    yield sockets
    await sockets.stop()


@pytest_asyncio.fixture
async def fake(domain: TrustDomain) -> AsyncIterator[FakeBroker]:
    """A fake broker of the development trust domain."""
    (root,) = x509.load_pem_x509_certificates(domain.bundle_pem)
    fake = FakeBroker(ca=Authority(root, domain._key, (), SystemClock().now())).start()
    yield fake
    await asyncio.to_thread(fake.stop)


async def test_the_svid_comes_with_its_own_trust_domains_bundle(
    domain: TrustDomain, sockets: WorkloadApiSockets
) -> None:
    source = WorkloadApiSource(sockets.endpoint(ID))
    try:
        material = await asyncio.to_thread(source.current)
        again = await asyncio.to_thread(source.current)
    finally:
        await asyncio.to_thread(source.close)
    assert str(material.spiffe_id) == AGENT
    assert material.bundle.pem == domain.bundle_pem
    assert all(verdict.holds for verdict in material.verdicts(SystemClock().now()))
    assert material.digest == again.digest
    assert b"PRIVATE KEY" in material.key_pem
    assert "PRIVATE KEY" not in repr(material)


async def test_a_pushed_svid_is_used_without_a_failed_call(fake: FakeBroker, sockets: WorkloadApiSockets) -> None:
    async with broker.client.connect(fake.address, workload_api=sockets.endpoint(ID)) as client:
        for number in range(1, 4):
            async with asyncio.timeout(PATIENCE):
                while len(set(fake.serials)) < number:
                    await client.whoami()
            sockets.rotate(ID)
    assert len(set(fake.serials)) == 3


async def test_a_workload_api_that_restarts_is_found_again(
    fake: FakeBroker, domain: TrustDomain, tmp_path: Path
) -> None:
    """While it is away the SVID in hand goes on working; when it is back, the next one is taken."""
    path = tmp_path / "again"
    first = WorkloadApiSockets(domain, [ID], path, SystemClock(), timedelta(minutes=5))
    await first.start()
    async with broker.client.connect(fake.address, workload_api=first.endpoint(ID)) as client:
        await client.whoami()
        await first.stop()
        await client.whoami()
        second = WorkloadApiSockets(domain, [ID], path, SystemClock(), timedelta(minutes=5))
        await second.start()
        try:
            async with asyncio.timeout(PATIENCE):
                while len(set(fake.serials)) < 2:
                    await client.whoami()
                    await asyncio.sleep(0.02)
        finally:
            await second.stop()


@pytest.mark.parametrize("endpoint", ["unix:///nonexistent/agent.sock", "unix:relative", "http://host", "tcp://name:1"])
async def test_no_workload_api_there(endpoint: str) -> None:
    source = WorkloadApiSource(endpoint, timeout_seconds=0.5)
    with pytest.raises(Unauthenticated) as refused:
        await asyncio.to_thread(source.current)
    assert refused.value.reason is Reason.SVID_MISSING
    assert endpoint in refused.value.message
    assert "broker doctor" in refused.value.hint


async def test_a_socket_nobody_serves_is_given_up_in_time(tmp_path: Path) -> None:
    """py-spiffe alone would wait for ever."""
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # bound, but nobody listens
    source = WorkloadApiSource(f"unix://{path}", timeout_seconds=0.5)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unauthenticated, match="gave no SVID"):
            await asyncio.to_thread(source.current)


def test_a_federated_bundle_is_not_what_the_broker_is_believed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Workload API hands out federated bundles too; only our own trust domain may name the broker."""
    own, partner = authority(TRUST_DOMAIN), authority("partner.test")
    svid = own.svid(AGENT)
    roots = {"partner.test": partner.pem, TRUST_DOMAIN: own.pem}
    update = SimpleNamespace(chain_pem=svid.pem, key_pem=svid.key_pem, roots_pem=roots)
    source = WorkloadApiSource("unix:///nowhere")
    monkeypatch.setattr(source, "_api", SimpleNamespace(current=lambda: update))

    assert source.current().bundle.pem == own.pem

    roots.pop(TRUST_DOMAIN)
    with pytest.raises(InvalidInput):
        source.current()
