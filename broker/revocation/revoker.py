"""Ends what must end: claims due attempts per connector and retries until the upstream confirms.

The due index in the ledger is the queue; nothing is kept in memory but what is being worked on.
Every connector has a lane of its own with its own workers, so that one that hangs cannot starve the
others. A claim is fenced by its epoch and runs out by itself, so a lane that dies is replaced. A
try that fails is tried again, with capped backoff, for ever. What an inventory found and no lease is of
(``reconciler.py``) is worked off by the same lanes, after what is somebody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from broker.errors import BrokerError
from broker.lease import backoff
from broker.lease.machine import Event
from broker.lease.root import Roots, Work
from broker.ports import (
    Attempt,
    Clock,
    Connector,
    Expired,
    Ledger,
    NotYet,
    Orphan,
    OrphanEnd,
    Refused,
    RevokeContext,
    Revoked,
    RevokeOutcome,
    Rng,
)
from broker.revocation.certainty import certain_outcome
from broker.revocation.liveness import Liveness
from broker.timekeeping import Certain

log = structlog.get_logger("broker.revocation")

# A try is given up after this long and counts as failed; the claim outlives it, so that a result is
# never written under a claim that somebody else may have taken over.
TRY_TIMEOUT = timedelta(seconds=20)
CLAIM_FOR = timedelta(seconds=30)


@dataclass(slots=True)
class Tally:
    """What one connector's lane has done, for /metrics."""

    revoked: int = 0
    expired: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Lane:
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    orphans: bool = False  # some of what no lease is of may be due
    tally: Tally = field(default_factory=Tally)
    runner: asyncio.Task[None] | None = None


class Revoker:
    """One lane per connector. ``connectors`` finds a connector by name, None if it is not running.

    ``others_do``: of a connector, whether it is left to other replicas. A claim by one that cannot end what it claims
    would only keep those who can from it.
    """

    def __init__(
        self,
        store: Ledger,
        connectors: Callable[[str], Connector | None],
        clock: Clock,
        rng: Rng,
        *,
        workers: int,
        try_timeout: timedelta = TRY_TIMEOUT,
        roots: Roots | None = None,
        certain: Callable[[], Certain] | None = None,
        others_do: Callable[[str], bool] = lambda connector: False,
    ) -> None:
        """``certain`` tells what is true although the clock is doubted; None: it cannot be."""
        self._certain = certain
        self._others_do = others_do
        self._store = store
        self._connectors = connectors
        self._clock = clock
        self._rng = rng
        self._workers = workers
        self._try_timeout = min(try_timeout, TRY_TIMEOUT)
        self._roots = roots or Roots()
        self.liveness = Liveness()
        self._lanes: dict[str, _Lane] = {}
        self._closing = False

    def kick_orphans(self, connector: str) -> None:
        """Something is due that is upstream and no lease's."""
        self._lanes.setdefault(connector, _Lane()).orphans = True
        self.kick(connector)

    def kick(self, connector: str) -> None:
        """Something of this connector is due: look now."""
        if self._others_do(connector):
            return
        lane = self._lanes.setdefault(connector, _Lane())
        lane.wake.set()
        if not self._closing and (lane.runner is None or lane.runner.done()):
            if lane.runner is not None and not lane.runner.cancelled() and (bug := lane.runner.exception()):
                log.error("a revocation lane died and is started again", connector=connector, exc_info=bug)
            lane.runner = asyncio.create_task(self._run(connector, lane), name=f"revoker:{connector}")

    def tallies(self) -> dict[str, Tally]:
        """Per connector, what was done so far."""
        return {name: lane.tally for name, lane in self._lanes.items()}

    async def close(self) -> None:
        """Stop claiming and wait for the tries under way (each is bounded by its timeout)."""
        self._closing = True
        for lane in self._lanes.values():
            lane.wake.set()
        runners = [lane.runner for lane in self._lanes.values() if lane.runner is not None]
        await asyncio.gather(*runners, return_exceptions=True)

    async def _run(self, connector: str, lane: _Lane) -> None:
        """Work off what is due, then rest until kicked."""
        busy: set[asyncio.Task[None]] = set()
        while True:
            lane.wake.clear()
            free = self._workers - len(busy)
            claimed: list[Attempt | Orphan] = []
            if free and not self._closing:
                try:
                    claimed += await self._store.claim_due(connector, self._clock.now(), free, CLAIM_FOR)
                    claimed += await self._claim_orphans(connector, lane, free - len(claimed))
                except BrokerError as failure:
                    # What was not claimed stays due; the next tick kicks again.
                    log.error("due attempts could not be claimed", connector=connector, reason=failure.reason)
            self.liveness.came_round(connector)
            for each in claimed:
                busy.add(asyncio.create_task(self._try(each, lane.tally)))
            if claimed and len(busy) < self._workers:
                continue
            if not busy and self._closing:
                return
            rest = asyncio.create_task(lane.wake.wait())
            done, _ = await asyncio.wait({rest, *busy}, return_when=asyncio.FIRST_COMPLETED)
            if rest not in done:
                rest.cancel()
            busy -= done

    async def _claim_orphans(self, connector: str, lane: _Lane, free: int) -> Sequence[Orphan]:
        """After what the ledger holds alive: that is somebody's, and known to be due."""
        if not lane.orphans or not free:
            return ()
        claimed = await self._store.claim_orphans(connector, self._clock.now(), free, CLAIM_FOR)
        lane.orphans = len(claimed) == free
        return claimed

    async def _try(self, claimed: Attempt | Orphan, tally: Tally) -> None:
        outcome = await self._revoke(claimed)
        now = self._clock.now()
        outcome = certain_outcome(claimed, outcome, self._certain() if self._certain else None)
        try:
            await self._record(claimed, outcome, now, tally)
        except BrokerError as failure:
            # The claim runs out and it is due again: revoking twice is harmless.
            log.error("a revocation could not be recorded", attempt=claimed.id, reason=failure.reason)

    async def _revoke(self, claimed: Attempt | Orphan) -> RevokeOutcome:
        connector = self._connectors(claimed.connector)
        if connector is None:
            return NotYet(f"connector {claimed.connector} is not running")

        async def known(names: Sequence[str]) -> frozenset[str]:
            return await self._store.known_upstream(claimed.connector, names)

        async def together(prefix: str) -> int:
            return await self._store.end_together(claimed.connector, prefix, claimed.id, self._clock.now())

        context = replace(_context(claimed, self._clock.now(), known), end_together=together)
        try:
            async with asyncio.timeout(self._try_timeout.total_seconds()):
                return await connector.revoke(claimed.handle, context)
        except TimeoutError:
            return NotYet(f"no answer within {self._try_timeout.total_seconds():g} s")
        except BrokerError as failure:
            return NotYet(failure.message)
        except Exception as bug:
            log.exception("the connector raised in revoke", attempt=claimed.id)
            return NotYet(f"internal error ({type(bug).__name__})")

    async def _record(self, claimed: Attempt | Orphan, outcome: RevokeOutcome, now: datetime, tally: Tally) -> None:
        event, failed, why, retry_after = _read(outcome)
        failures = claimed.failures + 1 if failed else 0
        if event is not None:
            next_due = now
        elif failed:
            next_due = now + backoff.delay(failures, self._rng.fraction(), retry_after)
        else:
            next_due = now + (retry_after or backoff.BASE)
        stuck, error = failed and failures >= backoff.STUCK_AFTER, why if failed else ""
        if isinstance(claimed, Attempt):
            kept = await self._store.record_revocation(claimed, event, now, next_due, error, stuck)
        else:
            end = None if event is None else _ORPHAN_ENDS[event]
            kept = await self._store.record_orphan(claimed, end, now, next_due, error, stuck)
        if not kept:
            log.warning("a claim was lost before its result was written", attempt=claimed.id)
            return
        self._count(claimed, outcome, failures, tally, now)

    def _count(
        self, claimed: Attempt | Orphan, outcome: RevokeOutcome, failures: int, tally: Tally, now: datetime
    ) -> None:
        about = _about(claimed)
        match outcome:
            case Revoked():
                tally.revoked += 1
                log.info("revoked", **about)
                self._roots.works(claimed.connector, Work.REVOKE)
            case Expired():
                tally.expired += 1
                log.info("expired", **about)
            case NotYet(why=why, failed=True) | Refused(why=why):
                tally.failed += 1
                log.warning("not revoked yet", **about, failures=failures, why=why)
        if isinstance(outcome, Refused):
            self._roots.refused(claimed.connector, outcome.why, Work.REVOKE, now)


_ORPHAN_ENDS = {Event.REVOKE_CONFIRMED: OrphanEnd.REVOKED, Event.TIME_ENDED: OrphanEnd.EXPIRED}


def _about(claimed: Attempt | Orphan) -> dict[str, str]:
    if isinstance(claimed, Orphan):
        return {"orphan": claimed.id, "connector": claimed.connector, "name": claimed.name}
    return {"attempt": claimed.id, "lease": claimed.lease_id, "cause": claimed.cause or ""}


def _context(
    claimed: Attempt | Orphan, now: datetime, known: Callable[[Sequence[str]], Awaitable[frozenset[str]]]
) -> RevokeContext:
    if isinstance(claimed, Attempt):
        return RevokeContext(
            now=now,
            created_at=claimed.created_at,
            issue_deadline=claimed.issue_deadline,
            expires_at=claimed.expires_at,
            outcome_known=claimed.activated_at is not None,
            known_upstream=known,
        )
    # It was listed: it is there, and no create of it is in flight.
    return RevokeContext(now, claimed.created_at, claimed.created_at, claimed.expires_at, True, known)


def _read(outcome: RevokeOutcome) -> tuple[Event | None, bool, str, timedelta | None]:
    """(machine event, whether it failed, why, the least wait)."""
    match outcome:
        case Revoked():
            return Event.REVOKE_CONFIRMED, False, "", None
        case Expired():
            return Event.TIME_ENDED, False, "", None
        case NotYet(why=why, retry_after=retry_after, failed=failed):
            return None, failed, why, retry_after
        case Refused(why=why):
            return None, True, f"the upstream refuses the broker: {why}", None
