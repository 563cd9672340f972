"""Workloads registered by a path pattern, through the real door: each gets what its own segments say, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import yaml

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import lease_pb2
from tests.api.served import DOMAIN, Served, ask, private, reason, serve, start_task, without_canary, write_config
from tests.patience import eventually

PAYMENTS = f"spiffe://{DOMAIN}/ns/payments/job/nightly"
ORDERS = f"spiffe://{DOMAIN}/ns/orders/job/nightly"
STRANGER = f"spiffe://{DOMAIN}/ns/payments/pod/nightly"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    write_config(tmp_path)
    deploy = tmp_path / "deploy"
    entry = yaml.safe_load((deploy / "agents" / "analyst.yaml").read_text())
    del entry["spiffe_id"]
    entry["spiffe_id_pattern"] = f"spiffe://{DOMAIN}/ns/{{namespace}}/job/{{job}}"
    entry["segments"] = {"namespace": {"enum": ["payments", "orders"]}, "job": {"regex": "^[a-z]{1,20}$"}}
    private(deploy / "agents" / "jobs.yaml", yaml.safe_dump(entry))
    template = yaml.safe_load((deploy / "templates" / "orders-readonly.yaml").read_text())
    template["parameters"] = {"team": {"type": "enum", "values": ["payments"], "from_identity": "namespace"}}
    private(deploy / "templates" / "orders-readonly.yaml", yaml.safe_dump(template))
    without_canary(deploy)
    async with serve(tmp_path) as running:
        yield running


async def test_a_segment_becomes_the_parameter_and_the_lease_stays(served: Served) -> None:
    stub = served.stub(PAYMENTS)
    who = await stub.WhoAmI(pb.WhoAmIRequest())
    assert (who.spiffe_id, who.principal, who.segments) == (PAYMENTS, "jobs", ["namespace=payments", "job=nightly"])
    (shown,) = next(
        t.parameters
        for t in (await stub.ListTemplates(pb.ListTemplatesRequest())).templates
        if t.parameters and t.name == "orders-readonly"
    )
    assert (shown.name, shown.from_identity) == ("team", "namespace")
    grant = await stub.RequestCredential(ask(await start_task(stub)))
    assert dict(grant.lease.parameters) == {"team": "payments"}
    # The daemon looks again and again for leases of agents that are not registered: this one is.
    await served.daemon.reloader.end_unregistered()
    lease = await stub.GetLease(pb.GetLeaseRequest(lease_id=grant.lease.id))
    assert lease.state == lease_pb2.Lease.STATE_ACTIVE
    intents = [record for record in await served.audit() if record["type"] == "lease.intent"]
    assert [(record["holder"], record["data"]["principal"]) for record in intents] == [(PAYMENTS, "jobs")]


@pytest.mark.parametrize(
    ("who", "parameters", "expected"),
    [
        (PAYMENTS, {"team": "payments"}, "PARAMETER_FROM_IDENTITY"),  # also where it says the same
        (ORDERS, {}, "PARAMETER_INVALID"),  # what was proven passes the same rules as what is sent
        (f"spiffe://{DOMAIN}/agent/analyst", {}, "SEGMENT_NOT_IN_IDENTITY"),
    ],
)
async def test_what_the_identity_does_not_give_nobody_gets(
    served: Served, who: str, parameters: dict[str, str], expected: str
) -> None:
    stub = served.stub(who)
    task = await start_task(stub)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.RequestCredential(ask(task, parameters=parameters))
    assert reason(refused.value)[1] == expected
    assert not any(upstream.alive for upstream in served.upstreams.values())
    assert [record for record in await served.audit() if record["type"] == "lease.intent"] == []


async def test_two_of_one_pattern_are_strangers_to_each_other_and_others_stay_out(served: Served) -> None:
    one, other = served.stub(PAYMENTS), served.stub(ORDERS)
    grant = await one.RequestCredential(ask(await start_task(one)))
    for call in (
        other.GetLease(pb.GetLeaseRequest(lease_id=grant.lease.id)),
        other.RevokeLease(pb.RevokeLeaseRequest(lease_id=grant.lease.id)),
        other.CompleteTask(pb.CompleteTaskRequest(task_id=grant.lease.task_id)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.stub(STRANGER).WhoAmI(pb.WhoAmIRequest())
    assert reason(refused.value)[1] == "AGENT_NOT_REGISTERED"


async def test_a_pattern_that_is_taken_out_takes_its_leases_along(served: Served) -> None:
    stub = served.stub(PAYMENTS)
    grant = await stub.RequestCredential(ask(await start_task(stub)))
    (served.root / "deploy" / "agents" / "jobs.yaml").unlink()
    template = served.root / "deploy" / "templates" / "orders-readonly.yaml"
    content = yaml.safe_load(template.read_text())
    del content["parameters"]
    private(template, yaml.safe_dump(content))
    await served.daemon.reloader.reload()
    store = served.daemon._store
    assert store is not None

    async def ended() -> bool:
        return (await store.get_lease("test", grant.lease.id, PAYMENTS)).state == "REVOKED"

    await eventually(ended)
