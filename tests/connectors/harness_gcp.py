"""A world with the double of Google Cloud in it: the broker's identity, service accounts, a bucket, a ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from broker.clock import SystemClock
from broker.connectors.gcp_base import Federation
from broker.connectors.gcp_pool import GcpPool, Pool
from broker.connectors.gcp_token import GcpTokens
from broker.connectors.gcp_upstream import GcpSettings
from broker.connectors.lending import Lending
from broker.connectors.own_identity import OwnIdentity, OwnToken
from broker.errors import Reason, WrongState
from broker.lease.credential import Credential, GcpToken
from broker.lease.quarantine import QUARANTINE
from broker.ports.allocations import Allocation, AllocationState, Taken, TakenUp
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.secret import Secret
from tests.connectors.gcp_double.rules import Cloud, Refusal
from tests.connectors.gcp_double.server import serve
from tests.connectors.harness import LIE, NO_LIST, TIME_ALONE, Harness
from tests.connectors.misbehaving import Lying, Misbehaving, Mishap, behind_proxy, lying
from tests.connectors.mishap_proxy import Reply, Rule
from tests.connectors.support import make_scope
from tests.forge_jwt import token_authority
from tests.patience import PATIENCE

PROJECT = "acme-data"
READER = f"orders-reader@{PROJECT}.iam.gserviceaccount.com"
BUCKET = "orders-exports"
AUDIENCE = "//iam.googleapis.com/projects/4711/locations/global/workloadIdentityPools/jit-pool/providers/spire"
BROKER_ID = "spiffe://example.org/broker"
BROKER = (
    f"principal://iam.googleapis.com/projects/4711/locations/global/workloadIdentityPools/jit-pool/subject/{BROKER_ID}"
)
READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
POOL = Pool("orders-", 12, PROJECT, (BUCKET,))
VIEWER = "roles/storage.objectViewer"


def boundary_of(*below: JsonValue) -> list[JsonValue]:
    """A boundary of one rule: what lies below, in the bucket."""
    return [{"bucket": [{"text": BUCKET}], "roles": [VIEWER], "below": list(below), "object": None}]


@dataclass
class Own:
    """The broker's own JWT-SVIDs, signed by a trust domain's key."""

    clock: Clock
    audiences: list[str] = field(default_factory=list)

    def own_token(self, audience: str) -> OwnToken:
        self.audiences.append(audience)
        at = self.clock.now()
        made = token_authority("example.org", at=at).token(BROKER_ID, audience)
        return OwnToken(Secret(made), at + timedelta(minutes=5))


def provider(clock: Clock) -> Any:
    """A workload identity pool's provider: keys of the trust domain, one audience, subjects as principals."""

    def trusted(token: str, audience: str) -> str:
        if audience != AUDIENCE:
            raise ValueError("another provider")
        key = token_authority("example.org").keys["ec"][1].public_key()
        options = {"verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(token, key, algorithms=["ES256"], audience=f"https:{AUDIENCE}", options=options)
        except jwt.InvalidTokenError as error:
            raise ValueError(str(error)) from None
        if datetime.fromtimestamp(claims["exp"], UTC) <= clock.now():
            raise ValueError("over")
        return BROKER.rpartition("/subject/")[0] + "/subject/" + str(claims["sub"])

    return trusted


@dataclass
class Allocations:
    """The ledger's accounts in memory. tests/stores/ proves that the real one does the same."""

    rows: dict[str, Allocation] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)  # attempts that are not alive any more

    def all_ready(self, connector: str, accounts: Sequence[str], now: datetime) -> None:
        for each in accounts:
            self.rows[each] = Allocation(each, "t", connector, AllocationState.READY, None, now, None, None)

    async def take_account(
        self, tenant: str, connector: str, attempt_id: str, among: Sequence[str], ends_at: datetime, now: datetime
    ) -> Taken | TakenUp:
        if attempt_id in self.over:
            raise WrongState(Reason.LEASE_ENDED, "ended meanwhile.")
        rows = sorted((self.rows[each] for each in among if each in self.rows), key=lambda each: each.since)
        ready = next((each for each in rows if each.state is AllocationState.READY), None)
        if ready is None:
            free = [each.free_at or (each.ends_at or now) + QUARANTINE for each in rows]
            return TakenUp(min(free, default=None))
        changes = {"state": AllocationState.LENT, "attempt_id": attempt_id, "since": now, "ends_at": ends_at}
        self.rows[ready.account] = replace(ready, **changes)  # type: ignore[arg-type]
        return Taken(ready.account)

    async def give_account_back(self, tenant: str, attempt_id: str, account: str, now: datetime) -> None:
        held = self.rows[account]
        if held.state is AllocationState.LENT and held.attempt_id == attempt_id:
            self.rows[account] = replace(
                held, state=AllocationState.READY, attempt_id=None, since=now, ends_at=None, free_at=None
            )

    async def rest_account(
        self, tenant: str, connector: str, attempt_id: str | None, account: str, free_at: datetime, now: datetime
    ) -> None:
        held = self.rows.get(account)
        if held is not None and held.state is AllocationState.LENT and held.attempt_id != attempt_id:
            raise WrongState(Reason.LEASE_ENDED, "lent to another.")
        if held is not None and held.free_at is not None:
            free_at = max(free_at, held.free_at)
        resting = AllocationState.RESTING
        self.rows[account] = Allocation(account, "t", connector, resting, attempt_id, now, None, free_at)

    async def account_ready(self, tenant: str, account: str, now: datetime) -> None:
        held = self.rows[account]
        if held.free_at is None or held.free_at > now:
            raise WrongState(Reason.LEASE_ENDED, "has not rested.")
        self.rows[account] = replace(held, state=AllocationState.READY, attempt_id=None, since=now, free_at=None)

    async def forget_account(self, tenant: str, account: str, now: datetime) -> None:
        held = self.rows.get(account)
        if held is not None and held.free_at is not None and held.free_at <= now:
            del self.rows[account]

    async def account_allocation(self, account: str) -> Allocation | None:
        return self.rows.get(account)

    async def attempt_allocation(self, tenant: str, attempt_id: str) -> Allocation | None:
        return next((each for each in self.rows.values() if each.attempt_id == attempt_id), None)

    async def allocations(self, tenant: str, connector: str, accounts: Sequence[str]) -> Sequence[Allocation]:
        return [
            replace(each, over=each.attempt_id in self.over)
            for _, each in sorted(self.rows.items())
            if each.connector == connector or each.account in accounts
        ]


@dataclass
class World:
    """The double, and connectors to it."""

    cloud: Cloud
    address: str
    clock: Clock
    own: OwnIdentity
    allocations: Allocations = field(default_factory=Allocations)

    def settings(self, address: str | None = None, **changes: Any) -> GcpSettings:
        given: dict[str, Any] = {
            "credentials": Federation(AUDIENCE),
            "endpoint_url": address or self.address,
            "canary_bucket": BUCKET,
            "timeout": PATIENCE,
            "threads": 4,
            **changes,
        }
        return GcpSettings(**given)

    def tokens(self, address: str | None = None, **changes: Any) -> GcpTokens:
        return GcpTokens("gcp", self.settings(address, **changes), frozenset({READER}), self.own, self.clock)

    def pool(self, address: str | None = None, **changes: Any) -> GcpPool:
        lending = Lending("t", self.allocations)  # type: ignore[arg-type]
        return GcpPool("gcp", self.settings(address, **changes), {"orders": POOL}, lending, self.own, self.clock)

    def reads(self, token: str, name: str, bucket: str = BUCKET) -> bool:
        """Whether Cloud Storage lets ``token`` read the object."""
        try:
            self.cloud.storage(self.cloud.bearer(token), "storage.objects.get", bucket, name=name)
        except Refusal:
            return False
        return True

    def works(self, credential: Credential) -> bool:
        """Whether it reads what it was made for."""
        assert isinstance(credential, GcpToken)
        return self.reads(credential.access_token.reveal(), "2031/05/a.csv")


@contextmanager
def gcp_world(clock: Clock | None = None) -> Iterator[World]:
    """Accounts with what ``deploy/gcp/`` gives them; every account of the pool is ready."""
    clock = clock or SystemClock()
    cloud = Cloud(clock.now)
    cloud.trusted = provider(clock)
    for email in (READER, *POOL.accounts):
        cloud.account(email, manager=BROKER)
    members = {f"serviceAccount:{email}": [VIEWER] for email in (READER, *POOL.accounts)}
    cloud.bucket(BUCKET, ["2031/05/a.csv", "2031/06/b.csv"], {**members, BROKER: ["roles/storage.admin"]})
    with serve(cloud) as address:
        world = World(cloud, address, clock, Own(clock))
        world.allocations.all_ready("gcp", POOL.accounts, clock.now())
        yield world


def token_scope(**changes: object) -> Scope:
    """A scope of gcp-token with a boundary below one parameter."""
    grant: dict[str, JsonValue] = {
        "service_account": "orders-reader",
        "scopes": [READ_ONLY],
        "boundary": boundary_of({"parameter": "prefix"}, {"text": "/"}),
    }
    fields = {"account": PROJECT, "parameters": {"prefix": "2031/05"}, "grant": grant, **changes}
    return make_scope(fields.pop("grant"), **fields)  # type: ignore[arg-type]


def pool_scope(**changes: object) -> Scope:
    """A scope of gcp-pool without a boundary."""
    fields = {"account": PROJECT, "grant": {"pool": "orders", "scopes": [READ_ONLY], "boundary": None}, **changes}
    return make_scope(fields.pop("grant"), **fields)  # type: ignore[arg-type]


def _misbehaving(world: World, kind: str) -> Misbehaving:
    """Everything asked is answered so; where a case is about what may have been made, the own token is there."""
    make = world.tokens if kind == "gcp-token" else world.pool
    behind = behind_proxy(world.address, lambda address, timeout: make(address, timeout=timeout), _refusal)

    @contextmanager
    def misbehaving(mishap: Mishap) -> Iterator[Connector]:
        with behind(mishap) as made:
            assert isinstance(made, GcpTokens | GcpPool)
            if mishap in (Mishap.GARBLED, Mishap.LOST, Mishap.HANG, Mishap.LATE):
                honest = make()._upstream
                made._upstream.base._token = Secret(honest.base.token())
                made._upstream.base._until = world.clock.now() + timedelta(hours=1)
                honest.transport.close()
            yield made

    return misbehaving


def _lying(world: World) -> Lying:
    """Each account is disabled, it says, and none is."""
    said = Rule("POST ", ending=":disable", instead=Reply(200, b"{}"))
    return lying(world.address, lambda address, timeout: world.pool(address, timeout=timeout), said)


def _refusal(status: int) -> Reply:
    """As Google's APIs say it; the token endpoint has another form, and the same meaning."""
    code = {403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}.get(status, "INTERNAL")
    return Reply(status, json.dumps({"error": {"code": status, "status": code, "message": "no"}}).encode())


def gcp_harness(kind: str, dead_address: str) -> Harness:
    """For the contract suite."""
    entered = gcp_world()
    world = entered.__enter__()
    make = world.tokens if kind == "gcp-token" else world.pool
    made = Harness(
        clock=world.clock,
        make=make,
        make_unreachable=lambda: _made(make, dead_address),
        scope=token_scope() if kind == "gcp-token" else pool_scope(),
        works=world.works,
        misbehaving=_misbehaving(world, kind),
        lying=None if kind == "gcp-token" else _lying(world),
        cannot={**NO_LIST, LIE: TIME_ALONE} if kind == "gcp-token" else {},
    )
    made.stack.callback(entered.__exit__, None, None, None)
    return made


def _made(make: Any, address: str) -> Connector:
    made: Connector = make(address)
    return made
