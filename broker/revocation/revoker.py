"""Ends what must end: claims due attempts per connector and retries until the upstream confirms.

The due index in the ledger is the queue; nothing is kept in memory but what is being worked on.
Every connector has a lane of its own with its own workers, so that one that hangs cannot starve the
others. A claim is fenced by its epoch and runs out by itself, so a lane that dies is replaced. A
try that fails is tried again, with capped backoff, for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from broker.errors import BrokerError
from broker.lease import backoff
from broker.lease.machine import Event
from broker.ports import (
    Attempt,
    Clock,
    Connector,
    Expired,
    LeaseStore,
    NotYet,
    Refused,
    RevokeContext,
    Revoked,
    RevokeOutcome,
    Rng,
)

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
    # The upstream refuses the broker itself: page somebody (faults.md F12).
    root_refused: bool = False
    root_refused_why: str = ""


@dataclass(slots=True)
class _Lane:
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    tally: Tally = field(default_factory=Tally)
    runner: asyncio.Task[None] | None = None


class Revoker:
    """One lane per connector. ``connectors`` finds a connector by name, None if it is not running."""

    def __init__(
        self,
        store: LeaseStore,
        connectors: Callable[[str], Connector | None],
        clock: Clock,
        rng: Rng,
        *,
        workers: int,
        try_timeout: timedelta = TRY_TIMEOUT,
    ) -> None:
        self._store = store
        self._connectors = connectors
        self._clock = clock
        self._rng = rng
        self._workers = workers
        self._try_timeout = min(try_timeout, TRY_TIMEOUT)
        self._lanes: dict[str, _Lane] = {}
        self._closing = False

    def kick(self, connector: str) -> None:
        """Something of this connector is due: look now."""
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
            claimed: list[Attempt] = []
            if free and not self._closing:
                try:
                    claimed = list(await self._store.claim_due(connector, self._clock.now(), free, CLAIM_FOR))
                except BrokerError as failure:
                    # Nothing was claimed; the next tick kicks again.
                    log.error("due attempts could not be claimed", connector=connector, reason=failure.reason)
            for attempt in claimed:
                busy.add(asyncio.create_task(self._try(attempt, lane.tally)))
            if claimed and len(busy) < self._workers:
                continue
            if not busy and self._closing:
                return
            rest = asyncio.create_task(lane.wake.wait())
            done, _ = await asyncio.wait({rest, *busy}, return_when=asyncio.FIRST_COMPLETED)
            if rest not in done:
                rest.cancel()
            busy -= done

    async def _try(self, attempt: Attempt, tally: Tally) -> None:
        outcome = await self._revoke(attempt)
        now = self._clock.now()
        try:
            await self._record(attempt, outcome, now, tally)
        except BrokerError as failure:
            # The claim runs out and the attempt is due again: revoking twice is harmless.
            log.error("a revocation could not be recorded", attempt=attempt.id, reason=failure.reason)

    async def _revoke(self, attempt: Attempt) -> RevokeOutcome:
        connector = self._connectors(attempt.connector)
        if connector is None:
            return NotYet(f"connector {attempt.connector} is not running")

        async def known(names: Sequence[str]) -> frozenset[str]:
            return await self._store.known_upstream(attempt.connector, names)

        async def together(prefix: str) -> int:
            return await self._store.end_together(attempt.connector, prefix, attempt.id, self._clock.now())

        context = RevokeContext(
            now=self._clock.now(),
            created_at=attempt.created_at,
            issue_deadline=attempt.issue_deadline,
            expires_at=attempt.expires_at,
            outcome_known=attempt.activated_at is not None,
            known_upstream=known,
            end_together=together,
        )
        try:
            async with asyncio.timeout(self._try_timeout.total_seconds()):
                return await connector.revoke(attempt.handle, context)
        except TimeoutError:
            return NotYet(f"no answer within {self._try_timeout.total_seconds():g} s")
        except BrokerError as failure:
            return NotYet(failure.message)
        except Exception as bug:
            log.exception("the connector raised in revoke", attempt=attempt.id)
            return NotYet(f"internal error ({type(bug).__name__})")

    async def _record(self, attempt: Attempt, outcome: RevokeOutcome, now: datetime, tally: Tally) -> None:
        event, failed, why, retry_after = _read(outcome)
        failures = attempt.failures + 1 if failed else 0
        if event is not None:
            next_due = now
        elif failed:
            next_due = now + backoff.delay(failures, self._rng.fraction(), retry_after)
        else:
            next_due = now + (retry_after or backoff.BASE)
        stuck = failed and failures >= backoff.STUCK_AFTER
        if not await self._store.record_revocation(attempt, event, now, next_due, why if failed else "", stuck):
            log.warning("a claim was lost before its result was written", attempt=attempt.id)
            return
        self._count(attempt, outcome, failures, tally)

    def _count(self, attempt: Attempt, outcome: RevokeOutcome, failures: int, tally: Tally) -> None:
        match outcome:
            case Revoked():
                tally.revoked += 1
                log.info("revoked", attempt=attempt.id, lease=attempt.lease_id, cause=attempt.cause)
            case Expired():
                tally.expired += 1
                log.info("expired", attempt=attempt.id, lease=attempt.lease_id)
            case NotYet(why=why, failed=True) | Refused(why=why):
                tally.failed += 1
                log.warning("not revoked yet", attempt=attempt.id, lease=attempt.lease_id, failures=failures, why=why)
        if isinstance(outcome, Refused):
            tally.root_refused, tally.root_refused_why = True, outcome.why
        elif isinstance(outcome, Revoked):
            tally.root_refused, tally.root_refused_why = False, ""


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
