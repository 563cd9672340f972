"""The corpus of hostile JWT-SVIDs through the real door: stopped by its reason, recorded, and nothing done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broker.api.v1 import broker_service_pb2 as pb
from tests.api.proxied import EAST, FEDERATED, WEST, bearer, proxy_channel, serve_proxied, through, token, world
from tests.api.served import ANALYST, DOMAIN, Served, error_info, reason, svid
from tests.forge import authority
from tests.forge_jwt import other_signature
from tests.hostile_jwts import HOSTILE, TWINS, Hostile, Twin
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serve_proxied(tmp_path_factory.mktemp("proxied")) as running:
        # The corpus is larger than one window's budget, and each case shall leave an event of its own.
        running.daemon._budget._per_window = 100_000
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def east(served: Served) -> Any:
    return through(served, EAST)


async def refused(served: Served, stub: Any, metadata: Any) -> tuple[grpc.StatusCode, str]:
    """How WhoAmI with ``metadata`` is refused, with its audit event and without a word of the token."""
    before = len(await served.refusals())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.WhoAmI(pb.WhoAmIRequest(), metadata=metadata, timeout=PATIENCE)
    code, why = reason(error.value)
    (event,) = [each for each in await served.audit() if each["type"] == "request.refused"][before:]
    assert (event["actor"], event["data"]["reason"]) == ("anonymous", why)
    told = str(event) + str(error.value)
    assert all(len(value) < 60 or str(value) not in told for _, value in metadata)
    return code, why


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
async def test_each_hostile_token_is_stopped_by_its_rule(served: Served, east: Any, case: Hostile) -> None:
    assert await refused(served, east, bearer(case.make(world()))) == (UNAUTHENTICATED, case.reason)


@pytest.mark.parametrize("case", TWINS, ids=lambda case: case.name)
async def test_each_twin_passes(east: Any, case: Twin) -> None:
    answer = await east.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(case.make(world())))
    assert answer.spiffe_id == ANALYST
    assert answer.delivery == "proxy"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda t: (), "JWT_SVID_MISSING"),
        (lambda t: (*bearer(t), *bearer(t)), "JWT_SVID_MISSING"),
        (lambda t: (*bearer(t), ("authorization", "Basic cm9vdDo=")), "JWT_SVID_MISSING"),
        (lambda t: (("authorization", t),), "JWT_SVID_MISSING"),
        (lambda t: (("authorization", "Bearer"),), "JWT_SVID_MISSING"),
        (lambda t: (("authorization", f"bearer {t}"),), "JWT_SVID_MISSING"),
        (lambda t: (("authorization", f"DPoP {t}"),), "JWT_SVID_MISSING"),
        (lambda t: (("authorization", f"Bearer  {t}"),), "JWT_SVID_MALFORMED"),
        (lambda t: (("authorization", f"Bearer {t}, Bearer {t}"),), "JWT_SVID_MALFORMED"),
        (lambda t: (("x-forwarded-authorization", f"Bearer {t}"),), "JWT_SVID_MISSING"),
        (lambda t: (("x-forwarded-client-cert", f"URI={ANALYST}"),), "JWT_SVID_MISSING"),
        (lambda t: (("cookie", f"authorization=Bearer {t}"),), "JWT_SVID_MISSING"),
        (lambda t: (("authorization-bin", b"Bearer " + t.encode()),), "JWT_SVID_MISSING"),
    ],
)
async def test_a_call_carries_exactly_one_token(served: Served, east: Any, make: Any, expected: str) -> None:
    assert await refused(served, east, make(token())) == (UNAUTHENTICATED, expected)


@pytest.mark.parametrize("text", [EAST.replace("east", "north"), ANALYST, f"{EAST}/x", f"spiffe://{DOMAIN}/proxy"])
async def test_who_is_no_allowed_proxy_brings_nobody(served: Served, text: str) -> None:
    answer = await refused(served, through(served, text), bearer(token()))
    assert answer == (grpc.StatusCode.PERMISSION_DENIED, "PROXY_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (svid(EAST, ca=True, usage=("digital_signature", "key_cert_sign")), "SVID_IS_CA"),
        (svid(EAST.replace("proxy", "Proxy/..")), "SVID_ID_NOT_CANONICAL"),
        (svid(EAST.replace(DOMAIN, "elsewhere.example")), "SVID_TRUST_DOMAIN_UNKNOWN"),
    ],
)
async def test_a_proxy_is_held_to_the_rules_of_x509_svids(served: Served, client: Any, expected: str) -> None:
    assert await refused(served, through(served, client), bearer(token())) == (UNAUTHENTICATED, expected)


async def test_a_proxy_of_an_unknown_authority_does_not_get_through_tls(served: Served) -> None:
    rogue = authority("rogue.example", at=svid().certificate.not_valid_before_utc).svid(EAST)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await through(served, rogue).WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token()), timeout=PATIENCE)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_token_stays_with_the_proxy_that_showed_it_first(served: Served, east: Any) -> None:
    shared, west = token(jti="stays"), through(served, WEST)
    for _ in range(3):
        await east.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(shared))
    for copy in (shared, other_signature(shared)):
        answer = await refused(served, west, bearer(copy))
        assert answer == (UNAUTHENTICATED, "JWT_SVID_OF_ANOTHER_PROXY")
    (*_, event) = await served.audit()
    assert event["data"]["metadata"]["proxy"] == WEST
    assert event["data"]["metadata"]["boundTo"] == EAST
    await east.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(shared))
    await west.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token(jti="its own")))


async def test_a_refused_token_is_bound_to_nobody(served: Served, east: Any) -> None:
    good = token(jti="was cut")
    head = good.rpartition(".")[0]
    with pytest.raises(grpc.aio.AioRpcError):
        await through(served, WEST).WhoAmI(pb.WhoAmIRequest(), metadata=bearer(f"{head}.AAAA"))
    await east.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(good))


async def test_an_agent_that_is_not_registered_is_told_so_by_its_own_name(served: Served, east: Any) -> None:
    stranger = f"spiffe://{DOMAIN}/agent/stranger"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await east.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token(stranger)))
    assert reason(error.value) == (grpc.StatusCode.PERMISSION_DENIED, "AGENT_NOT_REGISTERED")
    assert (stranger, "AGENT_NOT_REGISTERED") in await served.refusals()


async def test_a_token_on_the_agents_listener_is_refused_even_beside_a_good_certificate(served: Served) -> None:
    for stub in (served.stub(), served.stub(EAST)):
        for metadata in (bearer(token()), (("authorization", "anything"),)):
            assert await refused(served, stub, metadata) == (UNAUTHENTICATED, "JWT_SVID_UNEXPECTED")


async def test_health_checks_want_the_same_two_proofs(served: Served, east: Any) -> None:
    probe = health_pb2_grpc.HealthStub(proxy_channel(served))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await probe.Check(health_pb2.HealthCheckRequest())
    assert reason(error.value) == (UNAUTHENTICATED, "JWT_SVID_MISSING")
    answer = await probe.Check(health_pb2.HealthCheckRequest(), metadata=bearer(token()))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_federated_agent_through_an_own_proxy(served: Served, east: Any) -> None:
    here = world()
    other = here.federated.token(f"spiffe://{FEDERATED}/agent/analyst", here.audience)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await east.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(other))
    # Proven, and not registered: the registry is the next thing that is asked.
    assert reason(error.value)[1] == "AGENT_NOT_REGISTERED"
    assert error_info(error.value).metadata["spiffeId"] == f"spiffe://{FEDERATED}/agent/analyst"
