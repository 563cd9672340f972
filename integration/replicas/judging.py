"""What the ledger on PostgreSQL says, held against what the upstream did and the agents were given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from broker.audit.chain import GENESIS, link
from broker.audit.record import Record, decode
from tests.kill import upstream_log
from tests.kill.loop import deliveries
from tests.kill.verdict import Verdict, judge

_LIVING = "SELECT id, state, cause, failures, last_error FROM attempts WHERE due_at IS NOT NULL"
_TRAIL = "SELECT seq, body, hash FROM audit ORDER BY seq"


def until_all_is_over(dsn: str, within: float) -> None:
    """Wait until no attempt may be alive. Raises where that takes too long."""
    end = time.monotonic() + within
    with psycopg.connect(dsn, autocommit=True) as connection:
        while left := connection.execute(_LIVING).fetchall():
            assert time.monotonic() < end, f"{len(left)} attempts never came to an end: {left[:5]}"
            time.sleep(0.1)


def records(dsn: str) -> Iterator[Record]:
    """The trail. Raises AssertionError where it is not one chain without a gap."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        before, expected = GENESIS, 1
        for seq, body, digest in connection.execute(_TRAIL).fetchall():
            assert seq == expected, f"record {expected} is missing"
            before, expected = link(before, bytes(body)), seq + 1
            assert before == bytes(digest), f"record {seq} does not follow the one before it"
            yield decode(bytes(body))


def writers(dsn: str) -> dict[str, int]:
    """How many records each daemon wrote."""
    told: dict[str, int] = {}
    for record in records(dsn):
        told[record.writer] = told.get(record.writer, 0) + 1
    return told


def judged(dsn: str, directory: Path) -> Verdict:
    """Everything that is to be said of a run in ``directory``."""
    now_ms = time.time_ns() // 1_000_000
    log = upstream_log.read(directory / "upstream.jsonl")
    return judge(log, records(dsn), deliveries(directory / "agents.jsonl"), now_ms)
