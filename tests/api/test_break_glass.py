"""Break-glass on a running brokerd: the people's door, an hour that passes, who is told, and sealed codes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from broker.api.authorization import ROLES as METHOD_ROLES
from broker.api.code_entrance import SCHEME, TAKEN
from broker.api.v1 import admin_service_pb2 as admin
from broker.api.v1 import break_glass_pb2 as pb
from broker.api.v1 import broker_service_pb2 as agents_pb
from broker.api.v1 import lease_pb2
from broker.api.v1.admin_service_pb2_grpc import AdminServiceStub
from broker.approval.intent_digest import BREAK_GLASS, REVIEW_BREAK_GLASS
from broker.breakglass.intent import (
    CREATE_BREAK_GLASS_CODES,
    OVERRIDE_BREAK_GLASS,
    codes_fields,
    override_fields,
    review_fields,
    use_fields,
)
from broker.clock import SystemClock
from tests.api.served import (
    CA,
    DECIDING,
    MIGRATOR,
    Served,
    fresh,
    people_changes,
    person,
    reason,
    serve,
    start_task,
)
from tests.clock import StoppableClock
from tests.patience import eventually

DENIED, INVALID = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT
RELEASER = MIGRATOR.replace("migrator", "releaser")
SAM, KIM = "https://id.dev.broker.internal#sam", "https://id.dev.broker.internal#kim"
PEOPLE = ("dana", "lee", "sam", "kim", "ravi")
_REVIEW = lease_pb2.BreakGlass


def with_people(root: Path) -> dict[str, Any]:
    return {**people_changes(root), "roles": {**DECIDING, "auditor": ["data-platform"]}}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **with_people(tmp_path)) as running:
        yield running


def use(name: str = "g1", **changes: Any) -> pb.BreakGlassRequest:
    fields: dict[str, Any] = {
        "request_id": name,
        "template": "orders-production",
        "account": "dev",
        "environment": "production",
        "resource": "orders",
        "ttl": {"seconds": 600},
        "reason": "orders are locked",
        "incident": "INC-1",
        **changes,
    }
    return pb.BreakGlassRequest(**{key: value for key, value in fields.items() if value is not None})


def review(lease_id: str, name: str = "v1", findings: str = "looked at every statement") -> pb.ReviewBreakGlassRequest:
    return pb.ReviewBreakGlassRequest(request_id=name, lease_id=lease_id, findings=findings)


def login(served: Served, key: str, request: Any) -> Any:
    """``request`` with the login of this person for exactly it."""
    match request:
        case pb.BreakGlassRequest():
            names = ("template", "account", "environment", "resource", "reason", "incident", "task_id", "agent", "plan")
            asked = {name: getattr(request, name) for name in names}
            span = request.ttl.ToTimedelta()
            action, fields = BREAK_GLASS, use_fields(parameters=dict(request.parameters), ttl=span, **asked)
        case pb.ReviewBreakGlassRequest():
            action, fields = REVIEW_BREAK_GLASS, review_fields(request.lease_id, request.findings)
        case pb.OverrideBreakGlassRequest():
            kind = pb.OverrideBreakGlassRequest.Kind.Name(request.kind).removeprefix("KIND_")
            said = override_fields(kind, request.subject, request.person, request.reason)
            action, fields = OVERRIDE_BREAK_GLASS, said
        case pb.CreateBreakGlassCodesRequest():
            said = codes_fields(request.batch_id, request.person, request.count, request.reason)
            action, fields = CREATE_BREAK_GLASS_CODES, said
        case _:
            return request
    made = type(request)()
    made.CopyFrom(request)
    made.fresh_id_token = fresh(served, key, action, **fields)
    return made


def act(served: Served, key: str, rpc: str, request: Any) -> Any:
    """The call of this person, who has just logged in for exactly this."""
    return getattr(person(served, key), rpc)(login(served, key, request))


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


async def types(served: Served) -> list[str]:
    found = [each["type"] for each in await served.audit()]
    return [each.removeprefix("break_glass.") for each in found if each.startswith("break_glass.")]


async def used(served: Served, name: str = "g1", **changes: Any) -> lease_pb2.Lease:
    stub = person(served, "sam")
    answer = await act(served, "sam", "BreakGlass", use(name, **changes))
    confirm = pb.ConfirmBreakGlassRequest(lease_id=answer.lease.id, attempt_id=answer.lease.attempt_id)
    lease: lease_pb2.Lease = await stub.ConfirmBreakGlass(confirm)
    return lease


async def test_the_whole_of_it(served: Served) -> None:
    sam, kim, dana = (person(served, key) for key in ("sam", "kim", "dana"))
    listed = await sam.ListBreakGlass(pb.ListBreakGlassRequest())
    assert [(each.template, each.max_ttl.seconds, list(each.groups)) for each in listed.options] == [
        ("orders-production", 1800, ["operations"])
    ]
    answer = await act(served, "sam", "BreakGlass", use())
    assert answer.credential.database_login.password
    badge = answer.lease.break_glass
    assert (badge.person, badge.incident, badge.review_state) == (SAM, "INC-1", _REVIEW.REVIEW_STATE_AHEAD)
    lease_id, attempt = answer.lease.id, answer.lease.attempt_id
    lease = await sam.ConfirmBreakGlass(pb.ConfirmBreakGlassRequest(lease_id=lease_id, attempt_id=attempt))
    assert not lease.HasField("confirm_by") and attempt in served.upstream.alive
    (told,) = [each["data"] for each in await served.audit() if each["type"] == "break_glass.used"]
    # What changes production is approved by release; Sam is one of them, and no one is told what he does himself.
    assert KIM in [each["person"] for each in told["told"]]
    assert SAM not in [each["person"] for each in told["told"]]
    assert await refused(dana.EndBreakGlass(pb.EndBreakGlassRequest(lease_id="lease-x"))) == (
        grpc.StatusCode.NOT_FOUND,
        "BREAK_GLASS_NOT_FOUND",
    )
    ended = await kim.EndBreakGlass(pb.EndBreakGlassRequest(lease_id=lease_id, wait={"seconds": 60}))
    assert ended.lease.state == lease_pb2.Lease.STATE_REVOKED and attempt not in served.upstream.alive
    await eventually(lambda: _has(served, "review_due"))
    assert await refused(act(served, "sam", "ReviewBreakGlass", review(lease_id))) == (DENIED, "REVIEW_OF_ONES_OWN")
    seen = await act(served, "kim", "ReviewBreakGlass", review(lease_id))
    assert (seen.reviewer, seen.lease.break_glass.review_state) == (KIM, _REVIEW.REVIEW_STATE_REVIEWED)
    assert not (await sam.ListBreakGlass(pb.ListBreakGlassRequest())).uses
    assert await types(served) == ["used", "ended", "review_due", "reviewed"]


async def _has(served: Served, type_: str) -> bool:
    return type_ in await types(served)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"reason": ""}, "BREAK_GLASS_REASON_MISSING"),
    ({"incident": " "}, "BREAK_GLASS_INCIDENT_MISSING"),
    ({"ttl": {"seconds": 1801}}, "TTL_TOO_LONG"),
    ({"ttl": None}, "TTL_INVALID"),
    ({"request_id": ""}, "FIELD_INVALID"),
    ({"resource": "customers"}, "RESOURCE_NOT_IN_TEMPLATE"),
]


async def test_bad_input_is_refused_by_name_and_recorded(served: Served) -> None:
    for changes, why in BAD:
        assert await refused(act(served, "sam", "BreakGlass", use(**changes))) == (INVALID, why)
        assert (SAM, why) in await served.refusals()
    assert not served.upstream.alive
    assert await types(served) == []


async def test_the_wrong_group_and_the_wrong_template(served: Served) -> None:
    assert await refused(act(served, "kim", "BreakGlass", use())) == (DENIED, "BREAK_GLASS_NOT_ALLOWED")
    other = use(template="orders-readwrite", environment="dev")
    assert await refused(act(served, "sam", "BreakGlass", other)) == (DENIED, "BREAK_GLASS_NOT_ALLOWED")
    assert (KIM, "BREAK_GLASS_NOT_ALLOWED") in await served.refusals()
    assert not served.upstream.alive


async def test_for_an_agents_task(served: Served) -> None:
    agent = served.stub(RELEASER)
    task = await start_task(agent)
    lease = await used(served, task_id=task, plan="unlock the orders", ttl={"seconds": 300})
    assert lease.holder == RELEASER
    (seen,) = (await agent.ListLeases(agents_pb.ListLeasesRequest(task_id=task))).leases
    assert seen.break_glass.person == SAM


async def test_an_agent_that_stays_out_of_production_stays_out(served: Served) -> None:
    task = await start_task(served.stub(MIGRATOR))
    asked = use(task_id=task, plan="unlock the orders", ttl={"seconds": 300})
    # Nobody has promoted it: that is no gate, and no emergency opens it.
    assert await refused(act(served, "sam", "BreakGlass", asked)) == (DENIED, "POLICY_DENIED")
    assert not served.upstream.alive


# ------------------------------------------------------------------ time


async def test_past_the_reviews_due_time_the_next_attempt_is_blocked_until_it_is_reviewed(tmp_path: Path) -> None:
    clock = StoppableClock()
    async with serve(tmp_path, clock=clock, **with_people(tmp_path)) as served:
        lease = await used(served)
        await person(served, "kim").EndBreakGlass(pb.EndBreakGlassRequest(lease_id=lease.id, wait={"seconds": 60}))
        # TLS lives in the present: the broker's clock goes on a day, the certificates' does not.
        clock.stop_at(SystemClock().now() + timedelta(hours=24, minutes=1))
        await served.daemon._tend_break_glass()
        assert any("operations is blocked" in each for each in served.daemon._warnings())
        assert "review_overdue" in await types(served)
        assert await refused(act(served, "sam", "BreakGlass", use("g2"))) == (DENIED, "BREAK_GLASS_BLOCKED")
        assert "blocked" in await types(served)
        (option,) = (await person(served, "sam").ListBreakGlass(pb.ListBreakGlassRequest())).options
        assert option.blocked_by == lease.id
        await act(served, "kim", "ReviewBreakGlass", review(lease.id))
        assert (await act(served, "sam", "BreakGlass", use("g3"))).lease.id != lease.id


# ------------------------------------------------------------------ overrides


async def test_a_suspension_is_passed_over_by_another_persons_word(served: Served) -> None:
    kim = person(served, "kim")
    stopped = await kim.Suspend(
        admin.SuspendRequest(request_id="s1", kind="KIND_TEMPLATE", value="orders-production", reason="it went mad")
    )
    assert await refused(act(served, "sam", "BreakGlass", use())) == (DENIED, "SUSPENDED")
    word = pb.OverrideBreakGlassRequest(
        request_id="o1", kind="KIND_SUSPENSION", subject=stopped.suspension.id, person="sam", reason="it cannot wait"
    )
    assert await refused(act(served, "sam", "OverrideBreakGlass", word)) == (DENIED, "SECOND_PERSON_REQUIRED")
    assert await refused(act(served, "dana", "OverrideBreakGlass", word)) == (DENIED, "ROLE_REQUIRED")
    given = await act(served, "kim", "OverrideBreakGlass", word)
    assert (given.needed, list(given.by)) == (1, [KIM])
    assert (await act(served, "sam", "BreakGlass", use())).lease.break_glass.person == SAM


# ------------------------------------------------------------------ codes


def by_code(served: Served, key: str, code: str) -> Any:
    """The people's door for who cannot log in."""

    class Code(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {SCHEME}{key}:{code}"))
            return await continuation(details._replace(metadata=metadata), request)

    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    channel = grpc.aio.secure_channel(
        f"127.0.0.1:{served.daemon.doors.admin_port}",
        grpc.ssl_channel_credentials(CA.pem),
        options=options,
        interceptors=[Code()],
    )
    served.channels.append(channel)
    return AdminServiceStub(channel)


async def made_code(served: Served, whom: str = "sam") -> pb.PrintedCode:
    asked = pb.CreateBreakGlassCodesRequest(request_id="c1", person=whom, count=1, reason="safe 3")
    batch = (await act(served, "kim", "CreateBreakGlassCodes", asked)).batch
    making = pb.CreateBreakGlassCodesRequest(request_id="c2", batch_id=batch.id)
    assert await refused(act(served, "kim", "CreateBreakGlassCodes", making)) == (DENIED, "SECOND_PERSON_REQUIRED")
    (code,) = (await act(served, "ravi", "CreateBreakGlassCodes", making)).codes
    return code


async def test_a_sealed_code_instead_of_a_login(served: Served) -> None:
    code = await made_code(served)
    stub = by_code(served, "sam", code.code)
    answer = await stub.BreakGlass(use())
    assert answer.lease.break_glass.authenticated_by == "code"
    lease_id, attempt = answer.lease.id, answer.lease.attempt_id
    await stub.ConfirmBreakGlass(pb.ConfirmBreakGlassRequest(lease_id=lease_id, attempt_id=attempt))
    # Once; and it ends what it got, and nothing else.
    assert await refused(stub.BreakGlass(use("g2"))) == (grpc.StatusCode.FAILED_PRECONDITION, "BREAK_GLASS_CODE_SPENT")
    other = await used(served, "g3")
    ending = stub.EndBreakGlass(pb.EndBreakGlassRequest(lease_id=other.id))
    assert await refused(ending) == (grpc.StatusCode.NOT_FOUND, "BREAK_GLASS_NOT_FOUND")
    ended = await stub.EndBreakGlass(pb.EndBreakGlassRequest(lease_id=lease_id, wait={"seconds": 60}))
    assert (ended.lease.state, ended.code_id) == (lease_pb2.Lease.STATE_REVOKED, code.code_id)
    assert "code_used" in await types(served)
    (kept,) = (await person(served, "kim").ListBreakGlassCodes(pb.ListBreakGlassCodesRequest())).codes
    assert (kept.state, kept.used_by) == ("USED", lease_id)


async def test_a_code_of_another_person_and_what_is_none(served: Served) -> None:
    code = await made_code(served)
    for key, why in (("kim", "BREAK_GLASS_CODE_OF_ANOTHER"), ("nobody", "BREAK_GLASS_CODE_INVALID")):
        assert (await refused(by_code(served, key, code.code).BreakGlass(use())))[1] == why
        assert why in [reason for _, reason in await served.refusals()]
    unauthenticated = (grpc.StatusCode.UNAUTHENTICATED, "BREAK_GLASS_CODE_INVALID")
    for text in ("JBG1-AAAAAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA", "x", "a b", "y" * 300):
        assert await refused(by_code(served, "sam", text).BreakGlass(use())) == unauthenticated
    assert not served.upstream.alive


async def test_a_code_opens_nothing_else(served: Served) -> None:
    code = await made_code(served)
    stub = by_code(served, "sam", code.code)
    for method in METHOD_ROLES:
        name, service = method.rpartition("/")[2], admin.DESCRIPTOR.services_by_name["AdminService"]
        if method in TAKEN:
            continue
        request = GetMessageClass(service.methods_by_name[name].input_type)()
        assert await refused(getattr(stub, name)(request)) == (DENIED, "ROLE_REQUIRED"), name


async def test_a_revoked_code(served: Served) -> None:
    code = await made_code(served)
    answer = await person(served, "sam").RevokeBreakGlassCodes(pb.RevokeBreakGlassCodesRequest(named=code.code_id))
    assert answer.revoked == 1
    assert (await refused(by_code(served, "sam", code.code).BreakGlass(use())))[1] == "BREAK_GLASS_CODE_SPENT"


# ------------------------------------------------------------------ who may


ROLED = {
    "ReviewBreakGlass": review("lease-x"),
    "OverrideBreakGlass": pb.OverrideBreakGlassRequest(request_id="o", kind=1, subject="s", person="sam"),
    "CreateBreakGlassCodes": pb.CreateBreakGlassCodesRequest(request_id="c", person="sam", count=1, reason="r"),
    "ListBreakGlassCodes": pb.ListBreakGlassCodesRequest(),
    "RevokeBreakGlassCodes": pb.RevokeBreakGlassCodesRequest(named="x"),
}
GROUPS = {"dana": "data-platform", "lee": "data-platform", "sam": "operations", "kim": "security", "ravi": "security"}


async def test_roles(served: Served) -> None:
    given = {**DECIDING, "auditor": ["data-platform"]}
    for method, request in ROLED.items():
        taken = METHOD_ROLES[f"/broker.api.v1.AdminService/{method}"]
        for who, group in GROUPS.items():
            roles = {role for role, listed in given.items() if group in listed}
            try:
                await act(served, who, method, request)
            except grpc.aio.AioRpcError as error:
                assert (reason(error)[1] == "ROLE_REQUIRED") is not bool(taken & roles), (method, who)
            else:
                assert taken & roles, (method, who)
