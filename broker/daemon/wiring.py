"""One brokerd, wired: every adapter is chosen here and nowhere else.

Start order is the guarantee (docs/architecture.md): the ledger first; then, durably and before
anything is served, what was left due or unknown goes to REVOKING; then the deploy set and its
connectors; then the revoker; the agents' door last. Stopping goes the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from broker.api.operations import Operations
from broker.api.tls import peer_from_auth_context
from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.clock import KeptClock, SystemRng
from broker.config import Config, HostPort
from broker.connectors.lending import Lending
from broker.daemon.admin import PeopleAdmitted
from broker.daemon.doors import Doors, Inside
from broker.daemon.figures import LedgersFigures
from broker.daemon.identity import OwnIdentity
from broker.daemon.ledger import open_ledger, refuse_another_life
from broker.daemon.notifying import Notifier, untold_break_glass
from broker.daemon.pool import Build, ConnectorPool
from broker.daemon.proxies import ProxiesEntrance
from broker.daemon.reloading import Reloader
from broker.daemon.replica import Replica
from broker.daemon.room import Room
from broker.daemon.ticks import Job, Ticks
from broker.daemon.timekeeping import TimeWatch
from broker.daemon.watchdog import Watchdog
from broker.daemon.witnessing import Witnessing
from broker.deployfiles.signers import signers_of
from broker.deployfiles.source import DeployFiles
from broker.errors import BrokerError, Reason
from broker.identity.agent import Peer
from broker.identity.peer_cache import PeerCache
from broker.issuance.access_reviews import AccessReviewDesk
from broker.issuance.among import Among
from broker.issuance.escalation import Watch
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.gate import Gate
from broker.issuance.id_tokens import IdTokens
from broker.issuance.looks import LookBudget
from broker.issuance.recovering import Recovering
from broker.issuance.refusals import RefusalBudget
from broker.issuance.suspending import SuspensionDesk
from broker.issuance.tightening import TighteningDesk
from broker.issuers.keys import HttpIssuerKeys
from broker.keys import FileKeyRing
from broker.lease.breaker import Breakers
from broker.lease.root import Roots
from broker.metrics import Metrics, Snapshot
from broker.ports.clock import Clock, by_either, earliest
from broker.ports.deploys import Reloaded
from broker.ports.trail import AuditSink
from broker.revocation.marking import own_mark
from broker.revocation.reconciler import Reconciler
from broker.revocation.revoker import Revoker
from broker.revocation.sweep_limit import SweepLimit
from broker.stores.audit_file import AuditFile
from broker.stores.ledger import LedgerStore
from broker.upkeep import Upkeep

log = structlog.get_logger("brokerd")

# A heartbeat older than this many ticks (and than 5 s) closes the gate.
_MISSED_TICKS = 2
# Why nothing can be written any more.
_LOST = {
    Reason.AUDIT_CHAIN_BROKEN: "the ledger's database has lost what was committed to it, or its audit trail is not ours"
    " any more; only a start can tell more",
    Reason.SCHEMA_VERSION: "the ledger was migrated, and this release cannot work with what it is now",
    Reason.ROW_MAC_MISMATCH: "the ledger's audit trail goes on under a key that this brokerd does not have",
}
# From a request's deploy set to its intent, at most: it is decided on a few times, and then waits for one commit.
DECIDING = timedelta(seconds=15)


class Brokerd:
    """The daemon's parts. :meth:`start` serves; :meth:`stop` drains and closes."""

    def __init__(self, config: Config, clock: Clock, build: Build, lending: Lending | None = None) -> None:
        """``lending`` is told of the ledger once it is open: what ``build`` makes lends accounts of it."""
        self._lending = lending
        self._config = config
        self._clock = clock
        self._rng = SystemRng()
        self._files = DeployFiles(config.deploy.directory, config.trust_domain, signers_of(config))
        self._roots = Roots()
        self._breakers = Breakers()
        self._pool = ConnectorPool(build, self._roots, clock, self._breakers)
        self._metrics = Metrics()
        self._budget = RefusalBudget()
        self._look_budget = LookBudget()
        self._peers = PeerCache()
        self._store: LedgerStore | None = None
        self._witnessing: Witnessing | None = None
        self._tampered: frozenset[str] = frozenset()
        self._blocked: Mapping[str, str] = {}
        # What undoes each step of the start, the last one first.
        self._undo = contextlib.AsyncExitStack()
        tick = config.revocation.tick
        self.gate = Gate(
            max_heartbeat_age=max(tick * _MISSED_TICKS, timedelta(seconds=5)),
            max_backlog_records=config.audit.max_backlog_records,
            max_backlog_age=config.audit.max_backlog_age,
            among=Among(config.deploy.follow_within),
        )
        ledger = config.state.directory / "ledger.sqlite3"
        # What is kept for a full disk is beside a file; a server keeps its own.
        ballast = config.state.ballast if config.ledger is None else None
        self._room = Room(ledger, ballast, self.gate, clock, config.tenant)
        self._time = TimeWatch(clock, self.gate, config.tenant) if isinstance(clock, KeptClock) else None

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Recover, then serve. Raises :class:`BrokerError` or OSError where that is not possible."""
        config = self._config
        writer = self._rng.id()
        keys = FileKeyRing(config.keys.ledger)
        store = await open_ledger(config, keys, writer, self._clock, self._room.ballast)
        self._store = self._room.store = self.gate.ledger = store
        self._undo.push_async_callback(store.close)
        await refuse_another_life(store, config)
        # Before anything is judged by the time, certificates among it: a clock set back must not keep it from serving.
        if self._time is not None:
            await self._time.resume(store)
        # The Workload API is waited for, so not on this thread.
        self._identity = await asyncio.to_thread(OwnIdentity, config, self.gate, self._clock)
        self._undo.callback(self._identity.close)
        self._proxies = (
            None
            if config.proxies is None
            else await asyncio.to_thread(ProxiesEntrance, config, config.proxies, self._certified, self._clock)
        )
        if self._proxies is not None:
            self._undo.callback(self._proxies.close)
        if self._lending is not None:
            self._lending.store = store
        self._undo.push_async_callback(self._pool.close)
        # Before anything of the ledger is looked at, so that nobody takes this one for dead.
        self._replica = Replica(store, self._clock, self.gate, config.tenant, writer, asyncio.get_running_loop().time)
        if self._time is not None:
            self._replica.hear_time = self._time.hear
        turns = self._replica.turns
        self._undo.push_async_callback(self._leave)
        await self._replica.beat()
        recovered = await store.recover(self._clock.now())
        if recovered:
            log.warning("attempts left due or unknown by the last run are being revoked", attempts=recovered)
        self._revoker = Revoker(
            store,
            self._pool.find,
            self._clock,
            self._rng,
            workers=config.limits.workers_per_connector,
            roots=self._roots,
            certain=self._clock.certain if isinstance(self._clock, KeptClock) else None,
            others_do=self._others_do,
            breakers=self._breakers,
        )
        self._mark = await own_mark(store, config.tenant, self._clock)
        self._reconciler = Reconciler(
            store,
            self._pool.find,
            self._pool.names,
            self._revoker.kick_orphans,
            self._clock,
            self._rng,
            config.tenant,
            self._mark,
            issue_timeout=config.limits.issue_timeout,
            limit=SweepLimit(config.limits.sweep_at_most, config.limits.sweep_share),
        )
        self._replica.reconcile = self._reconciler.soon
        await self._hold_against_witnesses(store, writer)
        result, among = config.state.directory / "reload.json", self.gate.among
        self.reloader = Reloader(self._files, self._pool, store, self._clock, config.tenant, result, among, writer)
        self._replica.follow = self.reloader.follow
        sink: AuditSink | None = None if config.audit.export_file is None else AuditFile(config.audit.export_file)
        self._upkeep = Upkeep(
            store,
            self._revoker,
            self._pool.names,
            self.gate,
            self._budget,
            self._look_budget,
            sink,
            self._clock,
            config.tenant,
            keep_texts=config.audit.keep_texts_for,
            keep_ended=None if config.retention is None else config.retention.leases,
            roots=self._roots,
            breakers=self._breakers,
        )
        # For so long others still grant by the set before.
        following = config.deploy.follow_within if store.shared else timedelta(0)
        self._tightening = TighteningDesk(
            store,
            self._files,
            self._pool.find,
            self._revoker.kick,
            self._metrics,
            self._clock,
            config.tenant,
            straggling=following + config.limits.issue_timeout + DECIDING,
        )
        self.reloader.on_change = self._tightening.changed
        await self.reloader.first()
        self._people = None if config.people is None else PeopleAdmitted(config, config.people)
        reviews = config.access_reviews
        self._reviews = AccessReviewDesk(store, None if reviews is None else reviews.every)
        if self._people is not None:
            self._undo.push_async_callback(self._people.close)
            await self._people.start()
            self._background("providers' keys", self._people.run())
        # Nobody's, where nobody logs in: then nothing that takes a fresh login is done here.
        self._id_tokens = IdTokens({}, HttpIssuerKeys({})) if self._people is None else self._people.tokens
        self._fresh = FreshLogins(self._id_tokens, self._clock)
        self._suspensions = SuspensionDesk(store, self._revoker.kick, self._fresh, self._clock, self._rng)
        await self._tend_suspensions()
        await self._append(EventType.DAEMON_STARTED, {"recovered": recovered})
        self._undo.push_async_callback(self._last_words)
        self._undo.push_async_callback(self._revoker.close)
        self._watch = Watch(store, self._files, self._metrics, self._clock, config.tenant, self._suspend)
        self._background("escalation", self._watch.run())
        self._background("tightening", self._tightening.run())
        self._notifier = Notifier(config, store, self._clock, self._rng)
        self._undo.push_async_callback(self._notifier.close)
        if config.notify:
            await turns.at_begin("webhooks", self._notifier.start)
            turns.beside("webhooks", self._notifier.run)
            self._undo.push_async_callback(turns.close)
        if self._witnessing is not None:
            self._background("witnesses", self._witnessing.run())
        await self._upkeep.tick()
        await self._look_at_reviews()
        self.doors = Doors(
            Inside(
                config=config,
                store=store,
                keys=keys,
                clock=self._clock,
                rng=self._rng,
                gate=self.gate,
                files=self._files,
                pool=self._pool,
                roots=self._roots,
                breakers=self._breakers,
                revoker=self._revoker,
                reconciler=self._reconciler,
                mark=self._mark,
                metrics=self._metrics,
                budget=self._budget,
                look_budget=self._look_budget,
                watch=self._watch,
                suspensions=self._suspensions,
                tightening=self._tightening,
                reviews=self._reviews,
                fresh=self._fresh,
                id_tokens=self._id_tokens,
                people=self._people,
                proxies=self._proxies,
                certified=self._certified,
                reload=self.reload,
            )
        )
        self._canaries = self.doors.canaries
        await turns.at_begin("canaries", self._canaries.start)
        await turns.at_begin("reconcile", self._inventories_again)
        self._undo.push_async_callback(self._canaries.stop)
        self.doors.bind(self._identity.tls)
        self._ledgers_figures = LedgersFigures(store, self._reviews, self._clock, config.tenant)
        self._operations = Operations(self._problems, self._warnings, self._scrape)
        self._undo.push_async_callback(self._operations.stop)
        await self._operations.start(*config.listen.operations)
        self._ticks = Ticks(self._jobs())
        self._watchdog = Watchdog(
            asyncio.get_running_loop().time, self.gate.max_heartbeat_age.total_seconds(), self._ticks.again
        )
        self._ticks.start()
        self._undo.callback(self._ticks.stop)
        self._background("watchdog", self._watchdog.run())
        await self.doors.start()
        log.info("serving", **{name: str(address) for name, address in config.listen if isinstance(address, HostPort)})

    async def _hold_against_witnesses(self, store: LedgerStore, writer: str) -> None:
        """Before anything is served: a ledger that is behind what a witness has seen grants nothing."""
        config, clock = self._config, self._clock
        soon = self._reconciler.soon
        recovery = Recovering(store, self.gate, clock, self._rng, config.tenant, reconcile=soon)
        self._replica.recover = recovery.resume
        await recovery.resume()
        if (settings := config.audit.checkpoints) is not None:
            turns = self._replica.turns
            witnessing = Witnessing(config, settings, store, recovery, self.gate, clock, self._rng, writer, turns)
            self._undo.push_async_callback(witnessing.close)
            await witnessing.start()
            self._witnessing = witnessing

    async def reload(self, actor: str = BROKER) -> Reloaded:
        """On SIGHUP, and when an operator asks: take in the deploy set, and the keys of checkpoints."""
        if self._witnessing is not None:
            self._witnessing.reload()
        return await self.reloader.take_in(actor)

    async def until(self, stop: asyncio.Event) -> bool:
        """Serve until ``stop`` is set, or the ledger is lost; whether it was ``stop``."""
        assert self._store is not None  # noqa: S101 - only called after the start
        asked, lost = asyncio.create_task(stop.wait()), asyncio.create_task(self._store.lost())
        try:
            await asyncio.wait((asked, lost), return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                log.critical(_LOST[lost.result().reason], why=str(lost.result()))
        finally:
            asked.cancel()
            lost.cancel()
        return stop.is_set()

    async def abandon(self) -> None:
        """After a start that failed: let go of what it had taken. Nothing was served."""
        await self._undo.aclose()

    async def stop(self) -> None:
        """Drain: no new grants, those under way finish or are taken back, revocations under way finish.

        What is still due stays in the ledger and is the next start's first work.
        """
        grace = self._config.limits.drain_timeout.total_seconds()
        self.gate.draining = True
        await self.doors.stop(grace)
        try:
            async with asyncio.timeout(grace):
                await self.doors.issuer.drain()
        except TimeoutError:
            log.warning("grants were still under way; their outcome is swept at the next start")
        await self._undo.aclose()
        log.info("stopped")

    def _others_do(self, connector: str) -> bool:
        """Whether only a newer deploy set than this replica's has a connector."""
        return self.gate.among.overtaken and self._pool.find(connector) is None

    async def _leave(self) -> None:
        await self._finish(self._replica.leave())

    async def _inventories_again(self) -> None:
        self._reconciler.soon()

    async def _tend_break_glass(self) -> None:
        self._blocked = await self.doors.break_glass.tend(self._config.tenant, self._files.current)

    async def _suspend(self, tenant: str, agent: str, why: str, now: datetime) -> None:
        """What an escalation rule that is answered by suspension does."""
        await self._suspensions.stop_agent(tenant, self._files.current, agent, why)

    def _background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work``, which has no end of its own, beside the serving, until the stop comes to it."""
        task = asyncio.create_task(work, name=name)

        def ended(_: object) -> None:
            if not task.cancelled():
                log.error("background work has ended by itself", work=name, exc_info=task.exception())

        task.add_done_callback(ended)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        self._undo.push_async_callback(end)

    async def _last_words(self) -> None:
        """What the ledger and its export shall still hold, once nothing changes any more."""
        await self._finish(self._upkeep.summarise_refusals(every=True))
        await self._finish(self._upkeep.summarise_looks(every=True))
        await self._append(EventType.DAEMON_STOPPED, {})
        if self._witnessing is not None:
            await self._witnessing.finish()
        await self._finish(self._replica.turns.when_mine("export", self._upkeep.export)())

    # ------------------------------------------------------------------ parts

    def _certified(self, auth_context: Mapping[str, Any]) -> Peer:
        bundles = self._identity.tls.bundles
        return by_either(self._clock, lambda now: peer_from_auth_context(auth_context, bundles, self._peers, now))

    def _jobs(self) -> tuple[Job, ...]:
        """Each looks at the ledger, so a tick that is late or lost loses nothing."""
        tick = self._config.revocation.tick.total_seconds()
        sole = self._replica.turns.when_mine
        return (
            ("replica", self._replica.beat, 1.0),
            ("upkeep", self._beat, tick),
            ("figures", self._upkeep.figures, 1.0),
            ("export", sole("export", self._upkeep.export), 1.0),
            ("refusals", self._upkeep.summarise_refusals, 5.0),
            ("looks", self._upkeep.summarise_looks, 5.0),
            ("texts", sole("texts", self._upkeep.erase_texts), 600.0),
            ("retention", sole("retention", self._upkeep.delete_ended), 600.0),
            ("reviews", self._look_at_reviews, 3_600.0),
            ("escalation", self._watch.forget, 10.0),
            ("registry", self.reloader.end_unregistered, 2.0),
            ("denied", self.reloader.end_denied, 2.0),
            ("people", self.reloader.end_for_disabled, 2.0),
            ("suspensions", self._tend_suspensions, 1.0),
            ("break-glass", self._tend_break_glass, 1.0),
            ("swap", self.reloader.if_swapped, 1.0),
            ("place", self._look_at_place, 1.0),
            ("identity", self._look_at_identity, 1.0),
            ("tend", self._pool.tend, 60.0),
            ("roots", self._upkeep.tell_roots, 1.0),
            ("circuits", self._upkeep.tell_circuits, 1.0),
            # Looks at what is due: everything soon after the start, then hourly.
            ("reconcile", sole("reconcile", self._reconciler.tick), 5.0),
            ("canaries", sole("canaries", self._canaries.tick), 1.0),
            ("others' canaries", self._canaries.remember, 60.0),
            *self._witness_jobs(),
            ("room", self._room.tick, 5.0),
            *(() if self._time is None else (("time", self._time.tick, 1.0), ("mark", self._time.keep, 5.0))),
        )

    async def _beat(self) -> None:
        try:
            await self._upkeep.tick()
        finally:
            self._watchdog.ticked()

    def _witness_jobs(self) -> tuple[Job, ...]:
        if self._witnessing is None:
            return ()
        return (("checkpoints", self._witnessing.tick, 1.0), ("unread", self._witnessing.ask_unread, 5.0))

    async def _look_at_identity(self) -> None:
        # It reads files, and may have to parse what is new.
        await asyncio.to_thread(self._identity.look)
        if self._proxies is not None:
            self._proxies.look()

    async def _look_at_place(self) -> None:
        assert self._store is not None  # noqa: S101 - jobs begin after the store
        displaced = await self._store.displaced()
        if displaced != self.gate.displaced:
            self.gate.displaced = displaced
            if displaced:
                log.critical("the ledger was removed or replaced beneath brokerd", problems=self._problems())
            else:
                log.warning("the ledger is where it was again: grants resume")

    async def _tend_suspensions(self) -> None:
        ended = await self._suspensions.tend(self._config.tenant, self._files.current)
        if ended.attempts:
            log.warning("leases of the suspended are being revoked", attempts=ended.attempts)
        if news := sorted(ended.tampered - self._tampered):
            hint = "Nothing is granted until two people lift it: broker suspensions, docs/suspension.md."
            log.error("the record of a suspension was changed by something else", suspensions=news, hint=hint)
        self._tampered = ended.tampered

    async def _look_at_reviews(self) -> None:
        if await self._reviews.overdue(self._config.tenant, self._clock.now()):
            hint = "broker access report, then broker access sign-off; docs/access-reviews.md."
            log.warning("a review of what agents could get is overdue", hint=hint)

    def _problems(self) -> list[str]:
        closed = self.gate.why_closed(self._clock.now())
        return [] if closed is None else [f"{closed.reason.value}: {closed}"]

    def _warnings(self) -> list[str]:
        proxies = self._proxies.alarms() if self._proxies is not None else ()
        people = self._people.alarms() if self._people is not None else ()
        witnesses = self._witnessing.alarms() if self._witnessing is not None else ()
        untold = untold_break_glass(self._files.current, self._config.notify)
        overdue = [f"the review of {lease} is overdue: {group} is blocked" for group, lease in self._blocked.items()]
        alarms = (*self._identity.alarms(earliest(self._clock)), *proxies, *people, *witnesses)
        return [
            *(str(alarm) for alarm in alarms),
            *untold,
            *overdue,
            *self._root_alarms(),
            *self._braked(),
            *self._canaries.alarms(),
        ]

    def _braked(self) -> list[str]:
        return [
            f"connector {name}: {last.braked} upstream are unknown to the ledger; none is ended before a person says so"
            for name, last in sorted(self._reconciler.last.items())
            if last.braked
        ]

    def _root_alarms(self) -> list[str]:
        refused = [
            f"connector {name} issues nothing: since {refusal.since.isoformat()} its upstream refuses the broker's own"
            f" credential ({refusal.why})"
            for name, refusal in sorted(self._roots.standing.items())
        ]
        return [*refused, *(f"connector {name}: {told}" for name, told in sorted(self._breakers.told().items()))]

    async def _scrape(self) -> bytes:
        assert self._store is not None  # noqa: S101 - the port opens after the store
        asked, now = await self._ledgers_figures.ask(), self._clock.now()
        deploy, tls = self._files.current, self._identity.tls
        snapshot = Snapshot(
            None if asked is None else asked.figures,
            self._revoker.tallies(),
            ready=self.gate.why_closed(now) is None,
            agents=len(deploy.registry),
            templates=len(deploy.templates),
            deploy_digest=deploy.digest,
            own_svid_expires=tls.identity.not_after,
            own_svid_overdue=tls.identity.overdue(earliest(self._clock)),
            roots={name: len(bundle.roots) for name, bundle in tls.bundles.items()},
            tls_problems=len(tls.problems) + (len(self._proxies.alarms()) if self._proxies is not None else 0),
            webhooks=self._notifier.tallies(self._ledgers_figures.head, now),
            access_review_overdue=None if asked is None else asked.review_overdue,
            issuers={} if self._people is None else self._people.tallies(),
            recovery=bool(self.gate.recovery),
            witnesses=self._witnessing.tallies() if self._witnessing is not None else {},
            unread=self.gate.unread,
            roots_refused=tuple(self._roots.standing),
            circuits_open=tuple(self._breakers.open),
            orphans={} if asked is None else asked.orphans,
            reconciled=self._reconciler.last,
            room=self._room.figures(),
            stalled=self.gate.stalled(now),
            restarts=self._watchdog.restarts,
            time=None if self._time is None else self._time.figures(),
            canaries=[each for status in self._canaries.all() for each in status.measured.values()],
            now=now,
        )
        return self._metrics.render(snapshot)

    async def _append(self, type_: EventType, data: dict[str, int]) -> None:
        assert self._store is not None  # noqa: S101 - only called between open and close
        event = AuditEvent(type_, actor=BROKER, vouched_by=Vouch.BROKER, tenant=self._config.tenant, data=data)
        await self._finish(self._store.append([event], self._clock.now()))

    async def _finish(self, step: Any) -> None:
        """A closing step whose failure must not keep the next one from running."""
        try:
            await step
        except BrokerError as failure:
            log.error("a step failed", reason=failure.reason, error=failure.message)
