"""The broker's inside as the daemon wires it, in one process that can be killed: gate, desks, revoker, ticks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from broker.clock import KeptClock
from broker.daemon.pool import ConnectorPool
from broker.daemon.replica import Replica as Beats
from broker.daemon.timekeeping import TimeWatch
from broker.daemon.witnessing import Witnessing
from broker.errors import BrokerError, Defect
from broker.issuance.among import Among
from broker.issuance.approvals import ApprovalDesk
from broker.issuance.break_glass import BreakGlassDesk
from broker.issuance.break_glass_reviews import ReviewDesk
from broker.issuance.delegations import DelegationDesk
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.gate import Gate
from broker.issuance.issue import Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.looks import LookBudget
from broker.issuance.plans import PlanDesk
from broker.issuance.recovering import Recovering, RecoveryDesk
from broker.issuance.refusals import RefusalBudget
from broker.issuance.suspending import SuspensionDesk
from broker.issuance.tasks import TaskDesk
from broker.lease.root import Roots
from broker.ports.deploys import ConnectorSpec, DeploySet
from broker.ports.tasks import DEFAULT_LIMITS
from broker.revocation.reconciler import Reconciler
from broker.revocation.revoker import Revoker
from broker.upkeep import Upkeep
from tests.issuance.world import MARK, TENANT, StaticKeys
from tests.simulation.chance import Chance
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.process import Process
from tests.simulation.truth import SimulatedConnector
from tests.simulation.witnesses import ASK_AGAIN, CONFIG, SimulatedWitness

ISSUE_TIMEOUT = timedelta(seconds=10)
# Half as often as the daemon ticks: a broker that is asked for nothing should cost few steps.
TICK = 2.0
# With nothing going wrong any more: what is left to be ended waits for its time, and ticks are all that goes on.
CALM_TICK = 3.0
RECONCILE = 6.0
KEEP_TIME = 3  # in ticks


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """What the daemon logs, and tries again at the next tick. Raises Defect: that is no such thing."""
    try:
        yield
    except Defect:
        raise
    except BrokerError:
        return


class SimulatedBroker:
    """Made from a ledger that is open, connectors and a machine's clock; :meth:`boot` starts it."""

    def __init__(
        self,
        process: Process,
        ledger: SimulatedLedger,
        connectors: Mapping[str, SimulatedConnector],
        deploy: DeploySet,
        fresh: FreshLogins,
        clock: KeptClock,
        ticking: Callable[[], float],
        chance: Chance,
        witness: SimulatedWitness | None,
    ) -> None:
        self.process = process
        self.clock = clock
        self._ticking = ticking
        self._chance = chance
        self.time_begins = ticking()  # a clock that was set before was set while it was down
        store = process.reach(ledger)
        reached = {name: process.reach_upstream(each) for name, each in connectors.items()}
        self._deploy = deploy
        self._store = store
        self._ledger = ledger
        self.gate = Gate(timedelta(seconds=5), 10_000, timedelta(minutes=5), among=Among())
        self.time = TimeWatch(clock, self.gate, TENANT)
        self.beats = Beats(store, clock, self.gate, TENANT, process.name, ticking)
        self.beats.hear_time = self.time.hear
        roots = Roots()
        self.revoker = Revoker(store, reached.get, clock, chance, workers=4, roots=roots, certain=clock.certain)
        kick = self.revoker.kick
        own = {"keys": StaticKeys(), "mark": MARK, "roots": roots}
        self.issuer = Issuer(store, reached.get, kick, self.gate, clock, chance, **own, issue_timeout=ISSUE_TIMEOUT)
        self._pool = ConnectorPool(lambda spec: reached[spec.name], roots, clock)
        specs = {name: ConnectorSpec(name, "simulated", {}, name) for name in reached}
        self._specs = self._pool.prepare(specs, frozenset())
        self.reconciler = Reconciler(
            *(store, reached.get, lambda: list(reached), self.revoker.kick_orphans, clock, chance, TENANT, MARK),
            issue_timeout=ISSUE_TIMEOUT,
        )
        durations = {"default_duration": timedelta(minutes=5), "max_duration": timedelta(hours=1)}
        self.tasks = TaskDesk(store, kick, self.gate, clock, chance, **durations)
        self.leases = LeaseDesk(store, kick, clock)
        self.delegations = DelegationDesk(store, kick, clock, chance, limits=DEFAULT_LIMITS)
        self.plans = PlanDesk(store, clock, chance, limits=DEFAULT_LIMITS, default_life=timedelta(minutes=5))
        self.approvals = ApprovalDesk(store, reached.get, fresh, clock)
        self.suspensions = SuspensionDesk(store, kick, fresh, clock, chance)
        about = (store, self.issuer, reached.get, kick, self.gate, clock, chance)
        self.glass = BreakGlassDesk(*about, fresh=fresh, issue_timeout=ISSUE_TIMEOUT)
        self.reviews = ReviewDesk(store, fresh, clock, chance)
        self.beats.reconcile = self.reconciler.soon
        again = {"reconcile": self.reconciler.soon}
        self.recovering = Recovering(store, self.gate, clock, chance, TENANT, **again)
        self.recovery = RecoveryDesk(store, self.gate, fresh, clock, **again)
        self.witnessing = None if witness is None else self._witnessing(witness, chance)
        self._upkeep = Upkeep(
            store, self.revoker, lambda: list(reached), self.gate, RefusalBudget(), LookBudget(), None, clock, TENANT
        )

    def _witnessing(self, witness: SimulatedWitness, chance: Chance) -> Witnessing:
        reached = self.process.reach(witness)
        about = (CONFIG, witness.settings, self._store, self.recovering, self.gate, self.clock, chance)
        return Witnessing(*about, self.process.name, self.beats.turns, made=lambda settings: reached)

    async def boot(self) -> None:
        """As the daemon does: first what the last run left, then the ticks, for as long as the process lives."""
        while True:
            try:
                await self.time.resume(self._store)
                self.time_begins = self._ticking()
                await self.beats.beat()
                await self._store.recover(self.clock.now())
                self.beats.recover = self.recovering.resume
                await self.recovering.resume()
                if self.witnessing is not None:
                    await self.witnessing.start()
                break
            except BrokerError:  # the daemon would not start, and be started again
                await asyncio.sleep(TICK)
        await self._pool.activate(self._specs)
        self.process.start(self._ledger.hear_of_others())
        self.process.start(self._tick())
        self.process.start(self._beat())
        self.process.start(self._reconcile())
        if self.witnessing is not None:
            self.process.start(self.witnessing.run())
            self.process.start(self._witness(self.witnessing))

    async def _witness(self, witnessing: Witnessing) -> None:
        for ticks in itertools.count():
            with _refused():
                await witnessing.tick()
                if ticks % ASK_AGAIN == 0:
                    await witnessing.ask_unread()
            await self._pause()

    async def _reconcile(self) -> None:
        """More often than the daemon does: what it may end, and what not, is what the simulation is to see."""
        reconcile = self.beats.turns.when_mine("reconcile", self.reconciler.tick)
        while True:
            await self._pool.tend()
            with _refused():
                self.reconciler.soon()
                await reconcile()
            await asyncio.sleep(RECONCILE)

    async def _tick(self) -> None:
        while True:
            with _refused():
                await self._upkeep.tick()
                await self.suspensions.tend(TENANT, self._deploy)
                await self.glass.tend(TENANT, self._deploy)
            await self._pause()

    async def _beat(self) -> None:
        for beats in itertools.count():
            await self._pause()
            with _refused():
                await self.time.tick()
                if beats % KEEP_TIME == 0:
                    await self.time.keep()
                await self.beats.beat()

    async def _pause(self) -> None:
        await asyncio.sleep(CALM_TICK if self._chance.calm else TICK)
