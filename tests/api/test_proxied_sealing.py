"""A credential sealed end to end: the way sees ciphertext, and what was changed on the way is noticed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import credential_pb2
from broker.client import AsyncClient, connect
from broker.errors import BrokerError
from broker.lease.sealing import SUITE, Recipient, Sealed, SealedTo
from tests.api.ending_proxy import EndingProxy, ending_proxy
from tests.api.judged import Judged
from tests.api.proxied import EAST, WEST, serve_proxied, token
from tests.api.served import ANALYST, CA, Served, ask, private, reason, start_task, svid
from tests.clock import TICK, StoppableClock
from tests.patience import PATIENCE, eventually

ASK: dict[str, Any] = {
    "account": "dev",
    "environment": "dev",
    "resource": "orders",
    "ttl": "1m",
    "intent": "count the orders",
}


@pytest.fixture
def clock() -> StoppableClock:
    """The broker's."""
    return StoppableClock()


@pytest.fixture
async def served(tmp_path: Path, clock: StoppableClock) -> AsyncIterator[Served]:
    async with serve_proxied(tmp_path, clock=clock) as running:
        yield running


@pytest.fixture
async def proxy(served: Served) -> AsyncIterator[EndingProxy]:
    async with ending_proxy(served) as running:
        yield running


def agent(root: Path, port: int, text: str, seal: bool | None = None) -> AsyncClient:
    """The SDK as the agent behind the proxy uses it."""
    mine = svid(ANALYST)
    where = root / "agent"
    return connect(
        f"127.0.0.1:{port}",
        "localhost",
        certificate=private(where / "svid.pem", mine.pem),
        key=private(where / "svid.key", mine.key_pem),
        bundle=private(where / "bundle.pem", CA.pem),
        token_file=private(where / "token", f"{text}\n"),
        seal=seal,
    )


# ------------------------------------------------------------------ the command line


async def test_the_command_line_through_a_proxy(served: Served, proxy: EndingProxy) -> None:
    where, mine = served.root / "agent", svid(ANALYST)
    material = {"certificate": mine.pem, "key": mine.key_pem, "bundle": CA.pem, "token-file": token()}
    options = [f"--{name}={private(where / name, data)}" for name, data in material.items()]
    asked = [f"--{name}={value}" for name, value in ASK.items()]
    seen = where / "password"
    whole = [
        *(f"--address=127.0.0.1:{proxy.port}", "--server-name=localhost", *options),
        *("exec", "--template=orders-readonly", *asked, "--purpose=through a proxy"),
        *("--", "sh", "-c", f'printf %s "$PGPASSWORD" > {seen}'),
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from broker.cli.main import main; main()", *whole, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == 0, told
    assert seen.read_bytes()
    assert proxy.seen
    assert all(seen.read_bytes() not in data for data in proxy.seen)


# ------------------------------------------------------------------ on the wire


async def test_what_is_sealed_opens_with_the_key_and_for_this_delivery_only(served: Served) -> None:
    stub, recipient = served.stub(), Recipient()
    task = await start_task(stub)
    answer = await stub.RequestCredential(ask(task, recipient_public_key=recipient.public_key))
    assert not answer.HasField("credential")
    came, lease = answer.sealed_credential, answer.lease
    sealed = Sealed(came.encapsulated_key, came.ciphertext)
    right = (lease.id, lease.attempt_id, ANALYST, "r1")
    login = credential_pb2.Credential.FromString(recipient.open(came.suite, sealed, SealedTo(*right))).database_login
    assert login.password and login.username
    assert login.password.encode() not in answer.SerializeToString()
    for position in range(4):
        wrong = list(right)
        wrong[position] += "x"
        with pytest.raises(BrokerError, match="another delivery"):
            recipient.open(SUITE, sealed, SealedTo(*wrong))
    with pytest.raises(BrokerError, match="another key"):
        Recipient().open(SUITE, sealed, SealedTo(*right))
    for bad in (Sealed(came.encapsulated_key, came.ciphertext[:-1]), Sealed(came.encapsulated_key, b"")):
        with pytest.raises(BrokerError, match="another key"):
            recipient.open(SUITE, bad, SealedTo(*right))
    for suite, bad in ((SUITE + " ", sealed), (SUITE, Sealed(b"", came.encapsulated_key + came.ciphertext))):
        with pytest.raises(BrokerError, match="suite"):
            recipient.open(suite, bad, SealedTo(*right))


def test_no_two_deliveries_share_what_a_seal_is_bound_to() -> None:
    one, other = SealedTo("ab", "c", "d", "e"), SealedTo("a", "bc", "d", "e")
    assert one.info() != other.info()


P = 2**255 - 19
LOW_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
)


@pytest.mark.parametrize(
    "key",
    [
        *(number.to_bytes(32, "little") for number in LOW_ORDER),
        *(number.to_bytes(32, "little") for number in (P, P + 1, P + 9, 2**255 - 1, 2**255 + 9, 2**256 - 1)),
        b"\x09",
        bytes([9]) + bytes(30),
        bytes([9]) + bytes(32),
        bytes(64),
    ],
    ids=lambda key: f"{len(key)} bytes {key[:2].hex()}..{key[-2:].hex()}",
)
async def test_a_key_that_seals_nothing_is_refused_before_anything_is_issued(served: Served, key: bytes) -> None:
    stub = served.stub()
    task = await start_task(stub)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.RequestCredential(ask(task, recipient_public_key=key))
    assert reason(refused.value) == (grpc.StatusCode.INVALID_ARGUMENT, "RECIPIENT_KEY_INVALID")
    assert (ANALYST, "RECIPIENT_KEY_INVALID") in await served.refusals()
    assert all(not upstream.calls for upstream in served.upstreams.values())
    assert not (await stub.ListLeases(pb.ListLeasesRequest())).leases


async def test_the_same_request_with_another_key_is_another_request(served: Served) -> None:
    stub = served.stub()
    task = await start_task(stub)
    await stub.RequestCredential(ask(task, recipient_public_key=Recipient().public_key))
    for other in (Recipient().public_key, None):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RequestCredential(ask(task, recipient_public_key=other))
        assert reason(refused.value)[1] == "REQUEST_ID_REUSED"


async def test_nothing_is_sealed_where_nothing_is_issued(served: Served) -> None:
    stub = served.stub()
    task = await start_task(stub)
    answer = await stub.RequestCredential(ask(task, validate_only=True, recipient_public_key=Recipient().public_key))
    assert not answer.HasField("sealed_credential") and not answer.HasField("credential")


# ------------------------------------------------------------------ the SDK behind a proxy


async def test_the_sdk_through_a_proxy_gets_what_the_proxy_cannot_read(served: Served, proxy: EndingProxy) -> None:
    text = token()
    async with agent(served.root, proxy.port, text) as client:
        me = await client.whoami()
        assert (me.spiffe_id, me.delivery, me.proxy) == (ANALYST, "proxy", EAST)
        async with client.task("through a proxy", hold=True) as task:
            grant = await task.request("orders-readonly", **ASK)
            password = grant.database.password.reveal().encode()
            assert (await client.lease(grant.lease.id)).confirm_by is None
            await client.revoke(grant.lease.id)
    assert task.outcome is not None
    assert not task.outcome.may_be_alive
    assert set(proxy.tokens) == {f"Bearer {text}"}
    assert proxy.seen
    assert all(password not in data for data in proxy.seen)


async def test_without_a_seal_the_proxy_reads_it_which_is_what_the_test_above_would_notice(
    served: Served, proxy: EndingProxy
) -> None:
    async with agent(served.root, proxy.port, token(), seal=False) as client, client.task("in clear") as task:
        grant = await task.request("orders-readonly", **ASK)
        password = grant.database.password.reveal().encode()
    assert any(password in data for data in proxy.seen)


async def test_sealing_works_without_a_proxy_too(served: Served) -> None:
    mine, where = svid(ANALYST), served.root / "direct"
    client = connect(
        f"127.0.0.1:{served.port}",
        "localhost",
        certificate=private(where / "svid.pem", mine.pem),
        key=private(where / "svid.key", mine.key_pem),
        bundle=private(where / "bundle.pem", CA.pem),
        seal=True,
    )
    async with client, client.task("sealed, direct") as task:
        assert (await task.request("orders-readonly", **ASK)).database.password.reveal()


def keep_key_for_itself(name: str, data: bytes) -> bytes:
    """The proxy's own key in place of the agent's."""
    if name != "RequestCredential":
        return data
    request = pb.RequestCredentialRequest.FromString(data)
    request.recipient_public_key = Recipient().public_key
    return request.SerializeToString()


def strip_key(name: str, data: bytes) -> bytes:
    if name != "RequestCredential":
        return data
    request = pb.RequestCredentialRequest.FromString(data)
    request.recipient_public_key = b""
    return request.SerializeToString()


def other_lease(name: str, data: bytes) -> bytes:
    """An answer whose lease was exchanged: the agent would confirm, and account for, another one."""
    if name != "RequestCredential":
        return data
    answer = pb.RequestCredentialResponse.FromString(data)
    answer.lease.attempt_id = "jb-" + "a" * 26
    return answer.SerializeToString()


def no_credential(name: str, data: bytes) -> bytes:
    if name != "RequestCredential":
        return data
    answer = pb.RequestCredentialResponse.FromString(data)
    answer.ClearField("sealed_credential")
    return answer.SerializeToString()


@pytest.mark.parametrize(
    ("direction", "change"),
    [
        ("change_request", keep_key_for_itself),
        ("change_request", strip_key),
        ("change_answer", other_lease),
        ("change_answer", no_credential),
    ],
)
async def test_a_proxy_that_meddles_is_found_out_and_the_lease_given_back(
    served: Served, proxy: EndingProxy, direction: str, change: Any
) -> None:
    setattr(proxy, direction, change)
    async with agent(served.root, proxy.port, token()) as client, client.task("meddled with") as task:
        with pytest.raises(BrokerError) as refused:
            await task.request("orders-readonly", **ASK)
        assert refused.value.reason == "SEAL_BROKEN"
        (lease,) = await client.leases(task_id=task.id)
        assert lease.state in ("REVOKING", "REVOKED")
        assert lease.end_cause == "RELEASED"


async def test_the_sdk_says_what_is_wrong_with_the_token(served: Served, proxy: EndingProxy) -> None:
    client = agent(served.root, proxy.port, token())
    async with client:
        (served.root / "agent" / "token").unlink()
        with pytest.raises(BrokerError) as refused:
            await client.whoami()
        assert refused.value.reason == "JWT_SVID_MISSING"
        private(served.root / "agent" / "token", token())
        assert (await client.whoami()).delivery == "proxy"
        private(served.root / "agent" / "token", token(aud=["somebody else"]))
        with pytest.raises(BrokerError) as refused:
            await client.whoami()
        assert refused.value.reason == "JWT_SVID_AUDIENCE"


async def test_a_token_moved_to_another_proxy_is_refused_there(served: Served, proxy: EndingProxy) -> None:
    text = token()
    async with agent(served.root, proxy.port, text) as client:
        await client.whoami()
    async with ending_proxy(served, WEST) as west, agent(served.root, west.port, text) as thief:
        with pytest.raises(BrokerError) as refused:
            await thief.whoami()
        assert refused.value.reason == "JWT_SVID_OF_ANOTHER_PROXY"


def at_its_end(clock: StoppableClock) -> tuple[str, datetime]:
    """A token, the moment in which it is over, and the broker's clock stopped just before."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=2)
    clock.stop_at(ends - TICK)
    return token(exp=int(ends.timestamp())), ends


async def test_a_hold_outlives_the_token_it_began_with(
    served: Served, proxy: EndingProxy, clock: StoppableClock
) -> None:
    first, ends = at_its_end(clock)
    async with agent(served.root, proxy.port, first) as client, client.task("held", hold=True, grace="10s") as task:
        private(served.root / "agent" / "token", token(jti="the next"))
        clock.stop_at(ends)

        async def cut_and_back() -> bool:
            was_cut = (ANALYST, "JWT_SVID_EXPIRED") in await served.refusals()
            return was_cut and len(set(proxy.tokens)) == 2

        await eventually(cut_and_back)
        assert task.hold is not None
        assert not task.hold.ended.is_set()
        assert (await client.get_task(task.id)).is_open
    assert task.outcome is not None


async def test_a_stream_whose_next_token_is_no_better_ends(
    served: Served, proxy: EndingProxy, clock: StoppableClock, judged: Judged
) -> None:
    text, ends = at_its_end(clock)
    async with agent(served.root, proxy.port, text) as client, asyncio.timeout(PATIENCE):
        watching = asyncio.ensure_future(anext(client.watch()))
        await judged.again()
        clock.stop_at(ends)
        with pytest.raises(BrokerError) as refused:
            await watching
        assert refused.value.reason == "JWT_SVID_EXPIRED"
