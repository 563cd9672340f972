"""What outlives what made it, on brokerd, OpenBao and PostgreSQL, all real.

A login that no ledger knows is ended. A template or connector that is taken out of the deploy set, and an engine that
is unmounted, leave no login behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import reconciliation_pb2 as reconciliation
from broker.clock import SystemClock
from broker.connectors.vault_database import VaultDatabase
from broker.dev import openbao_database as recipe
from broker.lease.credential import DatabaseLogin
from broker.ports.connectors import Carried, Connector, Revoked
from broker.ports.deploys import ConnectorSpec
from tests.api.real_upstreams import real, set_environment
from tests.api.served import (
    ANALYST,
    Served,
    ask,
    people_changes,
    person,
    reason,
    serve,
    start_task,
    without_canary,
)
from tests.api.test_suspensions_real import login_of
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, vault_settings
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt
from tests.patience import eventually

TTL = timedelta(minutes=5)
LIMITS = {"issue_timeout": "20s", "drain_timeout": "20s"}


@pytest.fixture(autouse=True)
def environment(openbao_server: ConfiguredOpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(openbao_server, monkeypatch)


async def dead(login: DatabaseLogin) -> None:
    async def gone() -> bool:
        return not await asyncio.to_thread(can_log_in, login)

    await eventually(gone)


async def told(served: Served, kind: str) -> list[dict[str, Any]]:
    return [each["data"] for each in await served.audit() if each["type"] == kind]


class Aged:
    """A connector that makes what it is told of, and that alone, an hour older: nobody waits so long."""

    def __init__(self, inner: Connector, names: set[str]) -> None:
        self._inner = inner
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def inventory(self) -> Sequence[Carried]:
        listed = await self._inner.inventory()
        assert listed is not None
        assert all(each.created_at is not None for each in listed)
        hour = timedelta(hours=1)
        return [
            replace(each, created_at=each.created_at - hour)  # type: ignore[operator]
            if each.name in self._names
            else each
            for each in listed
        ]


async def test_a_login_that_no_ledger_knows_is_ended_and_a_lease_stays(
    tmp_path: Path, openbao_server: ConfiguredOpenBao
) -> None:
    old: set[str] = set()

    def aged(spec: ConnectorSpec) -> Connector:
        made = real(spec)
        return Aged(made, old) if spec.kind == "vault-database" else made  # type: ignore[return-value]

    connector = VaultDatabase(
        "elsewhere", vault_settings(openbao_server), openbao_server.database.broker_token, SystemClock()
    )
    scope, forgotten = make_scope({"role": "orders-readonly"}), Ledger(names=set())
    ends = SystemClock().now() + TTL
    handle = connector.prepare(scope, new_attempt(), HOLDER, ends)
    orphan = (await forgotten.issued(connector.issue(handle, scope, ends, forgotten.checkpoint))).credential
    await connector.close()
    assert isinstance(orphan, DatabaseLogin)
    async with serve(tmp_path, build=aged, limits=LIMITS, **people_changes(tmp_path)) as served:
        agent = served.stub(ANALYST)
        granted = await agent.RequestCredential(ask(await start_task(agent), ttl={"seconds": 600}))
        lease = granted.lease
        await agent.ConfirmDelivery(pb.ConfirmDeliveryRequest(lease_id=lease.id, attempt_id=lease.attempt_id))
        ours = login_of(granted.credential)
        (lease_id,) = forgotten.noted
        asked = reconciliation.RunReconciliationRequest(request_id="q1", name="openbao-orders")
        stub = person(served, "sam")
        assert (await stub.RunReconciliation(asked)).reconciliations[0].found == 0  # it is young: it may be in flight
        old.add(lease_id)
        assert (await stub.RunReconciliation(asked)).reconciliations[0].found == 1
        await dead(orphan)
        await eventually(lambda: told(served, "upstream.unknown_ended"))
        ((found,), (ended,)) = [await told(served, f"upstream.unknown_{what}") for what in ("found", "ended")]
        assert found["name"] == ended["name"] == lease_id
        assert await asyncio.to_thread(can_log_in, ours)
        assert granted.lease.id in {each.id for each in (await agent.ListLeases(pb.ListLeasesRequest())).leases}


async def test_a_lease_outlives_its_template_and_ends_all_the_same(tmp_path: Path) -> None:
    async with serve(tmp_path, build=real, limits=LIMITS) as served:
        agent = served.stub(ANALYST)
        task = await start_task(agent)
        login = login_of((await agent.RequestCredential(ask(task))).credential)
        deploy = served.root / "deploy"
        without_canary(deploy)
        (deploy / "templates" / "orders-readonly.yaml").unlink()
        for tests in (deploy / "policies").glob("*.test.yaml"):
            tests.unlink()
        reloaded = await served.daemon.reload()
        assert reloaded.accepted, reloaded.problems
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await agent.RequestCredential(ask(task, "r2"))
        assert reason(refused.value)[1] == "TEMPLATE_NOT_FOUND"
        await agent.CompleteTask(pb.CompleteTaskRequest(request_id="c1", task_id=task, wait={"seconds": 60}))
        await dead(login)
        await eventually(lambda: told(served, "lease.revoked"))
        assert [data["cause"] for data in await told(served, "lease.revoked")] == ["COMPLETED"]


async def test_a_connector_with_living_leases_stays_until_they_have_ended(tmp_path: Path) -> None:
    async with serve(tmp_path, build=real, limits=LIMITS) as served:
        agent = served.stub(ANALYST)
        task = await start_task(agent)
        login = login_of((await agent.RequestCredential(ask(task))).credential)
        deploy = served.root / "deploy"
        file = deploy / "connectors.yaml"
        file.write_text(file.read_text().replace("openbao-orders:", "openbao-renamed:"))
        for orders in (deploy / "templates").glob("orders-*.yaml"):
            orders.write_text(orders.read_text().replace("connector: openbao-orders", "connector: openbao-renamed"))
        reloaded = await served.daemon.reload()
        assert not reloaded.accepted
        assert any("living leases still need it" in each for each in reloaded.problems), reloaded.problems
        await agent.CompleteTask(pb.CompleteTaskRequest(request_id="c1", task_id=task, wait={"seconds": 60}))
        await dead(login)
        await eventually(lambda: told(served, "lease.revoked"))
        reloaded = await served.daemon.reload()
        assert reloaded.accepted, reloaded.problems


async def test_a_connector_that_is_pointed_at_another_server_says_nothing_there_has_ended(
    tmp_path: Path,
    openbao_server: ConfiguredOpenBao,
    another_openbao: ConfiguredOpenBao,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve(tmp_path, build=real, limits=LIMITS, **people_changes(tmp_path)) as served:
        file = served.root / "deploy" / "connectors.yaml"
        before = file.read_text()

        async def point_at(bao: ConfiguredOpenBao) -> None:
            monkeypatch.setenv("BROKER_DEV_OPENBAO_TOKEN", bao.database.broker_token().reveal())
            file.write_text(before.replace("env:BROKER_DEV_OPENBAO_ADDR", bao.facts.address))
            reloaded = await served.daemon.reload()
            assert reloaded.accepted, reloaded.problems

        async def revoked() -> list[str]:
            return [each["lease_id"] for each in await served.audit() if each["type"] == "lease.revoked"]

        agent = served.stub(ANALYST)
        task = await start_task(agent)
        granted = await agent.RequestCredential(ask(task))
        login, lease = login_of(granted.credential), granted.lease.id
        await point_at(another_openbao)
        await agent.CompleteTask(pb.CompleteTaskRequest(request_id="c1", task_id=task))
        await eventually(lambda: told(served, "lease.stuck"))
        stub = person(served, "sam")
        asked = reconciliation.RunReconciliationRequest(request_id="q1", name="openbao-orders")
        (compared,) = (await stub.RunReconciliation(asked)).reconciliations
        assert (compared.listed, compared.found) == (0, 0)
        assert await asyncio.to_thread(can_log_in, login)
        assert await revoked() == []
        # What is issued there is ended there.
        other = await start_task(agent, "t2")
        again = login_of((await agent.RequestCredential(ask(other, "r2"))).credential)
        await agent.CompleteTask(pb.CompleteTaskRequest(request_id="c2", task_id=other, wait={"seconds": 60}))
        await dead(again)
        await point_at(openbao_server)
        await dead(login)

        async def is_told() -> bool:
            return lease in await revoked()

        await eventually(is_told)


async def test_an_engine_unmounted_under_its_leases_leaves_no_login(
    tmp_path: Path, openbao_server: ConfiguredOpenBao
) -> None:
    role, mount, root = "unmounted-readonly", "unmounted", openbao_server.root_client()
    target = openbao_server.database.target
    root.write_data(f"sys/mounts/{mount}", data={"type": "database"})
    root.write_data(f"{mount}/config/{target.database}", data=recipe._connection(target, [role]))
    root.write_data(f"{mount}/roles/{role}", data=recipe._role(target, recipe.DEMO_ROLES["orders-readonly"]))
    policy = recipe.attempt_policy(mount, role)
    root.write_data(f"sys/policies/acl/jit-attempt-{role}", data={"policy": policy})
    settings = replace(vault_settings(openbao_server), mount=mount)
    connector = VaultDatabase("unmounted", settings, lambda: openbao_server.facts.root_token, SystemClock())
    scope, ledger = make_scope({"role": role}), Ledger(names=set())
    ends = SystemClock().now() + TTL
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, ends)
    login = (await ledger.issued(connector.issue(ledger.handle, scope, ends, ledger.checkpoint))).credential
    assert len(await connector.inventory()) == 1
    assert await asyncio.to_thread(can_log_in, login)
    root.delete(f"sys/mounts/{mount}")

    async def revoked() -> bool:
        return isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)

    await eventually(revoked)  # an unmounted engine is no reason to stop asking, and none to say that all is well
    assert not await asyncio.to_thread(can_log_in, login)
    assert await connector.inventory() == []
    await connector.close()
