"""The broker's inside as the daemon wires it, in one process that can be killed: gate, desks, revoker, ticks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import timedelta

from broker.errors import BrokerError
from broker.issuance.approvals import ApprovalDesk
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.gate import Gate
from broker.issuance.issue import Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.looks import LookBudget
from broker.issuance.refusals import RefusalBudget
from broker.issuance.suspending import SuspensionDesk
from broker.issuance.tasks import TaskDesk
from broker.ports import Clock, DeploySet
from broker.revocation.revoker import Revoker
from broker.upkeep import Upkeep
from tests.issuance.world import TENANT, StaticKeys
from tests.simulation.chance import Chance
from tests.simulation.disk import SimulatedLedger
from tests.simulation.process import Process
from tests.simulation.truth import SimulatedConnector

ISSUE_TIMEOUT = timedelta(seconds=10)
TICK = 1.0


class SimulatedBroker:
    """Made from a ledger that is open, and connectors; :meth:`boot` starts it."""

    def __init__(
        self,
        process: Process,
        ledger: SimulatedLedger,
        connectors: Mapping[str, SimulatedConnector],
        deploy: DeploySet,
        fresh: FreshLogins,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self.process = process
        store = process.reach(ledger)
        reached = {name: process.reach(each) for name, each in connectors.items()}
        self._deploy = deploy
        self._store = store
        self.gate = Gate(timedelta(seconds=5), 10_000, timedelta(minutes=5))
        self._clock = clock
        self.revoker = Revoker(store, reached.get, clock, chance, workers=4)
        kick = self.revoker.kick
        self.issuer = Issuer(
            store, reached.get, kick, self.gate, clock, chance, keys=StaticKeys(), issue_timeout=ISSUE_TIMEOUT
        )
        durations = {"default_duration": timedelta(minutes=5), "max_duration": timedelta(hours=1)}
        self.tasks = TaskDesk(store, kick, self.gate, clock, chance, **durations)
        self.leases = LeaseDesk(store, kick, clock)
        self.approvals = ApprovalDesk(store, reached.get, fresh, clock)
        self.suspensions = SuspensionDesk(store, kick, fresh, clock, chance)
        self._upkeep = Upkeep(
            store, self.revoker, lambda: list(reached), self.gate, RefusalBudget(), LookBudget(), None, clock, TENANT
        )

    async def boot(self) -> None:
        """As the daemon does: first what the last run left, then the ticks, for as long as the process lives."""
        while True:
            try:
                await self._store.recover(self._clock.now())
                break
            except BrokerError:  # the daemon would not start, and be started again
                await asyncio.sleep(TICK)
        self.process.start(self._tick())

    async def _tick(self) -> None:
        while True:
            with contextlib.suppress(BrokerError):
                await self._upkeep.tick()
                await self.suspensions.tend(TENANT, self._deploy)
            await asyncio.sleep(TICK)
