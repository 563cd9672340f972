"""Everybody's leases and tasks, the registry and the deploy set, by people at their door."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from broker.api.admin_server import ADMIN_SERVICE
from broker.api.authorization import AUTOMATION
from broker.api.authorization import ROLES as METHOD_ROLES
from broker.api.v1 import admin_view_pb2 as pb
from broker.api.v1 import broker_service_pb2 as service
from broker.api.v1 import lease_pb2, task_pb2
from broker.daemon.reloading import MAX_PROBLEMS
from tests.api.served import (
    ANALYST,
    DOMAIN,
    MIGRATOR,
    OTHER,
    Served,
    admin_stub,
    ask,
    people_changes,
    person,
    private,
    reason,
    serve,
    start_task,
)
from tests.patience import eventually

DENIED, NOT_FOUND = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
SAM = "https://id.dev.broker.internal#sam"
WAIT = {"seconds": 60}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **people_changes(tmp_path)) as running:
        yield running


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


async def held(served: Served, agent: str = ANALYST, name: str = "1", **fields: Any) -> lease_pb2.Lease:
    stub = served.stub(agent)
    task = await start_task(stub, f"t{name}", **fields)
    return (await stub.RequestCredential(ask(task, f"r{name}"))).lease


def revocation(lease: str, **changes: Any) -> pb.AdminServiceRevokeLeaseRequest:
    fields = {"request_id": "q1", "lease_id": lease, "reason": "it scans", "wait": WAIT}
    return pb.AdminServiceRevokeLeaseRequest(**{**fields, **changes})


def completion(task: str, **changes: Any) -> pb.AdminServiceCompleteTaskRequest:
    fields = {"request_id": "q1", "task_id": task, "reason": "it scans", "wait": WAIT}
    return pb.AdminServiceCompleteTaskRequest(**{**fields, **changes})


async def told(served: Served, kind: str) -> list[tuple[str, dict[str, Any]]]:
    return [(each["actor"], each["data"]) for each in await served.audit() if each["type"] == kind]


REQUESTS = {
    "ListLeases": pb.AdminServiceListLeasesRequest(),
    "GetLease": service.GetLeaseRequest(lease_id="lease-none"),
    "RevokeLease": revocation("lease-none"),
    "ListTasks": pb.ListTasksRequest(),
    "GetTask": service.GetTaskRequest(task_id="task-none"),
    "CompleteTask": completion("task-none"),
    "ListAgents": pb.ListAgentsRequest(),
    "GetAgent": pb.GetAgentRequest(agent="nobody"),
    "ReloadDeploy": pb.ReloadDeployRequest(request_id="q1"),
}
ABSENT = {
    "GetLease": "LEASE_NOT_FOUND",
    "RevokeLease": "LEASE_NOT_FOUND",
    "GetTask": "TASK_NOT_FOUND",
    "CompleteTask": "TASK_NOT_FOUND",
    "GetAgent": "AGENT_NOT_REGISTERED",
}


async def test_principals_and_rpcs(served: Served) -> None:
    """Dana is a viewer, Sam an operator, Kim security."""
    people = {"nobody": set[str](), "dana": {"viewer"}, "sam": {"operator"}, "kim": {"security"}}
    for who, roles in people.items():
        stub = admin_stub(served, "x" * 44) if who == "nobody" else person(served, who)
        for method, request in REQUESTS.items():
            call = getattr(stub, method)(request)
            if who == "nobody":
                assert await refused(call) == (grpc.StatusCode.UNAUTHENTICATED, "ID_TOKEN_MALFORMED")
            elif not METHOD_ROLES[f"/{ADMIN_SERVICE.full_name}/{method}"] & roles:
                assert await refused(call) == (DENIED, "ROLE_REQUIRED"), (who, method)
            elif method in ABSENT:
                assert await refused(call) == (NOT_FOUND, ABSENT[method])
            else:
                await call


def test_who_may() -> None:
    roles = {name: sorted(METHOD_ROLES[f"/{ADMIN_SERVICE.full_name}/{name}"]) for name in REQUESTS}
    assert roles.pop("RevokeLease") == roles.pop("CompleteTask") == ["operator", "security"]
    assert roles.pop("ReloadDeploy") == ["operator"]
    assert all(len(each) == 5 for each in roles.values())
    automated = {name for name in REQUESTS if f"/{ADMIN_SERVICE.full_name}/{name}" in AUTOMATION}
    assert automated == REQUESTS.keys() - {"ReloadDeploy"}


# ------------------------------------------------------------------ leases


async def test_leases_are_listed_narrowed_and_read(served: Served) -> None:
    first, second = await held(served), await held(served, OTHER, "2")
    stub = person(served, "dana")

    async def ids(**fields: Any) -> list[str]:
        answer = await stub.ListLeases(pb.AdminServiceListLeasesRequest(**fields))
        return [each.id for each in answer.leases]

    assert await ids() == [second.id, first.id]
    assert await ids(holder=ANALYST) == await ids(task_id=first.task_id) == [first.id]
    assert await ids(template="orders-readonly") == [second.id, first.id]
    assert await ids(template="orders") == []
    page = await stub.ListLeases(pb.AdminServiceListLeasesRequest(page_size=1))
    assert ([each.id for each in page.leases], page.next_page_token) == ([second.id], second.id)
    rest = await stub.ListLeases(pb.AdminServiceListLeasesRequest(page_size=1, page_token=page.next_page_token))
    assert ([each.id for each in rest.leases], rest.next_page_token) == ([first.id], "")
    assert (await stub.GetLease(service.GetLeaseRequest(lease_id=second.id))).holder == OTHER
    bad = stub.ListLeases(pb.AdminServiceListLeasesRequest(page_token="task-1"))
    assert await refused(bad) == (INVALID, "PAGE_TOKEN_INVALID")
    await person(served, "sam").RevokeLease(revocation(first.id))
    assert await ids(living_only=True) == [second.id]


async def test_revoking_ends_the_credential_and_says_who_and_why(served: Served) -> None:
    lease = await held(served)
    ended = await person(served, "sam").RevokeLease(revocation(lease.id))
    assert (ended.state, ended.end_cause) == (lease_pb2.Lease.STATE_REVOKED, "REVOKED_BY_OPERATOR")
    assert lease.attempt_id not in served.upstream.alive
    ((actor, data),) = await told(served, "lease.revoking")
    assert (actor, data["cause"], data["request_id"], data["reason"]) == (SAM, "REVOKED_BY_OPERATOR", "q1", "it scans")
    # Again, with the same id and with another: it has ended, and nothing is told once more.
    for name in ("q1", "q2"):
        again = await person(served, "kim").RevokeLease(revocation(lease.id, request_id=name))
        assert (again.state, again.end_cause) == (ended.state, ended.end_cause)
    assert len(await told(served, "lease.revoking")) == 1
    assert (
        await served.stub().GetTask(service.GetTaskRequest(task_id=lease.task_id))
    ).state == task_pb2.Task.STATE_OPEN


@pytest.mark.parametrize("field", ["request_id", "lease_id", "reason"])
async def test_a_revocation_says_what_and_why(served: Served, field: str) -> None:
    lease = await held(served)
    request = revocation(lease.id, **{field: ""})
    assert await refused(person(served, "sam").RevokeLease(request)) == (INVALID, "FIELD_INVALID")
    assert lease.attempt_id in served.upstream.alive


async def test_who_may_not_revoke_changes_nothing(served: Served) -> None:
    lease = await held(served)
    for call in (
        person(served, "dana").RevokeLease(revocation(lease.id)),
        person(served, "dana").CompleteTask(completion(lease.task_id)),
    ):
        assert await refused(call) == (DENIED, "ROLE_REQUIRED")
    assert lease.attempt_id in served.upstream.alive
    assert await told(served, "lease.revoking") == await told(served, "task.completed") == []


# ------------------------------------------------------------------ tasks


async def test_tasks_are_listed_narrowed_and_read(served: Served) -> None:
    first, second = await start_task(served.stub(), participants=[MIGRATOR]), await start_task(served.stub(OTHER))
    stub = person(served, "dana")

    async def ids(**fields: Any) -> list[str]:
        return [each.id for each in (await stub.ListTasks(pb.ListTasksRequest(**fields))).tasks]

    assert await ids() == [second, first]
    assert await ids(agent=ANALYST) == await ids(agent=MIGRATOR) == [first]
    page = await stub.ListTasks(pb.ListTasksRequest(page_size=1))
    assert ([each.id for each in page.tasks], page.next_page_token) == ([second], second)
    assert await ids(page_size=1, page_token=second) == [first]
    task = await stub.GetTask(service.GetTaskRequest(task_id=first))
    assert (task.creator, list(task.participants)) == (ANALYST, [ANALYST, MIGRATOR])
    await person(served, "sam").CompleteTask(completion(second))
    assert await ids(open_only=True) == [first]


async def test_completing_a_task_ends_its_leases_and_says_who_and_why(served: Served) -> None:
    lease = await held(served)
    done = await person(served, "kim").CompleteTask(completion(lease.task_id))
    assert (done.task.state, done.task.end_cause) == (task_pb2.Task.STATE_COMPLETED, "COMPLETED_BY_OPERATOR")
    assert [(each.id, each.state) for each in done.leases] == [(lease.id, lease_pb2.Lease.STATE_REVOKED)]
    assert lease.attempt_id not in served.upstream.alive
    ((actor, data),) = await told(served, "task.completed")
    assert (actor, data["cause"], data["reason"]) == (SAM.replace("sam", "kim"), "COMPLETED_BY_OPERATOR", "it scans")
    again = await person(served, "sam").CompleteTask(completion(lease.task_id))
    assert again.task == done.task
    assert len(await told(served, "task.completed")) == 1
    late = served.stub().RequestCredential(ask(lease.task_id, "late"))
    assert (await refused(late))[1] == "TASK_ENDED"


# ------------------------------------------------------------------ agents


async def test_agents_are_listed_and_read_with_what_they_have(served: Served) -> None:
    await held(served)
    stub = person(served, "dana")
    listed = (await stub.ListAgents(pb.ListAgentsRequest())).agents
    assert [each.entry for each in listed] == sorted(each.entry for each in listed)
    assert {each.entry for each in listed} >= {"analyst", "migrator", "other"}
    alive = {each.entry: (each.live_leases, each.open_tasks) for each in listed}
    assert (alive["analyst"], alive["other"]) == ((1, 1), (0, 0))
    first = await stub.ListAgents(pb.ListAgentsRequest(page_size=2))
    rest = await stub.ListAgents(pb.ListAgentsRequest(page_token=first.next_page_token))
    assert [*first.agents, *rest.agents] == list(listed)
    assert (len(first.agents), rest.next_page_token) == (2, "")
    by_name = await stub.GetAgent(pb.GetAgentRequest(agent="analyst"))
    assert await stub.GetAgent(pb.GetAgentRequest(agent=ANALYST)) == by_name
    assert (by_name.spiffe_id, by_name.owner_name, by_name.owner_enabled, by_name.denied) == (
        ANALYST,
        "Dana Okafor",
        True,
        False,
    )


# ------------------------------------------------------------------ reloading


async def test_a_good_set_comes_into_force_and_a_bad_one_is_told(served: Served) -> None:
    stub = person(served, "sam")
    before = served.daemon._files.current.digest
    template = served.root / "deploy" / "templates" / "orders-readonly.yaml"
    good = template.read_text()
    private(template, good.replace("15m", "14m"))
    done = await stub.ReloadDeploy(pb.ReloadDeployRequest(request_id="q1"))
    digest = served.daemon._files.current.digest
    assert (done.accepted, done.deploy_digest, list(done.problems)) == (True, digest, [])
    assert digest != before
    assert [actor for actor, _ in await told(served, "deploy.activated")] == ["broker", SAM]

    private(template, good + "surprise: 1\n")
    done = await stub.ReloadDeploy(pb.ReloadDeployRequest(request_id="q2"))
    assert (done.accepted, done.deploy_digest, served.daemon._files.current.digest) == (False, digest, digest)
    assert any("orders-readonly.yaml:" in each and "surprise" in each for each in done.problems)
    assert [actor for actor, _ in await told(served, "deploy.refused")] == [SAM]


async def test_of_ever_so_many_problems_some_are_told_and_how_many_more_there_are(served: Served) -> None:
    """As where a tree was unpacked into the wrong directory: an answer with all of them is too long to be sent."""
    agents = served.root / "deploy" / "agents"
    for number in range(30_000):
        (agents / f"{number:06}-{'stray' * 20}.txt").touch()
    done = await person(served, "sam").ReloadDeploy(pb.ReloadDeployRequest(request_id="q1"))
    assert not done.accepted
    assert len(done.problems) == MAX_PROBLEMS + 1
    assert "000000-stray" in done.problems[0]
    assert done.problems[-1] == f"and 29800 more: broker check {served.root / 'deploy'} tells them all"


async def test_who_may_not_reload_changes_nothing(served: Served) -> None:
    before = served.daemon._files.current.digest
    template = served.root / "deploy" / "templates" / "orders-readonly.yaml"
    private(template, template.read_text().replace("15m", "14m"))
    for who in ("dana", "kim"):
        call = person(served, who).ReloadDeploy(pb.ReloadDeployRequest(request_id="q1"))
        assert await refused(call) == (DENIED, "ROLE_REQUIRED")
    assert served.daemon._files.current.digest == before


async def test_workloads_of_a_pattern_are_told_together_and_one_by_one(served: Served) -> None:
    agents = served.root / "deploy" / "agents"
    entry = yaml.safe_load((agents / "analyst.yaml").read_text())
    del entry["spiffe_id"]
    entry["spiffe_id_pattern"] = f"spiffe://{DOMAIN}/ns/{{namespace}}/job/{{job}}"
    entry["segments"] = {"namespace": {"enum": ["payments", "orders"]}, "job": {"regex": "^[a-z]{1,20}$"}}
    private(agents / "jobs.yaml", yaml.safe_dump(entry))
    assert await served.daemon.reloader.reload()
    one, two = (f"spiffe://{DOMAIN}/ns/{name}/job/nightly" for name in ("payments", "orders"))
    await held(served, one)
    await held(served, two)
    stub = person(served, "dana")
    whole = await stub.GetAgent(pb.GetAgentRequest(agent="jobs"))
    assert (whole.spiffe_id, whole.pattern, whole.live_leases, whole.open_tasks) == (
        "",
        entry["spiffe_id_pattern"],
        2,
        2,
    )
    told = await stub.GetAgent(pb.GetAgentRequest(agent=one))
    assert (told.entry, told.spiffe_id, told.pattern, told.live_leases) == ("jobs", one, whole.pattern, 1)
    assert list(told.segments) == ["namespace=payments", "job=nightly"]


async def test_who_is_denied_is_told_as_denied(served: Served) -> None:
    denied = [{"spiffe_id": ANALYST, "reason": "r", "who": "sam", "since": "2026-05-01T12:00:00Z"}]
    private(served.root / "deploy" / "denied.yaml", yaml.safe_dump({"denied": denied}))
    assert await served.daemon.reloader.reload()
    stub = person(served, "dana")
    assert (await stub.GetAgent(pb.GetAgentRequest(agent=ANALYST))).denied
    assert not (await stub.GetAgent(pb.GetAgentRequest(agent=OTHER))).denied


async def test_a_lease_whose_row_was_changed_is_revoked_all_the_same(served: Served) -> None:
    lease = await held(served)
    with contextlib.closing(sqlite3.connect(served.root / "state" / "ledger.sqlite3", isolation_level=None)) as theirs:
        theirs.execute("UPDATE leases SET resource = 'all'")
    call = person(served, "sam").RevokeLease(revocation(lease.id))
    assert (await refused(call))[1] == "ROW_MAC_MISMATCH"

    async def dead() -> bool:
        return lease.attempt_id not in served.upstream.alive

    await eventually(dead)
