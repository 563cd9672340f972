"""Agents behind a proxy: what they can do, what is known of the way, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api import authorization
from broker.api.server import BROKER_SERVICE
from broker.api.v1 import access_request_pb2, delegation_pb2, plan_pb2
from broker.api.v1 import broker_service_pb2 as pb
from broker.config import load_config
from broker.errors import InvalidInput
from broker.files import Problems
from tests.api.judged import Judged
from tests.api.proxied import EAST, WEST, bearer, serve_proxied, through, token, world
from tests.api.served import ANALYST, Served, ask, private, reason, serve, start_task, write_config
from tests.clock import TICK, Clocks, StoppableClock
from tests.patience import PATIENCE, eventually

INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
def clock() -> StoppableClock:
    """The broker's."""
    return StoppableClock()


@pytest.fixture
async def served(tmp_path: Path, clock: StoppableClock) -> AsyncIterator[Served]:
    async with serve_proxied(tmp_path, clock=clock) as running:
        yield running


async def events(served: Served, type_: str) -> list[dict[str, Any]]:
    return [each for each in await served.audit() if each["type"] == type_]


async def task_through(stub: Any, text: str, request_id: str = "t1") -> str:
    order = pb.StartTaskRequest(request_id=request_id, purpose="testing")
    return str((await stub.StartTask(order, metadata=bearer(text))).id)


# ------------------------------------------------------------------ what comes through


async def test_a_credential_through_a_proxy_and_what_the_trail_says_of_its_way(served: Served) -> None:
    stub, text = through(served), token()
    task = await task_through(stub, text)
    grant = await stub.RequestCredential(ask(task), metadata=bearer(text))
    assert grant.credential.database_login.password
    lease = grant.lease
    confirmed = pb.ConfirmDeliveryRequest(lease_id=lease.id, attempt_id=lease.attempt_id, request_id="c1")
    await stub.ConfirmDelivery(confirmed, metadata=bearer(text))
    (intent,) = await events(served, "lease.intent")
    assert intent["actor"] == ANALYST
    told = {name: intent["data"][name] for name in ("delivery", "sealed", "proxy")}
    assert told == {"delivery": "proxy", "sealed": False, "proxy": EAST}
    assert text.rpartition(".")[0] not in str(await served.audit())


async def test_the_trail_says_direct_where_nobody_is_in_between(served: Served) -> None:
    stub = served.stub()
    await stub.RequestCredential(ask(await start_task(stub)))
    (intent,) = await events(served, "lease.intent")
    assert intent["data"]["delivery"] == "direct"
    assert "proxy" not in intent["data"]


async def test_a_lease_belongs_to_the_agent_whichever_way_it_comes(served: Served) -> None:
    stub, direct = through(served), served.stub()
    task = await task_through(stub, token())
    lease = (await stub.RequestCredential(ask(task), metadata=bearer(token()))).lease
    assert (await direct.GetLease(pb.GetLeaseRequest(lease_id=lease.id))).id == lease.id
    own = served.stub(EAST)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await own.GetLease(pb.GetLeaseRequest(lease_id=lease.id))
    # The proxy is nobody on its own: it is not a registered agent.
    assert reason(refused.value) == (DENIED, "AGENT_NOT_REGISTERED")
    await direct.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id))


# ------------------------------------------------------------------ changes and their ids


def changes() -> list[tuple[str, Any]]:
    return [
        ("StartTask", pb.StartTaskRequest(purpose="x")),
        ("CompleteTask", pb.CompleteTaskRequest(task_id="t")),
        ("HoldTask", pb.HoldTaskRequest(task_id="t")),
        ("RequestCredential", ask("t", request="")),
        ("ConfirmDelivery", pb.ConfirmDeliveryRequest(lease_id="l", attempt_id="a")),
        ("RevokeLease", pb.RevokeLeaseRequest(lease_id="l")),
        ("WithdrawAccessRequest", access_request_pb2.WithdrawAccessRequestRequest(access_request_id="a")),
        ("RedeemAccessRequest", access_request_pb2.RedeemAccessRequestRequest(access_request_id="a")),
        ("RegisterPlan", plan_pb2.RegisterPlanRequest(task_id="t", text="x")),
        ("ValidatePlan", plan_pb2.ValidatePlanRequest(plan_id="p", digest="0" * 64, verdict=1)),
        ("DelegateLease", delegation_pb2.DelegateLeaseRequest(lease_id="l", delegate=ANALYST)),
        ("RevokeDelegation", delegation_pb2.RevokeDelegationRequest(delegation_id="d")),
    ]


# Whose request_id is mandatory for everybody: what is made is found again by it.
MAKE_SOMETHING = {"StartTask", "RequestCredential", "RedeemAccessRequest", "RegisterPlan", "DelegateLease"}


def test_every_rpc_is_a_change_or_known_to_be_none() -> None:
    reads = {"WhoAmI", "ListTemplates", "GetTask", "GetLease", "ListLeases", "WatchLeases"}
    reads |= {"GetAccessRequest", "ListAccessRequests", "WatchAccessRequests"}
    reads |= {"GetPlan", "ListPlans", "ListDelegations"}
    changing = {path.rpartition("/")[2] for path in authorization.CHANGES}
    assert changing == {name for name, _ in changes()}
    assert changing | reads == {method.name for method in BROKER_SERVICE.methods}
    for method in BROKER_SERVICE.methods:
        assert ("request_id" in method.input_type.fields_by_name) == (method.name in changing)


@pytest.mark.parametrize(("name", "request_"), changes(), ids=[name for name, _ in changes()])
async def test_a_change_through_a_proxy_needs_a_request_id(served: Served, name: str, request_: Any) -> None:
    call = getattr(through(served), name)(request_, metadata=bearer(token()))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await (call.read() if name == "HoldTask" else call)
    code, why = reason(refused.value)
    # Where the field is mandatory for everybody, the field rules say so first.
    assert (code, why) == (INVALID, "FIELD_INVALID" if name in MAKE_SOMETHING else "REQUEST_ID_REQUIRED")
    assert (ANALYST, why) in await served.refusals()


async def test_a_change_with_one_goes_through_and_reads_need_none(served: Served) -> None:
    stub, text = through(served), token()
    task = await task_through(stub, text)
    await stub.GetTask(pb.GetTaskRequest(task_id=task), metadata=bearer(text))
    order = pb.CompleteTaskRequest(task_id=task, request_id="done")
    for _ in range(2):
        answer = await stub.CompleteTask(order, metadata=bearer(text))
    assert answer.task.end_cause == "COMPLETED"
    # Without a proxy none is needed, as before.
    direct = served.stub()
    await direct.CompleteTask(pb.CompleteTaskRequest(task_id=await start_task(direct, "t2")))


# ------------------------------------------------------------------ policy


SEALED_ONLY = """
@id("sealed-through-proxies")
@reason("Through a proxy credentials are delivered sealed.")
forbid (principal, action, resource)
when { context.delivery == "proxy" && !context.sealed };
"""


async def test_a_policy_can_demand_that_proxies_see_nothing(tmp_path: Path) -> None:
    write_config(tmp_path)
    private(tmp_path / "deploy" / "policies" / "sealed.cedar", SEALED_ONLY)
    async with serve_proxied(tmp_path) as served:
        stub, direct = through(served), served.stub()
        task = await task_through(stub, token())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RequestCredential(ask(task), metadata=bearer(token()))
        assert reason(refused.value) == (DENIED, "POLICY_DENIED")
        assert all(not upstream.calls for upstream in served.upstreams.values())
        key = bytes([9]) + bytes(31)  # the base point: a good key
        sealed = await stub.RequestCredential(ask(task, recipient_public_key=key), metadata=bearer(token()))
        assert sealed.HasField("sealed_credential")
        assert (await direct.RequestCredential(ask(task, "r2"))).HasField("credential")


# ------------------------------------------------------------------ how it ends


async def next_refusal(stream: Any) -> str:
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            while True:
                assert await stream.read() is not grpc.aio.EOF
    return reason(cut.value)[1]


async def test_a_stream_ends_with_the_token_it_was_opened_with(
    served: Served, clock: StoppableClock, judged: Judged
) -> None:
    stub, ends = through(served), datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=2)
    clock.stop_at(ends - TICK)
    stream = stub.WatchLeases(pb.WatchLeasesRequest(), metadata=bearer(token(exp=int(ends.timestamp()))))
    await stream.read()
    await judged.again()  # to its very end
    clock.stop_at(ends)
    assert await next_refusal(stream) == "JWT_SVID_EXPIRED"
    assert (ANALYST, "JWT_SVID_EXPIRED") in await served.refusals()


def write_bundle(served: Served, document: dict[str, Any] | str) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    path = served.root / "identity" / "own.json"
    private(path.with_suffix(".new"), text).rename(path)


async def test_a_key_out_of_the_bundle_cuts_its_streams_and_others_live_on(served: Served) -> None:
    stub, here = through(served), world()
    cut = stub.WatchLeases(pb.WatchLeasesRequest(), metadata=bearer(here.token()))
    kept = stub.WatchLeases(pb.WatchLeasesRequest(), metadata=bearer(here.token(kid="rsa")))
    for stream in (cut, kept):
        await stream.read()
    document = here.own.jwks()
    document["keys"] = [key for key in document["keys"] if key.get("kid") != "ec"]
    write_bundle(served, document)
    assert await next_refusal(cut) == "JWT_SVID_KEY_UNKNOWN"
    assert not kept.done()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token()))
    assert reason(refused.value)[1] == "JWT_SVID_KEY_UNKNOWN"


@pytest.mark.parametrize(
    "bad",
    [
        '{"keys":[]}',
        # Each waits for brokerd to look again: one of them is enough but for now and then.
        *(
            pytest.param(bad, marks=pytest.mark.slow)
            for bad in ("", "{", '{"keys":[{"kid":"x","use":"jwt-svid","kty":"oct","k":"AA"}]}')
        ),
    ],
)
async def test_a_bad_bundle_never_replaces_a_good_one(served: Served, bad: str) -> None:
    write_bundle(served, bad)

    async def noticed() -> bool:
        return any("JWT bundle" in warning for warning in served.daemon._warnings())

    await eventually(noticed)
    assert (await through(served).WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token()))).spiffe_id == ANALYST
    write_bundle(served, world().own.jwks())

    async def well_again() -> bool:
        return not any("JWT bundle" in warning for warning in served.daemon._warnings())

    await eventually(well_again)


async def test_when_no_more_tokens_can_be_remembered_none_is_admitted(served: Served) -> None:
    entrance = served.daemon._proxies
    assert entrance is not None
    entrance._identity._bindings._max_tokens = 1
    stub, first = through(served), token(jti="1")
    await stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(first))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token(jti="2")))
    assert reason(refused.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_PROXIED_TOKENS")
    assert ("anonymous", "TOO_MANY_PROXIED_TOKENS") in await served.refusals()
    await stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(first))


async def test_a_hundred_calls_at_once_bind_one_token_once(served: Served) -> None:
    stubs, text = [through(served, EAST), through(served, WEST)], token()
    calls = [stubs[n % 2].WhoAmI(pb.WhoAmIRequest(), metadata=bearer(text)) for n in range(100)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    through_east, through_west = outcomes[::2], outcomes[1::2]
    won, lost = (
        (through_east, through_west) if isinstance(through_west[-1], BaseException) else (through_west, through_east)
    )
    assert all(isinstance(outcome, pb.WhoAmIResponse) for outcome in won)
    assert {reason(outcome)[1] for outcome in lost} == {"JWT_SVID_OF_ANOTHER_PROXY"}  # type: ignore[arg-type]


# ------------------------------------------------------------------ configuration


async def test_it_is_off_unless_somebody_switches_it_on(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        assert served.daemon.doors.proxies_port is None
        assert len(served.daemon.doors._servers()) == 1


LISTEN = {"agents": "127.0.0.1:1", "operations": "127.0.0.1:2", "proxies": "127.0.0.1:3"}
PROXIES = {"allow": [EAST], "audience": "broker", "jwt_bundles": {"dev.broker.internal": "own.json"}}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"listen": LISTEN}, "listen.proxies"),
        ({"proxies": PROXIES}, "proxies"),
        ({"listen": {**LISTEN, "proxies": "127.0.0.1:1"}, "proxies": PROXIES}, "listen.proxies"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "allow": []}}, "proxies.allow"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "allow": [EAST, EAST]}}, "proxies.allow.1"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "allow": ["spiffe://other.example/p"]}}, "proxies.allow.0"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "allow": [f"{EAST}/"]}}, "proxies.allow"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "allow": ["*"]}}, "proxies.allow"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "audience": ""}}, "proxies.audience"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "audience": "two words"}}, "proxies.audience"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "jwt_bundles": {}}}, "proxies.jwt_bundles"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "jwt_bundles": {"other.example": "x"}}}, "proxies.jwt_bundles"),
        ({"listen": LISTEN, "proxies": {**PROXIES, "trust": True}}, "proxies.trust"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Problems) as refused:
        load_config(write_config(tmp_path, **changes))
    assert any(problem.field.startswith(field) for problem in refused.value.problems), refused.value


async def test_a_bundle_that_cannot_be_read_at_start_keeps_it_from_serving(tmp_path: Path) -> None:
    settings = {"listen": LISTEN, "proxies": PROXIES}
    with pytest.raises(InvalidInput, match="cannot be read"):
        async with serve(tmp_path, **settings):
            pass


async def test_after_a_clock_that_was_hours_fast_a_token_is_good_again_and_again(tmp_path: Path) -> None:
    """F38: by broker time every token has ended. One that is good by the wall clock stays bound to its proxy."""
    clocks = Clocks()
    async with serve_proxied(tmp_path, clock=clocks.kept()) as served:
        east, west, mine, other = through(served), through(served, WEST), bearer(token()), bearer(token(jti="2"))
        started = await east.StartTask(
            pb.StartTaskRequest(request_id="t1", purpose="p"), metadata=bearer(token(jti="before"))
        )
        asked = pb.GetTaskRequest(task_id=started.id)
        for clocks.set_by in (timedelta(hours=3), timedelta(0)):
            await served.daemon._time.tick()  # type: ignore[union-attr]
        await asyncio.to_thread(served.daemon._identity.look)
        for shown in (mine, other, mine, other):
            assert (await east.GetTask(asked, metadata=shown)).id == started.id
        with pytest.raises(grpc.aio.AioRpcError) as copied:
            await west.GetTask(asked, metadata=mine)
        assert reason(copied.value)[1] == "JWT_SVID_OF_ANOTHER_PROXY"
        await east.CompleteTask(pb.CompleteTaskRequest(request_id="c1", task_id=started.id), metadata=mine)
