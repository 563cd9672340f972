"""Ends what must end: claims due attempts per connector and retries until the upstream confirms.

The due index in the ledger is the queue; nothing is kept in memory but what is being worked on.
Every connector has a lane of its own (``lane.py``) with its own workers, so that one that hangs cannot starve the
others. A claim is fenced by its epoch and runs out by itself, so a lane that dies is replaced. A
try that fails is tried again, with capped backoff, for ever; where an upstream fails at one attempt after the
other, its circuit (:mod:`broker.lease.breaker`) spaces the lane's tries out. What an inventory found and no lease is
of (``reconciler.py``) is worked off by the same lanes, after what is somebody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from broker.errors import BrokerError
from broker.lease import backoff
from broker.lease.breaker import Breakers
from broker.lease.machine import Event
from broker.lease.root import Roots, Work
from broker.ports.clock import Clock, Rng
from broker.ports.connectors import Connector, Expired, NotYet, Refused, RevokeContext, Revoked, RevokeOutcome
from broker.ports.leases import Attempt, Tried
from broker.ports.ledger import Ledger
from broker.ports.orphans import Orphan, OrphanEnd
from broker.revocation.certainty import certain_outcome
from broker.revocation.lane import MOST_HELD, Claimed, Lane, Tally
from broker.revocation.liveness import Liveness
from broker.revocation.patience import Patience
from broker.timekeeping import Certain

log = structlog.get_logger("broker.revocation")

# A try is given up after this long and counts as failed; the claim outlives it, so that a result is
# recorded under it. Both bound how long a dead upstream keeps a worker busy.
TRY_TIMEOUT = timedelta(seconds=20)
CLAIM_FOR = timedelta(seconds=30)
# A lane looks by itself at what comes due within this time: ticks are too rare for what is owed at a moment.
SOON = timedelta(seconds=2)
# But not more often than this, so that what comes due one by one shares transactions.
TOGETHER = timedelta(milliseconds=50)
# Tries after which a worker lets others have the event loop, where the upstream never makes it wait.
_TURN = 8
# Of more than so many leases at a time the log says how many, not which: the audit trail has each.
_TOLD = 16
# Each try asks for these, and an enum's class answers slowly (Python 3.11).
_REVOKE = Work.REVOKE
_CONFIRMED, _TIME_ENDED = Event.REVOKE_CONFIRMED, Event.TIME_ENDED


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
        breakers: Breakers | None = None,
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
        self._breakers = breakers or Breakers()
        self._lanes: dict[str, Lane] = {}
        self._closing = False

    def kick_orphans(self, connector: str) -> None:
        """Something is due that is upstream and no lease's."""
        self._lane(connector).orphans = True
        self.kick(connector)

    def kick(self, connector: str) -> None:
        """Something of this connector is due: look now."""
        if self._others_do(connector):
            self.liveness.came_round(connector)
            return
        lane = self._lane(connector)
        lane.due = True
        lane.wake.set()
        if not self._closing and (lane.runner is None or lane.runner.done()):
            if lane.runner is not None and not lane.runner.cancelled() and (bug := lane.runner.exception()):
                log.error("a revocation lane died and is started again", connector=connector, exc_info=bug)
            lane.runner = asyncio.create_task(self._run(connector, lane), name=f"revoker:{connector}")

    def _lane(self, connector: str) -> Lane:
        return self._lanes.setdefault(connector, Lane(self._workers))

    def tallies(self) -> dict[str, Tally]:
        """Per connector, what was done so far."""
        return {name: lane.tally for name, lane in self._lanes.items()}

    async def close(self) -> None:
        """Stop claiming and wait for the tries under way (each is bounded by its timeout)."""
        self._closing = True
        for lane in self._lanes.values():
            lane.wake.set()
            if lane.timer is not None:
                lane.timer.cancel()
        runners = [lane.runner for lane in self._lanes.values() if lane.runner is not None]
        await asyncio.gather(*runners, return_exceptions=True)

    async def _run(self, connector: str, lane: Lane) -> None:
        """Work off what is due, then rest until kicked."""
        while True:
            lane.wake.clear()
            if lane.due and not self._closing:
                await self._claim(connector, lane)
            self._employ(connector, lane)
            self.liveness.came_round(connector)
            if self._closing and lane.idle:
                return
            await lane.wake.wait()

    async def _claim(self, connector: str, lane: Lane) -> None:
        """Take as much of what is due as there is room for and the circuit lets through."""
        now = self._clock.now()
        begin_by = asyncio.get_running_loop().time() + (CLAIM_FOR - TRY_TIMEOUT).total_seconds()
        room = self._breakers.allowance(connector, _REVOKE, lane.room(), now)
        if not room:
            return
        lane.due = False  # whoever kicks meanwhile is heard
        claimed: list[Attempt | Orphan] = []
        try:
            if await self._anything_due(connector, lane, now):
                claimed += await self._store.claim_due(connector, now, room, CLAIM_FOR)
            claimed += await self._claim_orphans(connector, lane, room - len(claimed))
        except BrokerError as failure:
            # What was not claimed stays due, and the next tick kicks again; not before, whatever a reader says of it.
            self._look_again(connector, lane, None)
            log.error("due attempts could not be claimed", connector=connector, reason=failure.reason)
        if claimed:
            self._breakers.begin(connector, _REVOKE, now)
        lane.held += len(claimed)
        lane.queue.extend(Claimed(each, begin_by) for each in claimed)
        if len(claimed) == room:
            lane.due = True  # there may be more
            lane.wake.set()
        elif claimed:
            await self._anything_due(connector, lane, now)

    async def _anything_due(self, connector: str, lane: Lane, now: datetime) -> bool:
        """Whether a claim would find anything; if not now then soon, the lane looks again by itself.

        A reader is asked, so that nobody opens a transaction, and keeps the other writers waiting, only to look. Where
        it cannot say, a claim will.
        """
        try:
            due = await self._store.next_due(connector)
        except BrokerError:
            return True
        self._look_again(connector, lane, due)
        return due is not None and due <= now

    def _look_again(self, connector: str, lane: Lane, due: datetime | None) -> None:
        """When it is due, where that is before the next tick; what comes due together is claimed together."""
        pause = None if due is None else max(due - self._clock.now(), TOGETHER)
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        if pause is not None and pause < SOON and not self._closing:
            lane.timer = asyncio.get_running_loop().call_later(pause.total_seconds(), self.kick, connector)

    async def _claim_orphans(self, connector: str, lane: Lane, free: int) -> Sequence[Orphan]:
        """After what the ledger holds alive: that is somebody's, and known to be due."""
        if not lane.orphans or not free:
            return ()
        claimed = await self._store.claim_orphans(connector, self._clock.now(), free, CLAIM_FOR)
        lane.orphans = len(claimed) == free
        return claimed

    def _employ(self, connector: str, lane: Lane) -> None:
        """As many workers as there is work for."""
        for _ in range(min(len(lane.queue), self._workers - len(lane.at_work))):
            worker = asyncio.create_task(self._work(lane), name=f"revoker:{connector}:worker")
            lane.at_work.add(worker)
            worker.add_done_callback(lane.at_work.discard)

    async def _work(self, lane: Lane) -> None:
        """Try what was claimed, one after the other, until there is nothing left of it."""
        loop, tries = asyncio.get_running_loop(), 0
        patience = Patience(self._try_timeout.total_seconds())
        try:
            while lane.queue:
                claimed = lane.queue.popleft()
                lane.held -= 1
                if loop.time() > claimed.begin_by:
                    continue  # its claim would run out under a slow try; then it is due again by itself
                await self._try(claimed.what, lane, patience)
                tries += 1
                if tries % _TURN == 0:
                    await asyncio.sleep(0)
        finally:
            patience.close()
            # The last thing that it does: whoever is woken sees it gone.
            loop.call_soon(lane.wake.set)

    async def _try(self, claimed: Attempt | Orphan, lane: Lane, patience: Patience) -> None:
        lane.held += 1
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            answer = await self._revoke(claimed, patience)
            outcome = certain_outcome(claimed, answer, self._certain() if self._certain else None)
            failed = isinstance(outcome, Refused) or (isinstance(outcome, NotYet) and outcome.failed)
            lane.learn(loop.time() - begun, answered=not failed)
            now = self._clock.now()
            self._heard(claimed, outcome, failed, now)
            if failed and not self._breakers.allowance(claimed.connector, _REVOKE, 1, now):
                lane.let_go()
            event, next_due, error, stuck = self._judged(claimed, outcome, now)
            if isinstance(claimed, Attempt):
                noted = outcome.noted if isinstance(outcome, NotYet) else None
                lane.done.append((Tried(claimed, event, now, next_due, error, stuck, noted), outcome))
                lane.held += 1
                self._record_soon(lane)
            else:
                await self._record_orphan(claimed, outcome, event, now, next_due, error, stuck, lane.tally)
        finally:
            lane.held -= 1

    async def _revoke(self, claimed: Attempt | Orphan, patience: Patience) -> RevokeOutcome:
        connector = self._connectors(claimed.connector)
        if connector is None:
            return NotYet(f"connector {claimed.connector} is not running")

        async def known(names: Sequence[str]) -> frozenset[str]:
            return await self._store.known_upstream(claimed.connector, names)

        async def together(prefix: str) -> int:
            return await self._store.end_together(claimed.connector, prefix, claimed.id, self._clock.now())

        context = _context(claimed, self._clock.now(), known, together)
        try:
            with patience:
                return await connector.revoke(claimed.handle, context)
        except TimeoutError:
            return NotYet(f"no answer within {self._try_timeout.total_seconds():g} s")
        except BrokerError as failure:
            return NotYet(failure.message)
        except Exception as bug:
            log.exception("the connector raised in revoke", attempt=claimed.id)
            return NotYet(f"internal error ({type(bug).__name__})")

    def _heard(self, claimed: Attempt | Orphan, outcome: RevokeOutcome, failed: bool, now: datetime) -> None:
        """What the outcome says of the upstream."""
        name = claimed.connector
        if isinstance(outcome, Revoked):
            self._roots.works(name, _REVOKE)
        if isinstance(outcome, Refused):
            self._roots.refused(name, outcome.why, _REVOKE, now)
        if isinstance(outcome, NotYet) and outcome.alone:
            self._breakers.untold(name, _REVOKE)
        elif failed:
            retry_after = outcome.retry_after if isinstance(outcome, NotYet) else None
            why, jitter = getattr(outcome, "why", ""), self._rng.fraction()
            self._breakers.failed(name, _REVOKE, claimed.id, why, now, jitter, retry_after)
        else:
            self._breakers.works(name, _REVOKE)

    def _judged(
        self, claimed: Attempt | Orphan, outcome: RevokeOutcome, now: datetime
    ) -> tuple[Event | None, datetime, str, bool]:
        """(machine event, when it is due next, the error, whether it is stuck)."""
        event, failed, why, retry_after = _read(outcome)
        if event is not None:
            return event, now, "", False
        if not failed:
            return None, now + (retry_after or backoff.BASE), "", False
        failures = claimed.failures + 1
        wait = backoff.delay(failures, self._rng.fraction(), retry_after)
        return None, now + wait, why, failures >= backoff.STUCK_AFTER

    def _record_soon(self, lane: Lane) -> None:
        """What is tried while a transaction is under way goes into the next one together."""
        if lane.recorder is None or lane.recorder.done():
            lane.recorder = asyncio.create_task(self._record(lane), name="revoker:recorder")

    async def _record(self, lane: Lane) -> None:
        await asyncio.sleep(0)
        while portion := lane.done[: MOST_HELD // 2]:
            del lane.done[: len(portion)]
            try:
                kept = await self._recorded([tried for tried, _ in portion])
            finally:
                lane.held -= len(portion)
            self._count(portion, kept, lane.tally)
            lane.wake.set()

    async def _recorded(self, tried: Sequence[Tried]) -> Sequence[bool]:
        """Whether each was kept. Where all together cannot be written, each by itself."""
        try:
            return await self._store.record_revocations(tried)
        except BrokerError as failure:
            if len(tried) > 1:
                return [kept for each in tried for kept in await self._recorded([each])]
            # The claim runs out and it is due again: revoking twice is harmless.
            log.error("a revocation could not be recorded", attempt=tried[0].attempt.id, reason=failure.reason)
            return [False]

    def _count(self, portion: Sequence[tuple[Tried, RevokeOutcome]], kept: Sequence[bool], tally: Tally) -> None:
        before = replace(tally)
        for (tried, outcome), was_kept in zip(portion, kept, strict=True):
            if was_kept:
                _tell(tried.attempt, outcome, tally, quiet=len(portion) > _TOLD)
            else:
                log.warning("a revocation's result was not written: its claim was lost", attempt=tried.attempt.id)
        if len(portion) > _TOLD:
            log.info(
                "revoked many",
                connector=portion[0][0].attempt.connector,
                revoked=tally.revoked - before.revoked,
                expired=tally.expired - before.expired,
                failed=tally.failed - before.failed,
            )

    async def _record_orphan(
        self,
        orphan: Orphan,
        outcome: RevokeOutcome,
        event: Event | None,
        now: datetime,
        next_due: datetime,
        error: str,
        stuck: bool,
        tally: Tally,
    ) -> None:
        end = None if event is None else _ORPHAN_ENDS[event]
        try:
            kept = await self._store.record_orphan(orphan, end, now, next_due, error, stuck)
        except BrokerError as failure:
            log.error("a revocation could not be recorded", attempt=orphan.id, reason=failure.reason)
            return
        if kept:
            _tell(orphan, outcome, tally, quiet=False)
        else:
            log.warning("a revocation's result was not written: its claim was lost", attempt=orphan.id)


def _tell(claimed: Attempt | Orphan, outcome: RevokeOutcome, tally: Tally, *, quiet: bool) -> None:
    """Count it, and say so in the log; of many only what failed is said one by one."""
    match outcome:
        case Revoked():
            tally.revoked += 1
            said = "revoked"
        case Expired():
            tally.expired += 1
            said = "expired"
        case NotYet(why=why, failed=True) | Refused(why=why):
            tally.failed += 1
            log.warning("not revoked yet", **_about(claimed), failures=claimed.failures + 1, why=why)
            return
        case _:
            return
    if not quiet:
        log.info(said, **_about(claimed))


_ORPHAN_ENDS = {Event.REVOKE_CONFIRMED: OrphanEnd.REVOKED, Event.TIME_ENDED: OrphanEnd.EXPIRED}


def _about(claimed: Attempt | Orphan) -> dict[str, str]:
    if isinstance(claimed, Orphan):
        return {"orphan": claimed.id, "connector": claimed.connector, "name": claimed.name}
    return {"attempt": claimed.id, "lease": claimed.lease_id, "cause": claimed.cause or ""}


def _context(
    claimed: Attempt | Orphan,
    now: datetime,
    known: Callable[[Sequence[str]], Awaitable[frozenset[str]]],
    together: Callable[[str], Awaitable[int]],
) -> RevokeContext:
    if isinstance(claimed, Attempt):
        created, deadline, issued = claimed.created_at, claimed.issue_deadline, claimed.activated_at is not None
    else:  # it was listed: it is there, and no create of it is in flight
        created, deadline, issued = claimed.created_at, claimed.created_at, True
    return RevokeContext(now, created, deadline, claimed.expires_at, issued, known, together)


def _read(outcome: RevokeOutcome) -> tuple[Event | None, bool, str, timedelta | None]:
    """(machine event, whether it failed, why, the least wait)."""
    match outcome:
        case Revoked():
            return _CONFIRMED, False, "", None
        case Expired():
            return _TIME_ENDED, False, "", None
        case NotYet(why=why, retry_after=retry_after, failed=failed):
            return None, failed, why, retry_after
        case Refused(why=why):
            return None, True, f"the upstream refuses the broker: {why}", None
