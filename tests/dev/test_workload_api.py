"""py-spiffe, unchanged, against our Workload API: every method, rotation, and the header."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from spiffe import JwtSource, WorkloadApiClient, X509Source
from spiffe import SpiffeId as PySpiffeId
from spiffe import TrustDomain as SpiffeTrustDomain
from spiffe._proto import workload_pb2 as messages
from spiffe._proto import workload_pb2_grpc
from spiffe.workloadapi.errors import FetchJwtSvidError, ValidateJwtSvidError

from broker.clock import SystemClock
from broker.dev.trust_domain import TrustDomain
from broker.dev.workload_api import WorkloadApiSockets
from broker.identity.spiffe_id import SpiffeId
from tests.patience import PATIENCE

REPORTER = SpiffeId.parse("spiffe://dev.broker.internal/agent/reporter")
WRITER = SpiffeId.parse("spiffe://dev.broker.internal/agent/writer")
HEADER = (("workload.spiffe.io", "true"),)


@pytest.fixture
def domain(tmp_path: Path) -> TrustDomain:
    return TrustDomain.load("dev.broker.internal", tmp_path / "trust", datetime.now(UTC))


@pytest.fixture
async def sockets(domain: TrustDomain, tmp_path: Path) -> AsyncIterator[WorkloadApiSockets]:
    sockets = WorkloadApiSockets(domain, [REPORTER, WRITER], tmp_path / "sockets", SystemClock())
    await sockets.start()
    yield sockets
    await sockets.destroy()


def x509_source(sockets: WorkloadApiSockets, spiffe_id: SpiffeId) -> X509Source:
    return X509Source(socket_path=sockets.endpoint(spiffe_id), timeout_in_seconds=PATIENCE)


async def test_each_socket_is_its_identity_and_only_its_owner_opens_it(sockets: WorkloadApiSockets) -> None:
    for spiffe_id in (REPORTER, WRITER):
        with await asyncio.to_thread(x509_source, sockets, spiffe_id) as source:
            assert str(source.get_x509_context().default_svid.spiffe_id) == str(spiffe_id)
            assert source.get_bundle_for_trust_domain(SpiffeTrustDomain("dev.broker.internal")) is not None
        assert sockets.sockets[spiffe_id].stat().st_mode & 0o777 == 0o600
        assert sockets.sockets[spiffe_id].parent.stat().st_mode & 0o777 == 0o700


async def test_a_rotated_svid_is_pushed(sockets: WorkloadApiSockets) -> None:
    source = await asyncio.to_thread(x509_source, sockets, REPORTER)
    loop, pushed = asyncio.get_running_loop(), asyncio.Event()
    source.subscribe_for_updates(lambda: loop.call_soon_threadsafe(pushed.set))
    before = source.get_x509_context().default_svid.leaf.serial_number
    sockets.rotate(REPORTER)
    await asyncio.wait_for(pushed.wait(), PATIENCE)
    assert source.get_x509_context().default_svid.leaf.serial_number != before
    await asyncio.to_thread(source.close)


async def test_without_being_asked_a_fresh_svid_comes_at_half_life(domain: TrustDomain, tmp_path: Path) -> None:
    """Lives 2 s; the next comes after 1 s, so it is made before the first one's end. A busy machine may be late."""
    for seconds in (2, 20, 60):
        first, second = await two_of_a_life(domain, tmp_path / f"s{seconds}", timedelta(seconds=seconds))
        made = second.not_valid_before_utc + timedelta(seconds=10)
        assert first.not_valid_before_utc < made
        if made <= first.not_valid_after_utc:
            return
    raise AssertionError("half a minute was not enough")


async def two_of_a_life(
    domain: TrustDomain, directory: Path, ttl: timedelta
) -> tuple[x509.Certificate, x509.Certificate]:
    """An SVID, and the next, which nobody has asked for."""
    sockets = WorkloadApiSockets(domain, [REPORTER], directory, SystemClock(), x509_ttl=ttl)
    await sockets.start()
    source = await asyncio.to_thread(x509_source, sockets, REPORTER)
    loop, pushed = asyncio.get_running_loop(), asyncio.Event()
    source.subscribe_for_updates(lambda: loop.call_soon_threadsafe(pushed.set))
    first = source.get_x509_context().default_svid.leaf
    await asyncio.wait_for(pushed.wait(), PATIENCE)
    second = source.get_x509_context().default_svid.leaf
    await asyncio.to_thread(source.close)
    await sockets.stop()
    return first, second


async def test_a_source_survives_a_restart_of_the_server(
    sockets: WorkloadApiSockets, domain: TrustDomain, tmp_path: Path
) -> None:
    source = await asyncio.to_thread(x509_source, sockets, REPORTER)
    loop, pushed = asyncio.get_running_loop(), asyncio.Event()
    await sockets.stop()
    assert sockets.sockets == {}
    source.subscribe_for_updates(lambda: loop.call_soon_threadsafe(pushed.set))
    again = WorkloadApiSockets(domain, [REPORTER], tmp_path / "sockets", SystemClock())
    await again.start()
    try:
        await asyncio.wait_for(pushed.wait(), PATIENCE)
        assert not source.is_closed()
    finally:
        await asyncio.to_thread(source.close)
        await again.stop()


async def test_jwt_svids_for_an_audience_validated_by_bundle_and_by_server(sockets: WorkloadApiSockets) -> None:
    def fetch() -> tuple[str, str, str]:
        with JwtSource(socket_path=sockets.endpoint(REPORTER), timeout_in_seconds=PATIENCE) as source:
            svid = source.fetch_svid(audience={"broker"})
            bundle = source.get_bundle_for_trust_domain(SpiffeTrustDomain("dev.broker.internal"))
        client = WorkloadApiClient(sockets.endpoint(WRITER), default_timeout=PATIENCE)
        validated = client.validate_jwt_svid(svid.token, "broker")
        client.close()
        type(svid).parse_and_validate(svid.token, bundle, {"broker"})
        return str(svid.spiffe_id), str(validated.spiffe_id), svid.token

    own, validated, _ = await asyncio.to_thread(fetch)
    assert own == validated == str(REPORTER)


async def test_no_jwt_svid_for_another_identity_and_no_validation_for_another_audience(
    sockets: WorkloadApiSockets,
) -> None:
    def ask() -> None:
        client = WorkloadApiClient(sockets.endpoint(REPORTER), default_timeout=PATIENCE)
        with pytest.raises(FetchJwtSvidError, match="reporter"):
            client.fetch_jwt_svid(audience={"broker"}, subject=PySpiffeId(str(WRITER)))
        token = client.fetch_jwt_svid(audience={"broker"}).token
        with pytest.raises(ValidateJwtSvidError):
            client.validate_jwt_svid(token, "somebody-else")
        client.close()

    await asyncio.to_thread(ask)


@pytest.mark.parametrize("metadata", [(), (("workload.spiffe.io", "false"),), (("workload.spiffe.io", "True"),)])
async def test_a_call_without_the_header_is_refused(
    sockets: WorkloadApiSockets, metadata: tuple[tuple[str, str], ...]
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{sockets.sockets[REPORTER]}") as channel:
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        calls = {
            "FetchX509SVID": messages.X509SVIDRequest(),
            "FetchX509Bundles": messages.X509BundlesRequest(),
            "FetchJWTBundles": messages.JWTBundlesRequest(),
            "FetchJWTSVID": messages.JWTSVIDRequest(audience=["broker"]),
            "ValidateJWTSVID": messages.ValidateJWTSVIDRequest(audience="broker", svid="x.y.z"),
        }
        for method, request in calls.items():
            call = getattr(stub, method)(request, metadata=metadata, timeout=PATIENCE)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await (call if method in ("FetchJWTSVID", "ValidateJWTSVID") else call.read())
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method
            assert refused.value.details() == "security header missing from request"


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("FetchJWTSVID", messages.JWTSVIDRequest()),
        ("FetchJWTSVID", messages.JWTSVIDRequest(audience=[""])),
        ("ValidateJWTSVID", messages.ValidateJWTSVIDRequest(svid="x.y.z")),
        ("ValidateJWTSVID", messages.ValidateJWTSVIDRequest(audience="broker")),
        ("ValidateJWTSVID", messages.ValidateJWTSVIDRequest(audience="broker", svid="not a token")),
    ],
)
async def test_an_empty_or_malformed_argument_is_refused(
    sockets: WorkloadApiSockets, method: str, request_message: object
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{sockets.sockets[REPORTER]}") as channel:
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(stub, method)(request_message, metadata=HEADER, timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_ids_that_look_alike_have_their_own_sockets(domain: TrustDomain, tmp_path: Path) -> None:
    paths = ["/agent/a-b", "/agent-a/b", "/agent/a/b", f"/{'x' * 200}/1", f"/{'x' * 200}/2"]
    ids = [SpiffeId("dev.broker.internal", path) for path in paths]
    # Too deep for a unix socket's 107 bytes: the sockets go elsewhere, behind a link from where they were wanted.
    deep = tmp_path / ("d" * 60) / "sockets"
    deep.parent.mkdir()
    sockets = WorkloadApiSockets(domain, ids, deep, SystemClock())
    await sockets.start()
    try:
        assert len(set(sockets.sockets.values())) == len(ids)
        assert max(len(str(path)) for path in sockets.sockets.values()) <= 107
        assert deep.is_symlink()
        assert deep.resolve().stat().st_mode & 0o777 == 0o700
    finally:
        place = deep.resolve()
        await sockets.destroy()
    assert not place.exists()
    assert not deep.is_symlink()
