"""The broker under measurement: brokerd in its own process over real SVIDs, and jobs for the load generator."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from subprocess import PIPE
from typing import Self, TypeVar

import psutil
import yaml

from bench import bare
from bench.deploy import AGENTS, CONNECTOR, GROUPS, TRUST_DOMAIN, agent_id, write_deploy_set
from bench.figures import Measurement
from bench.filled import fill
from bench.generator import BUSY, Job, Measured
from bench.people import People
from broker.api.v1 import admin_service_pb2 as admin
from broker.approval.intent_digest import RESUME_SUSPENSION
from broker.cli.deploy_keys import write_pair
from broker.client.admin import AdminClient, believed_by_file
from broker.client.connect import connect_admin
from broker.client.tokens import HeldToken
from broker.clock import SystemClock
from broker.dev.broker_svid import BrokerSvidFiles
from broker.dev.brokerd import BrokerdProcess
from broker.dev.files import private_directory, write_private
from broker.dev.loopback import LOOPBACK, free_port
from broker.dev.trust_domain import TrustDomain
from broker.identity.spiffe_id import SpiffeId
from broker.keys import FileKeyRing, new_key
from broker.stores.sqlite import SqliteStore

SERVER_NAME = "broker.bench.broker.internal"
# Agents whose SVIDs are minted: each job takes fresh ones, so that nobody holds thousands of leases.
# Its libraries are imported as brokerd does it (broker/daemon/__init__.py).
_COMMAND = (sys.executable, "-c", "import gc; gc.disable(); from bench.brokerd import run; gc.enable(); run()")
_GENERATOR = (sys.executable, "-m", "bench.generator")
_BARE = (sys.executable, "-m", "bench.bare")
_ROOT = Path(__file__).parent.parent
# People of the deploy set; what everything is suspended by takes two to resume.
OPERATORS = ("person-00", "person-01")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Among:
    """What one of several on one ledger is told."""

    dsn: Path  # a file with the connection string
    common: Path  # a directory for what all have
    first_agent: int  # from this number on, agents are its own


class BrokerSide:
    """brokerd with everything it needs under ``directory``; a context manager."""

    def __init__(self, directory: Path, leases: int = 0, ttl: int = 300, among: Among | None = None) -> None:
        """``leases``: so many live in the ledger before brokerd starts; ``ttl``: of what is asked for, in seconds.

        ``among``: it is one of several, on a server's ledger.
        """
        self._among = among
        self._leases = leases
        self._ttl = ttl
        self._directory = private_directory(directory)
        self._clock = SystemClock()
        self._domain = TrustDomain.load(TRUST_DOMAIN, directory / "trust-domain", self._clock.now())
        self._svid = BrokerSvidFiles(
            self._domain,
            SpiffeId(TRUST_DOMAIN, "/broker"),
            (SERVER_NAME,),
            directory / "broker-svid",
            self._clock,
            ttl=timedelta(hours=12),
        )
        self._agents = count(among.first_agent if among else 0)
        self._jobs = count()
        self._api, self._ops, self._admin = free_port(), free_port(), free_port()
        self._stopwatch = directory / "identity.json"
        self._people = People(OPERATORS)
        self._brokerd = BrokerdProcess(directory, directory / "brokerd.yaml", self._ops, _COMMAND)

    def __enter__(self) -> Self:
        self._svid.write()
        write_deploy_set(self._directory / "deploy")
        if not (self._common / "ledger.key").exists():
            write_private(self._common / "ledger.key", new_key())
            write_pair(self._common / "checkpoint.key", self._common / "checkpoint.pem", None)
        private_directory(self._directory / "state")
        write_private(self._directory / "brokerd.yaml", yaml.safe_dump(self._config()))
        if self._leases:
            asyncio.run(self._fill())
        self._people.__enter__()
        began = time.perf_counter()
        self._brokerd.start({"BENCH_IDENTITY": str(self._stopwatch)})
        self.start_seconds = time.perf_counter() - began
        return self

    async def _fill(self) -> None:
        now = self._clock.now()
        keys = FileKeyRing([f"file:{self._common / 'ledger.key'}"])
        store = await SqliteStore.open(self.ledger, keys, "bench")
        await fill(store, [CONNECTOR], self._leases, now, [now + timedelta(hours=6)])
        await store.close()

    @property
    def _common(self) -> Path:
        """Where those on one ledger have what must be the same for all."""
        return self._among.common if self._among else self._directory

    @property
    def ledger(self) -> Path:
        """The file."""
        return self._directory / "state" / "ledger.sqlite3"

    def resident_bytes(self) -> int:
        """Of brokerd, now."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._brokerd.stop()
        self._people.__exit__()

    def identity_seconds(self) -> float:
        """Processor time of telling who asks, per RPC; known once brokerd has ended."""
        read = json.loads(self._stopwatch.read_text())
        return float(read["seconds"] / read["calls"])

    def audit_seconds(self) -> float:
        """Processor time of the audit trail, per grant; known once brokerd has ended."""
        read = json.loads(self._stopwatch.read_text())
        return float(read["audit_seconds"] / read["grants"])

    @property
    def pid(self) -> int:
        """Of brokerd."""
        assert self._brokerd.pid is not None
        return self._brokerd.pid

    def _config(self) -> dict[str, object]:
        return {
            "tenant": "bench",
            "trust_domain": TRUST_DOMAIN,
            "listen": {
                "agents": f"{LOOPBACK}:{self._api}",
                "admin": f"{LOOPBACK}:{self._admin}",
                "operations": f"{LOOPBACK}:{self._ops}",
            },
            "people": self._people.config(),
            "roles": {"operator": [GROUPS[0]]},
            "identity": {
                "certificate": str(self._svid.chain),
                "private_key": str(self._svid.key),
                "bundles": {TRUST_DOMAIN: str(self._svid.bundle)},
            },
            "deploy": {"directory": str(self._directory / "deploy")},
            "state": {"directory": str(self._directory / "state")},
            **({"ledger": {"dsn": f"file:{self._among.dsn}"}} if self._among else {}),
            "keys": {"ledger": [f"file:{self._common / 'ledger.key'}"]},
            "audit": {
                "export_file": str(self._common / "audit.jsonl"),
                "max_backlog_records": 10_000_000,
                "checkpoints": {
                    "signing_keys": [f"file:{self._common / 'checkpoint.key'}"],
                    "witnesses": {"disk": {"file": str(self._common / "witness")}},
                },
            },
            # Leases outlive the run, as OpenBao's tokens do: neither side ends anything while the other is measured.
            # A task of the measurement has more leases than an agent's usually has.
            "limits": {"confirm_within": "1h", "max_leases_per_task": 100_000},
            "log": {"level": "info", "format": "json"},
        }

    def measure(self, callers: int, *, warm_up: float, duration: float, confirm: bool = False) -> Measurement:
        """Full grants by ``callers`` agents."""
        return _summed(self.run(callers, warm_up=warm_up, duration=duration, confirm=confirm))

    def run(self, callers: int, *, warm_up: float, duration: float, confirm: bool = False) -> Measured:
        """The same, each grant by itself."""
        return _run(self._job(callers, warm_up=warm_up, duration=duration, confirm=confirm))

    def measure_bare(self, callers: int, *, warm_up: float, duration: float) -> Measurement:
        """RPCs that do nothing, by the same agents to a server that is no broker and has the broker's SVID."""
        address = f"{LOOPBACK}:{free_port()}"
        command = (*_BARE, address, str(self._svid.chain), str(self._svid.key), str(self._svid.bundle))
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=_ROOT) as server:
            assert server.stdout is not None
            if server.stdout.readline() != bare.SERVING:
                raise RuntimeError("the server that does nothing did not start")
            job = self._job(callers, warm_up=warm_up, duration=duration, bare=True)
            return _summed(_run(replace(job, address=address, server_pid=server.pid)))

    def suspend(self, callers: int, *, warm_up: float) -> float:
        """Seconds from the call that suspends everything until the last of ``callers`` busy agents was refused."""
        job = self._job(callers, warm_up=warm_up, until_suspended=True)
        with subprocess.Popen(_GENERATOR, stdin=PIPE, stdout=PIPE, text=True, cwd=_ROOT) as generator:
            assert generator.stdin is not None
            assert generator.stdout is not None
            generator.stdin.write(json.dumps(asdict(job)))
            generator.stdin.close()
            if generator.stdout.readline() != BUSY:
                raise RuntimeError("the load generator failed")
            began = time.perf_counter()
            try:
                suspension = asyncio.run(self._as(OPERATORS[0], self._stop))
            except BaseException:
                generator.kill()  # nothing will suspend it any more
                raise
            output = generator.stdout.read()
        for name in OPERATORS:
            asyncio.run(self._as(name, partial(self._resume, name, suspension)))
        return max(Measured(**json.loads(output)).refused_at) - began

    async def _as(self, name: str, act: Callable[[AdminClient], Awaitable[T]]) -> T:
        tokens = HeldToken(self._people.log_in(name))
        believed = believed_by_file(self._svid.bundle, TRUST_DOMAIN)
        async with connect_admin(f"{LOOPBACK}:{self._admin}", tokens, believed, SERVER_NAME) as client:
            return await act(client)

    @staticmethod
    async def _stop(client: AdminClient) -> str:
        asked = admin.SuspendRequest(request_id=client.new_id(), kind="KIND_EVERYTHING", reason="to be measured")
        return str((await client.call("Suspend", asked)).suspension.id)

    async def _resume(self, name: str, suspension: str, client: AdminClient) -> None:
        said = {"suspension_id": suspension, "reason": "measured"}
        token = self._people.log_in(name, RESUME_SUSPENSION, said).reveal()
        await client.call("Resume", admin.ResumeRequest(**said, request_id=client.new_id(), fresh_id_token=token))

    def _job(self, callers: int, *, warm_up: float, duration: float = 0.0, **also: bool) -> Job:
        return Job(
            address=f"{LOOPBACK}:{self._api}",
            server_name=SERVER_NAME,
            bundle=str(self._svid.bundle),
            svids=[self._mint(next(self._agents) % AGENTS) for _ in range(callers)],
            server_pid=self.pid,
            name=f"job-{next(self._jobs)}",
            warm_up=warm_up,
            duration=duration,
            ttl=self._ttl,
            **also,
        )

    def _mint(self, number: int) -> tuple[str, str]:
        svid = self._domain.x509_svid(agent_id(number), now=self._clock.now(), ttl=timedelta(hours=1))
        directory = private_directory(self._directory / "agents")
        chain, key = directory / f"{number}.pem", directory / f"{number}.key"
        write_private(chain, svid.certificate_pem.decode())
        write_private(key, svid.key_pem.decode())
        return str(chain), str(key)


def _run(job: Job) -> Measured:
    ended = subprocess.run(
        _GENERATOR,
        check=False,
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        cwd=_ROOT,
        timeout=job.duration + 60,
    )
    if ended.returncode:
        raise RuntimeError(f"the load generator failed: {ended.stderr[-2000:]}")
    return Measured(**json.loads(ended.stdout))


def _summed(measured: Measured) -> Measurement:
    return Measurement.of(
        measured.latencies,
        elapsed=measured.elapsed,
        generator_cpu=measured.cpu_seconds,
        server_cpu=measured.server_cpu_seconds,
    )
