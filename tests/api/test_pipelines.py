"""A pipeline through the real door: one plans, one validates, one executes, and whoever cheats is refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import delegation_pb2, lease_pb2, plan_pb2
from tests.api.served import (
    DOMAIN,
    Served,
    ask,
    error_info,
    private,
    reason,
    serve,
    start_task,
    without_canary,
    write_config,
)
from tests.patience import eventually

PLANNER, VALIDATOR, EXECUTOR, SECOND, READER = (
    f"spiffe://{DOMAIN}/agent/{name}" for name in ("planner", "validator", "executor", "second", "reader")
)
POD_A, POD_B, POD_C = (f"spiffe://{DOMAIN}/pod/{name}" for name in "abc")
OUTSIDER = f"spiffe://{DOMAIN}/agent/other"  # registered, and no part of any task here
EVERYBODY = [VALIDATOR, EXECUTOR, SECOND, READER, POD_A, POD_B, POD_C]
ROLES = {
    "planner": ["planner"],
    "validator": ["validator"],
    "executor": ["executor"],
    "second": ["executor"],
    "reader": ["analyst"],
    "pods": ["planner", "validator", "executor"],
}
CONFIRM, REJECT = plan_pb2.ValidatePlanRequest.VERDICT_CONFIRM, plan_pb2.ValidatePlanRequest.VERDICT_REJECT
ACTIVE, REVOKED = lease_pb2.Lease.STATE_ACTIVE, lease_pb2.Lease.STATE_REVOKED


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    write_config(tmp_path)
    agents = tmp_path / "deploy" / "agents"
    entry = yaml.safe_load((agents / "analyst.yaml").read_text())
    del entry["spiffe_id"]
    for name, roles in ROLES.items():
        who = {"spiffe_id": f"spiffe://{DOMAIN}/agent/{name}"}
        if name == "pods":
            who = {"spiffe_id_pattern": f"spiffe://{DOMAIN}/pod/{{pod}}"}
        private(agents / f"{name}.yaml", yaml.safe_dump({**entry, **who, "roles": roles}))
    async with serve(tmp_path) as running:
        yield running


def action(step: str = "count", **changes: Any) -> plan_pb2.PlannedAction:
    fields = {
        "step": step,
        "template": "orders-readonly",
        "account": "dev",
        "environment": "dev",
        "resource": "orders",
        "ttl": {"seconds": 60},
    }
    return plan_pb2.PlannedAction(**{**fields, **changes})


def planned(
    task: str, *actions: plan_pb2.PlannedAction, name: str = "p1", **changes: Any
) -> plan_pb2.RegisterPlanRequest:
    fields: dict[str, Any] = {"request_id": name, "task_id": task, "text": "Count the orders.", **changes}
    return plan_pb2.RegisterPlanRequest(actions=actions or [action()], **fields)


def verdict(plan: plan_pb2.Plan, verdict: Any = CONFIRM, **changes: Any) -> plan_pb2.ValidatePlanRequest:
    fields: dict[str, Any] = {"plan_id": plan.id, "digest": plan.digest, "verdict": verdict, "reason": "seen"}
    return plan_pb2.ValidatePlanRequest(**{**fields, **changes})


def hand_on(lease: lease_pb2.Lease, to: str, name: str = "d1", **changes: Any) -> delegation_pb2.DelegateLeaseRequest:
    return delegation_pb2.DelegateLeaseRequest(request_id=name, lease_id=lease.id, delegate=to, **changes)


async def refused(served: Served, call: Awaitable[Any], expected: str) -> grpc.aio.AioRpcError:
    """``call`` is refused for that reason, and nothing is issued by it."""
    before = {name: dict(upstream.alive) for name, upstream in served.upstreams.items()}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert reason(caught.value)[1] == expected, caught.value.details()
    assert {name: dict(upstream.alive) for name, upstream in served.upstreams.items()} == before
    return caught.value


class Pipeline:
    """A task of the planner's with everybody in it, and a confirmed plan of one step."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.planner, self.validator, self.executor, self.second = (
            served.stub(who) for who in (PLANNER, VALIDATOR, EXECUTOR, SECOND)
        )

    @classmethod
    async def start(cls, served: Served, *actions: plan_pb2.PlannedAction) -> Pipeline:
        made = cls(served)
        made.task = await start_task(made.planner, participants=EVERYBODY)
        registered = await made.planner.RegisterPlan(planned(made.task, *actions))
        assert registered.state == plan_pb2.Plan.STATE_REGISTERED
        made.plan = await made.validator.ValidatePlan(verdict(registered))
        assert made.plan.state == plan_pb2.Plan.STATE_CONFIRMED
        return made

    task: str
    plan: plan_pb2.Plan

    def ask(self, name: str = "r1", **changes: Any) -> pb.RequestCredentialRequest:
        return ask(self.task, name, **{"plan_id": self.plan.id, "step": "count", **changes})

    async def execute(self) -> lease_pb2.Lease:
        """The step's lease, delivered."""
        answer = await self.executor.RequestCredential(self.ask())
        attempt = answer.lease.attempt_id
        confirm = pb.ConfirmDeliveryRequest(lease_id=answer.lease.id, attempt_id=attempt)
        return await self.executor.ConfirmDelivery(confirm)


# ------------------------------------------------------------------ the pipeline


async def test_planned_validated_executed_once(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    lease = await pipeline.execute()
    assert (lease.plan_id, lease.step, lease.holder) == (pipeline.plan.id, "count", EXECUTOR)
    assert served.upstream.alive
    told = [record for record in await served.audit() if record["type"].startswith("plan.")]
    assert [(record["type"], record["actor"]) for record in told] == [
        ("plan.registered", PLANNER),
        ("plan.confirmed", VALIDATOR),
        ("plan.step_used", EXECUTOR),
    ]
    assert {record["data"]["digest"] for record in told[:2]} == {pipeline.plan.digest}
    assert "Count the orders." not in str(await served.audit())
    (listed,) = (await pipeline.executor.ListPlans(plan_pb2.ListPlansRequest(task_id=pipeline.task))).plans
    assert (listed.text, listed.digest) == ("Count the orders.", pipeline.plan.digest)


async def test_first_cheat_the_executor_asks_for_more_than_was_planned(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    longer = pipeline.ask(ttl={"seconds": 61})
    error = await refused(served, pipeline.executor.RequestCredential(longer), "PLAN_EXCEEDED")
    assert error_info(error).metadata["dimensions"] == "ttl"
    assert "61s is not within 60s" in (error.details() or "")
    other = pipeline.ask(environment="staging")
    await refused(served, pipeline.executor.RequestCredential(other), "PLAN_EXCEEDED")
    write = pipeline.ask(template="orders-readwrite", ticket="OPS-1", reason="why", intent="fix")
    error = await refused(served, pipeline.executor.RequestCredential(write), "PLAN_EXCEEDED")
    assert "access write is not within read" in (error.details() or "")
    only_asked = pipeline.ask(ttl={"seconds": 61}, validate_only=True)
    await refused(served, pipeline.executor.RequestCredential(only_asked), "PLAN_EXCEEDED")
    # None of it has used the step; what was planned, or less, is there.
    assert (await pipeline.executor.RequestCredential(pipeline.ask("r2", ttl={"seconds": 59}))).lease.state == ACTIVE


async def test_second_cheat_one_entry_is_two_of_the_three(served: Served) -> None:
    """All pods have all roles, and are one entry of the registry."""
    task = await start_task(served.stub(PLANNER), participants=EVERYBODY)
    pod_a, pod_b, pod_c = (served.stub(who) for who in (POD_A, POD_B, POD_C))
    own = await pod_a.RegisterPlan(planned(task))
    await refused(served, pod_a.ValidatePlan(verdict(own)), "PLAN_SAME_PRINCIPAL")
    await refused(served, pod_b.ValidatePlan(verdict(own)), "PLAN_SAME_PRINCIPAL")
    await served.stub(VALIDATOR).ValidatePlan(verdict(own))
    for pod in pod_a, pod_b, pod_c:
        asked = ask(task, plan_id=own.id, step="count")
        await refused(served, pod.RequestCredential(asked), "PLAN_SAME_PRINCIPAL")
    theirs = await served.stub(PLANNER).RegisterPlan(planned(task))
    await pod_a.ValidatePlan(verdict(theirs))
    asked = ask(task, plan_id=theirs.id, step="count")
    await refused(served, pod_b.RequestCredential(asked), "PLAN_SAME_PRINCIPAL")
    assert (await served.stub(EXECUTOR).RequestCredential(asked)).lease.plan_id == theirs.id


async def test_third_cheat_a_step_is_used_twice(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    lease = await pipeline.execute()
    for stub in pipeline.executor, pipeline.second:
        await refused(served, stub.RequestCredential(pipeline.ask("r2")), "PLAN_STEP_USED")
    await pipeline.executor.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id, wait={"seconds": 60}))
    await refused(served, pipeline.executor.RequestCredential(pipeline.ask("r3")), "PLAN_STEP_USED")


async def test_two_executors_and_one_step(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    calls = [
        stub.RequestCredential(pipeline.ask(f"r{turn}"))
        for turn in range(4)
        for stub in (pipeline.executor, pipeline.second)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    lost = [reason(result)[1] for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert lost == ["PLAN_STEP_USED"] * 7
    assert len(served.upstream.alive) == 1


@pytest.mark.parametrize(
    ("who", "call", "expected"),
    [
        (EXECUTOR, "RegisterPlan", "AGENT_ROLE_REQUIRED"),
        (PLANNER, "ValidatePlan", "AGENT_ROLE_REQUIRED"),
        (READER, "RequestCredential", "AGENT_ROLE_REQUIRED"),
        (OUTSIDER, "GetPlan", "PLAN_NOT_FOUND"),
        (OUTSIDER, "ListPlans", "TASK_NOT_FOUND"),
        (OUTSIDER, "RequestCredential", "TASK_NOT_FOUND"),
    ],
)
async def test_who_may_not(served: Served, who: str, call: str, expected: str) -> None:
    pipeline = await Pipeline.start(served)
    requests = {
        "RegisterPlan": planned(pipeline.task, name="p2"),
        "ValidatePlan": verdict(pipeline.plan),
        "RequestCredential": pipeline.ask(),
        "GetPlan": plan_pb2.GetPlanRequest(plan_id=pipeline.plan.id),
        "ListPlans": plan_pb2.ListPlansRequest(task_id=pipeline.task),
    }
    await refused(served, getattr(served.stub(who), call)(requests[call]), expected)


async def test_a_strangers_plan_and_one_that_is_not_there_are_one_answer(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    answers = []
    for plan_id in (pipeline.plan.id, "plan-" + "a" * 26):
        get = served.stub(OUTSIDER).GetPlan(plan_pb2.GetPlanRequest(plan_id=plan_id))
        error = await refused(served, get, "PLAN_NOT_FOUND")
        answers.append((error.details() or "").replace(plan_id, "ID"))
    assert answers[0] == answers[1]
    theirs = await start_task(pipeline.second, "t2", participants=[EXECUTOR])
    asked = ask(theirs, plan_id=pipeline.plan.id, step="count")
    await refused(served, pipeline.executor.RequestCredential(asked), "PLAN_NOT_FOUND")


async def test_what_was_not_confirmed_gives_nothing(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    undecided = await pipeline.planner.RegisterPlan(planned(pipeline.task, name="p2"))
    asked = pipeline.ask(plan_id=undecided.id)
    await refused(served, pipeline.executor.RequestCredential(asked), "PLAN_NOT_CONFIRMED")
    await refused(served, pipeline.validator.ValidatePlan(verdict(undecided, REJECT, reason=" ")), "FIELD_INVALID")
    await pipeline.validator.ValidatePlan(verdict(undecided, REJECT, reason="too much"))
    await refused(served, pipeline.executor.RequestCredential(asked), "PLAN_REJECTED")
    await refused(served, pipeline.validator.ValidatePlan(verdict(undecided)), "PLAN_DECIDED")
    short = await pipeline.planner.RegisterPlan(planned(pipeline.task, name="p3", valid_for={"seconds": 1}))

    async def lapsed() -> bool:
        now = await pipeline.executor.GetPlan(plan_pb2.GetPlanRequest(plan_id=short.id))
        return bool(now.state == plan_pb2.Plan.STATE_LAPSED)

    await eventually(lapsed)
    await refused(served, pipeline.validator.ValidatePlan(verdict(short)), "PLAN_LAPSED")
    await refused(served, pipeline.executor.RequestCredential(pipeline.ask(plan_id=short.id)), "PLAN_LAPSED")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"template": "no-such"}, "TEMPLATE_NOT_FOUND"),
        ({"resource": "everything"}, "RESOURCE_NOT_IN_TEMPLATE"),
        ({"account": "prod"}, "ACCOUNT_NOT_IN_TEMPLATE"),
        ({"parameters": {"more": "1"}}, "PARAMETER_UNKNOWN"),
        ({"ttl": {"seconds": 3600}}, "TTL_TOO_LONG"),
        ({"ttl": {"seconds": 0}}, "TTL_INVALID"),
        ({"ttl": None}, "TTL_INVALID"),
    ],
)
async def test_a_plan_cannot_name_what_does_not_exist(served: Served, changes: dict[str, Any], expected: str) -> None:
    planner = served.stub(PLANNER)
    task = await start_task(planner)
    error = await refused(served, planner.RegisterPlan(planned(task, action("odd", **changes))), expected)
    assert "odd" in (error.details() or "")
    assert (await planner.ListPlans(plan_pb2.ListPlansRequest(task_id=task))).plans == []


async def test_a_plan_never_changes(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    again = await pipeline.planner.RegisterPlan(planned(pipeline.task))
    assert (again.id, again.digest, again.state) == (pipeline.plan.id, pipeline.plan.digest, 2)
    wider = planned(pipeline.task, action(ttl={"seconds": 600}))
    await refused(served, pipeline.planner.RegisterPlan(wider), "REQUEST_ID_REUSED")
    other = planned(pipeline.task, text="Count the orders!")
    await refused(served, pipeline.planner.RegisterPlan(other), "REQUEST_ID_REUSED")
    # A new version is a new plan, with another digest, and nobody has confirmed it.
    newer = await pipeline.planner.RegisterPlan(planned(pipeline.task, action(ttl={"seconds": 600}), name="p2"))
    assert newer.digest != pipeline.plan.digest
    await refused(
        served, pipeline.validator.ValidatePlan(verdict(newer, digest=pipeline.plan.digest)), "PLAN_DIGEST_MISMATCH"
    )
    upper = verdict(newer, digest=newer.digest.upper())
    await refused(served, pipeline.validator.ValidatePlan(upper), "FIELD_INVALID")
    twice = planned(pipeline.task, action(), action(), name="p4")
    await refused(served, pipeline.planner.RegisterPlan(twice), "FIELD_INVALID")
    for odd in ("count ", "COUNT", "\uff43ount", "co\u200bunt"):
        alike = planned(pipeline.task, action(), action(odd), name="p4")
        await refused(served, pipeline.planner.RegisterPlan(alike), "FIELD_INVALID")
        # And of a plan that has the plain one nobody gets the other.
        await refused(served, pipeline.executor.RequestCredential(pipeline.ask(step=odd)), "PLAN_STEP_UNKNOWN")


async def test_a_key_that_is_there_twice_has_one_meaning(served: Served) -> None:
    """On the wire a map may hold a key twice, in any order; what counts is what the broker read, and then shows."""
    root = served.root / "deploy" / "templates" / "orders-readonly.yaml"
    template = yaml.safe_load(root.read_text())
    template["parameters"] = {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "kind": {"type": "enum", "values": ["x"]},
    }
    private(root, yaml.safe_dump(template))
    without_canary(served.root / "deploy")
    assert await served.daemon.reloader.reload()
    planner = served.stub(PLANNER)
    task = await start_task(planner)

    def wire(name: str, *entries: tuple[str, str]) -> bytes:
        maps = b""
        for key, value in entries:
            entry = b"\x0a" + bytes([len(key)]) + key.encode() + b"\x12" + bytes([len(value)]) + value.encode()
            maps += b"\x32" + bytes([len(entry)]) + entry  # field 6 of PlannedAction
        said = action().SerializeToString() + maps
        return (
            planned(task, name=name)
            .SerializeToString()
            .replace(
                b"\x22" + bytes([len(action().SerializeToString())]) + action().SerializeToString(),
                b"\x22" + bytes([len(said)]) + said,
            )
        )

    channel = served.channels[-1]
    send = channel.unary_unary("/broker.api.v1.BrokerService/RegisterPlan", None, plan_pb2.Plan.FromString)
    twice = await send(wire("a", ("size", "1"), ("kind", "x"), ("size", "2")))
    once = await send(wire("b", ("kind", "x"), ("size", "2")))
    first = await send(wire("c", ("size", "1"), ("kind", "x")))
    assert dict(twice.actions[0].parameters) == {"size": "2", "kind": "x"}
    assert twice.digest == once.digest != first.digest
    with pytest.raises(grpc.aio.AioRpcError) as other_spelling:
        await send(wire("d", ("size", "02"), ("kind", "x")))
    assert reason(other_spelling.value)[1] == "PARAMETER_INVALID"


# ------------------------------------------------------------------ delegation


async def test_a_part_is_handed_on_and_ends_with_its_parent(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    lease = await pipeline.execute()
    made = await pipeline.executor.DelegateLease(hand_on(lease, SECOND))
    assert (made.chain, made.delegate, made.expire_time) == ([EXECUTOR], SECOND, lease.expire_time)
    for stub in pipeline.executor, pipeline.second:
        listed = await stub.ListDelegations(delegation_pb2.ListDelegationsRequest(task_id=pipeline.task))
        assert [each.id for each in listed.delegations] == [made.id]
    asked = ask(pipeline.task, delegation_id=made.id)
    part = (await pipeline.second.RequestCredential(asked)).lease
    assert (part.parent_lease_id, part.delegation_id, part.plan_id) == (lease.id, made.id, pipeline.plan.id)
    # Asked for 60 s, it gets what its parent has left.
    assert part.expire_time.ToNanoseconds() <= lease.expire_time.ToNanoseconds()
    assert len(served.upstream.alive) == 2
    # Who handed it on sees it and may end it; a third one on the task does not.
    get = pb.GetLeaseRequest(lease_id=part.id)
    assert (await pipeline.executor.GetLease(get)).id == part.id
    await refused(served, pipeline.planner.GetLease(get), "LEASE_NOT_FOUND")
    await refused(served, pipeline.second.GetLease(pb.GetLeaseRequest(lease_id=lease.id)), "LEASE_NOT_FOUND")
    await refused(served, pipeline.planner.RevokeLease(pb.RevokeLeaseRequest(lease_id=part.id)), "LEASE_NOT_FOUND")
    await pipeline.executor.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id))

    async def gone() -> bool:
        # Either may be the first.
        whole = await pipeline.executor.GetLease(pb.GetLeaseRequest(lease_id=lease.id))
        return whole.state == (await pipeline.second.GetLease(get)).state == REVOKED

    await eventually(gone)
    assert served.upstream.alive == {}
    assert (await pipeline.second.GetLease(get)).end_cause == "PARENT_ENDED"
    await refused(
        served, pipeline.second.RequestCredential(ask(pipeline.task, "r9", delegation_id=made.id)), "DELEGATION_ENDED"
    )


async def test_whoever_handed_it_on_takes_it_back(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    lease = await pipeline.execute()
    made = await pipeline.executor.DelegateLease(hand_on(lease, SECOND))
    part = (await pipeline.second.RequestCredential(ask(pipeline.task, delegation_id=made.id))).lease
    request = delegation_pb2.RevokeDelegationRequest(delegation_id=made.id)
    for who in SECOND, PLANNER, OUTSIDER:
        await refused(served, served.stub(who).RevokeDelegation(request), "DELEGATION_NOT_FOUND")
    taken_back = await pipeline.executor.RevokeDelegation(request)
    assert taken_back.HasField("revoke_time")

    async def gone() -> bool:
        return part.attempt_id not in served.upstream.alive

    await eventually(gone)
    assert (await pipeline.executor.GetLease(pb.GetLeaseRequest(lease_id=lease.id))).state == ACTIVE
    assert (await pipeline.executor.RevokeDelegation(request)) == taken_back
    ended = await pipeline.second.GetLease(pb.GetLeaseRequest(lease_id=part.id))
    assert ended.end_cause == "DELEGATION_REVOKED"


async def test_a_parent_that_ends_during_the_issue_takes_the_part_along(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    lease = await pipeline.execute()
    made = await pipeline.executor.DelegateLease(hand_on(lease, SECOND))
    issued, ended = asyncio.Event(), asyncio.Event()
    issue = served.upstream.issue

    async def slow(*args: Any) -> Any:
        answer = await issue(*args)
        issued.set()
        await ended.wait()
        return answer

    served.upstream.issue = slow  # type: ignore[method-assign]
    asking = asyncio.ensure_future(pipeline.second.RequestCredential(ask(pipeline.task, delegation_id=made.id)))
    await issued.wait()
    await pipeline.executor.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id))
    ended.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking
    assert reason(caught.value)[1] == "LEASE_ENDED"

    async def nothing_lives() -> bool:
        return not served.upstream.alive

    await eventually(nothing_lives)


@pytest.mark.parametrize(
    ("to", "changes", "expected"),
    [
        (EXECUTOR, {}, "DELEGATION_CIRCULAR"),
        (OUTSIDER, {}, "DELEGATE_NOT_PARTICIPANT"),
        (PLANNER, {}, "PLAN_SAME_PRINCIPAL"),  # who planned it does not get to execute it in this way either
        (VALIDATOR, {}, "PLAN_SAME_PRINCIPAL"),
        (f"spiffe://{DOMAIN}/agent/nobody", {}, "AGENT_NOT_REGISTERED"),
        ("nonsense", {}, "FIELD_INVALID"),  # the caller is who it is: not UNAUTHENTICATED
        (SECOND, {"ttl": {"seconds": 600}}, "DELEGATION_EXCEEDED"),
        (SECOND, {"ttl": {"seconds": 0}}, "TTL_INVALID"),
        (SECOND, {"resource": "everything"}, "PARAMETER_INVALID"),
        (SECOND, {"parameters": {"more": "1"}}, "PARAMETER_UNKNOWN"),
        (SECOND, {"further": 1}, "DELEGATION_TOO_DEEP"),
    ],
)
async def test_what_is_not_handed_on(served: Served, to: str, changes: dict[str, Any], expected: str) -> None:
    pipeline = await Pipeline.start(served)
    lease = await pipeline.execute()
    await refused(served, pipeline.executor.DelegateLease(hand_on(lease, to, **changes)), expected)
    await refused(served, pipeline.second.DelegateLease(hand_on(lease, EXECUTOR)), "LEASE_NOT_FOUND")


async def test_a_part_is_used_once_by_whom_it_was_given_to(served: Served) -> None:
    pipeline = await Pipeline.start(served)
    lease = await pipeline.execute()
    made = await pipeline.executor.DelegateLease(hand_on(lease, SECOND))
    asked = ask(pipeline.task, delegation_id=made.id)
    for who in EXECUTOR, PLANNER, POD_A:
        await refused(served, served.stub(who).RequestCredential(asked), "DELEGATION_NOT_FOUND")
    both = ask(pipeline.task, delegation_id=made.id, plan_id=pipeline.plan.id, step="count")
    await refused(served, pipeline.second.RequestCredential(both), "FIELD_INVALID")
    other = ask(pipeline.task, delegation_id=made.id, environment="staging")
    await refused(served, pipeline.second.RequestCredential(other), "DELEGATION_EXCEEDED")
    await pipeline.second.RequestCredential(asked)
    again = ask(pipeline.task, "r2", delegation_id=made.id)
    await refused(served, pipeline.second.RequestCredential(again), "DELEGATION_USED")
    # And it is not handed on: one hand-over in a row is what this broker allows.
    parts = await pipeline.second.ListLeases(pb.ListLeasesRequest())
    await refused(served, pipeline.second.DelegateLease(hand_on(parts.leases[0], POD_C)), "DELEGATION_TOO_DEEP")


async def test_a_template_whose_leases_are_never_handed_on(served: Served) -> None:
    template = served.root / "deploy" / "templates" / "orders-readonly.yaml"
    template.write_text(template.read_text() + "max_delegation_depth: 0\n")
    await served.daemon.reload()
    pipeline = await Pipeline.start(served)
    lease = await pipeline.execute()
    await refused(served, pipeline.executor.DelegateLease(hand_on(lease, SECOND)), "DELEGATION_TOO_DEEP")


async def test_own_grant_same_task(served: Served) -> None:
    """What the planner never had needs no delegation: a participant asks for it, by its own right."""
    planner, executor = served.stub(PLANNER), served.stub(EXECUTOR)
    task = await start_task(planner, participants=[EXECUTOR])
    lease = (await executor.RequestCredential(ask(task))).lease
    assert (lease.holder, lease.parent_lease_id, lease.plan_id) == (EXECUTOR, "", "")
    await refused(served, planner.GetLease(pb.GetLeaseRequest(lease_id=lease.id)), "LEASE_NOT_FOUND")
    # It ends with the task all the same.
    await planner.CompleteTask(pb.CompleteTaskRequest(task_id=task, wait={"seconds": 60}))
    assert served.upstream.alive == {}
