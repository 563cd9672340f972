"""The SDK's plans and delegations, against brokerd itself with a fake upstream behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from broker.client import PlannedAction
from broker.errors import Denied, InvalidInput, Reason, WrongState
from broker.scope.request import AccessRequest
from tests.api.served import DOMAIN, Served, private, serve, write_config
from tests.client.test_real_broker import connect

IDS = {name: f"spiffe://{DOMAIN}/agent/{name}" for name in ("planner", "validator", "executor", "helper")}
ACTION = PlannedAction("count", "orders-readonly", "dev", "dev", "orders", timedelta(seconds=60))


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    write_config(tmp_path)
    agents = tmp_path / "deploy" / "agents"
    entry = yaml.safe_load((agents / "analyst.yaml").read_text())
    for name, spiffe_id in IDS.items():
        roles = ["executor" if name == "helper" else name]
        private(agents / f"{name}.yaml", yaml.safe_dump({**entry, "spiffe_id": spiffe_id, "roles": roles}))
    async with serve(tmp_path) as running:
        yield running


async def test_a_pipeline_from_plan_to_part(served: Served) -> None:
    async with contextlib.AsyncExitStack() as stack:
        planner, validator, executor, helper = [
            await stack.enter_async_context(connect(served, spiffe_id)) for spiffe_id in IDS.values()
        ]
        participants = [IDS[name] for name in ("validator", "executor", "helper")]
        async with planner.task("count the orders", participants=participants) as task:
            plan = await task.register_plan("Count the orders.", [ACTION], valid_for="10m")
            assert (plan.state, plan.actions[0].access, plan.planner) == ("REGISTERED", "read", IDS["planner"])
            ask = AccessRequest(
                *("r1", "orders-readonly", task.id, "dev", "dev", "orders", timedelta(seconds=60)),
                intent="count the orders",
                plan_id=plan.id,
                step="count",
            )
            with pytest.raises(WrongState) as early:
                await executor.request(ask)
            assert early.value.reason is Reason.PLAN_NOT_CONFIRMED
            read = await validator.plan(plan.id)
            assert read == plan
            assert (await validator.validate_plan(read, confirm=True)).state == "CONFIRMED"
            with pytest.raises(Denied) as beyond:
                await executor.request(replace(ask, ttl=timedelta(seconds=61)))
            assert beyond.value.reason is Reason.PLAN_EXCEEDED
            grant = await executor.request(ask)
            assert grant.lease.plan_id == plan.id
            made = await executor.delegate(grant.lease.id, IDS["helper"], ttl="30s")
            assert await helper.delegations(task.id) == (made,)
            part = await helper.request(replace(ask, plan_id="", delegation_id=made.id))
            assert (part.lease.parent_lease_id, part.lease.expire_time) == (grant.lease.id, made.expire_time)
            assert (await executor.revoke_delegation(made.id)).revoke_time is not None
            assert [each.id for each in await task.plans()] == [plan.id]
            assert await task.delegations() == ()
        assert task.outcome is not None
        assert {lease.state for lease in task.outcome.leases} == {"REVOKED"}
    assert served.upstream.alive == {}


async def test_an_action_without_a_ttl(served: Served) -> None:
    async with connect(served, IDS["planner"]) as planner, planner.task("t") as task:
        with pytest.raises(InvalidInput) as refused:
            await task.register_plan("x", [PlannedAction("s", "orders-readonly", "dev", "dev", "orders", None)])
        assert refused.value.reason is Reason.TTL_INVALID
