"""The whole corpus of hostile X.509-SVIDs against brokerd as it is wired, over real mTLS.

Each chain names the layer that must stop it. If that is TLS, the client learns nothing but UNAVAILABLE and no
handler runs; if it is our rules, the client hears the reason and the trail has it. Its twin, which differs in that
one thing, is an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from grpc._cython import cygrpc

from broker.api import connections
from broker.api.door import Door
from broker.api.tls import SERVER_OPTIONS
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1.broker_service_pb2_grpc import BrokerServiceStub
from broker.identity.agent import Peer
from broker.issuance.caller import Caller
from tests import hostile_svids, raw_tls
from tests.api.judged import Judged
from tests.api.served import CA, DOMAIN, Served, error_info, private, reason, serve
from tests.clock import TICK, StoppableClock
from tests.hostile_svids import ID, PARTNER_DOMAIN, Hostile, Layer, Sent, World
from tests.patience import PATIENCE, eventually

WORLD = World(datetime.now(UTC).replace(microsecond=0))
CORPUS = hostile_svids.hostile(WORLD)
ALLOWED = hostile_svids.allowed(WORLD)
WHOAMI = "/broker.api.v1.BrokerService/WhoAmI"
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:Parsed a serial number"),
]


@pytest.fixture(scope="module")
def clock() -> StoppableClock:
    """The broker's."""
    return StoppableClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, clock: StoppableClock) -> AsyncIterator[Served]:
    """One brokerd for the corpus, which trusts both trust domains of its world."""
    root = tmp_path_factory.mktemp("hostile")
    private(root / "identity" / "home.pem", CA.pem + WORLD.home_pem)
    private(root / "identity" / "partner.pem", WORLD.partner.pem)
    identity = {
        "certificate": "identity/broker.pem",
        "private_key": "identity/broker.key",
        "federates_with": [PARTNER_DOMAIN],
        "bundles": {DOMAIN: "identity/home.pem", PARTNER_DOMAIN: "identity/partner.pem"},
    }
    async with serve(root, clock=clock, identity=identity) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def door(running: Served) -> Served:
    """The same brokerd, with the budget of refusals that are written singly unused."""
    await running.daemon._upkeep.summarise_refusals(every=True)
    return running


def _channel(door: Served, sent: Sent) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(CA.pem, sent.key_pem, sent.pem + sent.chain_pem)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    return grpc.aio.secure_channel(f"127.0.0.1:{door.port}", credentials, options=options)


async def _whoami(door: Served, sent: Sent) -> str:
    """Who the broker says ``sent`` is, over a connection of its own."""
    async with _channel(door, sent) as channel:
        answer = await BrokerServiceStub(channel).WhoAmI(pb.WhoAmIRequest(), timeout=PATIENCE)
    return str(answer.spiffe_id)


async def _handled(door: Served) -> int:
    """How many RPCs have reached the door, however they ended."""
    scraped = (await door.daemon._scrape()).decode()
    return int(sum(float(line.split()[-1]) for line in scraped.splitlines() if line.startswith("broker_rpcs_total{")))


async def _shown(door: Served, sent: Sent, call: str = "") -> str:
    """What brokerd's TLS makes of ``sent``, shown by a client that sends anything."""
    return await asyncio.to_thread(raw_tls.show, door.port, [sent.leaf, *sent.chain], sent.key, call=call)


def _stopped_by(layer: Layer) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [each for each in CORPUS if each.layer is layer], ids=lambda case: case.what)


@_stopped_by(Layer.OURS)
async def test_what_tls_lets_in_our_rules_stop_with_their_reason(door: Served, case: Hostile) -> None:
    handled = await _handled(door)

    if case.stock:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _whoami(door, case.sent)
        assert reason(refused.value) == (grpc.StatusCode.UNAUTHENTICATED, case.reason)
        assert error_info(refused.value).metadata["hint"]
    else:
        assert await _shown(door, case.sent, WHOAMI) == raw_tls.ACCEPTED

    assert (await door.refusals())[-1] == ("anonymous", case.reason)
    assert await _handled(door) == handled + 1


@_stopped_by(Layer.TLS)
async def test_what_tls_stops_reaches_no_handler(door: Served, case: Hostile) -> None:
    handled, trail = await _handled(door), await door.refusals()

    # Stock clients refuse to load some of these themselves, and then prove nothing about the server.
    assert await _shown(door, case.sent) != raw_tls.ACCEPTED
    if case.stock:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _whoami(door, case.sent)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    assert await _handled(door) == handled
    assert await door.refusals() == trail


# Of all of them: that a case is a good one but for its one defect is seen by whatever it is refused for, too.
_TWINS = [pytest.param(each, marks=[pytest.mark.slow] if n % 8 else []) for n, each in enumerate(CORPUS)]


@pytest.mark.parametrize("case", _TWINS, ids=lambda case: case.what)
async def test_its_twin_is_an_agent(door: Served, case: Hostile) -> None:
    assert await _shown(door, case.twin.sent) == raw_tls.ACCEPTED
    if case.twin.id == ID:
        assert await _whoami(door, case.twin.sent) == ID
        return
    # Known for who it is, and not registered.
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _whoami(door, case.twin.sent)
    assert reason(refused.value) == (grpc.StatusCode.PERMISSION_DENIED, "AGENT_NOT_REGISTERED")
    assert (await door.refusals())[-1] == (case.twin.id, "AGENT_NOT_REGISTERED")


@pytest.mark.parametrize("what", ALLOWED)
async def test_what_the_standard_allows_comes_in(door: Served, what: str) -> None:
    assert await _whoami(door, ALLOWED[what]) == ID


async def test_no_certificate_at_all(door: Served) -> None:
    handled = await _handled(door)

    assert await asyncio.to_thread(raw_tls.show, door.port, [], CA.key) != raw_tls.ACCEPTED
    assert await _handled(door) == handled


async def test_the_corpus_is_as_large_as_was_promised() -> None:
    assert len(CORPUS) >= 40
    assert all(sum(each.layer is layer for each in CORPUS) >= 10 for layer in Layer)


# --------------------------------------------------------------------------- time on open connections


@pytest.mark.parametrize("rpc", ["WatchLeases", "HoldTask"])
async def test_a_silent_stream_ends_with_the_svid_that_opened_it(
    door: Served, clock: StoppableClock, judged: Judged, rpc: str
) -> None:
    """At the first judgement after its end, and not before. Over TLS it is good for longer than the test lasts."""
    sent = Sent.of(WORLD.home.svid(ID, ends=datetime.now(UTC) + timedelta(minutes=5) - WORLD.at))
    ends = x509.load_der_x509_certificate(sent.leaf).not_valid_after_utc
    clock.stop_at(ends)
    try:
        async with _channel(door, sent) as channel, asyncio.timeout(PATIENCE):
            stub = BrokerServiceStub(channel)
            task = await stub.StartTask(pb.StartTaskRequest(request_id=f"silent-{rpc}", purpose="outlives its SVID"))
            request = pb.WatchLeasesRequest() if rpc == "WatchLeases" else pb.HoldTaskRequest(task_id=task.id)
            stream = getattr(stub, rpc)(request)
            await stream.read()
            await judged.again(ID)
            clock.stop_at(ends + TICK)
            welcome = judged.welcome[ID]
            with pytest.raises(grpc.aio.AioRpcError) as cut:
                while await stream.read() is not grpc.aio.EOF:
                    pass
    finally:
        clock.go_on()

    assert reason(cut.value) == (grpc.StatusCode.UNAUTHENTICATED, "SVID_EXPIRED")
    assert judged.welcome[ID] == welcome
    assert (await door.refusals())[-1] == (ID, "SVID_EXPIRED")


@pytest_asyncio.fixture(loop_scope="module")
async def young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A broker whose connections grow half a second old: the cap is shorter, everything else is as ever."""
    cap = {"grpc.max_connection_age_ms": 500}
    monkeypatch.setattr("broker.api.server.SERVER_OPTIONS", tuple({**dict(SERVER_OPTIONS), **cap}.items()))
    async with serve(tmp_path) as made:
        yield made


async def test_an_aged_connection_shakes_hands_anew_and_a_valid_svid_notices_nothing(
    young: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections, identify = set(), Door.identify

    def noted(self: Door[Peer, Caller], context: Any) -> Peer:
        connections.add(context.peer())
        return identify(self, context)

    monkeypatch.setattr(Door, "identify", noted)
    async with _channel(young, Sent.of(CA.svid(ID))) as channel, asyncio.timeout(PATIENCE):
        while len(connections) < 5:
            assert (await BrokerServiceStub(channel).WhoAmI(pb.WhoAmIRequest())).spiffe_id == ID
            await asyncio.sleep(0.05)


async def test_an_aged_connection_of_a_rotated_out_svid_gets_no_further_than_tls(young: Served) -> None:
    """TLS asks the system's clock, so this SVID really ends."""
    for seconds in (2, 10, 50):  # a machine may stand still for as long as an SVID lives that was just made
        sent = Sent.of(CA.svid(ID, ends=datetime.now(UTC) + timedelta(seconds=seconds) - CA.at))
        ends = x509.load_der_x509_certificate(sent.leaf).not_valid_after_utc
        answers = await _until_tls_refuses(young, sent, ends + timedelta(seconds=1))
        # Whatever the broker's own rules would say, which see to a connection that is still open.
        assert ("late", "OK") not in answers
        if ("early", "OK") in answers:
            break
    assert ("early", "OK") in answers
    handled = await _handled(young)
    assert await _shown(young, sent) != raw_tls.ACCEPTED
    assert await _handled(young) == handled
    assert await _whoami(young, Sent.of(CA.svid(ID))) == ID


async def _until_tls_refuses(door: Served, sent: Sent, late: datetime) -> set[tuple[str, str]]:
    """What calls over one channel came to, until one that was begun after ``late`` got no connection."""
    answers: set[tuple[str, str]] = set()
    async with _channel(door, sent) as channel, asyncio.timeout(2 * PATIENCE):
        while ("late", "UNAVAILABLE") not in answers:
            begun = "late" if datetime.now(UTC) > late else "early"
            try:
                await BrokerServiceStub(channel).WhoAmI(pb.WhoAmIRequest())
                answers.add((begun, "OK"))
            except grpc.aio.AioRpcError as error:
                answers.add((begun, error.code().name))
            await asyncio.sleep(0.05)
    return answers


async def test_the_cap_on_a_connections_age_is_in_force() -> None:
    options = dict(SERVER_OPTIONS)

    # With the grace: how long a root or a certificate that TLS would refuse today can still be connected at most.
    assert 0 < options["grpc.max_connection_age_ms"] + options["grpc.max_connection_age_grace_ms"] <= 20 * 60_000


# ------------------------------------------------------------------ connections that say nothing


@asynccontextmanager
async def _silent(door: Served, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections that say nothing."""
    opened = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(count)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in opened), return_exceptions=True)


async def _closed(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        return await reader.read(1) == b""
    return True


async def test_a_handshake_that_stalls_is_ended_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24. The timeout is shorter here, everything else is as ever."""
    assert 0 < dict(SERVER_OPTIONS)["grpc.server_handshake_timeout_ms"] <= 10_000
    short = {"grpc.server_handshake_timeout_ms": 2_000}
    monkeypatch.setattr("broker.api.server.SERVER_OPTIONS", tuple({**dict(SERVER_OPTIONS), **short}.items()))
    async with serve(tmp_path) as door, _silent(door, 100) as silent, asyncio.timeout(PATIENCE):
        assert await _whoami(door, Sent.of(CA.svid(ID))) == ID
        assert await asyncio.gather(*map(_closed, silent)) == [True] * 100


async def test_beyond_a_ports_share_connections_are_closed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24. Those who are in stay in; who comes too late is let in as soon as there is room."""
    monkeypatch.setattr(connections, "capped", lambda parts: (connections.OPTION, 4))
    async with (
        serve(tmp_path) as door,
        _channel(door, Sent.of(CA.svid(ID))) as channel,
        asyncio.timeout(2 * PATIENCE),
    ):
        stub = BrokerServiceStub(channel)
        assert (await stub.WhoAmI(pb.WhoAmIRequest())).spiffe_id == ID
        async with _silent(door, 20) as silent:
            closed = [asyncio.ensure_future(_closed(each)) for each in silent]
            # At once: a handshake that stalls is given ten seconds, and those that were let in have it.
            while sum(each.done() for each in closed) < 17:
                await asyncio.sleep(0.01)
            assert (await stub.WhoAmI(pb.WhoAmIRequest())).spiffe_id == ID
            for each in closed:
                each.cancel()
            await asyncio.gather(*closed, return_exceptions=True)

        async def let_in() -> bool:
            """There is room when the server has seen that they are gone."""
            try:
                return await _whoami(door, Sent.of(CA.svid(ID))) == ID
            except grpc.aio.AioRpcError as refused:
                assert refused.code() is grpc.StatusCode.UNAVAILABLE
                return False

        await eventually(let_in)


@pytest.mark.parametrize(
    ("soft", "agents", "others"),
    [
        (1024, 512, 128),  # 1024 * 4 / 8, 1024 * 1 / 8
        (4, 2, 1),  # never none
        (resource.RLIM_INFINITY, 2**31 - 1, 2**31 - 1),
        (2**40, 2**31 - 1, 2**31 - 1),  # gRPC counts in 32 bits
    ],
)
async def test_the_shares_of_what_may_be_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, agents: int, others: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, soft))
    assert connections.capped(connections.AGENTS) == (connections.OPTION, agents)
    assert connections.capped(connections.OTHERS) == (connections.OPTION, others)
    assert connections.AGENTS + 3 * connections.OTHERS < 8  # something is left to end credentials with
    assert connections.OPTION.encode() in Path(cygrpc.__file__).read_bytes()
