"""Canaries: secrets are put wherever there is room for a text, and then looked for wherever the broker leaves anything.

Every field of every request, marked or not, what the upstream issues, the bearer credentials of people, and fields
that nobody knows; in the log at its most talkative, the ledger with its write-ahead log, the audit export, every
answer that is an error, and the metrics.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from broker.api.admin_server import ADMIN_SERVICE
from broker.api.redaction import sensitive_fields
from broker.api.server import BROKER_SERVICE
from broker.api.v1 import broker_service_pb2 as pb
from broker.clock import SystemClock
from broker.ports.clock import Clock
from broker.ports.connectors import Issued
from broker.secret import Secret
from tests.api.served import (
    ANALYST,
    CA,
    DOMAIN,
    Served,
    ask,
    gate,
    people_changes,
    reason,
    serve,
    start_task,
    token,
)
from tests.api.test_pipelines import planned
from tests.connectors.fake import FakeConnector

DEPTH = 3
PLANNER = f"spiffe://{DOMAIN}/agent/planner"


class Canaries:
    """Secrets of a well-known shape, no two alike, each with the name of where it was put."""

    def __init__(self) -> None:
        self.put: dict[str, str] = {}

    def at(self, place: str) -> str:
        drawn = base64.b32encode(hashlib.sha256(place.encode()).digest()).decode()[:16]
        canary = f"AKIA{drawn}"
        self.put[canary] = place
        return canary

    def found_in(self, data: bytes) -> list[str]:
        return sorted(place for canary, place in self.put.items() if canary.encode() in data)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log at its most talkative."""
    written = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(written))
    yield written
    structlog.reset_defaults()


# ------------------------------------------------------------------ filling requests


def places(descriptor: Descriptor, depth: int = DEPTH) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The way to every text of this message type."""
    for field in descriptor.fields:
        if field.message_type is None:
            if field.type == FieldDescriptor.TYPE_STRING:
                yield (field,)
        elif field.message_type.GetOptions().map_entry:
            yield (field,)
        elif depth:
            for rest in places(field.message_type, depth - 1):
                yield (field, *rest)


def filled(descriptor: Descriptor, way: tuple[FieldDescriptor, ...], text: str) -> Message:
    message = GetMessageClass(descriptor)()
    _put(message, way, text)
    return message


def _put(message: Any, way: tuple[FieldDescriptor, ...], text: str) -> None:
    field, *rest = way
    target = getattr(message, field.name)
    if rest:
        _put(target.add() if field.is_repeated else target, tuple(rest), text)
    elif field.message_type is not None:
        target[text] = text
    elif field.is_repeated:
        target.append(text)
    else:
        setattr(message, field.name, text)


def marked(way: tuple[FieldDescriptor, ...]) -> bool:
    return any(field.name in sensitive_fields(field.containing_type) for field in way)


async def call(channel: grpc.aio.Channel, path: str, request: Message, metadata: tuple[tuple[str, str], ...]) -> Any:
    """One call, whatever the method streams; its first answer."""
    made = channel.unary_stream(path, request_serializer=lambda each: each.SerializeToString())
    async for answer in made(request, metadata=metadata):
        return answer
    return None


# ------------------------------------------------------------------ the tests


async def errors_of(
    served: Served, canaries: Canaries, method: Any, channel: grpc.aio.Channel, *metadata: tuple[str, str]
) -> list[bytes]:
    """Every text of one method's request in turn with a canary: the errors, as they were on the wire."""
    path, told = f"/{method.containing_service.full_name}/{method.name}", []
    for way in places(method.input_type):
        name = f"{method.name}:{'.'.join(field.name for field in way)}"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, path, filled(method.input_type, way, canaries.at(name)), metadata)
            raise AssertionError(f"{name} was taken")
        error = refused.value
        if not marked(way):
            assert reason(error)[1] in ("CREDENTIAL_IN_REQUEST", "ROLE_REQUIRED"), name
        told.append(f"{error.details()} {error.trailing_metadata()!r}".encode())
    return told


class Leaky(FakeConnector):
    """An upstream whose secrets are canaries, also in what it says when it fails."""

    def __init__(self, clock: Clock, canaries: Canaries) -> None:
        super().__init__(clock)
        self._canaries = canaries

    async def issue(self, *arguments: Any) -> Issued:
        issued = await super().issue(*arguments)
        password = Secret(self._canaries.at(f"password of {len(self.calls)}"))
        return replace(issued, credential=replace(issued.credential, password=password))


async def granted(served: Served, canaries: Canaries) -> None:
    """What may hold secrets, in requests that are taken; and a credential that is delivered, retried and ended."""
    stub = served.stub(ANALYST)
    task = await start_task(stub)
    told = {name: f"use {canaries.at(name)}" for name in ("prompt", "tool_call", "plan")}
    for _ in range(2):
        answer = await stub.RequestCredential(ask(task, **told))
        assert canaries.found_in(answer.credential.database_login.password.encode())
    gate(served, dev=("sre",))
    asked = await stub.RequestCredential(ask(task, "r2", **told))
    assert asked.access_request.id
    planner = served.stub(PLANNER)
    plan = planned(await start_task(planner), text=f"First take {canaries.at('the plan of a pipeline')}.")
    assert (await planner.RegisterPlan(plan)).id
    await stub.CompleteTask(pb.CompleteTaskRequest(task_id=task))


async def strangers(served: Served, canaries: Canaries) -> list[bytes]:
    """Tokens of nobody, at both doors, and a field that no message has."""
    told = []
    unknown = pb.StartTaskRequest(request_id="t9", purpose="testing").SerializeToString() + bytes(
        # field 1000, a text
        _varint(1000 << 3 | 2) + _varint(20) + canaries.at("unknown field").encode()
    )
    await call(served.channel(), "/broker.api.v1.BrokerService/StartTask", pb.StartTaskRequest.FromString(unknown), ())
    for door, channel in (("BrokerService/WhoAmI", served.channel()), ("AdminService/GetOperator", people(served))):
        bearer = ("authorization", f"Bearer {canaries.at(f'bearer token at {door}')}")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, f"/broker.api.v1.{door}", pb.WhoAmIRequest(), (bearer,))
        told.append(f"{refused.value.details()} {refused.value.trailing_metadata()!r}".encode())
    return told


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def people(served: Served) -> grpc.aio.Channel:
    """To the people's door, as nobody in particular."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    credentials = grpc.ssl_channel_credentials(CA.pem)
    channel = grpc.aio.secure_channel(f"127.0.0.1:{served.daemon.doors.admin_port}", credentials, options=options)
    served.channels.append(channel)
    return channel


async def everything(served: Served, log: io.StringIO) -> dict[str, bytes]:
    """Whatever brokerd has left anywhere."""
    await served.daemon._upkeep.export()
    files = (path for path in sorted(served.root.rglob("*")) if path.is_file())
    kept = {path.name: path.read_bytes() for path in files}
    return {"the log": log.getvalue().encode(), "the metrics": await served.daemon._scrape(), **kept}


async def test_no_secret_is_left_anywhere(tmp_path: Path, log: io.StringIO) -> None:
    canaries = Canaries()
    changes = people_changes(tmp_path) | {"audit": {"export_file": str(tmp_path / "audit.jsonl")}}
    upstream = Leaky(SystemClock(), canaries)
    async with serve(tmp_path, build=lambda spec: upstream, **changes) as served:
        served.daemon._budget._per_window = 1_000_000  # every refusal has an event of its own
        errors: list[bytes] = []
        for method in BROKER_SERVICE.methods:
            errors += await errors_of(served, canaries, method, served.channel())
        kim = ("authorization", f"Bearer {token(served, 'kim')}")
        for method in ADMIN_SERVICE.methods:
            errors += await errors_of(served, canaries, method, people(served), kim)
        await granted(served, canaries)
        errors += await strangers(served, canaries)
        left = await everything(served, log) | {"the errors": b"\n".join(errors)}
    assert len(canaries.put) > 80
    assert {"ledger.sqlite3-wal", "audit.jsonl"} <= left.keys()
    assert all(
        word in left[name]
        for name, word in (
            ("the log", b"purpose"),
            ("ledger.sqlite3-wal", b"CREDENTIAL_IN_REQUEST"),
            ("audit.jsonl", b"prompt_sha256"),
            ("the metrics", b"CREDENTIAL_IN_REQUEST"),
        )
    )
    assert {name: found for name, data in left.items() if (found := canaries.found_in(data))} == {}


async def test_a_secret_that_got_in_would_be_seen(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above is not blind."""
    monkeypatch.setattr("broker.api.door.check_no_secrets", lambda message: None)
    canaries = Canaries()
    async with serve(tmp_path, audit={"export_file": str(tmp_path / "audit.jsonl")}) as served:
        await start_task(served.stub(ANALYST), ticket=canaries.at("ticket"))
        left = await everything(served, log)
    assert {"the log", "ledger.sqlite3-wal", "audit.jsonl"} == {name for name in left if canaries.found_in(left[name])}
