"""``python -m bench.revocations``: the revoker on a ledger full of due leases, in a process of its own.

A job in JSON comes in on standard input, what was measured goes out in JSON on standard output. The ledger, its writer
and the revoker are brokerd's own, and so are the event loop and when garbage is collected; the upstreams answer from
memory, or never. Time is the machine's, moved so that the run begins at ``begin_ms``. Beside it, where that is asked,
somebody suspends an agent again and again.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import structlog
import uvloop

from bench.filled import TENANT, fill
from bench.noop import Noop
from broker.clock import SystemClock, SystemRng
from broker.daemon import collector
from broker.dev.files import private_directory
from broker.lease.breaker import Breakers
from broker.ports.connectors import Handle, RevokeContext, RevokeOutcome
from broker.ports.leases import Tried
from broker.ports.suspensions import NewSuspension
from broker.revocation.revoker import Revoker
from broker.stores.sqlite import SqliteStore
from broker.suspension.suspension import Kind

WORKERS = 16  # as brokerd's default
TICK = 0.5  # seconds, as brokerd's default
_LOOK = 0.1  # seconds between looks at the memory: each costs as much as an end
_ROOT = Path(__file__).parent.parent
_COMMAND = (sys.executable, "-m", "bench.revocations")


@dataclass(frozen=True, slots=True)
class Job:
    """``due_ms``: of lease number n, ``due_ms[n % len]``; its connector, ``connectors[n % len]``."""

    ledger: str
    connectors: list[str]
    working: list[str]  # whose lanes are looked at
    hanging: list[str]  # of them, those that never answer
    expected: int  # ends by the others until the run is over
    begin_ms: int
    suspend: bool = False


@dataclass(slots=True)
class Measured:
    """What came of it; times in seconds."""

    ended: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    lateness_ms: list[int] = field(default_factory=list)  # of each lease, from its due time to its recorded end
    growth_mib: float = 0.0  # of resident memory, from the beginning to the most
    suspensions: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Ends per second."""
        return self.ended / self.seconds

    def percentile(self, part: int) -> int:
        """Of the lateness, in milliseconds."""
        ordered = sorted(self.lateness_ms)
        return ordered[min(len(ordered) - 1, len(ordered) * part // 100)]


class Keys:
    """One key, of this measurement."""

    def current(self) -> tuple[str, bytes]:
        """The key."""
        return "bench", b"b" * 32

    def find(self, key_id: str) -> bytes:
        """The same."""
        return self.current()[1]


class MovedClock:
    """The machine's, moved."""

    def __init__(self, begin: datetime | None = None) -> None:
        self._clock = SystemClock()
        self._by = timedelta(0) if begin is None else begin - self._clock.now()

    def now(self) -> datetime:
        """See Clock."""
        return self._clock.now() + self._by


class Hanging(Noop):
    """Never answers."""

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Until it is given up."""
        await asyncio.Event().wait()
        raise AssertionError


async def prepare(ledger: Path, connectors: Sequence[str], count: int, due: Sequence[datetime], now: datetime) -> None:
    """A ledger with ``count`` living leases."""
    store = await SqliteStore.open(ledger, Keys(), "bench")
    await fill(store, connectors, count, now, due)
    await store.close()


def measure(job: Job) -> Measured:
    """In a process of its own."""
    asked = json.dumps(asdict(job))
    ended = subprocess.run(_COMMAND, check=True, input=asked, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    return Measured(**json.loads(ended.stdout))


def rate(scratch: Path, leases: int) -> Measured:
    """One connector, everything due at once: how fast the revoker is."""
    return _once(scratch, leases, lambda number: 0.0)


def lateness(scratch: Path, leases: int, per_second: float) -> Measured:
    """One connector, so many due per second: how long after its time each is ended."""
    return _once(scratch, leases, lambda number: 0.5 + number / per_second)


def _once(scratch: Path, leases: int, after: Callable[[int], float]) -> Measured:
    now = MovedClock().now()
    begin = now + timedelta(hours=1)
    due = [begin + timedelta(seconds=after(number)) for number in range(leases)]
    ledger = private_directory(scratch) / "ledger.sqlite3"
    asyncio.run(prepare(ledger, ["noop"], leases, due, now))
    return measure(Job(str(ledger), ["noop"], ["noop"], [], leases, round(begin.timestamp() * 1000)))


async def run(job: Job) -> Measured:
    """What the process does."""
    measured = Measured()
    clock = MovedClock(datetime.fromtimestamp(job.begin_ms / 1000, UTC))
    store = await _Watched.open(Path(job.ledger), Keys(), "bench")
    store.measured, store.clock = measured, clock
    connectors = {name: (Hanging if name in job.hanging else Noop)(name) for name in job.connectors}
    revoker = Revoker(store, connectors.get, clock, SystemRng(), workers=WORKERS, breakers=Breakers())
    collector.settle()
    process = psutil.Process()
    before, cpu, began = process.memory_info().rss, time.process_time(), time.perf_counter()
    beside = asyncio.create_task(_suspending(store, clock, measured)) if job.suspend else None
    ticked = looked = 0.0
    while measured.ended < job.expected:
        if time.perf_counter() - ticked >= TICK:
            ticked = time.perf_counter()
            for name in job.working:
                revoker.kick(name)
        await asyncio.sleep(0.02)
        if time.perf_counter() - looked >= _LOOK:
            looked = time.perf_counter()
            measured.growth_mib = max(measured.growth_mib, (process.memory_info().rss - before) / 2**20)
    measured.seconds = store.last - began
    measured.cpu_seconds = time.process_time() - cpu
    if beside is not None:
        beside.cancel()
        with suppress(asyncio.CancelledError):
            await beside
    if not job.hanging:
        await revoker.close()
        await store.close()
    return measured


class _Watched(SqliteStore):
    """Notes when each end is durable."""

    measured: Measured
    clock: MovedClock
    last = 0.0

    async def record_revocations(self, tried: Sequence[Tried]) -> Sequence[bool]:
        """As it is, and noted."""
        kept = await super().record_revocations(tried)
        now, self.last = self.clock.now(), time.perf_counter()
        for each, was_kept in zip(tried, kept, strict=True):
            if was_kept and each.event is not None:
                self.measured.ended += 1
                self.measured.lateness_ms.append((now - each.attempt.expires_at) // timedelta(milliseconds=1))
        return kept


async def _suspending(store: SqliteStore, clock: MovedClock, measured: Measured) -> None:
    """An agent that has nothing is suspended, again and again: how long until no intent of its can commit."""
    rng = SystemRng()
    while True:
        agent = f"spiffe://bench.broker.internal/agent/{rng.id()}"
        new = NewSuspension(
            tenant=TENANT,
            id=rng.id(),
            request_id=rng.id(),
            request_digest="d" * 64,
            kind=Kind.AGENT,
            value=agent,
            reason="to be measured",
            author="https://id.bench.broker.internal#person-00",
            author_name="person-00",
            now=clock.now(),
            until=None,
        )
        began = time.perf_counter()
        await store.suspend(new, lambda holder: ("", ""))
        measured.suspensions.append(time.perf_counter() - began)
        await asyncio.sleep(0.5)


def _main() -> None:
    job = Job(**json.load(sys.stdin))
    lines = Path(job.ledger).with_name("log").open("w")
    log = structlog.make_filtering_bound_logger(20)
    structlog.configure(wrapper_class=log, logger_factory=structlog.WriteLoggerFactory(lines))
    collector.rarely()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(run(job))), sys.stdout)


if __name__ == "__main__":
    _main()
