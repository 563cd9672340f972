"""Several brokers behind one address, or behind one name: to which of them a client goes, and when it leaves one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import pytest_asyncio

import broker.client
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import lease_pb2
from broker.api.v1.broker_service_pb2_grpc import BrokerServiceStub
from broker.client import AsyncClient
from broker.client.channel import OPTIONS
from broker.errors import NotReady, Reason
from tests.client.fake_broker import FakeBroker, SvidFiles
from tests.patience import PATIENCE
from tests.stores.wire import Wire

LEASE = lease_pb2.Lease(id="lease-1", state=lease_pb2.Lease.STATE_ACTIVE)


def at(broker: FakeBroker) -> tuple[str, int]:
    host, _, port = broker.address.rpartition(":")
    return host, int(port)


@pytest.fixture
def other(fake: FakeBroker) -> Iterator[FakeBroker]:
    other = FakeBroker(ca=fake.ca).start()
    yield other
    other.stop()


@pytest.fixture
def balancer(fake: FakeBroker) -> Iterator[Wire]:
    """Balances connections, so that who is connected stays where it is."""
    wire = Wire(*at(fake))
    yield wire
    wire.close()


@pytest_asyncio.fixture
async def balanced(balancer: Wire, files: SvidFiles) -> AsyncIterator[AsyncClient]:
    address = f"127.0.0.1:{balancer.port}"
    async with broker.client.connect(
        address, "brokerd", certificate=files.certificate, key=files.key, bundle=files.bundle
    ) as client:
        yield client


@pytest.mark.parametrize("reason", [Reason.DEPLOY_SET_OVERTAKEN, Reason.REPLICA_UNHEARD])
async def test_a_replica_that_can_only_refuse_is_left(
    fake: FakeBroker, other: FakeBroker, balancer: Wire, balanced: AsyncClient, reason: Reason
) -> None:
    """Its connection is sound, and would last for a quarter of an hour."""
    await balanced.whoami()
    fake.faults["WhoAmI"] = [NotReady(reason, "Ask another one.")] * 9
    balancer.lead_to(*at(other))
    await balanced.whoami()
    assert (len(fake.asked("WhoAmI")), len(other.asked("WhoAmI"))) == (2, 1)


async def test_a_stream_that_is_refused_there_is_opened_elsewhere(
    fake: FakeBroker, other: FakeBroker, balancer: Wire, balanced: AsyncClient
) -> None:
    await balanced.whoami()
    fake.faults["WatchLeases"] = [NotReady(Reason.REPLICA_UNHEARD, "Ask another one.")] * 9
    balancer.lead_to(*at(other))
    other.emit("lease.active", LEASE)
    events = balanced.watch(after_sequence=0)
    async with asyncio.timeout(PATIENCE):
        assert (await anext(events)).sequence == 1
    await events.aclose()
    assert len(fake.asked("WatchLeases")) == 1


async def test_any_other_refusal_keeps_the_connection(
    fake: FakeBroker, other: FakeBroker, balancer: Wire, balanced: AsyncClient
) -> None:
    fake.faults["WhoAmI"] = [NotReady(Reason.STORE_UNAVAILABLE, "The database is away.")]
    balancer.lead_to(*at(fake))
    await balanced.templates()
    balancer.lead_to(*at(other))
    await balanced.whoami()
    assert other.calls == []


async def test_of_several_addresses_clients_take_any(fake: FakeBroker, other: FakeBroker) -> None:
    """By gRPC's own rule all of them would take the first one."""
    agent = fake.agent()
    credentials = grpc.ssl_channel_credentials(fake.ca.pem, agent.key_pem, agent.pem + agent.chain_pem)
    options = [*OPTIONS, ("grpc.ssl_target_name_override", "brokerd")]
    for _ in range(40):
        addresses = f"ipv4:{fake.address},{other.address}"
        async with grpc.aio.secure_channel(addresses, credentials, options=options) as channel:
            await BrokerServiceStub(channel).WhoAmI(pb.WhoAmIRequest())  # type: ignore[no-untyped-call]
    assert fake.calls
    assert other.calls
