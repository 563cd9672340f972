"""The agents, a process of their own: they ask, confirm, lose patience, ask again, and end what they began.

``python -m tests.kill.agents < JOB`` works until its standard input says ``finish``: then every task that was begun, or may have
been, is completed, and it ends. What was delivered stands in its log, a JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TextIO

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1.broker_service_pb2_grpc import BrokerServiceStub
from tests.kill.engine import ROLES
from tests.kill.setting import ACCOUNT, ENVIRONMENT, RESOURCE, SERVER_NAME, Setting

_FINISH = "finish\n"
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.ssl_target_name_override", SERVER_NAME),
    # A daemon that was killed is asked again soon.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
# What a dead, dying or overtaxed daemon is told by; anything else is a mistake of whoever wrote this.
_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,  # an earlier call under the same id is at work still
}
# What may be said of a task or a lease that the agent itself ended, or whose end came first.
_OVER = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED}


@dataclass(frozen=True, slots=True)
class Job:
    """What to do: ``svids`` are (chain, key) files, one per agent; an agent asks any of ``addresses``."""

    addresses: Sequence[str]
    bundle: str
    svids: Sequence[tuple[str, str]]
    log: str
    seed: int


class Agents:
    """The process, as others hold it: a context manager."""

    def __init__(self, setting: Setting, log: Path, seed: int) -> None:
        self.log = log
        addresses = [f"127.0.0.1:{port}" for port in setting.api_ports]
        self._job = Job(addresses, str(setting.bundle), setting.agents, str(log), seed)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kill.agents"], stdin=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(self._job)) + "\n")
        self._process.stdin.flush()
        return self

    def finish(self, seconds: float) -> None:
        """Tell them to end what they began, and wait for it. Raises where they could not."""
        assert self._process.stdin is not None
        self._process.stdin.write(_FINISH)
        self._process.stdin.flush()
        if code := self._process.wait(seconds):
            raise RuntimeError(f"the agents ended with exit code {code}")

    def check(self) -> None:
        """Raises if they have ended."""
        if (code := self._process.poll()) is not None:
            raise RuntimeError(f"the agents ended with exit code {code}")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class _Agent:
    def __init__(self, job: Job, number: int, log: TextIO, told: Counter[str]) -> None:
        chain, key = (Path(part).read_bytes() for part in job.svids[number])
        self._credentials = grpc.ssl_channel_credentials(Path(job.bundle).read_bytes(), key, chain)
        self._random = random.Random(f"{job.seed} {number}")
        self._name = f"{job.seed}-{number}"
        self._channels = [grpc.aio.secure_channel(each, self._credentials, options=_OPTIONS) for each in job.addresses]
        self._stubs: list[Any] = [BrokerServiceStub(channel) for channel in self._channels]
        self._log = log
        self._told = told
        self._count = 0
        self._begun: dict[str, str] = {}  # what may be open: by the request id of its start, the task's id if known
        self.finishing = False

    async def live(self) -> None:
        """Task after task until it is to finish; then none is left open."""
        while not self.finishing:
            await self._task()
        for request_id in list(self._begun):
            while request_id in self._begun:
                task = self._begun[request_id] or await self._start(request_id)
                if not task or not await self._complete(request_id, task):
                    await asyncio.sleep(0.1)
        for channel in self._channels:
            await channel.close()

    async def _task(self) -> None:
        request_id = self._next("task")
        self._begun[request_id] = ""
        while not (task := await self._start(request_id)):
            if self.finishing:
                return
        for _ in range(self._random.randint(1, 4)):
            if self.finishing:
                return
            await self._errand(task)
        if self._random.random() < 0.9:  # else it is left to the finish
            await self._complete(request_id, task)

    async def _start(self, request_id: str) -> str:
        asked = pb.StartTaskRequest(request_id=request_id, purpose="torture", max_duration=Duration(seconds=7200))
        answer = await self._call("StartTask", asked)
        if answer is not None:
            self._begun[request_id] = answer.id
        return "" if answer is None else str(answer.id)

    async def _complete(self, request_id: str, task: str) -> bool:
        wait = Duration(seconds=self._random.choice((0, 1)))
        answer = await self._call("CompleteTask", pb.CompleteTaskRequest(task_id=task, wait=wait))
        if answer is not None:
            del self._begun[request_id]
        return answer is not None

    async def _errand(self, task: str) -> None:
        """One request, asked again under its id while no answer comes: never two live."""
        request_id, ttl = self._next("request"), self._random.choice((5, 600, 600, 600))
        asked = pb.RequestCredentialRequest(
            request_id=request_id,
            task_id=task,
            template=self._random.choice(ROLES),
            account=ACCOUNT,
            environment=ENVIRONMENT,
            resource=RESOURCE,
            ttl=Duration(seconds=ttl),
        )
        for _ in range(self._random.randint(2, 8)):
            impatient = self._random.random() < 0.1
            answer = await self._call("RequestCredential", asked, self._random.uniform(0, 0.1) if impatient else 5.0)
            if answer is not None:
                self._delivered(request_id, answer)
                await self._use(answer.lease)
                if self._random.random() < 0.9:  # else it is asked again for what it has been given
                    return
            if self.finishing:
                return

    async def _use(self, lease: Any) -> None:
        if self._random.random() < 0.85:  # else it is taken back
            await self._call(
                "ConfirmDelivery", pb.ConfirmDeliveryRequest(lease_id=lease.id, attempt_id=lease.attempt_id)
            )
        if self._random.random() < 0.2:
            await self._call("RevokeLease", pb.RevokeLeaseRequest(lease_id=lease.id))

    async def _call(self, name: str, request: Any, patience: float = 5.0) -> Any:
        """The answer; None where there is none."""
        try:
            answer = await getattr(self._random.choice(self._stubs), name)(request, timeout=patience)
        except grpc.aio.AioRpcError as error:
            self._told[f"{name} {error.code().name}: {_reason(error)}"] += 1
            if error.code() not in _AGAIN | _OVER:
                sys.stderr.write(f"{name}: {error.code().name}: {error.details()}\n")
                raise
            await asyncio.sleep(self._random.uniform(0, 0.3))
            # What is over needs no ending.
            return request if error.code() in _OVER and name == "CompleteTask" else None
        self._told[name] += 1
        return answer

    def _delivered(self, request_id: str, answer: Any) -> None:
        lease = answer.lease
        said = {"request_id": request_id, "lease": lease.id, "attempt": lease.attempt_id}
        username = answer.credential.database_login.username
        self._log.write(json.dumps({"at_ms": time.time_ns() // 1_000_000, "username": username, **said}) + "\n")
        self._log.flush()

    def _next(self, what: str) -> str:
        self._count += 1
        return f"{what}-{self._name}-{self._count}"


def _reason(error: grpc.aio.AioRpcError) -> str:
    """The broker's own reason; empty where it is not the broker that says so."""
    status = rpc_status.from_call(error)
    for detail in () if status is None else status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""


async def work(job: Job) -> None:
    """All of them, until told to finish."""
    told: Counter[str] = Counter()
    with Path(job.log).open("w") as log:
        agents = [_Agent(job, number, log, told) for number in range(len(job.svids))]
        living = [asyncio.ensure_future(each.live()) for each in agents]
        hearing = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
        await asyncio.wait({hearing, *living}, return_when=asyncio.FIRST_COMPLETED)
        for each in agents:
            each.finishing = True
        await asyncio.gather(*living)
    Path(job.log).with_suffix(".told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(work(Job(**json.loads(sys.stdin.readline()))))
