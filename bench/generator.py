"""``python -m bench.generator``: the load generator, a process of its own. A job in JSON comes in on standard
input, what was measured goes out in JSON on standard output.

Each caller is one agent: its own SVID, its own mTLS connection, its own task, one request at a time.
It speaks through the generated stubs, without the SDK, and parses every answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import psutil
from google.protobuf.duration_pb2 import Duration

from bench.bare import METHOD, SERVICE
from bench.deploy import ACCOUNT, ENVIRONMENT, TEMPLATES, template_name
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import broker_service_pb2_grpc

_PROMPT = "Compare the orders of the last day with those of the day before, by country, and explain what moved. " * 2
# An agent does a few kinds of things again and again; together the callers use every template.
_TEMPLATES_EACH = 5
# Said once all callers are at work, where somebody waits for that.
BUSY = "busy\n"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0))


@dataclass(frozen=True, slots=True)
class Job:
    """What to do. Times in seconds; ``svids`` are (chain, key) files, one per caller."""

    address: str
    server_name: str
    bundle: str
    svids: list[tuple[str, str]]
    server_pid: int  # whose processor time is read when counting begins and ends
    name: str  # makes request ids of different jobs different
    warm_up: float
    duration: float
    confirm: bool = False  # with ConfirmDelivery after each RequestCredential
    ttl: int = 300  # seconds, of each credential
    bare: bool = False  # RPCs that do nothing (bare.py), in place of grants
    until_suspended: bool = False  # each caller ends by its first SUSPENDED, whatever ``duration`` says


@dataclass(slots=True)
class Measured:
    """What came of it. ``elapsed`` is from the first request counted to the last answer."""

    elapsed: float = 0.0
    cpu_seconds: float = 0.0  # of this process, user and system, in that time
    server_cpu_seconds: float = 0.0  # of the server
    latencies: list[float] = field(default_factory=list)  # seconds, of every full grant
    refused_at: list[float] = field(default_factory=list)  # of each caller, by the machine's monotonic clock


async def run(job: Job) -> Measured:
    """Connect everybody, start the tasks, warm up, measure."""
    callers = [_Caller(job, number) for number in range(len(job.svids))]
    await asyncio.gather(*(caller.prepare() for caller in callers))
    # What was made so far stays; looking through it again and again is not the generator's job.
    gc.collect()
    gc.freeze()
    await _until(callers, time.perf_counter() + job.warm_up)
    measured = Measured()
    if job.until_suspended:
        print(BUSY, end="", flush=True)
        measured.refused_at = await asyncio.gather(*(caller.request_until_suspended() for caller in callers))
        return measured
    server = psutil.Process(job.server_pid)
    began, cpu, server_cpu = time.perf_counter(), _cpu_seconds(), cpu_seconds_of(server)
    counted = await _until(callers, began + job.duration)
    measured.elapsed = time.perf_counter() - began
    measured.cpu_seconds = _cpu_seconds() - cpu
    measured.server_cpu_seconds = cpu_seconds_of(server) - server_cpu
    measured.latencies = [latency for each in counted for latency in each]
    for caller in callers:
        await caller.close()
    return measured


async def _until(callers: list[_Caller], end: float) -> list[list[float]]:
    return await asyncio.gather(*(caller.request_until(end) for caller in callers))


class _Caller:
    def __init__(self, job: Job, number: int) -> None:
        chain, key = (Path(part).read_bytes() for part in job.svids[number])
        credentials = grpc.ssl_channel_credentials(Path(job.bundle).read_bytes(), key, chain)
        options = (*_OPTIONS, ("grpc.ssl_target_name_override", job.server_name))
        self._channel = grpc.aio.secure_channel(job.address, credentials, options=options)
        self._stub = broker_service_pb2_grpc.BrokerServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._bare = self._channel.unary_unary(f"/{SERVICE}/{METHOD}") if job.bare else None
        self._confirm = job.confirm
        self._ttl = Duration(seconds=job.ttl)
        self._name = f"{job.name}-{number}"
        self._first = number * _TEMPLATES_EACH
        self._count = 0
        self._task = ""

    async def prepare(self) -> None:
        """Connect and start a task."""
        if self._bare is not None:
            await self._bare(b"")
            return
        start = pb.StartTaskRequest(
            request_id=self._name, purpose="to be measured", max_duration=Duration(seconds=3600)
        )
        self._task = (await self._stub.StartTask(start)).id

    async def request_until(self, end: float) -> list[float]:
        """Grants, one after another, until ``end`` (monotonic); the latency of each."""
        latencies = []
        began = time.perf_counter()
        while began < end:
            await self._grant()
            now = time.perf_counter()
            latencies.append(now - began)
            began = now
        return latencies

    async def request_until_suspended(self) -> float:
        """Grants, one after another; when the first was refused because everything is suspended."""
        while True:
            try:
                await self._grant()
            except grpc.aio.AioRpcError as error:
                refused_at = time.perf_counter()
                if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                    raise
                return refused_at

    async def _grant(self) -> None:
        if self._bare is not None:
            await self._bare(b"")
            return
        self._count += 1
        template = (self._first + self._count % _TEMPLATES_EACH) % TEMPLATES
        answer = await self._stub.RequestCredential(
            pb.RequestCredentialRequest(
                request_id=f"{self._name}-{self._count}",
                task_id=self._task,
                template=template_name(template),
                parameters={"day": "2026-02-28", "shard": str(self._count % 64)},
                account=ACCOUNT,
                environment=ENVIRONMENT,
                resource=f"dataset-{template:03}",
                ttl=self._ttl,
                step="analyse",
                intent="compare two days of orders",
                reason="the daily report",
                ticket="OPS-1234",
                prompt=_PROMPT,
                tool_call='{"tool": "sql", "arguments": {"limit": 1000}}',
            )
        )
        if not answer.credential.database_login.password or not answer.lease.id:
            raise RuntimeError("an answer without a credential")
        if self._confirm:
            lease = answer.lease
            await self._stub.ConfirmDelivery(pb.ConfirmDeliveryRequest(lease_id=lease.id, attempt_id=lease.attempt_id))

    async def close(self) -> None:
        """Disconnect."""
        await self._channel.close()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_seconds_of(process: psutil.Process) -> float:
    """Of a process so far, user and system."""
    used = process.cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(run(Job(**json.load(sys.stdin))))), sys.stdout)
