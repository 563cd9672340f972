"""Compares what upstreams hold with what the ledger holds, and has the difference ended.

Nothing is adopted: what an upstream lists as ours and the ledger does not hold alive becomes a row to be worked off,
never a lease (docs/decisions/reconciliation.md). Each connector by itself, so that one that hangs delays no other. When
an inventory is due is kept in memory: after a start all of them are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.errors import BrokerError
from broker.lease.deadlines import no_late_create_after
from broker.lease.mark import Mark
from broker.ports.clock import Clock, Rng
from broker.ports.connectors import Carried, Connector
from broker.ports.ledger import Ledger
from broker.ports.orphans import HeldUpstream, Orphan, OrphanWhy
from broker.revocation.comparison import Comparison, Stray, compare, missing
from broker.revocation.sweep_limit import SweepLimit
from broker.scope.canonical import JsonValue

log = structlog.get_logger("broker.revocation")

EVERY = timedelta(hours=1)
RETRY = timedelta(minutes=5)
INVENTORY_TIMEOUT = timedelta(minutes=1)
# Upstreams tell ages in whole seconds, and their clocks are not ours.
_ROUNDING = timedelta(seconds=5)
PORTION = 100
ORPHAN_PREFIX = "orphan-"


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What came of one connector. ``listed`` None: its upstream cannot tell what it holds."""

    connector: str
    listed: int | None = None
    found: int = 0  # unknown, and being ended from now on
    young: int = 0  # unknown, and looked at again soon
    foreign: int = 0  # of another broker, or another tenant
    missing: int = 0  # held alive by the ledger, and not there
    braked: int = 0  # unknown, and so many that a person has to say that they are to be ended
    problem: str = ""  # why it could not be done


class Reconciler:
    """``connectors`` finds a connector by name, ``names`` tells which there are; ``kick`` wakes a revoker's lane."""

    def __init__(
        self,
        store: Ledger,
        connectors: Callable[[str], Connector | None],
        names: Callable[[], Iterable[str]],
        kick: Callable[[str], None],
        clock: Clock,
        rng: Rng,
        tenant: str,
        mark: Mark,
        *,
        issue_timeout: timedelta,
        timeout: timedelta = INVENTORY_TIMEOUT,
        limit: SweepLimit | None = None,
    ) -> None:
        self._store = store
        self._connectors = connectors
        self._names = names
        self._kick = kick
        self._clock = clock
        self._rng = rng
        self._tenant = tenant
        self._mark = mark
        self._issue_timeout = issue_timeout
        self._timeout = timeout
        self.limit = limit or SweepLimit()
        self._due: dict[str, datetime] = {}
        self._first_seen: dict[str, dict[str, datetime]] = {}  # by connector and name, where the upstream cannot tell
        self._told: dict[str, frozenset[str]] = {}  # by connector, the attempts that are known to be missing
        self._last: dict[str, Reconciled] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def last(self) -> Mapping[str, Reconciled]:
        """What came of the last time, by connector."""
        return self._last

    def soon(self) -> None:
        """Every inventory is due now: the ledger may have been an older one."""
        self._due.clear()

    async def tick(self) -> None:
        """Reconcile what is due."""
        now, names = self._clock.now(), set(self._names())
        for gone in self._last.keys() - names:
            del self._last[gone]
        due = [name for name in names if self._due.get(name, now) <= now]
        await asyncio.gather(*(self._one(name) for name in due))

    async def run(self, names: Sequence[str], actor: str, *, sweep: int = 0) -> Sequence[Reconciled]:
        """Reconcile these connectors now, because ``actor`` asks for it; told in the trail.

        ``sweep``: as many unknown ones, and no more, may be ended this once, whatever the limit says.
        """
        if sweep:
            allowed = [_allowed(name, sweep, self._tenant, actor) for name in names]
            await self._store.append(allowed, self._clock.now())
        done = await asyncio.gather(*(self._one(name, sweep) for name in names))
        events = [_told(each, self._tenant, actor) for each in done]
        await self._store.append(events, self._clock.now())
        return done

    async def _one(self, name: str, sweep: int = 0) -> Reconciled:
        turn = self._locks.setdefault(name, asyncio.Lock())
        try:
            # Not for several that are under way: whoever asks waits for an answer, and does so no longer than this.
            async with asyncio.timeout(self._timeout.total_seconds()):
                await turn.acquire()
        except TimeoutError:
            return Reconciled(name, problem="it is being compared already, and that takes long; ask again later")
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                done = await self._reconcile(name, sweep)
        except TimeoutError:
            done = Reconciled(name, problem=f"no answer within {self._timeout.total_seconds():g} s")
        except BrokerError as failure:
            done = Reconciled(name, problem=str(failure))
        except Exception as bug:
            log.exception("the connector raised in inventory", connector=name)
            done = Reconciled(name, problem=f"internal error ({type(bug).__name__})")
        finally:
            turn.release()
        self._due[name] = self._clock.now() + self._until_next(done)
        before, self._last[name] = self._last.get(name), done
        if done.braked and (before is None or not before.braked):
            await self._tell_braked(done)
        if done.problem:
            log.warning("an inventory could not be compared with the ledger", connector=name, why=done.problem)
        return done

    def _until_next(self, done: Reconciled) -> timedelta:
        if done.problem or done.braked:
            return RETRY
        return min(EVERY, self._in_flight) if done.young else EVERY

    @property
    def _in_flight(self) -> timedelta:
        """For how long what an issue makes may be upstream and not in the ledger, counted from when it was made."""
        begun = self._clock.now()
        return no_late_create_after(begun, begun + self._issue_timeout) - begun + _ROUNDING

    async def _reconcile(self, name: str, sweep: int) -> Reconciled:
        connector = self._connectors(name)
        if connector is None:
            return Reconciled(name, problem=f"connector {name} is not running")
        active = await self._store.active_attempts(name, self._clock.now())
        carried = await connector.inventory()
        if carried is None:
            self._told.pop(name, None)
            return Reconciled(name)
        compared = await self._compared(name, carried)
        strays = await self._still_there(connector, compared.strays)
        unknown = await self._unknown(name, strays)
        braked = len(unknown) if self.limit.stops(len(unknown), len(carried) - compared.foreign, sweep) else 0
        if braked:  # what the ledger itself knows to be over is ended all the same
            strays = [each for each in strays if each.carried.name not in unknown]
        ceiling = connector.contract.ttl_ceiling
        found: list[Orphan] = []
        for start in range(0, len(strays), PORTION):  # others commit in between
            portion = strays[start : start + PORTION]
            found += await self._store.add_orphans([self._orphan(name, stray, ceiling) for stray in portion])
        if found:
            log.error(
                "something of ours is upstream that the ledger does not hold alive: it is being ended",
                connector=name,
                found=[each.name for each in found],
            )
            self._kick(name)
        still = {each.attempt_id for each in await self._store.active_attempts(name, self._clock.now())}
        gone = missing(active, carried, still)
        await self._tell_missing(name, gone)
        return Reconciled(name, len(carried), len(found), len(compared.young), compared.foreign, len(gone), braked)

    async def _compared(self, name: str, carried: Sequence[Carried]) -> Comparison:
        now = self._clock.now()
        seen = self._first_seen.get(name, {})
        born = {each.name: each.created_at or seen.get(each.name, now) for each in carried}
        self._first_seen[name] = {each.name: born[each.name] for each in carried if each.created_at is None}
        held = await self._store.held(self._tenant, carried)
        return compare(carried, held, self._mark, born, now - self._in_flight)

    async def _still_there(self, connector: Connector, strays: Sequence[Stray]) -> list[Stray]:
        """Asked once more: what was ended between the two reads is no alarm."""
        if not strays:
            return []
        names = {each.name for each in await connector.inventory() or ()}
        return [each for each in strays if each.carried.name in names]

    async def _unknown(self, name: str, strays: Sequence[Stray]) -> frozenset[str]:
        """The names of those that the ledger has never heard of, and that are not being ended already."""
        unknown = frozenset(each.carried.name for each in strays if each.why is OrphanWhy.UNKNOWN)
        if len(unknown) <= self.limit.at_most:
            return unknown
        kept, after = set(), ""
        while page := await self._store.orphans(self._tenant, after, PORTION, living_only=True):
            kept |= {each.name for each in page if each.connector == name}
            after = page[-1].id
        return unknown - kept

    async def _tell_braked(self, done: Reconciled) -> None:
        log.error(
            "more than may be ended without a word is upstream and unknown to the ledger: nothing of it is ended",
            connector=done.connector,
            unknown=done.braked,
            listed=done.listed,
        )
        data: dict[str, JsonValue] = {"connector": done.connector, "unknown": done.braked, "listed": done.listed}
        event = AuditEvent(EventType.UPSTREAM_SWEEP_BRAKED, BROKER, Vouch.BROKER, tenant=self._tenant, data=data)
        try:
            await self._store.append([event], self._clock.now())
        except BrokerError as lost:
            log.error("that could not be put into the trail", connector=done.connector, reason=lost.reason)

    def _orphan(self, connector: str, stray: Stray, ceiling: timedelta) -> Orphan:
        now, carried = self._clock.now(), stray.carried
        made = min(carried.created_at or self._first_seen[connector].get(carried.name, now), now)
        return Orphan(
            tenant=self._tenant,
            id=ORPHAN_PREFIX + self._rng.id(),
            connector=connector,
            name=carried.name,
            attempt_id=carried.attempt_id or "",
            handle=carried.handle,
            why=stray.why,
            created_at=made,
            expires_at=made + ceiling,
            found_at=now,
        )

    async def _tell_missing(self, name: str, gone: Sequence[HeldUpstream]) -> None:
        """Each once, for as long as it is missing: it is not ended for it, because an absence is no proof."""
        known, now = self._told.get(name, frozenset()), self._clock.now()
        news = [each for each in gone if each.attempt_id not in known]
        if news:
            ids = [each.attempt_id for each in news]
            log.warning("the ledger holds alive what its upstream does not list", connector=name, attempts=ids)
            await self._store.append([_missing(name, each) for each in news], now)
        self._told[name] = frozenset(each.attempt_id for each in gone)


def _missing(connector: str, held: HeldUpstream) -> AuditEvent:
    return AuditEvent(
        EventType.UPSTREAM_MISSING,
        BROKER,
        Vouch.UPSTREAM,
        tenant=held.tenant,
        lease_id=held.lease_id,
        attempt_id=held.attempt_id,
        data={"connector": connector, "attempt": held.number, "name": held.upstream},
    )


def _allowed(name: str, sweep: int, tenant: str, actor: str) -> AuditEvent:
    data: dict[str, JsonValue] = {"connector": name, "at_most": sweep}
    return AuditEvent(EventType.UPSTREAM_SWEEP_ALLOWED, actor, Vouch.BROKER, tenant=tenant, data=data)


def _told(done: Reconciled, tenant: str, actor: str) -> AuditEvent:
    return AuditEvent(
        EventType.UPSTREAM_RECONCILED,
        actor,
        Vouch.BROKER,
        tenant=tenant,
        data={
            "connector": done.connector,
            "listed": done.listed,
            "found": done.found,
            "young": done.young,
            "foreign": done.foreign,
            "missing": done.missing,
            "braked": done.braked,
            "problem": done.problem,
        },
    )
