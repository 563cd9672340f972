"""Each kind of witness as stories meet it: what it is to one process, points on the way to it, and what it has seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import boto3

from broker.audit.note import split
from broker.config import HttpWitness, S3Witness, SyslogWitness
from broker.config.fields import HostPort
from broker.config.witnesses import WitnessSettings
from tests.failpoints.calls import PointedProxy, pointed_proxy
from tests.failpoints.points import Fault, Points
from tests.simulation.process import Process
from tests.witnesses.services import Collector, collecting, keeper


@dataclass(frozen=True)
class S3Server:
    """Of Amazon's protocol: where, and the key that stories make their buckets with."""

    address: str
    access_key_id: str
    secret_access_key: str


class Kind(Protocol):
    """One witness, for all processes of a story."""

    once: bool  # whether it has each note once, however often that is sent
    answers: bool  # whether a call is a call of the port, with no wire under it

    def settings(self, points: Points, process: Process, timeout: float) -> WitnessSettings:
        """Of one process of the broker, with points on its way there."""
        ...

    async def let_go(self) -> None:
        """Wait until nothing of the process that is gone is on its way."""
        ...

    def notes(self) -> Sequence[str]:
        """What it has, in the order of their coming."""
        ...


class OnDisk:
    """A file: its calls are the port's own."""

    once, answers = True, True

    def __init__(self, directory: Path) -> None:
        (directory / "witness").mkdir(mode=0o700)
        self._file = directory / "witness" / "checkpoints"

    def settings(self, points: Points, process: Process, timeout: float) -> WitnessSettings:
        return _only(file=self._file)

    async def let_go(self) -> None:
        return

    def notes(self) -> Sequence[str]:
        with self._file.open() as lines:
            return list(split(lines))


class _OverHttp:
    """A proxy for each process. Nothing of one that is gone arrives any more."""

    def __init__(self, target: str, stack: AsyncExitStack) -> None:
        self._target = target
        self._stack = stack
        self._proxy: PointedProxy | None = None

    def _address(self, points: Points, process: Process) -> str:
        self._proxy = PointedProxy(self._target, points, process, lambda attempt: True, lambda reply: reply)
        return self._stack.enter_context(pointed_proxy(self._proxy, keeps_host=True))

    async def let_go(self) -> None:
        if self._proxy is not None:
            await asyncio.to_thread(self._proxy.settled)


class AtAService(_OverHttp):
    """A web service that answers what came last."""

    once, answers = False, False

    def __init__(self, kept: Any, address: str, stack: AsyncExitStack) -> None:
        super().__init__(address, stack)
        self._kept = kept

    def settings(self, points: Points, process: Process, timeout: float) -> WitnessSettings:
        url = f"{self._address(points, process)}/notes"
        seconds = timedelta(seconds=timeout)
        return _only(http=HttpWitness.model_construct(url=url, token=None, ca_file=None, timeout=seconds))

    def notes(self) -> Sequence[str]:
        return list(self._kept.notes)


class InABucket(_OverHttp):
    """A bucket with object lock, of this story alone."""

    once, answers = True, False

    def __init__(self, directory: Path, server: S3Server, stack: AsyncExitStack) -> None:
        super().__init__(server.address, stack)
        keys = {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key}
        of_the_sdk: Any = {f"aws_{name}": value for name, value in keys.items()}
        self._client = boto3.client("s3", endpoint_url=server.address, region_name="us-east-1", **of_the_sdk)
        self._bucket = f"w-{uuid.uuid4().hex}"
        self._client.create_bucket(Bucket=self._bucket, ObjectLockEnabledForBucket=True)
        self._references = {}
        for setting, value in keys.items():
            path = directory / setting
            path.write_text(value)
            path.chmod(0o600)
            self._references[setting] = f"file:{path}"

    def settings(self, points: Points, process: Process, timeout: float) -> WitnessSettings:
        return _only(
            s3=S3Witness.model_construct(
                bucket=self._bucket,
                prefix="audit/",
                region="us-east-1",
                endpoint_url=self._address(points, process),
                retention=timedelta(days=3650),
                mode="COMPLIANCE",
                timeout=timedelta(seconds=timeout),
                **self._references,
            )
        )

    def notes(self) -> Sequence[str]:
        versions = self._client.list_object_versions(Bucket=self._bucket).get("Versions", [])
        by_key = sorted((each["Key"], each["VersionId"]) for each in versions)
        return [self._read(key, version) for key, version in by_key]

    def _read(self, key: str, version: str) -> str:
        body = self._client.get_object(Bucket=self._bucket, Key=key, VersionId=version)["Body"].read()
        return str(body.decode())


class PointedCollector(Collector):
    """With points before and after each message is taken; where one fails the connection is reset."""

    points: Points

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """See Collector."""
        call = self.points.numbered("call syslog")
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if await self._passes(f"{call} before"):
                await self.read(reader)
                if await self._passes(f"{call} after"):
                    writer.close()
                    return
        writer.transport.abort()

    async def _passes(self, point: str) -> bool:
        fault = self.points.meet(point)
        if fault is Fault.HANG:
            await self.points.stand_still()
        return fault not in (Fault.CRASH, Fault.ERROR)


class AtACollector:
    """Syslog over TCP: it answers nothing, and can be asked nothing."""

    once, answers = False, False

    def __init__(self, collector: PointedCollector, port: int) -> None:
        self._collector = collector
        self._port = port

    def settings(self, points: Points, process: Process, timeout: float) -> WitnessSettings:
        self._collector.points = points
        address = HostPort(host="127.0.0.1", port=self._port)
        seconds = timedelta(seconds=timeout)
        return _only(syslog=SyslogWitness.model_construct(address=address, tls=False, ca_file=None, timeout=seconds))

    async def let_go(self) -> None:
        return

    def notes(self) -> Sequence[str]:
        return [_note(each) for each in self._collector.taken]


def _only(**one: Any) -> WitnessSettings:
    none: dict[str, Any] = {"file": None, "s3": None, "http": None, "syslog": None}
    return WitnessSettings.model_construct(**(none | one))


def _note(line: bytes) -> str:
    said = json.loads(line[line.index(b"{") :])
    return str(said["checkpoint"])


@asynccontextmanager
async def witness_of(kind: str, directory: Path, s3: S3Server | None) -> AsyncIterator[Kind]:
    """One of ``kind``: ``file``, ``http``, ``s3`` (at that server) or ``syslog``."""
    async with AsyncExitStack() as stack:
        match kind:
            case "file":
                yield OnDisk(directory)
            case "http":
                kept, address = await stack.enter_async_context(keeper())
                yield AtAService(kept, address, stack)
            case "s3":
                assert s3 is not None
                yield InABucket(directory, s3, stack)
            case _:
                collector = PointedCollector()
                yield AtACollector(collector, await stack.enter_async_context(collecting(collector)))
