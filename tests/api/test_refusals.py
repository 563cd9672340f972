"""Bad input: a stable reason, nothing issued, and a trace in the audit trail."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from broker.api.v1 import broker_service_pb2 as pb
from tests.api.served import ANALYST, CA, DOMAIN, Served, ask, error_info, reason, start_task, svid
from tests.forge import authority
from tests.patience import PATIENCE

INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("changes", "code", "expected"),
    [
        ({"ttl": {"seconds": 0}}, INVALID, "TTL_INVALID"),
        ({"ttl": None}, INVALID, "TTL_INVALID"),
        ({"ttl": {"seconds": -60}}, INVALID, "TTL_INVALID"),
        ({"ttl": {"seconds": 1, "nanos": -1}}, INVALID, "TTL_INVALID"),
        ({"ttl": {"nanos": 1}}, INVALID, "TTL_INVALID"),
        ({"ttl": {"nanos": 2_000_000_000}}, INVALID, "TTL_INVALID"),
        ({"ttl": {"seconds": 2**62}}, INVALID, "TTL_INVALID"),
        ({"ttl": {"seconds": 100_000_000_000}}, INVALID, "TTL_TOO_LONG"),
        ({"ttl": {"seconds": 901}}, INVALID, "TTL_TOO_LONG"),
        ({"ttl": {"nanos": 500_000_000}}, INVALID, "TTL_TOO_SHORT"),
        ({"template": "no-such"}, grpc.StatusCode.NOT_FOUND, "TEMPLATE_NOT_FOUND"),
        ({"parameters": {"table": "x"}}, INVALID, "PARAMETER_UNKNOWN"),
        ({"resource": "../orders"}, INVALID, "RESOURCE_NOT_IN_TEMPLATE"),
        ({"resource": "*"}, INVALID, "RESOURCE_NOT_IN_TEMPLATE"),
        ({"resource": "orders'; drop table orders; --"}, INVALID, "RESOURCE_NOT_IN_TEMPLATE"),
        ({"resource": "ordеrs"}, INVALID, "RESOURCE_NOT_IN_TEMPLATE"),
        ({"account": "production"}, INVALID, "ACCOUNT_NOT_IN_TEMPLATE"),
        ({"environment": "production"}, INVALID, "ENVIRONMENT_NOT_IN_TEMPLATE"),
        ({"intent": None}, INVALID, "FIELD_REQUIRED_BY_TEMPLATE"),
        ({"request_id": None}, INVALID, "FIELD_INVALID"),
        ({"request_id": "no spaces"}, INVALID, "FIELD_INVALID"),
        ({"task_id": "task-aaaaaaaaaaaaaaaaaaaaaaaaaa"}, grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND"),
        (
            {"template": "orders-readwrite", "reason": "r", "ticket": "T-1"},
            DENIED,
            "POLICY_DENIED",
        ),
        (
            {"template": "reports-read", "account": "123456789012", "resource": "orders-reports"},
            INVALID,
            "PARAMETER_MISSING",
        ),
        *(
            (
                {
                    "template": "reports-read",
                    "account": "123456789012",
                    "resource": "orders-reports",
                    "parameters": {"day": bad},
                },
                INVALID,
                "PARAMETER_INVALID",
            )
            for bad in ("daily/*", "daily/../2026-01-01", "17", "daily/2026-01-01\n", '"', "${aws:username}", "")
        ),
    ],
)
async def test_each_is_refused_with_its_reason(
    served: Served, changes: dict[str, Any], code: grpc.StatusCode, expected: str
) -> None:
    stub = served.stub()
    task = await start_task(stub)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.RequestCredential(ask(task, **changes))
    assert reason(refused.value) == (code, expected)
    assert error_info(refused.value).metadata["hint"]
    assert (ANALYST, expected) in await served.refusals()
    assert all(not upstream.calls for upstream in served.upstreams.values())
    assert not (await stub.ListLeases(pb.ListLeasesRequest())).leases


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (svid(ANALYST, ca=True, usage=("digital_signature", "key_cert_sign")), "SVID_IS_CA"),
        (CA.svid(ANALYST, f"spiffe://{DOMAIN}/agent/admin"), "SVID_URI_COUNT"),
        (svid(f"spiffe://{DOMAIN.upper()}/agent/analyst"), "SVID_ID_NOT_CANONICAL"),
        (svid(f"spiffe://{DOMAIN}/agent/../analyst"), "SVID_ID_NOT_CANONICAL"),
        (svid(f"spiffe://{DOMAIN}"), "SVID_ID_NOT_CANONICAL"),
        (svid("spiffe://elsewhere.example/agent/analyst"), "SVID_TRUST_DOMAIN_UNKNOWN"),
    ],
)
async def test_an_svid_that_tls_accepts_and_spiffe_forbids(served: Served, client: Any, expected: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.stub(client).WhoAmI(pb.WhoAmIRequest())
    assert reason(refused.value) == (grpc.StatusCode.UNAUTHENTICATED, expected)
    assert ("anonymous", expected) in await served.refusals()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"purpose": "  "}, "purpose: says nothing"),
        ({"purpose": "\u200b"}, "purpose: says nothing"),
        (
            {"participants": ["other"]},
            "participants: 'other' is not a SPIFFE ID",
        ),  # the caller is who it is all the same
        ({"participants": [f"spiffe://{DOMAIN}/agent/\u043ether"]}, "is not a SPIFFE ID"),
    ],
)
async def test_a_task_that_says_nothing_or_names_nobody(served: Served, changes: dict[str, Any], told: str) -> None:
    request = pb.StartTaskRequest(**{"request_id": "t", "purpose": "p", **changes})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub().StartTask(request)
    assert caught.value.code() is INVALID
    assert error_info(caught.value).reason == "FIELD_INVALID"
    assert told in str(caught.value.details())


async def test_an_unregistered_agent(served: Served) -> None:
    stranger = f"spiffe://{DOMAIN}/agent/stranger"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.stub(stranger).StartTask(pb.StartTaskRequest(request_id="a", purpose="b"))
    assert reason(refused.value) == (DENIED, "AGENT_NOT_REGISTERED")
    assert (stranger, "AGENT_NOT_REGISTERED") in await served.refusals()


@pytest.mark.parametrize(
    "client",
    [
        authority("rogue.example", at=CA.at).svid(ANALYST),
        svid(ANALYST, begins=-2 * (CA.at - CA.at.replace(year=CA.at.year - 1)), ends=CA.at - CA.at),
    ],
    ids=["unknown CA", "expired"],
)
async def test_what_tls_itself_refuses_never_reaches_a_handler(served: Served, client: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.stub(client).WhoAmI(pb.WhoAmIRequest(), timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await served.refusals() == []


async def test_a_message_over_64_kib(served: Served) -> None:
    call = served.channel().unary_unary("/broker.api.v1.BrokerService/RequestCredential")
    for size, expected in ((64 * 1024 + 1, "MESSAGE_TOO_LARGE"), (64 * 1024, "MESSAGE_MALFORMED")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"\xff" * size)
        assert reason(refused.value) == (INVALID, expected)
        assert (ANALYST, expected) in await served.refusals()


async def test_refusals_beyond_the_budget_are_counted_not_written(served: Served) -> None:
    stub = served.stub()
    for number in range(30):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetTask(pb.GetTaskRequest(task_id=f"task-{number}"))
    assert len(await served.refusals()) == 20
    await served.daemon._upkeep.summarise_refusals(every=True)
    summaries = [r for r in await served.audit() if r["type"] == "request.refusals_summarised"]
    assert [(s["actor"], s["data"]["counts"]) for s in summaries] == [("analyst", {"TASK_NOT_FOUND": 10})]


async def test_an_unknown_method_and_service(served: Served) -> None:
    for path in ("/broker.api.v1.BrokerService/Nothing", "/broker.api.v1.AdminService/Approve"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.channel().unary_unary(path)(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
