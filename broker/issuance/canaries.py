"""Canaries: the broker issues a lease to itself, uses it, ends it, and uses it until it is refused.

Everything of such a lease is everybody's: task, policy, intent, connector, revoker, trail. Its holder is the broker's
own principal (``broker/identity/own.py``). Its credential is in the memory of one run and nowhere else, so a broker
that dies in one loses the measurement and nothing more: the lease is ended like every other. Runs are beside the
grants, and keep none waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from broker.audit.event import BROKER
from broker.canary.canary import Canary, Kind, due, kinds
from broker.canary.measurement import Measurement, Outcome
from broker.errors import BrokerError, Conflict, InvalidInput, NotFound, Reason
from broker.issuance.canary_run import CanaryRun, Tools
from broker.issuance.gate import Gate
from broker.lease.credential import Contract
from broker.ports.canaries import KEPT_MEASUREMENTS
from broker.ports.clock import Clock, Rng
from broker.ports.connectors import Connector
from broker.ports.deploys import DeploySet, DeploySource
from broker.ports.leases import EndCause
from broker.ports.ledger import Ledger
from broker.ports.tasks import Task, TaskState
from broker.ports.views import TaskSearch

log = structlog.get_logger("broker.canaries")

# After a start, what the last run left comes first.
SETTLING = timedelta(seconds=30)
CANARY_PREFIX = "canary-"
_PAGE = 100
# All that is kept of one connector.
_KEPT = KEPT_MEASUREMENTS + len(Kind)

# What runs once at a time.
_Key = tuple[str, Kind]


class CanaryStatus(NamedTuple):
    """One connector's canary, and what it has measured."""

    canary: Canary
    contract: Contract | None  # None: the connector is not running
    running: tuple[Kind, ...]
    measured: Mapping[Kind, Measurement]  # the newest of each kind of which something can be said
    newest: Mapping[Kind, Measurement]  # the newest of each kind, whatever came of it


@dataclass
class _Underway:
    asked: tuple[str, str]  # by whom, with which request id
    work: asyncio.Task[Measurement] = field(init=False)


class Canaries:
    """All canaries of the deploy set in force. Belongs to the event loop. ``counted`` is told of each that is over."""

    def __init__(
        self,
        store: Ledger,
        tools: Tools,
        deploy: DeploySource,
        connectors: Callable[[str], Connector | None],
        gate: Gate,
        clock: Clock,
        rng: Rng,
        tenant: str,
        *,
        counted: Callable[[str, str, str], None] = lambda connector, kind, outcome: None,
    ) -> None:
        self._store = store
        self._tools = tools
        self._deploy = deploy
        self._connectors = connectors
        self._gate = gate
        self._clock = clock
        self._rng = rng
        self._tenant = tenant
        self._counted = counted
        self._started: datetime | None = None
        self._left: set[tuple[str, datetime]] = set()  # (purpose, creation) of tasks of runs that are over
        self._underway: dict[_Key, _Underway] = {}
        self._over: dict[_Key, _Underway] = {}  # the last one of each
        self._newest: dict[str, dict[Kind, Measurement]] = {}
        self._measured: dict[str, dict[Kind, Measurement]] = {}

    async def start(self) -> None:
        """Read what was measured before, and end what a run before this start may have left. It never keeps one."""
        self._started = self._clock.now()
        try:
            await self.remember()
            # Of runs that died with their broker.
            await self._end_tasks()
        except BrokerError as failure:
            # Their own time ends them; and what was measured is measured again.
            log.error("what canaries left could not be read", reason=failure.reason)

    async def remember(self) -> None:
        """Read what was measured, by whichever replica. Raises BrokerError."""
        for connector in self._deploy.current.canaries:
            for each in reversed(await self._store.measurements(self._tenant, connector, _KEPT)):
                self._remember(each)

    async def tidy(self) -> None:
        """End what runs here could not end, or do not know to have begun. Raises BrokerError: try again later."""
        if left := frozenset(self._left):
            await self._end_tasks(lambda task: (task.purpose, task.created_at) in left)
            self._left -= left

    async def tick(self) -> None:
        """Begin what is due; nothing while grants are stopped. Returns at once. Raises BrokerError as ``tidy``."""
        await self.tidy()
        now, deploy = self._clock.now(), self._deploy.current
        if self._gate.why_closed(now) is not None or self._settling(now):
            return
        for name, canary in deploy.canaries.items():
            connector = self._connectors(name)
            if connector is None:
                continue
            begun = {kind: each.began_at for kind, each in self._newest.get(name, {}).items()}
            for kind in due(kinds(connector.contract), begun, canary.every, now):
                if (name, kind) not in self._underway:
                    self._begin(deploy, canary, kind, BROKER, "")

    async def run(
        self, name: str, kind: Kind | None, by: str, request_id: str, wait: timedelta
    ) -> tuple[CanaryStatus, Measurement | None]:
        """One run now; what it came to, None where it still runs after ``wait``. The same request again joins it.

        Raises NotFound (CANARY_NOT_FOUND), InvalidInput (CANARY_CANNOT_MEASURE), Conflict (CANARY_RUNNING), and
        NotReady while grants are stopped.
        """
        deploy = self._deploy.current
        canary, kind = _find(deploy, name), self._measurable(name, kind)
        underway = self._same((name, kind), (by, request_id))
        if underway is None:
            self._gate.check(self._clock.now())
            underway = self._begin(deploy, canary, kind, by, request_id)
        await asyncio.wait([underway.work], timeout=wait.total_seconds())
        return self.status(name), underway.work.result() if underway.work.done() else None

    def status(self, name: str) -> CanaryStatus:
        """One canary. Raises NotFound (CANARY_NOT_FOUND)."""
        return self._status(_find(self._deploy.current, name))

    def all(self) -> Sequence[CanaryStatus]:
        """Every canary of the set in force, by connector."""
        return [self._status(canary) for _, canary in sorted(self._deploy.current.canaries.items())]

    async def history(self, name: str, limit: int) -> Sequence[Measurement]:
        """The newest measurements of one connector, also of one whose canary was taken away."""
        return await self._store.measurements(self._tenant, name, limit)

    def measured(self, name: str) -> Mapping[Kind, Measurement]:
        """What is shown beside a connector's contract: the newest of each kind of which something can be said."""
        return self._measured.get(name, {})

    def alarms(self) -> list[str]:
        """Contracts that are not kept, for as long as no later run shows that they are."""
        found = (self._measured.get(name, {}) for name in sorted(self._deploy.current.canaries))
        return [_alarm(each) for measured in found for each in measured.values() if each.broken]

    async def stop(self) -> None:
        """Break off what runs; each ends its own lease."""
        works = [each.work for each in self._underway.values()]
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works)

    # ------------------------------------------------------------------ runs

    def _begin(self, deploy: DeploySet, canary: Canary, kind: Kind, by: str, request_id: str) -> _Underway:
        key = (canary.connector, kind)
        if key in self._underway:
            raise Conflict(
                Reason.CANARY_RUNNING,
                f"a canary of connector {canary.connector} measures this already ({kind}).",
                hint="Wait for it: `broker connectors canary` shows what it comes to.",
                metadata={"connector": canary.connector},
            )
        run = CanaryRun(
            self._tools,
            deploy,
            canary,
            kind,
            self._record,
            tenant=self._tenant,
            id_=CANARY_PREFIX + self._rng.id(),
            by=by,
        )
        underway = _Underway((by, request_id))
        underway.work = asyncio.create_task(run.carry_out(), name=f"canary:{canary.connector}")
        self._underway[key] = underway
        underway.work.add_done_callback(lambda work: self._ended(key, run, work))
        return underway

    def _ended(self, key: _Key, run: CanaryRun, work: asyncio.Task[Measurement]) -> None:
        self._over[key] = self._underway.pop(key)
        if run.task_left is not None:
            self._left.add(run.task_left)
        if not work.cancelled() and (bug := work.exception()) is not None:
            log.error("a canary broke", connector=key[0], error=type(bug).__name__)

    def _same(self, key: _Key, asked: tuple[str, str]) -> _Underway | None:
        for each in (self._underway.get(key), self._over.get(key)):
            if each is not None and asked[1] and each.asked == asked and not each.work.cancelled():
                return each
        return None

    async def _record(self, measurement: Measurement) -> None:
        """Known at once, and durable if the ledger can be written."""
        self._remember(measurement)
        self._counted(measurement.connector, measurement.kind.value, measurement.outcome.value)
        _tell(measurement)
        try:
            await self._store.record_measurement(measurement)
        except BrokerError as lost:
            log.error("what a canary measured could not be kept", connector=measurement.connector, reason=lost.reason)

    def _remember(self, measurement: Measurement) -> None:
        known = [self._newest]
        if measurement.outcome is not Outcome.UNMEASURED:
            known.append(self._measured)
        for each in known:
            of_its = each.setdefault(measurement.connector, {})
            # What could not be kept is not forgotten for what the ledger has of before.
            if (before := of_its.get(measurement.kind)) is None or before.told_at <= measurement.told_at:
                of_its[measurement.kind] = measurement

    def _settling(self, now: datetime) -> bool:
        return self._started is not None and timedelta(0) <= now - self._started < SETTLING

    def _measurable(self, name: str, kind: Kind | None) -> Kind:
        connector = self._connectors(name)
        if connector is None:
            raise NotFound(Reason.CANARY_NOT_FOUND, f"connector {name} is not running.", metadata={"connector": name})
        possible = kinds(connector.contract)
        if kind is not None and kind not in possible:
            raise InvalidInput(
                Reason.CANARY_CANNOT_MEASURE,
                f"connector {name} is {connector.contract.cls}: only time ends its credentials, no revocation does.",
                hint="Measure ON_EXPIRY.",
                metadata={"connector": name},
            )
        return kind or possible[0]

    def _status(self, canary: Canary) -> CanaryStatus:
        connector = self._connectors(canary.connector)
        return CanaryStatus(
            canary,
            None if connector is None else connector.contract,
            tuple(kind for kind in Kind if (canary.connector, kind) in self._underway),
            dict(self._measured.get(canary.connector, {})),
            dict(self._newest.get(canary.connector, {})),
        )

    async def _end_tasks(self, chosen: Callable[[Task], bool] = lambda task: True) -> None:
        """End open tasks of the broker's own, and so their leases. Raises BrokerError."""
        own = self._deploy.current.registry.own
        if own is None:
            return
        search, after = TaskSearch(self._tenant, agent=str(own.spiffe_id), open_only=True), ""
        while tasks := await self._store.search_tasks(search, after, _PAGE):
            for task in filter(chosen, tasks):
                log.warning("a canary that a run left is being revoked", task=task.id)
                await self._store.end_task(
                    self._tenant, task.id, TaskState.COMPLETED, EndCause.ABANDONED, BROKER, self._clock.now()
                )
            after = tasks[-1].id


def _find(deploy: DeploySet, name: str) -> Canary:
    canary = deploy.canaries.get(name)
    if canary is None:
        raise NotFound(
            Reason.CANARY_NOT_FOUND,
            f"there is no canary of a connector {name!a}.",
            hint="Operators: write `canary` into the connector's entry of connectors.yaml; see canaries.md.",
            metadata={"connector": ascii(name)[:100]},
        )
    return canary


def _alarm(measurement: Measurement) -> str:
    after = "a revocation" if measurement.kind is Kind.ON_REVOKE else "its deadline"
    at_least = measurement.at_least or timedelta(0)
    alive = "" if measurement.outcome is Outcome.LATE else ", and nobody has seen it refused yet"
    return (
        f"the contract of connector {measurement.connector} is not kept: a canary worked for at least"
        f" {at_least.total_seconds():g} s after {after}, the bound is {measurement.bound.total_seconds():g} s{alive}"
    )


def _tell(measurement: Measurement) -> None:
    about = {"connector": measurement.connector, "kind": measurement.kind.value, "lease": measurement.lease_id}
    if measurement.broken:
        log.error(_alarm(measurement), **about)
    elif measurement.outcome is Outcome.UNMEASURED:
        log.warning("a canary could not measure", why=measurement.why, **about)
    else:
        log.info("a canary measured", measured=str(measurement.measured), bound=str(measurement.bound), **about)
