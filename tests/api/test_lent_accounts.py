"""From an agent's request to a disabled service account: brokerd as it is wired, its real ledger, the double of GCP."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import contract_pb2, lease_pb2
from broker.clock import SystemClock
from broker.connectors.lending import Lending
from broker.connectors.registry import build
from broker.ports.allocations import AllocationState
from broker.ports.connectors import Connector
from broker.ports.deploys import ConnectorSpec
from broker.secret import Secret
from tests.api.served import DEPLOY, Served, ask, reason, serve, start_task, without_canary
from tests.connectors.fake import FakeConnector
from tests.connectors.harness_gcp import AUDIENCE, BUCKET, POOL, PROJECT, READ_ONLY, World, gcp_world
from tests.patience import eventually


def with_a_pool(root: Path, world: World) -> None:
    """deploy/dev, with orders-readonly on a pool of the double's."""
    deploy = root / "deploy"
    shutil.copytree(DEPLOY, deploy, copy_function=shutil.copyfile)
    settings = {
        "credentials": {"federation": {"audience": AUDIENCE}},
        "endpoint_url": world.address,
        "project": PROJECT,
        "pools": {"orders": {"prefix": POOL.prefix, "size": 2, "buckets": [BUCKET]}},
    }
    connectors = yaml.safe_load((deploy / "connectors.yaml").read_text())
    connectors["connectors"]["gcp"] = {"kind": "gcp-pool", "settings": settings}
    (deploy / "connectors.yaml").write_text(yaml.safe_dump(connectors))
    template = yaml.safe_load((deploy / "templates" / "orders-readonly.yaml").read_text())
    template |= {"connector": "gcp", "accounts": [PROJECT], "grant": {"pool": "orders", "scopes": [READ_ONLY]}}
    (deploy / "templates" / "orders-readonly.yaml").write_text(yaml.safe_dump(template, sort_keys=False))
    without_canary(deploy)
    for path in (deploy, *deploy.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


async def make_ready(served: Served) -> None:
    """As if the accounts had rested for two hours."""
    store, now = served.daemon._store, SystemClock().now()
    assert store is not None
    for account in POOL.accounts[:2]:
        await store.rest_account("test", "gcp", None, account, now, now)
        await store.account_ready("test", account, now)


async def test_a_lease_has_an_account_of_its_own_and_its_end_disables_that(tmp_path: Path) -> None:
    with gcp_world() as world:
        with_a_pool(tmp_path, world)
        lending = Lending("test")

        def made(spec: ConnectorSpec) -> Connector:
            if spec.kind != "gcp-pool":
                return FakeConnector(SystemClock(), name=spec.name)
            return build(spec, lambda reference: Secret("unused"), SystemClock(), world.own, lending)

        async with serve(tmp_path, build=made, lending=lending) as served:
            stub, task = served.stub(), await start_task(served.stub())
            wanted = partial(ask, task, account=PROJECT)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.RequestCredential(wanted(request="nobody-knows-them-yet"))
            assert reason(caught.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_POOL_EXHAUSTED")
            assert 7200 <= _retry_delay(caught.value) <= 7260
            await make_ready(served)
            one = await stub.RequestCredential(wanted(request="one"))
            other = await stub.RequestCredential(wanted(request="other"))
            texts = [each.credential.gcp_token.access_token for each in (one, other)]
            assert all(world.reads(each, "2031/05/a.csv") for each in texts)
            assert one.lease.contract_class == contract_pb2.CONTRACT_CLASS_IMMEDIATE
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.RequestCredential(wanted(request="a-third"))
            assert reason(caught.value)[1] == "UPSTREAM_POOL_EXHAUSTED"
            await stub.RevokeLease(pb.RevokeLeaseRequest(lease_id=one.lease.id))

            async def over() -> bool:
                lease = await stub.GetLease(pb.GetLeaseRequest(lease_id=one.lease.id))
                return bool(lease.state == lease_pb2.Lease.STATE_REVOKED)

            await eventually(over)
            assert not world.reads(texts[0], "2031/05/a.csv")
            assert world.reads(texts[1], "2031/05/a.csv")
            told = await _states(served)
            account = one.credential.gcp_token.service_account
            assert told[account] is AllocationState.RESTING
            assert told[other.credential.gcp_token.service_account] is AllocationState.LENT


def _retry_delay(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.RetryInfo()
    (packed,) = [each for each in status.details if each.Is(info.DESCRIPTOR)]
    packed.Unpack(info)
    return info.retry_delay.ToTimedelta().total_seconds()


async def _states(served: Served) -> dict[str, Any]:
    store = served.daemon._store
    assert store is not None
    return {each.account: each.state for each in await store.allocations("test", "gcp", ())}
