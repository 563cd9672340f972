"""The same full grants by one, two and three brokerd on one PostgreSQL: what another replica brings, and what it costs.

The server keeps what it has answered (fsync, full pages, synchronous commits), as brokerd demands. Callers are spread
evenly, each replica's in a generator of its own. Every ledger is a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from bench.broker_side import Among, BrokerSide
from bench.figures import Measurement
from bench.generator import Measured, cpu_seconds_of
from broker.dev.files import private_directory, write_private
from broker.dev.postgres import PostgresServer
from broker.secret import Secret
from broker.stores.postgres_connection import ServerAddress, connect
from broker.stores.postgres_migrate import migrate

NUMBERS = (1, 2, 3)
CALLERS = 32
# Of each replica: so far apart that no agent asks two of them.
_AGENTS_EACH = 300
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


@dataclass(frozen=True, slots=True)
class Several:
    """What so many replicas did together."""

    replicas: int
    grants: Measurement  # the servers' share is of all brokerd together
    database_share: float  # of processors, by PostgreSQL


def measure(directory: Path, *, warm_up: float, duration: float, numbers: Sequence[int] = NUMBERS) -> list[Several]:
    """One number after the other, on one server."""
    server = PostgresServer(directory / "postgresql", **_DURABLE)
    facts = server.start()
    try:
        assert server.pid is not None
        found = []
        for number in numbers:
            name = f"ledger_{number}"
            with psycopg.connect(facts.conninfo(), autocommit=True) as session:
                session.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
            common = private_directory(directory / name)
            found.append(_together(common, facts.conninfo(name), number, server.pid, warm_up, duration))
        return found
    finally:
        server.destroy()


def _together(common: Path, dsn: str, number: int, postmaster: int, warm_up: float, duration: float) -> Several:
    with closing(connect(ServerAddress(Secret(dsn)), role="owner")) as session:
        migrate(session)
    write_private(common / "ledger.dsn", dsn)
    with ExitStack() as running, ThreadPoolExecutor(number) as threads:
        sides = [
            running.enter_context(
                BrokerSide(common / f"replica-{n}", among=Among(common / "ledger.dsn", common, n * _AGENTS_EACH))
            )
            for n in range(number)
        ]
        shares = [CALLERS // number + (n < CALLERS % number) for n in range(number)]
        before = _cpu_seconds(postmaster)
        jobs = [
            threads.submit(side.run, callers, warm_up=warm_up, duration=duration)
            for side, callers in zip(sides, shares, strict=True)
        ]
        measured = [job.result() for job in jobs]
        spent = _cpu_seconds(postmaster) - before
    # The server was at work in the warm-up, too.
    return Several(number, _added(measured), spent / (warm_up + duration))


def _added(measured: Sequence[Measured]) -> Measurement:
    return Measurement.of(
        [latency for each in measured for latency in each.latencies],
        elapsed=max(each.elapsed for each in measured),
        generator_cpu=sum(each.cpu_seconds for each in measured),
        server_cpu=sum(each.server_cpu_seconds for each in measured),
    )


def _cpu_seconds(postmaster: int) -> float:
    """Of a server: its sessions are processes of their own, and last as long as brokerd does."""
    parent = psutil.Process(postmaster)
    return sum(map(cpu_seconds_of, (parent, *parent.children(recursive=True))))
