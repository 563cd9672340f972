"""The inside, whole, with a fake upstream and time that stands still: what the daemon wires, without the doors."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST, nonce_of
from broker.approval.rules import ApprovalRule, Quorum
from broker.deployfiles.load import policy_schema
from broker.dev.identity_provider import CLIENT_ID, ON_BEHALF_OF, IdentityProvider
from broker.identity.agent import Agent, Peer, Person, Quotas, Registry, Tier
from broker.identity.id_token import Issuer as OidcIssuer
from broker.identity.oidc_keys import KeySet
from broker.identity.operator import LOGIN, Operator, Role
from broker.identity.spiffe_id import SpiffeId
from broker.issuance.approvals import ApprovalDesk
from broker.issuance.caller import Caller, OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.gate import Gate
from broker.issuance.id_tokens import IdTokens, TrustedIssuer
from broker.issuance.issue import Grant, Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.looks import LookBudget
from broker.issuance.refusals import RefusalBudget
from broker.issuance.requests import RequestDesk
from broker.issuance.tasks import TaskDesk, TaskOrder
from broker.lease.breaker import Breakers
from broker.lease.mark import Mark
from broker.lease.root import Roots
from broker.policy.cedar import PolicySet
from broker.ports.access_requests import FiledRequest
from broker.ports.deploys import DeploySet
from broker.ports.leases import Lease
from broker.ports.tasks import Task
from broker.revocation.reconciler import Reconciler
from broker.revocation.revoker import TRY_TIMEOUT, Revoker
from broker.scope.model import AccessClass, ScopeTemplate
from broker.scope.parameters import EnumParameter
from broker.scope.request import AccessRequest
from broker.stores.ledger import LedgerStore
from broker.stores.sqlite import SqliteStore
from broker.upkeep import Upkeep
from tests.clock import START, CountingRng, ManualClock
from tests.connectors.fake import FakeConnector
from tests.gates import gates
from tests.patience import PATIENCE, eventually

TENANT = "test"
ISSUE_TIMEOUT = timedelta(seconds=PATIENCE)
# For an end that is waited for, in real time.
WAIT = timedelta(seconds=PATIENCE)
TTL = timedelta(minutes=5)
MARK = Mark("testmark")
OWNER = Person("https://idp.test", "ada", "Ada")

POLICY = """
@id("reads")
permit (principal, action == Action::"read", resource);

@id("no-forbidden-table")
@reason("That table is nobody's business.")
forbid (principal, action, resource) when { resource.name == "secret" };
"""


# Who decides. Ada owns the agents; Cyd is in both groups; Dee is disabled.
PEOPLE = {
    "ada": replace(OWNER, groups=frozenset({"sre"})),
    "bea": Person("https://idp.test", "bea", "Bea", "bea@x.test", frozenset({"sre"})),
    "cyd": Person("https://idp.test", "cyd", "Cyd", "cyd@x.test", frozenset({"sre", "security"})),
    "dee": Person("https://idp.test", "dee", "Dee", "dee@x.test", frozenset({"sre"}), disabled=True),
    "eli": Person("https://idp.test", "eli", "Eli", "eli@x.test", frozenset({"security"})),
    "fay": Person("https://idp.test", "fay", "Fay", "fay@x.test", frozenset({"dba"})),
}
RULES = {
    "one-sre": ApprovalRule("one-sre", "One of SRE.", (Quorum("sre", 1),), timedelta(minutes=10), timedelta(minutes=5)),
    "two": ApprovalRule(
        "two", "Two of SRE, or a DBA.", (Quorum("sre", 2), Quorum("dba", 1)), timedelta(minutes=5), timedelta(minutes=2)
    ),
    "security": ApprovalRule(
        "security", "Security.", (Quorum("security", 1),), timedelta(minutes=10), timedelta(minutes=5)
    ),
}


# Which approvals each account needs.
NEEDED = {"prod": ("one-sre",), "vault": ("one-sre", "security"), "bank": ("two",)}


def gated_policies(more: str = "") -> PolicySet:
    """The policies of a gated world, and more."""
    return PolicySet.parse({"test.cedar": POLICY, "gates.cedar": gates("account", NEEDED) + more}, policy_schema())


class ProvidersKeys:
    """The keys of the development provider, without HTTP."""

    def __init__(self, provider: IdentityProvider) -> None:
        self._provider = provider

    def current(self, issuer: str, key_id: str = "") -> KeySet:
        return KeySet.from_jwks(self._provider.jwks_document())


def id_tokens(provider: IdentityProvider, **how: Any) -> IdTokens:
    """What verifies its tokens; ``how`` as of :class:`OidcIssuer`."""
    return IdTokens(
        {provider.url: TrustedIssuer(OidcIssuer(provider.url, **how), CLIENT_ID, ON_BEHALF_OF)}, ProvidersKeys(provider)
    )


class StaticKeys:
    """A key ring with one key."""

    def current(self) -> tuple[str, bytes]:
        return "k1", b"k" * 32

    def find(self, key_id: str) -> bytes:
        assert key_id == "k1"
        return b"k" * 32


def agent(name: str, **changes: Any) -> Agent:
    made = Agent(
        spiffe_id=SpiffeId("test", f"/agent/{name}"),
        owner=OWNER,
        tier=Tier.SEMI_AUTONOMOUS,
        roles=frozenset({"reader"}),
        environments=frozenset({"dev"}),
        quotas=Quotas(live_leases=5, open_tasks=3),
        principal=name,
    )
    return replace(made, **changes)


def template(**changes: Any) -> ScopeTemplate:
    made = ScopeTemplate(
        name="orders-read",
        description="Read the orders.",
        connector="fake",
        accounts=frozenset({"dev"}),
        environments=frozenset({"dev"}),
        resource=EnumParameter("resource", ("orders", "secret")),
        access=AccessClass.READ,
        actions=("SELECT",),
        max_ttl=timedelta(minutes=15),
        mandatory=frozenset(),
        parameters={},
        grant={"role": "orders"},
        digest="t" * 64,
    )
    return replace(made, **changes)


ALICE, BOB, EVE = agent("alice"), agent("bob"), agent("eve")


@dataclass
class World:
    """Everything inside, and a hand on time and on the upstream."""

    store: LedgerStore
    clock: ManualClock
    upstream: FakeConnector
    deploy: DeploySet
    gate: Gate
    issuer: Issuer
    tasks: TaskDesk
    leases: LeaseDesk
    revoker: Revoker
    upkeep: Upkeep
    requests: RequestDesk
    approvals: ApprovalDesk
    provider: IdentityProvider
    roots: Roots
    reconciler: Reconciler
    breakers: Breakers

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        store: LedgerStore | None = None,
        try_timeout: timedelta = TRY_TIMEOUT,
        **issuer_options: Any,
    ) -> World:
        """``store``: the ledger, where it is not a file in ``directory``; it is closed with the world."""
        clock, rng, roots, breakers = ManualClock(), CountingRng(), Roots(), Breakers()
        upstream = FakeConnector(clock)
        if store is None:
            store = await SqliteStore.open(directory / "ledger.sqlite3", StaticKeys(), writer="w1")
        gate = Gate(timedelta(seconds=5), 1000, timedelta(minutes=5), heartbeat=START)
        connectors = {"fake": upstream}
        known = {"roots": roots, "breakers": breakers}
        revoker = Revoker(store, connectors.get, clock, rng, workers=4, try_timeout=try_timeout, **known)
        deploy = DeploySet(
            digest="d" * 64,
            registry=Registry([ALICE, BOB, EVE]),
            people=PEOPLE,
            templates={"orders-read": template()},
            policies=PolicySet.parse({"test.cedar": POLICY}, policy_schema()),
            connectors={},
            approvals=RULES,
        )
        options = {"keys": StaticKeys(), "mark": MARK, **known, "issue_timeout": ISSUE_TIMEOUT, **issuer_options}
        issuer = Issuer(store, connectors.get, revoker.kick, gate, clock, rng, **options)
        tasks = TaskDesk(
            store,
            revoker.kick,
            gate,
            clock,
            rng,
            default_duration=timedelta(hours=1),
            max_duration=timedelta(hours=8),
        )
        leases = LeaseDesk(store, revoker.kick, clock)
        budgets = (RefusalBudget(), LookBudget())
        upkeep = Upkeep(store, revoker, lambda: ["fake"], gate, *budgets, None, clock, TENANT, **known)
        reconciler = Reconciler(
            *(store, connectors.get, lambda: ["fake"], revoker.kick_orphans, clock, rng, TENANT, MARK),
            issue_timeout=ISSUE_TIMEOUT,
        )
        provider = IdentityProvider("https://idp.test", PEOPLE.values(), clock)
        fresh = FreshLogins(id_tokens(provider), clock)
        requests, approvals = RequestDesk(store, clock), ApprovalDesk(store, connectors.get, fresh, clock)
        parts = (issuer, tasks, leases, revoker, upkeep, requests, approvals, provider, roots, reconciler, breakers)
        return cls(store, clock, upstream, deploy, gate, *parts)

    @classmethod
    async def gated(cls, directory: Path, **issuer_options: Any) -> World:
        """The account names the approvals: dev none, prod one of SRE, vault two groups, bank two people."""
        world = await cls.open(directory, **issuer_options)
        world.deploy = replace(
            world.deploy,
            policies=gated_policies(),
            templates={"orders-read": template(accounts=frozenset({"dev", *NEEDED}))},
        )
        return world

    async def close(self) -> None:
        await self.issuer.drain()
        await self.revoker.close()
        await self.store.close()

    # ------------------------------------------------------------------ shorthand

    def caller(self, who: Agent = ALICE) -> Caller:
        now = self.clock.now()
        peer = Peer(who.spiffe_id, now - timedelta(hours=1), now + timedelta(hours=1), 1, "f" * 64)
        return Caller(TENANT, who, peer, self.deploy, now)

    async def task(self, who: Agent = ALICE, *participants: Agent, name: str = "t1", **changes: Any) -> Task:
        order = TaskOrder(name, "testing", None, [str(p.spiffe_id) for p in participants], "", "")
        return await self.tasks.start(self.caller(who), replace(order, **changes))

    def asked(self, task: Task, name: str = "r1", **changes: Any) -> AccessRequest:
        request = AccessRequest(name, "orders-read", task.id, "dev", "dev", "orders", TTL)
        return replace(request, **changes)

    async def grant(self, task: Task, who: Agent = ALICE, name: str = "r1", **changes: Any) -> Grant:
        return await self.issuer.request(self.caller(who), self.asked(task, name, **changes))

    async def lease(self, lease_id: str, who: Agent = ALICE) -> Lease:
        return await self.store.get_lease(TENANT, lease_id, str(who.spiffe_id))

    # ------------------------------------------------------------------ people

    def person(self, key: str) -> OperatorCaller:
        """Somebody at the people's door."""
        operator = Operator(self.deploy.people[key], key, LOGIN)
        return OperatorCaller(TENANT, operator, frozenset({Role.APPROVER}), self.deploy, self.clock.now())

    async def file(self, task: Task, who: Agent = ALICE, name: str = "r1", **changes: Any) -> FiledRequest:
        """Ask for what needs approval (by default one of SRE's)."""
        grant = await self.grant(task, who, name, **{"account": "prod", **changes})
        assert (grant.lease, grant.credential) == (None, None)
        assert grant.access_request is not None
        return grant.access_request

    async def approve(self, filed: FiledRequest, key: str = "bea", **how: Any) -> FiledRequest:
        how = {"fresh_id_token": self.fresh(filed, key), **how}
        return await self.approvals.approve(self.person(key), filed.id, filed.digest, **how)

    def fresh(self, filed: FiledRequest, key: str = "bea", **how: Any) -> str:
        """The ID token of a login for approving exactly this."""
        nonce = nonce_of(APPROVE_ACCESS_REQUEST, {"access_request_id": filed.id, "digest": filed.digest})
        return self.provider.id_token(key, CLIENT_ID, nonce, **how)

    async def redeem(self, filed: FiledRequest, who: Agent = ALICE, name: str = "redeem-1") -> Grant:
        return await self.issuer.redeem(self.caller(who), filed.id, name)

    def later(self, by: timedelta) -> None:
        """Time passes, the revoker runs, and no tick has looked at what is due."""
        self.clock.advance(by)
        self.gate.heartbeat = self.clock.now()

    async def pass_time(self, by: timedelta) -> None:
        """Time passes, and then a tick."""
        self.clock.advance(by)
        await self.upkeep.tick()

    async def settle(self, condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """Wait (in real time, not the test's) until the revoker has done what it will do."""
        await eventually(condition)
