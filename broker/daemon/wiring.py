"""One brokerd, wired: every adapter is chosen here and nowhere else.

Start order is the guarantee (docs/architecture.md): the ledger first; then, durably and before
anything is served, what was left due or unknown goes to REVOKING; then the deploy set and its
connectors; then the revoker; the agents' door last. Stopping goes the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from broker.api.agents import AgentService
from broker.api.door import Door
from broker.api.operations import Operations
from broker.api.server import AgentServer
from broker.api.tls import ServerTls, TlsFiles, peer_from_auth_context
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.clock import SystemRng
from broker.config import Config
from broker.daemon.pool import Build, ConnectorPool
from broker.daemon.reloading import Reloader
from broker.deployfiles.source import DeployFiles
from broker.errors import BrokerError
from broker.identity.agent import Peer
from broker.identity.peer_cache import PeerCache
from broker.issuance.gate import Gate
from broker.issuance.issue import Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.refusals import RefusalBudget
from broker.issuance.tasks import TaskDesk
from broker.keys import FileKeyRing
from broker.metrics import Metrics, Snapshot
from broker.ports import AuditSink, Clock
from broker.revocation.revoker import Revoker
from broker.stores.audit_file import AuditFile
from broker.stores.sqlite import SqliteStore
from broker.upkeep import Upkeep

log = structlog.get_logger("brokerd")

# A heartbeat older than this many ticks (and than 5 s) closes the gate.
_MISSED_TICKS = 10


class Brokerd:
    """The daemon's parts. :meth:`start` serves; :meth:`stop` drains and closes."""

    def __init__(self, config: Config, clock: Clock, build: Build) -> None:
        self._config = config
        self._clock = clock
        self._rng = SystemRng()
        self._files = DeployFiles(config.deploy.directory)
        self._pool = ConnectorPool(build)
        self._metrics = Metrics()
        self._budget = RefusalBudget()
        self._peers = PeerCache()
        self._scheduler = AsyncIOScheduler()
        self._store: SqliteStore | None = None
        # What undoes each step of the start, the last one first.
        self._undo = contextlib.AsyncExitStack()
        tick = config.revocation.tick
        self.gate = Gate(
            max_heartbeat_age=max(tick * _MISSED_TICKS, timedelta(seconds=5)),
            max_backlog_records=config.audit.max_backlog_records,
            max_backlog_age=config.audit.max_backlog_age,
        )
        material = TlsFiles(config.identity.certificate, config.identity.private_key, config.identity.bundles)
        self._tls = ServerTls(material, clock)

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Recover, then serve. Raises :class:`BrokerError` or OSError where that is not possible."""
        config = self._config
        store = await SqliteStore.open(
            config.state.directory / "ledger.sqlite3", FileKeyRing(config.keys.ledger), writer=self._rng.id()
        )
        self._store = store
        self._undo.push_async_callback(store.close)
        self._undo.push_async_callback(self._pool.close)
        recovered = await store.recover(self._clock.now())
        if recovered:
            log.warning("attempts left due or unknown by the last run are being revoked", attempts=recovered)
        self.reloader = Reloader(
            self._files, self._pool, store, self._clock, config.tenant, config.state.directory / "reload.json"
        )
        self._revoker = Revoker(
            store, self._pool.find, self._clock, self._rng, workers=config.limits.workers_per_connector
        )
        sink: AuditSink | None = None if config.audit.export_file is None else AuditFile(config.audit.export_file)
        self._upkeep = Upkeep(
            store, self._revoker, self._pool.names, self.gate, self._budget, sink, self._clock, config.tenant
        )
        await self.reloader.first()
        await self._append(EventType.DAEMON_STARTED, {"recovered": recovered})
        self._undo.push_async_callback(self._last_words)
        self._undo.push_async_callback(self._revoker.close)
        await self._upkeep.tick()
        self._server = self._door(store)
        self.agents_port = self._server.bind(str(config.listen.agents), self._tls.credentials())
        self._operations = Operations(self._problems, self._scrape)
        self._undo.push_async_callback(self._operations.stop)
        await self._operations.start(*config.listen.operations)
        self._schedule()
        self._undo.callback(self._scheduler.shutdown, wait=False)
        await self._server.start()
        log.info("serving", agents=str(config.listen.agents), operations=str(config.listen.operations))

    async def abandon(self) -> None:
        """After a start that failed: let go of what it had taken. Nothing was served."""
        await self._undo.aclose()

    async def stop(self) -> None:
        """Drain: no new grants, those under way finish or are taken back, revocations under way finish.

        What is still due stays in the ledger and is the next start's first work.
        """
        grace = self._config.limits.drain_timeout.total_seconds()
        self.gate.draining = True
        await self._server.stop(grace)
        try:
            async with asyncio.timeout(grace):
                await self._issuer.drain()
        except TimeoutError:
            log.warning("grants were still under way; their outcome is swept at the next start")
        await self._undo.aclose()
        log.info("stopped")

    async def _last_words(self) -> None:
        """What the ledger and its export shall still hold, once nothing changes any more."""
        await self._finish(self._upkeep.summarise_refusals(every=True))
        await self._append(EventType.DAEMON_STOPPED, {})
        await self._finish(self._upkeep.export())

    # ------------------------------------------------------------------ parts

    def _door(self, store: SqliteStore) -> AgentServer:
        config = self._config
        limits = config.limits
        kick = self._revoker.kick
        self._issuer = Issuer(
            store,
            self._pool.find,
            kick,
            self.gate,
            self._clock,
            self._rng,
            issue_timeout=limits.issue_timeout,
            confirm_within=limits.confirm_within,
        )
        tasks = TaskDesk(
            store,
            kick,
            self.gate,
            self._clock,
            self._rng,
            default_duration=limits.default_task_duration,
            max_duration=limits.max_task_duration,
        )
        leases = LeaseDesk(store, kick, self._clock)
        door = Door(
            self._identify,
            self._files,
            store,
            self._budget,
            self._metrics,
            self._clock,
            self._rng,
            config.tenant,
        )
        service = AgentService(self._issuer, tasks, leases, self._pool.find)
        return AgentServer(door, service, max_concurrent_rpcs=limits.max_concurrent_rpcs)

    def _identify(self, auth_context: Mapping[str, Any]) -> Peer:
        return peer_from_auth_context(auth_context, self._tls.bundles, self._peers, self._clock.now())

    def _schedule(self) -> None:
        """APScheduler only ticks; each job looks at the ledger, so a tick that is late or lost loses nothing."""
        tick = self._config.revocation.tick.total_seconds()
        jobs: tuple[tuple[str, Callable[[], Any], float], ...] = (
            ("upkeep", self._upkeep.tick, tick),
            ("figures", self._upkeep.figures, 1.0),
            ("export", self._upkeep.export, 1.0),
            ("refusals", self._upkeep.summarise_refusals, 5.0),
            ("registry", self.reloader.end_unregistered, 2.0),
            ("swap", self.reloader.if_swapped, 1.0),
            ("identity", self._refresh_identity, 1.0),
            ("tend", self._pool.tend, 60.0),
        )
        for name, job, seconds in jobs:
            self._scheduler.add_job(
                self._guarded(name, job),
                "interval",
                seconds=seconds,
                id=name,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
            )
        self._scheduler.start()

    def _guarded(self, name: str, job: Callable[[], Any]) -> Callable[[], Any]:
        async def run() -> None:
            try:
                await job()
            except BrokerError as failure:
                log.error("a periodic job failed; the next tick tries again", job=name, reason=failure.reason)
            except asyncio.CancelledError:
                # Only stop() cancels jobs; APScheduler would report it as a failure.
                log.debug("a periodic job was cut short by the stop", job=name)

        return run

    async def _refresh_identity(self) -> None:
        self._tls.refresh()

    def _problems(self) -> list[str]:
        closed = self.gate.why_closed(self._clock.now())
        return [] if closed is None else [str(closed)]

    async def _scrape(self) -> bytes:
        assert self._store is not None  # noqa: S101 - the port opens after the store
        now = self._clock.now()
        deploy = self._files.current
        snapshot = Snapshot(
            await self._store.figures(now),
            self._revoker.tallies(),
            ready=self.gate.why_closed(now) is None,
            agents=len(deploy.registry),
            templates=len(deploy.templates),
            deploy_digest=deploy.digest,
            own_svid_expires=self._tls.identity.not_after,
            tls_problems=len(self._tls.problems),
        )
        return self._metrics.render(snapshot)

    async def _append(self, type_: EventType, data: dict[str, int]) -> None:
        assert self._store is not None  # noqa: S101 - only called between open and close
        event = AuditEvent(type_, actor="broker", vouched_by=Vouch.BROKER, tenant=self._config.tenant, data=data)
        await self._finish(self._store.append([event], self._clock.now()))

    async def _finish(self, step: Any) -> None:
        """A closing step whose failure must not keep the next one from running."""
        try:
            await step
        except BrokerError as failure:
            log.error("a step failed", reason=failure.reason, error=failure.message)
