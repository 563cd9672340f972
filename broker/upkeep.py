"""What must happen by itself, as plain coroutines; ``broker/daemon.py`` has APScheduler tick them.

Each is safe to run late, twice, or after a crash: the truth is in the ledger, a tick only looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

import structlog

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.errors import BrokerError
from broker.issuance import looks
from broker.issuance.gate import Gate
from broker.issuance.looks import LookBudget
from broker.issuance.refusals import RefusalBudget, summary
from broker.lease.breaker import Breakers
from broker.lease.root import RootNews, Roots
from broker.ports.clock import Clock
from broker.ports.ledger import Ledger
from broker.ports.trail import AuditSink
from broker.revocation.revoker import Revoker
from broker.scope.canonical import JsonValue

log = structlog.get_logger("broker.upkeep")

BATCH = 500
LONGEST_WHY = 500
_ROOT_REFUSED = "an upstream refuses the broker's own credential: nothing of this connector is issued, nor ended"
_CIRCUIT_OPEN = "an upstream fails at one attempt after the other: nothing is issued, what is owed is tried one by one"
_AT_3_AM = "broker connectors doctor NAME; docs/operators.md, at 3 a.m."


class Upkeep:
    """The ticks. ``connectors`` names every connector whose lane must look for due work."""

    def __init__(
        self,
        store: Ledger,
        revoker: Revoker,
        connectors: Callable[[], Iterable[str]],
        gate: Gate,
        budget: RefusalBudget,
        look_budget: LookBudget,
        sink: AuditSink | None,
        clock: Clock,
        tenant: str,
        keep_texts: timedelta = timedelta(days=30),
        keep_ended: timedelta | None = None,
        roots: Roots | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        self._store = store
        self._revoker = revoker
        self._connectors = connectors
        self._gate = gate
        self._budget = budget
        self._look_budget = look_budget
        self._sink = sink
        self._clock = clock
        self._tenant = tenant
        self._keep_texts = keep_texts
        self._keep_ended = keep_ended
        self._roots = roots or Roots()
        self._breakers = breakers or Breakers()
        self._circuits_told = frozenset[str]()

    async def tick(self) -> None:
        """Close what is due: tasks first (that makes leases due), then every lane looks.

        The heartbeat is set last: a tick that could not do its work is no heartbeat, nor is one by which a lane has
        not come round since the tick before.
        """
        now = self._clock.now()
        try:
            while await self._store.end_due_tasks(now, BATCH) == BATCH:
                pass
            while await self._store.lapse_access_requests(now, BATCH) == BATCH:
                pass
            names = set(self._connectors()) | await self._store.connectors_in_use()
            for name in await self._store.orphan_connectors(now):
                self._revoker.kick_orphans(name)
        except BrokerError as failure:
            log.error("the ledger could not be looked at", reason=failure.reason, error=failure.message)
            self._gate.ledger_failure = failure.message
            # Revocation does not wait for the ledger's reading half to recover.
            names = set(self._connectors())
        else:
            self._gate.ledger_failure = ""
            self._gate.heartbeat = self._revoker.liveness.heartbeat(now)
            self._gate.silent_lanes = self._revoker.liveness.silent()
        for name in names:
            self._revoker.liveness.asked(name, now)
            self._revoker.kick(name)

    async def figures(self) -> None:
        """Tell the gate how far the audit export is behind."""
        if self._sink is not None:
            backlog = await self._store.export_backlog(self._clock.now())
            self._gate.backlog_records = backlog.head - backlog.exported
            self._gate.backlog_age = backlog.oldest

    async def export(self) -> None:
        """Hand the sink what it has not taken yet, in order; on failure the next tick goes on."""
        if self._sink is None:
            return
        after = (await self._store.export_backlog(self._clock.now())).exported
        try:
            while records := await self._store.audit_since(after, BATCH):
                await self._sink.write(records)
                after += len(records)
                await self._store.audit_exported(after)
        except OSError as failure:
            log.error("the audit export cannot be written", error=str(failure))

    async def tell_roots(self) -> None:
        """Write which upstreams began to refuse the broker's own credential, and which take it again."""
        news = self._roots.take_news()
        if not news:
            return
        try:
            await self._store.append([_root_event(self._tenant, each) for each in news], self._clock.now())
        except BrokerError:
            self._roots.put_back(news)
            raise
        for each in news:
            if each.refused:
                log.error(_ROOT_REFUSED, connector=each.connector, why=each.why[:LONGEST_WHY], hint=_AT_3_AM)
            else:
                log.warning("the broker's own credential is taken again: grants resume", connector=each.connector)

    async def tell_circuits(self) -> None:
        """Log which upstreams began to fail at one attempt after the other, and which do their part again."""
        now_open = self._breakers.open
        for name, circuit in now_open.items():
            if name not in self._circuits_told:
                log.error(_CIRCUIT_OPEN, connector=name, why=circuit.why[:LONGEST_WHY], hint=_AT_3_AM)
        for name in self._circuits_told - set(now_open):
            log.warning("the upstream does its part again: grants resume", connector=name)
        self._circuits_told = frozenset(now_open)

    async def erase_texts(self) -> None:
        """Erase agents' whole texts that have been kept for long enough."""
        if self._gate.time_doubted:  # a clock that jumped must not make anything old
            return
        now = self._clock.now()
        while await self._store.erase_texts_before(now - self._keep_texts, BATCH, now) == BATCH:
            pass

    async def delete_ended(self) -> None:
        """Delete tasks, with their leases, that have been over for long enough, once the export has their records."""
        if self._keep_ended is None or self._gate.time_doubted:
            return
        now = self._clock.now()
        if self._sink is not None:
            behind = (await self._store.export_backlog(now)).oldest
            if behind >= self._keep_ended:
                log.warning("nothing is deleted while the audit export does not have it", behind=behind.total_seconds())
                return
        if deleted := await self._store.delete_ended(now - self._keep_ended, now):
            log.info("tasks that are long over were deleted, with their leases", tasks=deleted)

    async def summarise_refusals(self, *, every: bool = False) -> None:
        """Write what the refusal budget has folded."""
        now = self._clock.now()
        closed = self._budget.close_windows(now, every=every)
        if closed:
            await self._store.append([summary(self._tenant, who, counts) for who, counts in closed], now)

    async def summarise_looks(self, *, every: bool = False) -> None:
        """Write what the budget of people's looking has folded."""
        now = self._clock.now()
        closed = self._look_budget.close_windows(now, every=every)
        if closed:
            await self._store.append([looks.summary(self._tenant, who, counts) for who, counts in closed], now)


def _root_event(tenant: str, news: RootNews) -> AuditEvent:
    type_ = EventType.CONNECTOR_ROOT_REFUSED if news.refused else EventType.CONNECTOR_ROOT_RESTORED
    about: dict[str, JsonValue] = {
        "connector": news.connector,
        "why": news.why[:LONGEST_WHY],
        "seen_by": news.seen_by.value,
        "since": news.since.isoformat(),
    }
    return AuditEvent(type_, BROKER, Vouch.UPSTREAM, tenant=tenant, data=about)
