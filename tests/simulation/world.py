"""Everything that is simulated, wired: one ledger, up to three brokers on it, upstreams, the checks around them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from broker.dev.identity_provider import IdentityProvider
from broker.errors import BrokerError, Defect
from broker.identity.agent import Agent, Peer, Quotas, Registry
from broker.identity.operator import LOGIN, Operator, Role
from broker.issuance.caller import Caller, OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.lease.credential import ContractClass
from broker.plan.roles import EXECUTOR, PLANNER, VALIDATOR
from broker.ports.deploys import DeploySet
from broker.stores.invariants import LedgerChecks
from broker.stores.ledger_file import connect_reader
from tests.issuance.world import PEOPLE, RULES, TENANT, StaticKeys, agent, gated_policies, id_tokens, template
from tests.simulation.backups import Backups
from tests.simulation.broken import Broken
from tests.simulation.broker import ISSUE_TIMEOUT, SimulatedBroker
from tests.simulation.chance import Chance
from tests.simulation.checks import Checks
from tests.simulation.clocks import TrueClock
from tests.simulation.dealing import Kind
from tests.simulation.disk import Disk
from tests.simulation.glass import RULE
from tests.simulation.leaks import look_at_files
from tests.simulation.process import Dead, Gone, Process, tasks_know_their_process
from tests.simulation.replica import Replica
from tests.simulation.server import Server
from tests.simulation.truth import SimulatedConnector
from tests.simulation.virtual import VirtualLoop
from tests.simulation.witnesses import SimulatedWitness

T = TypeVar("T")
# Everybody who may say yes to what needs it; each owns some of the agents, and some sponsor tasks.
APPROVERS = ("ada", "bea", "cyd")
# Many: of a broker that nobody asks, all that goes on is ticks.
_NAMES = (f"agent-{number}" for number in range(24))
_PLANS = frozenset({"reader", PLANNER, VALIDATOR})
# Most may be each of the three, though never two of them for one plan; some may not execute.
_ROLES = (*([_PLANS | {EXECUTOR}] * 6), _PLANS)
# Agents hand on to their neighbours, so who owns one and who owns the other may be two.
AGENTS = tuple(
    agent(name, owner=PEOPLE[key], quotas=Quotas(live_leases=8, open_tasks=10), roles=roles)
    for name, key, roles in zip(_NAMES, itertools.cycle(APPROVERS), itertools.cycle(_ROLES), strict=False)
)
EXECUTORS = frozenset(str(each.spiffe_id) for each in AGENTS if EXECUTOR in each.roles)
OWNERS = {str(each.spiffe_id): each.owner.id for each in AGENTS}
ACCOUNTS = frozenset({"dev", "prod"})


class World:
    """Where its kind restores there is a witness, and older states of the ledger are put back.

    ``trace`` is a digest of all that was committed, made, and answered, and when: what a seed must repeat."""

    def __init__(self, loop: VirtualLoop, seed: int, directory: Path, kind: Kind) -> None:
        self.loop = loop
        self.chance = Chance(seed)
        self.clock = TrueClock(loop)
        self.checks = Checks(self.clock, self.chance.told, self.fail, self.machine, OWNERS, EXECUTORS)
        self.trace = hashlib.sha256()
        server = Server(loop, self.chance, self.fail) if kind.replicas > 1 else None
        self.disk = Disk(directory / "ledger.sqlite3", self.chance, self._committed, server)
        self.witness = SimulatedWitness(directory, self.chance) if kind.restores else None
        self.backups = Backups(self)
        self.spared_until = self.quiet_until = self.off_until = -1.0
        self.tasks: list[str] = []  # of agents, that they have begun lately and not completed
        self.steps = 0  # of this run, before everything is healed
        self.broken: Broken | None = None
        self.ended = loop.create_future()  # by the first promise that is not kept
        classes = {"fake": ContractClass.IMMEDIATE, "timed": ContractClass.EXPIRY_ONLY}
        self.connectors = {
            name: SimulatedConnector(name, cls, self.checks.truth, self.chance, self.clock, ISSUE_TIMEOUT)
            for name, cls in classes.items()
        }
        templates = {
            name: template(name=name, connector=connector, accounts=ACCOUNTS)
            for name, connector in (("orders-read", "fake"), ("reports-read", "timed"))
        }
        self.deploy = DeploySet(
            digest="d" * 64,
            registry=Registry(AGENTS),
            people=PEOPLE,
            templates=templates,
            policies=gated_policies(),
            connectors={},
            approvals=RULES,
            break_glass={"orders-read": RULE},
        )
        self.provider = IdentityProvider("https://idp.test", PEOPLE.values(), self.clock)
        self.fresh = FreshLogins(id_tokens(self.provider), self.clock)
        self.replicas = [Replica(self, name) for name in "abc"[: kind.replicas]]
        loop.set_task_factory(tasks_know_their_process)
        loop.set_exception_handler(self._unhandled)

    # ------------------------------------------------------------------ brokers come and go

    async def start(self) -> None:
        """All that are down."""
        if self.checks.connection is None:
            self.disk.make()
            self.checks.connection = connect_reader(self.disk.path)
        await asyncio.gather(*(each.start() for each in self.replicas if each.process is None))

    def kill(self) -> None:
        """All of them."""
        for each in self.replicas:
            each.kill()

    def running(self) -> frozenset[str]:
        """The names of the processes that there are, be they stopped or cut off."""
        return frozenset(each.process.name for each in self.replicas if each.process is not None)

    def inherits(self, dying: Replica) -> bool:
        """Whether another one runs, which takes over what this one has in hand."""
        others = [each.process for each in self.replicas if each is not dying]
        return any(each is not None and each.stopped is None for each in others)

    @property
    def spared(self) -> bool:
        """Whether those that are left are neither stopped nor cut off, so that they hear that one is dead."""
        return self.loop.time() < self.spared_until

    async def later(self, least: float, most: float) -> None:
        """Some seconds pass; and as long as everybody waits."""
        await asyncio.sleep(self.chance.between(least, most))
        await self._until(lambda: self.quiet_until)

    async def on(self) -> None:
        """Until a broker may run again."""
        await self._until(lambda: self.off_until)

    async def _until(self, when: Callable[[], float]) -> None:
        while (left := when() - self.loop.time()) > 0:
            await asyncio.sleep(left)

    def any_broker(self) -> SimulatedBroker | None:
        """The one that a caller is sent to; None: it is down, and nobody has noticed yet."""
        return self.replicas[int(self.chance.between(0, len(self.replicas)))].broker

    def machine(self, process: str) -> Replica | None:
        """Where the process of this name runs, be it stopped or cut off; None: it is gone."""
        for each in self.replicas:
            if each.process is not None and each.process.name == process:
                return each
        return None

    async def ask(self, work: Coroutine[Any, Any, T], broker: SimulatedBroker) -> T:
        """One RPC of a client; cancelling it cancels that. Raises :class:`Gone`, and what the broker refuses with."""
        return await self.within(broker.process, work)

    async def within(self, process: Process, work: Coroutine[Any, Any, T]) -> T:
        task = process.start(work)
        try:
            return await task
        except Dead:
            raise Gone from None
        except asyncio.CancelledError:
            task.cancel()
            if not process.alive and not _being_cancelled():
                raise Gone from None
            raise

    # ------------------------------------------------------------------ callers

    def caller(self, who: Agent, broker: SimulatedBroker) -> Caller:
        """As the broker's door sees it."""
        now = broker.clock.now()
        peer = Peer(who.spiffe_id, now - timedelta(hours=1), now + timedelta(hours=1), 1, "f" * 64)
        return Caller(TENANT, who, peer, self.deploy, now)

    def person(self, key: str, broker: SimulatedBroker) -> OperatorCaller:
        """Likewise."""
        operator = Operator(self.deploy.people[key], key, LOGIN)
        roles = frozenset({Role.APPROVER, Role.SECURITY, Role.OPERATOR})
        return OperatorCaller(TENANT, operator, roles, self.deploy, broker.clock.now())

    # ------------------------------------------------------------------ what happens is told and checked

    def tell(self, *what: object) -> None:
        self.trace.update(f"{self.loop.time():.6f} {' '.join(map(str, what))}\n".encode())

    def delivered(self, attempt: str, process: Process) -> None:
        """An agent was handed this credential by that process."""
        self.chance.told["delivered"] += 1
        self.checks.delivered(attempt, process.name)

    def fail(self, broken: Broken) -> None:
        self.broken = self.broken or broken
        if not self.ended.done():
            self.ended.set_result(None)

    def _committed(self) -> None:
        try:
            for record in self.checks.read():
                self.tell(record["type"], record["attempt_id"], record["data"].get("cause"))
        except Broken as broken:
            self.fail(broken)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseExceptionGroup) and error.split(Dead)[1] is None:
            return
        if isinstance(error, Broken):
            self.fail(error)
        elif isinstance(error, Defect) or not isinstance(
            error, BrokerError | Dead | Gone | asyncio.CancelledError | None
        ):
            self.fail(Broken(f"a task died: {type(error).__name__}: {error} ({context.get('message')})"))

    def check_ledger(self) -> None:
        """The ledger's own invariants, as ``broker verify`` checks them; and nobody's secret lies beside it."""
        look_at_files(sorted(self.disk.path.parent.iterdir()))
        with LedgerChecks(self.disk.path) as checks:
            for violation in checks.violations(StaticKeys()):
                raise Broken(f"ledger: {violation.invariant}: {violation.where}: {violation.detail}")


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
