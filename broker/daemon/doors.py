"""Who comes in where: the agents' server, the proxies', the people's and automation's, and the desks behind them.

All of them stand on the same desks, behind doors that differ only in how they identify (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from broker.api.admin_access_reviews import AccessReviewRpcs
from broker.api.admin_approvals import ApprovalRpcs
from broker.api.admin_audit import TrailRpcs
from broker.api.admin_break_glass import BreakGlassRpcs
from broker.api.admin_canaries import CanaryRpcs
from broker.api.admin_connectors import ConnectorRpcs
from broker.api.admin_everybodys import EverybodysRpcs
from broker.api.admin_leases import LeaseRpcs
from broker.api.admin_operator import OperatorRpcs
from broker.api.admin_reconciliation import ReconciliationRpcs
from broker.api.admin_recovery import RecoveryRpcs
from broker.api.admin_reviews import ReviewRpcs
from broker.api.admin_server import AdminServer
from broker.api.admin_suspensions import SuspensionRpcs
from broker.api.admin_texts import TextRpcs
from broker.api.admin_view import RegistryRpcs, ReloadRpcs
from broker.api.agents import AgentService
from broker.api.automation import AutomationEntrance
from broker.api.bearer import Metadata, refuse_token
from broker.api.code_entrance import CodeEntrance
from broker.api.connections import OTHERS, capped
from broker.api.door import Door
from broker.api.entrances import AgentsEntrance, Entrance, Guest, Identify, Who
from broker.api.looks import Looks
from broker.api.proxied import PROXY_OPTIONS
from broker.api.server import AgentServer
from broker.api.tls import ServerTls
from broker.canary.watch import Moment
from broker.config import Config
from broker.daemon.admin import PeopleAdmitted
from broker.daemon.pool import ConnectorPool
from broker.daemon.proxies import ProxiesEntrance
from broker.deployfiles.source import DeployFiles
from broker.identity.agent import Peer
from broker.issuance.access_reviews import AccessReviewDesk
from broker.issuance.approvals import ApprovalDesk
from broker.issuance.break_glass import BreakGlassDesk
from broker.issuance.break_glass_codes import CodeDesk
from broker.issuance.break_glass_reviews import ReviewDesk
from broker.issuance.canaries import Canaries
from broker.issuance.canary_run import LONGEST_TASK, Tools
from broker.issuance.connectors import ConnectorDesk
from broker.issuance.delegations import DelegationDesk
from broker.issuance.ending import Ending
from broker.issuance.escalation import Watch
from broker.issuance.everybodys import EverybodysDesk
from broker.issuance.forgetting import ForgettingDesk
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.gate import Gate
from broker.issuance.id_tokens import IdTokens
from broker.issuance.issue import Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.looks import LookBudget
from broker.issuance.plans import PlanDesk
from broker.issuance.recovering import RecoveryDesk
from broker.issuance.refusals import RefusalBudget
from broker.issuance.registry import RegistryDesk
from broker.issuance.requests import RequestDesk
from broker.issuance.suspending import SuspensionDesk
from broker.issuance.tasks import TaskDesk
from broker.issuance.texts import TextDesk
from broker.issuance.tightening import TighteningDesk
from broker.issuance.trail import TrailDesk
from broker.lease.breaker import Breakers
from broker.lease.mark import Mark
from broker.lease.root import Roots
from broker.metrics import Metrics
from broker.ports.clock import Clock, Rng
from broker.ports.deploys import Reloaded
from broker.ports.keys import KeyRing
from broker.revocation.reconciler import Reconciler
from broker.revocation.revoker import Revoker
from broker.stores.ledger import LedgerStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What the doors open to: the parts that run whether anybody asks or not."""

    config: Config
    store: LedgerStore
    keys: KeyRing
    clock: Clock
    rng: Rng
    gate: Gate
    files: DeployFiles
    pool: ConnectorPool
    roots: Roots
    breakers: Breakers
    revoker: Revoker
    reconciler: Reconciler
    mark: Mark
    metrics: Metrics
    budget: RefusalBudget
    look_budget: LookBudget
    watch: Watch
    suspensions: SuspensionDesk
    tightening: TighteningDesk
    reviews: AccessReviewDesk
    fresh: FreshLogins
    id_tokens: IdTokens
    people: PeopleAdmitted | None  # None: nobody logs in
    proxies: ProxiesEntrance | None  # None: agents come themselves
    certified: Callable[[Mapping[str, Any]], Peer]  # who a connection's certificate says it is
    reload: Callable[[str], Awaitable[Reloaded]]


class Doors:
    """The servers, not yet bound."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        store, pool, kick = inside.store, inside.pool, inside.revoker.kick
        limits, bounds = inside.config.limits, inside.config.limits.of_tasks
        self.issuer = Issuer(
            store,
            pool.find,
            kick,
            inside.gate,
            inside.clock,
            inside.rng,
            keys=inside.keys,
            mark=inside.mark,
            roots=inside.roots,
            breakers=inside.breakers,
            issue_timeout=limits.issue_timeout,
            confirm_within=limits.confirm_within,
            denied_cool_down=limits.denied_cool_down,
            limits=bounds,
            shadow_seen=inside.metrics.shadow,
        )
        self.break_glass = BreakGlassDesk(
            store,
            self.issuer,
            pool.find,
            kick,
            inside.gate,
            inside.clock,
            inside.rng,
            fresh=inside.fresh,
            issue_timeout=limits.issue_timeout,
            limits=bounds,
        )
        self._leases = LeaseDesk(store, kick, inside.clock)
        self.canaries = self._canaries()
        self._agents = self._agents_servers()
        self._admin, self._automation = self._admin_servers()
        self.agents_port = 0
        self.proxies_port: int | None = None
        self.admin_port: int | None = None
        self.automation_port: int | None = None

    def bind(self, tls: ServerTls) -> None:
        """Take the ports of the configuration. Raises RuntimeError for one that is taken."""
        listen = self._inside.config.listen
        addresses = (listen.agents, *([listen.proxies] if listen.proxies else []))
        self.agents_port, *others = (
            server.bind(str(address), tls.credentials())
            for server, address in zip(self._agents, addresses, strict=True)
        )
        self.proxies_port = others[0] if others else None
        if self._admin is not None:
            self.admin_port = self._admin.bind(str(listen.admin), tls.credentials(client_certificate=False))
        if self._automation is not None:
            self.automation_port = self._automation.bind(str(listen.automation), tls.credentials())

    async def start(self) -> None:
        """Serve."""
        for server in self._servers():
            await server.start()

    async def stop(self, grace: float) -> None:
        """Refuse new RPCs at once; let those under way finish for ``grace`` seconds."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers()))

    def _servers(self) -> list[AgentServer | AdminServer]:
        return [*self._agents, *(each for each in (self._admin, self._automation) if each is not None)]

    def _door(self, entrance: Entrance[Who, Guest], at_most: int) -> Door[Who, Guest]:
        inside, tenant = self._inside, self._inside.config.tenant
        looks = Looks(inside.store, inside.look_budget, inside.clock, tenant)
        parts = inside.store, inside.budget, looks, inside.metrics, inside.clock, inside.rng, tenant
        return Door(entrance, *parts, at_most=at_most, among=inside.gate.among)

    def _agents_servers(self) -> list[AgentServer]:
        """The agents' server, and the proxies' where there is one: the same behind doors that identify differently."""
        inside = self._inside
        store, clock, rng, limits = inside.store, inside.clock, inside.rng, inside.config.limits
        tasks = TaskDesk(
            store,
            inside.revoker.kick,
            inside.gate,
            clock,
            rng,
            default_duration=limits.default_task_duration,
            max_duration=limits.max_task_duration,
            proofs=None if inside.people is None else inside.id_tokens,
        )
        requests = RequestDesk(store, clock)
        plans = PlanDesk(store, clock, rng, limits=limits.of_tasks, default_life=limits.default_plan_duration)
        delegations = DelegationDesk(store, inside.revoker.kick, clock, rng, limits=limits.of_tasks)
        service = AgentService(
            self.issuer,
            tasks,
            self._leases,
            requests,
            plans,
            delegations,
            inside.pool.find,
            self.canaries.measured,
        )

        def agents(identify: Identify) -> Door[Any, Any]:
            return self._door(AgentsEntrance(identify, inside.files, inside.watch, clock, inside.config.tenant), rpcs)

        rpcs = limits.max_concurrent_rpcs
        servers = [AgentServer(agents(self._identify), service, max_concurrent_rpcs=rpcs)]
        if inside.proxies is not None:
            proxied = agents(inside.proxies.identify)
            options = [*PROXY_OPTIONS, capped(OTHERS)]
            servers.append(AgentServer(proxied, service, max_concurrent_rpcs=rpcs, options=options))
        return servers

    def _admin_servers(self) -> tuple[AdminServer | None, AdminServer | None]:
        """The people's, and automation's, each where it is switched on."""
        inside = self._inside
        config, clock, rpcs = inside.config, inside.clock, inside.config.limits.max_concurrent_admin_rpcs
        parts = self._admin_parts()
        admin = automation = None
        if config.listen.admin is not None and inside.people is not None:
            way_in = inside.people.entrance(inside.files, clock)
            people = self._door(CodeEntrance(way_in, inside.files, clock, config.tenant), rpcs)
            admin = AdminServer(people, *parts, max_concurrent_rpcs=rpcs)
        if config.listen.automation is not None:
            entrance = AutomationEntrance(inside.certified, inside.files, clock, config.tenant)
            automation = AdminServer(self._door(entrance, rpcs), *parts, max_concurrent_rpcs=rpcs)
        return admin, automation

    def _admin_parts(self) -> tuple[object, ...]:
        """AdminService, a few methods each."""
        inside = self._inside
        store, clock, find, fresh = inside.store, inside.clock, inside.pool.find, inside.fresh
        connectors = ConnectorDesk(find, clock, breakers=inside.breakers)
        return (
            OperatorRpcs(),
            SuspensionRpcs(inside.suspensions, find),
            ReviewRpcs(inside.tightening),
            RecoveryRpcs(RecoveryDesk(store, inside.gate, fresh, clock, reconcile=inside.reconciler.soon)),
            ApprovalRpcs(ApprovalDesk(store, find, fresh, clock)),
            TextRpcs(TextDesk(store, clock)),
            EverybodysRpcs(EverybodysDesk(store, Ending(store, inside.revoker.kick, clock)), find),
            RegistryRpcs(RegistryDesk(store)),
            ConnectorRpcs(connectors, self.canaries.measured),
            ReconciliationRpcs(connectors, inside.reconciler, store),
            CanaryRpcs(self.canaries),
            ReloadRpcs(inside.reload),
            TrailRpcs(TrailDesk(store)),
            AccessReviewRpcs(inside.reviews),
            LeaseRpcs(ForgettingDesk(store, fresh)),
            BreakGlassRpcs(
                self.break_glass,
                ReviewDesk(store, fresh, clock, inside.rng),
                CodeDesk(store, fresh, clock, inside.rng, secrets.token_bytes),
            ),
        )

    def _canaries(self) -> Canaries:
        """What measures the connectors' contracts: a user of the same desks as agents are."""
        inside = self._inside
        ticking, clock, find = asyncio.get_running_loop().time, inside.clock, inside.pool.find
        tasks = TaskDesk(
            inside.store,
            inside.revoker.kick,
            inside.gate,
            clock,
            inside.rng,
            default_duration=LONGEST_TASK,
            max_duration=LONGEST_TASK,
        )
        tools = Tools(
            inside.store,
            self.issuer,
            tasks,
            self._leases,
            find,
            clock,
            moment=lambda: Moment(clock.now(), timedelta(seconds=ticking())),
            wait=lambda by: asyncio.sleep(by.total_seconds()),
        )
        return Canaries(
            inside.store,
            tools,
            inside.files,
            find,
            inside.gate,
            clock,
            inside.rng,
            inside.config.tenant,
            counted=inside.metrics.canary,
        )

    def _identify(self, auth_context: Mapping[str, Any], metadata: Metadata) -> Peer:
        refuse_token(metadata)
        return self._inside.certified(auth_context)
