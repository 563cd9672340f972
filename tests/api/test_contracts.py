"""The revocation contract, whole, wherever a credential is decided on, held, or approved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import admin_view_pb2 as view_pb
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1.contract_pb2 import BINDING_NETWORK, RevocationContract
from broker.lease.credential import Binding, ContractClass
from tests.api.served import Served, ask, error_info, gate, people_changes, person, reason, serve, start_task
from tests.connectors.fake import contract

PROMISED = replace(
    contract(),
    binding=Binding.NETWORK,
    networks=(("203.0.113.0/24", "vpce-0a1b2c3d"), ("198.51.100.0/24",)),
    on_expiry=timedelta(seconds=2),
    on_revoke=timedelta(seconds=3),
    on_broker_dead=timedelta(seconds=4),
    on_upstream_dead=timedelta(seconds=5),
)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **people_changes(tmp_path)) as running:
        running.upstream.contract = PROMISED
        yield running


def assert_whole(told: RevocationContract) -> None:
    assert told == RevocationContract(
        contract_class="CONTRACT_CLASS_IMMEDIATE",
        binding="BINDING_NETWORK",
        ttl_floor={"seconds": 1},
        ttl_ceiling={"seconds": 3600},
        bound_on_expiry={"seconds": 2},
        bound_on_revoke={"seconds": 3},
        bound_on_broker_dead={"seconds": 4},
        bound_on_upstream_dead={"seconds": 5},
        if_broker_dead=PROMISED.broker_dead,
        if_upstream_dead=PROMISED.upstream_dead,
        networks=[{"sources": ["203.0.113.0/24", "vpce-0a1b2c3d"]}, {"sources": ["198.51.100.0/24"]}],
    )


async def test_it_is_told_before_with_and_after_a_grant(served: Served) -> None:
    stub = served.stub()
    task = await start_task(stub)
    listed = (await stub.ListTemplates(pb.ListTemplatesRequest())).templates
    assert_whole(next(each.contract for each in listed if each.name == "orders-readonly"))
    validated = await stub.RequestCredential(ask(task, validate_only=True))
    assert not validated.HasField("lease")
    assert_whole(validated.decision.contract)
    granted = await stub.RequestCredential(ask(task))
    assert_whole(granted.decision.contract)
    for door in (stub, person(served, "dana")):
        whole = await door.GetLease(pb.GetLeaseRequest(lease_id=granted.lease.id))
        assert_whole(whole.contract)
        assert whole.binding == BINDING_NETWORK
    for page in (
        await stub.ListLeases(pb.ListLeasesRequest()),
        await person(served, "dana").ListLeases(view_pb.AdminServiceListLeasesRequest()),
    ):
        (listed_lease,) = page.leases
        assert listed_lease.binding == BINDING_NETWORK
        assert not listed_lease.HasField("contract")


async def test_it_is_told_where_people_must_agree_first_and_to_them(served: Served) -> None:
    gate(served, dev=("sre",))
    stub = served.stub()
    task = await start_task(stub)
    assert_whole((await stub.RequestCredential(ask(task, validate_only=True))).decision.contract)
    filed = await stub.RequestCredential(ask(task))
    assert_whole(filed.decision.contract)
    asked = requests_pb.GetAccessRequestRequest(access_request_id=filed.access_request.id)
    review = await person(served, "dana").GetAccessRequest(asked)
    assert_whole(review.contract)
    effect = "\n".join(review.effect)
    for said in (
        "IMMEDIATE; revoked, it ends within 0:00:03.",
        "Bound to: NETWORK (203.0.113.0/24 or vpce-0a1b2c3d and 198.51.100.0/24).",
        "Past its deadline it may still work for 0:00:02.",
        "If the broker is dead: for at most 0:00:04 past its deadline. The fake upstream ends it by its TTL.",
        "If the upstream is dead: for at most 0:00:05 past its deadline.",
    ):
        assert said in effect


async def test_what_is_not_bounded_is_said_and_not_shown_as_a_number(served: Served) -> None:
    served.upstream.contract = replace(
        contract(ContractClass.EXPIRY_ONLY), on_broker_dead=None, ttl_ceiling=timedelta(minutes=1)
    )
    gate(served, dev=("sre",))
    stub = served.stub()
    filed = await stub.RequestCredential(ask(await start_task(stub)))
    told = filed.decision.contract
    for field in ("bound_on_revoke", "bound_on_broker_dead", "bound_on_upstream_dead"):
        assert not told.HasField(field)
    asked = requests_pb.GetAccessRequestRequest(access_request_id=filed.access_request.id)
    effect = "\n".join((await person(served, "dana").GetAccessRequest(asked)).effect)
    assert "revoked, it cannot be ended before it expires" in effect
    assert "If the broker is dead: nothing bounds it." in effect


@pytest.mark.parametrize(
    ("changes", "code", "why", "metadata"),
    [
        ({"ttl_ceiling": timedelta(seconds=30)}, "INVALID_ARGUMENT", "TTL_TOO_LONG", {"ttlCeiling": "30s"}),
        ({"ttl_floor": timedelta(seconds=90)}, "INVALID_ARGUMENT", "TTL_TOO_SHORT", {"ttlFloor": "90s"}),
        ({"cls": ContractClass.STATIC, "on_revoke": None}, "PERMISSION_DENIED", "POLICY_DENIED", {"policies": ""}),
    ],
)
async def test_a_refusal_by_contract_says_which(
    served: Served, changes: dict[str, Any], code: str, why: str, metadata: dict[str, str]
) -> None:
    served.upstream.contract = replace(PROMISED, **changes)
    stub = served.stub()
    task = await start_task(stub)
    for asked in (ask(task, validate_only=True), ask(task)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RequestCredential(asked)
        assert (refused.value.code().name, reason(refused.value)[1]) == (code, why)
        cls = served.upstream.contract.cls.value
        said = {"connector": "openbao-orders", "contractClass": cls, "binding": "NETWORK", **metadata}
        assert said.items() <= dict(error_info(refused.value).metadata).items()
    assert served.upstream.calls == []
