"""The container-credentials endpoint, asked by botocore itself, by strangers, and after the task's end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import CredentialRetrievalError
from botocore.utils import ContainerMetadataFetcher
from moto.server import ThreadedMotoServer

from broker.api.v1 import task_pb2
from broker.client import AsyncClient, Grant, container, renewing
from broker.client.container import PATH, ContainerEndpoint
from broker.client.renewing import TaskCredential
from broker.clock import SystemClock
from broker.errors import NotReady, Reason, WrongState
from broker.ports.clock import Clock
from broker.scope.request import AccessRequest
from broker.secret import Secret
from tests.client.fake_broker import REVOKED, FakeBroker
from tests.connectors.support import SetClock
from tests.patience import PATIENCE

TOKEN = "the-token-of-the-endpoint"
ENDS = datetime(2031, 5, 1, 12, 3, 10, tzinfo=UTC)  # of every lease of the fake


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine an answer takes longer than whoever asks would wait."""
    monkeypatch.setattr(renewing, "_LOOK_SECONDS", PATIENCE)
    monkeypatch.setattr(renewing, "_ANSWER_SECONDS", PATIENCE)


@pytest.fixture
def aws(fake: FakeBroker) -> FakeBroker:
    fake.kind = "aws_session"
    fake.tasks["task-0"] = task_pb2.Task(id="task-0", state=task_pb2.Task.STATE_OPEN)
    return fake


def source(client: AsyncClient, clock: Clock | None = None) -> TaskCredential:
    def ask() -> Awaitable[Grant]:
        return client.request(
            AccessRequest(
                request_id=client.new_id(),
                template="reports-read",
                task_id="task-0",
                account="1",
                environment="dev",
                resource="r",
                ttl=timedelta(minutes=15),
                parameters={},
            )
        )

    return TaskCredential(client, "task-0", ask, (clock or SystemClock()).now)


@pytest.fixture
async def endpoint(aws: FakeBroker, client: AsyncClient) -> AsyncIterator[ContainerEndpoint]:
    credential = source(client)
    async with ContainerEndpoint(credential.current, Secret(TOKEN)) as serving:
        yield serving
    await credential.close()


@pytest.fixture
def botocore_session(
    endpoint: ContainerEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[], botocore.session.Session]:
    """botocore with nothing but the two variables to go by."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.uri)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)  # between its three tries
    return botocore.session.Session


async def test_botocore_gets_it_and_its_every_refresh_is_the_same_lease(
    aws: FakeBroker, botocore_session: Callable[[], botocore.session.Session]
) -> None:
    def use() -> set[str]:
        # A fresh one each time, as a new process: no cache of botocore's own stands between.
        return {botocore_session().get_credentials().get_frozen_credentials().secret_key for _ in range(5)}

    assert await asyncio.to_thread(use) == {aws.secrets[0]}
    assert len(aws.asked("RequestCredential")) == 1


async def test_a_request_to_aws_is_signed_with_it(
    aws: FakeBroker, botocore_session: Callable[[], botocore.session.Session]
) -> None:
    """Two calls to the double of STS: each signed with what the endpoint gave, the session token among it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    signed: list[tuple[bool, str]] = []

    def call() -> None:
        host, port = server.get_host_and_port()
        client = botocore_session().create_client("sts", "eu-central-1", endpoint_url=f"http://{host}:{port}")

        def seen(request: AWSPreparedRequest, **_: object) -> None:
            by = request.headers["Authorization"]
            signed.append(("Credential=ASIAEXAMPLE/" in str(by), str(request.headers["X-Amz-Security-Token"])))

        client.meta.events.register("before-send.sts", seen)
        for _ in range(2):
            assert client.get_caller_identity()["Account"]

    try:
        await asyncio.to_thread(call)
    finally:
        server.stop()
    assert [(ours, text.strip("b'\"")[:6]) for ours, text in signed] == [(True, "token-")] * 2
    assert len(aws.asked("RequestCredential")) == 1


async def test_botocore_tells_that_the_task_has_ended(
    aws: FakeBroker, botocore_session: Callable[[], botocore.session.Session]
) -> None:
    await asyncio.to_thread(lambda: botocore_session().get_credentials().get_frozen_credentials())
    aws.tasks["task-0"].state = task_pb2.Task.STATE_COMPLETED
    for lease in aws.leases.values():
        lease.state = REVOKED
    with pytest.raises(CredentialRetrievalError, match="task ended: task-0 is over"):
        await asyncio.to_thread(lambda: botocore_session().get_credentials().get_frozen_credentials())
    assert len(aws.asked("RequestCredential")) == 1


async def raw(endpoint: ContainerEndpoint, request: bytes) -> tuple[int, str]:
    port = int(endpoint.uri.split(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = (await reader.read()).decode()
    writer.close()
    return (int(answer.split(" ", 2)[1]) if answer else 0), answer


def asking(authorization: str | None = TOKEN, line: str = f"GET {PATH} HTTP/1.1") -> bytes:
    said = "" if authorization is None else f"Authorization: {authorization}\r\n"
    return f"{line}\r\nHost: 127.0.0.1\r\n{said}\r\n".encode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asking(None), 401),
        (asking("another"), 401),
        (asking(TOKEN + "x"), 401),
        (asking("tökén"), 401),
        (asking(f"{TOKEN}\r\nAuthorization: {TOKEN}"), 401),
        (asking(None, "GET /other HTTP/1.1"), 401),  # who does not know the token learns nothing of paths
        (asking(line="GET /other HTTP/1.1"), 404),
        (asking(line=f"GET {PATH}/ HTTP/1.1"), 404),
        (asking(line=f"POST {PATH} HTTP/1.1"), 405),
        (asking(line="nonsense"), 404),
        (asking("a\r\n" + "\r\n".join(f"X-{n}: y" for n in range(200))), 400),
        (asking("a" * 20_000), 0),  # closed
        (b"\0" * 20_000, 0),
    ],
)
async def test_strangers_get_nothing(
    aws: FakeBroker, endpoint: ContainerEndpoint, request_: bytes, status: int
) -> None:
    got, answer = await raw(endpoint, request_)
    assert got == status
    assert "ASIA" not in answer
    assert aws.calls == []  # nor does the broker hear of it
    assert (await raw(endpoint, asking()))[0] == 200


async def test_a_slow_client_keeps_nobody_waiting_and_is_cut_off(
    endpoint: ContainerEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_READ_SECONDS", 0.05)
    port = int(endpoint.uri.split(":")[2].partition("/")[0])
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
    for _, writer in slow:
        writer.write(b"GET ")
    monkeypatch.undo()
    assert (await raw(endpoint, asking()))[0] == 200
    for reader, writer in slow:
        assert await reader.read() == b""
        writer.close()


async def test_no_more_than_so_many_at_a_time(endpoint: ContainerEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_MOST_CONNECTIONS", 2)
    port = int(endpoint.uri.split(":")[2].partition("/")[0])
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    assert await held[2][0].read() == b""  # the third is closed at once
    for _, writer in held:
        writer.close()


# --------------------------------------------------------------------------- what is kept, when it is asked for anew


async def test_it_is_asked_for_anew_before_it_ends(aws: FakeBroker, client: AsyncClient) -> None:
    clock = SetClock(ENDS - timedelta(minutes=15))
    credential = source(client, clock)
    first = await credential.current()
    clock.present = ENDS - timedelta(seconds=61)
    assert (await credential.current()).lease.id == first.lease.id
    clock.present = ENDS - timedelta(seconds=60)  # the margin
    second = await credential.current()
    assert second.lease.id != first.lease.id
    assert credential.lease_ids == [first.lease.id, second.lease.id]
    assert len({request.request_id for request in aws.asked("RequestCredential")}) == 2


async def test_one_that_was_revoked_is_replaced_while_the_task_is_open(aws: FakeBroker, client: AsyncClient) -> None:
    credential = source(client)
    first = await credential.current()
    aws.leases[first.lease.id].state = REVOKED
    assert (await credential.current()).lease.id != first.lease.id


async def test_many_who_ask_at_once_are_one_request(aws: FakeBroker, client: AsyncClient) -> None:
    credential = source(client)
    assert len({grant.lease.id for grant in await asyncio.gather(*(credential.current() for _ in range(10)))}) == 1


async def test_a_broker_that_takes_long_is_told_at_once_and_asked_once(
    aws: FakeBroker, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewing, "_ANSWER_SECONDS", 0.01)
    decided = threading.Event()
    aws.before["RequestCredential"] = lambda: decided.wait(PATIENCE) and None
    credential = source(client)
    for _ in range(3):
        with pytest.raises(NotReady, match="still being asked for"):
            await credential.current()
    decided.set()
    monkeypatch.setattr(renewing, "_ANSWER_SECONDS", PATIENCE)
    assert (await credential.current()).lease.id in aws.leases
    assert len(aws.asked("RequestCredential")) == 1


async def test_the_old_one_is_given_out_while_the_new_one_takes_long(
    aws: FakeBroker, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SetClock(ENDS - timedelta(minutes=15))
    credential = source(client, clock)
    first = await credential.current()
    clock.present = ENDS - timedelta(seconds=30)
    monkeypatch.setattr(renewing, "_ANSWER_SECONDS", 0.01)
    decided = threading.Event()
    aws.before["RequestCredential"] = lambda: decided.wait(PATIENCE) and None
    assert (await credential.current()).lease.id == first.lease.id
    decided.set()
    await credential.close()


async def test_a_broker_that_is_away_ends_nothing_before_its_time(
    aws: FakeBroker, client: AsyncClient, hasty: None
) -> None:
    clock = SetClock(ENDS - timedelta(minutes=15))
    credential = source(client, clock)
    first = await credential.current()
    aws.stop()
    assert (await credential.current()).lease.id == first.lease.id
    clock.present = ENDS
    with pytest.raises(NotReady):
        await credential.current()


async def test_a_task_that_ended_while_it_was_asked_is_told_as_such(aws: FakeBroker, client: AsyncClient) -> None:
    aws.faults["RequestCredential"] = [WrongState(Reason.TASK_ENDED, "Task task-0 has ended.")]
    with pytest.raises(WrongState, match="task ended: task-0"):
        await source(client).current()


async def test_the_answer_is_what_the_sdks_reference_says(endpoint: ContainerEndpoint, aws: FakeBroker) -> None:
    _, answer = await raw(endpoint, asking())
    head, _, body = answer.partition("\r\n\r\n")
    assert "Cache-Control: no-store" in head
    assert json.loads(body) == {
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": aws.secrets[0],
        "Token": f"token-{aws.secrets[0]}",
        "Expiration": "2031-05-01T12:03:10Z",
        "RoleArn": "",
    }
