"""What the ledger on PostgreSQL says, held against what the upstream did and the agents were given."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from broker.audit.chain import GENESIS, link
from broker.audit.record import Record, decode
from tests.kill import upstream_log
from tests.kill.loop import deliveries
from tests.kill.upstream_log import Entry
from tests.kill.verdict import Delivery, Verdict, judge

_LIVING = "SELECT id, state, cause, failures, last_error FROM attempts WHERE due_at IS NOT NULL"
# A record bears the time as its daemon knew it, which may be behind the database's by as long as the last reading of
# that was under way: no such time can be held against another process's. When a record was committed can be: the
# server, the upstream and the agents tell time by one clock, that of this machine.
_TRAIL = """
SELECT seq, body, hash, floor(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::bigint
FROM audit ORDER BY seq
"""


def until_all_is_over(dsn: str, within: float) -> None:
    """Wait until no attempt may be alive. Raises where that takes too long."""
    end = time.monotonic() + within
    with psycopg.connect(dsn, autocommit=True) as connection:
        while left := connection.execute(_LIVING).fetchall():
            assert time.monotonic() < end, f"{len(left)} attempts never came to an end: {left[:5]}"
            time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Committed:
    """A record, and when the database committed it: milliseconds since the epoch."""

    record: Record
    at_ms: int

    @property
    def behind(self) -> int:
        """By how much its daemon's time was behind that, the way to the COMMIT included; below 0: it was ahead."""
        return self.at_ms - self.record.at_ms


def committed(dsn: str) -> Iterator[Committed]:
    """The trail. Raises AssertionError where it is not one chain without a gap."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        before, expected = GENESIS, 1
        for seq, body, digest, at_ms in connection.execute(_TRAIL).fetchall():
            assert seq == expected, f"record {expected} is missing"
            before, expected = link(before, bytes(body)), seq + 1
            assert before == bytes(digest), f"record {seq} does not follow the one before it"
            yield Committed(decode(bytes(body)), at_ms)


def writers(dsn: str) -> dict[str, int]:
    """How many records each daemon wrote."""
    return dict(Counter(each.record.writer for each in committed(dsn)))


def judged(dsn: str, directory: Path) -> Verdict:
    """Everything that is to be said of a run in ``directory``."""
    now_ms = time.time_ns() // 1_000_000
    log = upstream_log.read(directory / "upstream.jsonl")
    return held_against(log, list(committed(dsn)), deliveries(directory / "agents.jsonl"), now_ms)


def held_against(
    log: Iterable[Entry], trail: Sequence[Committed], delivered: Iterable[Delivery], now_ms: int
) -> Verdict:
    """Everything by when it was committed; and no daemon's time may be ahead of the database's, by nothing at all."""
    verdict = judge(log, [replace(each.record, at_ms=each.at_ms) for each in trail], delivered, now_ms)
    verdict.early += [
        f"record {number} is of {-each.behind} ms after it was committed: what is due ends before its time"
        for number, each in enumerate(trail, 1)
        if each.behind < 0
    ]
    verdict.figures["records behind at most, ms"] = max((each.behind for each in trail), default=0)
    return verdict
