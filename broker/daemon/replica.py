"""One daemon of several on one ledger: once a second it tells that it lives, and hears what it must know of the others.

Belongs here: jobs of one at a time, the deploy set in force elsewhere, a recovery that another entered or people
released there, a time that another was told, and a database that failed over. What else daemons share they read from
the ledger when they need it (docs/replicas.md). A daemon whose ledger is its own does none of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from broker.daemon.turns import Turns
from broker.errors import BrokerError
from broker.issuance.gate import Gate
from broker.ports.clock import Clock
from broker.ports.replicas import DeployInForce, Heartbeat, Pulse, ReplicaStore

log = structlog.get_logger("broker.replicas")

# Done by one replica at a time.
JOBS = frozenset({"export", "texts", "retention", "reconcile", "canaries", "checkpoints", "webhooks"})
# Of these, what is done by the deploy set that a replica has.
BY_THE_SET = frozenset({"reconcile", "canaries"})
# How often, in seconds, the deploy directory is looked at for the set that is in force elsewhere.
LOOK_AGAIN = 5.0


async def _nobody(digest: str) -> None:
    """Before the deploy set is there."""


async def _nothing() -> None:
    """Before recovery is."""


def _not_yet() -> None:
    """Before the reconciler is."""


def _timeless(seen: datetime) -> None:
    """Where time is nothing that is kept."""


class Replica:
    """The beat. :meth:`beat` first, before anything of the ledger is used; then each second."""

    def __init__(
        self,
        store: ReplicaStore,
        clock: Clock,
        gate: Gate,
        tenant: str,
        writer: str,
        ticking: Callable[[], float],
    ) -> None:
        self._store = store
        self._clock = clock
        self._gate = gate
        self._among = gate.among
        self._tenant = tenant
        self._writer = writer
        self._ticking = ticking
        self._looked = -LOOK_AGAIN
        self._seen: DeployInForce | None = None
        # What others are asked to do, who have the set in force.
        self._left: frozenset[str] = frozenset()
        self.turns = Turns(JOBS, ticking, shared=store.shared)
        self.others = 0
        # What takes in the deploy set of that digest, if it is on this machine's disk.
        self.follow: Callable[[str], Awaitable[None]] = _nobody
        # What has every upstream's inventory compared with the ledger soon.
        self.reconcile: Callable[[], None] = _not_yet
        self._timeline = ""
        # What goes on at the highest time that any of them was told.
        self.hear_time: Callable[[datetime], None] = _timeless
        # What closes the gate for a recovery that is in the ledger.
        self.recover: Callable[[], Awaitable[None]] = _nothing

    async def beat(self) -> None:
        """Tell and hear. Raises BrokerError where the ledger was not reached; what this replica has then lapses."""
        if not self._store.shared:
            return
        try:
            asked, recovery = self._ticking(), self._gate.recovery
            said = Heartbeat(self._writer, self._tenant, self._among.mine, self.turns.names - self._left)
            pulse = await self._store.beat(said, self._clock.now())
        except BrokerError:
            await self.turns.lapse()
            raise
        if pulse.seen is not None:
            self.hear_time(pulse.seen)
        self.others, self._among.in_force, self._among.heard_at = pulse.others, pulse.in_force, self._clock.now()
        self._hear_of_failover(pulse.timeline)
        if pulse.dead:
            await self._inherit()
        await self._hear_of_recovery(pulse, recovery)
        await self.turns.heard(pulse.jobs, asked)
        behind = pulse.ahead and self._among.why_overtaken(self._clock.now()) is not None
        self._left = BY_THE_SET if behind else frozenset()
        await self._follow()

    async def leave(self) -> None:
        """At the end: the others need not wait."""
        await self.turns.close()
        if self._store.shared:
            await self._store.leave(self._writer, self._clock.now())

    async def _inherit(self) -> None:
        taken = await self._store.inherit(self._writer, self._clock.now())
        log.warning("replicas are not heard any more; what they had in hand is taken over", taken=taken)

    def _hear_of_failover(self, timeline: str) -> None:
        """Another server goes on with the ledger: with all of it, if it was a synchronous standby. Upstreams know."""
        if timeline and self._timeline and timeline != self._timeline:
            log.warning("the ledger's database failed over; inventories are compared with it", timeline=timeline)
            self.reconcile()
        self._timeline = timeline

    async def _hear_of_recovery(self, pulse: Pulse, before: str) -> None:
        """``before``: what the gate said when the ledger was asked. What was entered here meanwhile is newer."""
        if pulse.recovery and self._gate.recovery != pulse.recovery:
            await self.recover()
        elif not pulse.recovery and before and before == self._gate.recovery:
            log.warning("people released the recovery: grants begin again", recovery=before)
            self._gate.recovery = ""

    async def _follow(self) -> None:
        """Take in what is in force elsewhere: at once when it is news, and then now and then until it is here."""
        in_force = self._among.in_force
        if in_force is None or not self._among.overtaken or not self._among.mine:
            return
        news, self._seen = in_force != self._seen, in_force
        if not news and self._ticking() - self._looked < LOOK_AGAIN:
            return
        if news:
            log.warning("another deploy set came into force", in_force=in_force.digest, mine=self._among.mine)
        self._looked = self._ticking()
        await self.follow(in_force.digest)
