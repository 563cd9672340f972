"""One run of a canary, from its task to what it came to. The credential is a local variable here, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from broker.canary.canary import Canary, Kind, bound
from broker.canary.measurement import Measurement, Outcome, down, outcome_of, up
from broker.canary.request import access_request, purpose
from broker.canary.watch import Moment, Said, State, Watch
from broker.errors import BrokerError, Defect, Reason, UpstreamFailed
from broker.identity.agent import Peer
from broker.issuance.caller import Caller
from broker.issuance.canary_key import fresh_public_key
from broker.issuance.issue import Issuer
from broker.issuance.leases import LeaseDesk
from broker.issuance.tasks import TaskDesk, TaskOrder
from broker.lease.credential import Credential
from broker.lease.machine import State as LeaseState
from broker.ports.clock import Clock
from broker.ports.connectors import Connector, RevokeContext
from broker.ports.deploys import DeploySet
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import Attempt, EndCause, Lease
from broker.scope.bind import bind
from broker.scope.model import Scope

log = structlog.get_logger("broker.canaries")

# A look is given up after this long; whether the credential works is not known then.
USE_TIMEOUT = timedelta(seconds=20)
# A run's task is open for so much longer than its credential lives.
_SLACK = timedelta(hours=1)
# The longest task of a run: the longest TTL of any, and the slack.
LONGEST_TASK = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run works with. ``moment`` reads both clocks, ``wait`` sleeps: the only ways that time comes in."""

    store: LeaseStore
    issuer: Issuer
    tasks: TaskDesk
    leases: LeaseDesk
    connectors: Callable[[str], Connector | None]
    clock: Clock
    moment: Callable[[], Moment]
    wait: Callable[[timedelta], Awaitable[None]]
    use_timeout: timedelta = USE_TIMEOUT


@dataclass(frozen=True, slots=True)
class _Held:
    """What the run holds, in memory only."""

    lease: Lease
    attempt: Attempt
    credential: Credential
    scope: Scope
    seen: Moment  # when it was seen to work first


class _CannotMeasureError(Exception):
    """Nothing can be said of the bound; the text says why, and holds nothing secret."""


class CanaryRun:
    """One run. ``record`` is given what it came to, and before that, that the bound was broken."""

    def __init__(
        self,
        tools: Tools,
        deploy: DeploySet,
        canary: Canary,
        kind: Kind,
        record: Callable[[Measurement], Awaitable[None]],
        *,
        tenant: str,
        id_: str,
        by: str,
    ) -> None:
        self._tools = tools
        self._deploy = deploy
        self._canary = canary
        self._kind = kind
        self._record = record
        self._tenant = tenant
        self._id = id_
        self._by = by
        self._lease_id = ""
        self._why = ""  # of the last look of which nothing could be told
        # (purpose, creation) of its task, while that is open or not known not to be.
        self.task_left: tuple[str, datetime] | None = None
        self._began_at = tools.clock.now()
        connector = tools.connectors(canary.connector)
        promised = None if connector is None else bound(connector.contract, kind)
        self._public_key = "" if connector is None else fresh_public_key(connector.contract)
        self._bound = timedelta(0) if promised is None else promised

    async def carry_out(self) -> Measurement:
        """Issue, use, end, use until it is refused. Whatever happens, its task is ended, and so its lease."""
        task_id = ""
        try:
            caller = self._caller()
            order = TaskOrder(self._id, purpose(self._canary), self._canary.ttl + _SLACK, (), "", "", "canary")
            self.task_left = (order.purpose, caller.now)
            task_id = (await self._tools.tasks.start(caller, order)).id
            measurement = await self._measure(caller, task_id)
        except BrokerError as refused:
            measurement = self._unmeasured(refused.message)
        except _CannotMeasureError as why:
            measurement = self._unmeasured(str(why))
        except Exception as bug:  # noqa: BLE001 - by its type alone: its text may hold the credential
            log.error("a canary broke", connector=self._canary.connector, error=type(bug).__name__)
            measurement = self._unmeasured(f"internal error ({type(bug).__name__})")
        finally:
            if task_id:
                await self._end(task_id)
        await self._record(measurement)
        return measurement

    async def _measure(self, caller: Caller, task_id: str) -> Measurement:
        held = await self._issued(caller, task_id)
        watch = await (self._revoked(caller, held) if self._kind is Kind.ON_REVOKE else self._expiring(held))
        watch = await self._until_refused(held, watch)
        lease = await self._tools.leases.get(caller, held.lease.id)
        if self._kind is Kind.ON_EXPIRY and lease.cause not in (None, EndCause.EXPIRED):
            raise _CannotMeasureError(f"the lease was ended before its time: {lease.cause}")
        return self._measurement(watch, lease)

    # ------------------------------------------------------------------ the steps

    async def _issued(self, caller: Caller, task_id: str) -> _Held:
        tools, canary = self._tools, self._canary
        request = access_request(canary, self._id, task_id, self._public_key)
        grant = await tools.issuer.request(caller, request)
        if grant.lease is None or grant.credential is None:
            raise Defect(Reason.INTERNAL, "a canary's request was neither granted nor refused.")
        lease, self._lease_id = grant.lease, grant.lease.id
        await tools.leases.confirm(caller, lease.id, lease.attempt_id)
        (attempt,) = await tools.store.living_attempts(self._tenant, lease.id)
        scope = bind(caller.deploy.templates[canary.template], request)
        said, _, seen = await self._look(grant.credential, scope)
        if said is Said.UNKNOWN:
            raise _CannotMeasureError(self._why)
        if said is Said.REFUSED:
            raise _CannotMeasureError("the upstream refused the credential while it should have worked")
        return _Held(lease, attempt, grant.credential, scope, seen)

    async def _revoked(self, caller: Caller, held: _Held) -> Watch:
        """Ask for the revocation; what is counted from is the moment before."""
        asked = self._tools.moment()
        lease = await self._tools.leases.revoke(caller, held.lease.id, timedelta(0))
        if lease.cause is not EndCause.RELEASED:
            raise _CannotMeasureError(f"the lease was ended meanwhile: {lease.cause}")
        return Watch(self._kind, asked, self._bound, held.seen, self._tools.moment())

    async def _expiring(self, held: _Held) -> Watch:
        """Nobody ends it; what is counted from is its deadline."""
        now = self._tools.moment()
        return Watch(self._kind, now.later(held.lease.expires_at - now.at), self._bound, held.seen, now)

    async def _until_refused(self, held: _Held, watch: Watch) -> Watch:
        """Look until it is refused, or for too long nothing can be told. A broken bound is told at once."""
        told = False
        while True:
            if watch.kind is Kind.ON_EXPIRY or watch.looks:
                await self._tools.wait(watch.pause())
            watch = watch.seen(*await self._look(held.credential, held.scope))
            if watch.state in (State.DEAD, State.LOST):
                return watch
            if watch.broken:
                if not told:
                    told = True
                    await self._record(self._measurement(watch, held.lease))
                await self._end_again(held)

    async def _look(self, credential: Credential, scope: Scope) -> tuple[Said, Moment, Moment]:
        begun = self._tools.moment()
        said = await self._use(credential, scope)
        return said, begun, self._tools.moment()

    async def _use(self, credential: Credential, scope: Scope) -> Said:
        connector = self._tools.connectors(self._canary.connector)  # each time: a reload may have replaced it
        seconds = self._tools.use_timeout.total_seconds()
        try:
            if connector is None:
                raise UpstreamFailed(Reason.CREDENTIAL_USE_UNKNOWN, "the connector is not running any more.")
            async with asyncio.timeout(seconds):
                return Said((await connector.use(credential, scope)).value)
        except BrokerError as failure:
            self._why = failure.message
        except TimeoutError:
            self._why = f"using the credential took longer than {seconds:g} s"
        except Exception as bug:  # noqa: BLE001 - not log.exception: see below
            # By its type alone: the text of what nobody foresaw may hold the credential.
            self._why = f"the connector broke ({type(bug).__name__})"
            log.error("the connector raised in use", connector=self._canary.connector, error=type(bug).__name__)
        return Said.UNKNOWN

    async def _end_again(self, held: _Held) -> None:
        """The ledger may have it from the upstream that it is dead, which it is not: ask once more, each time."""
        connector, attempt = self._tools.connectors(self._canary.connector), held.attempt
        if connector is None:
            return

        async def known(names: Sequence[str]) -> frozenset[str]:
            return await self._tools.store.known_upstream(attempt.connector, names)

        context = RevokeContext(
            now=self._tools.clock.now(),
            created_at=attempt.created_at,
            issue_deadline=attempt.issue_deadline,
            expires_at=attempt.expires_at,
            outcome_known=True,
            known_upstream=known,
        )
        try:
            async with asyncio.timeout(self._tools.use_timeout.total_seconds()):
                outcome = await connector.revoke(attempt.handle, context)
        except Exception as failed:  # noqa: BLE001 - tried again after the next look
            log.error("a canary that lives on could not be ended", lease=held.lease.id, error=type(failed).__name__)
        else:
            log.warning("a canary that lives on was ended again", lease=held.lease.id, answer=type(outcome).__name__)

    async def _end(self, task_id: str) -> None:
        try:
            await self._tools.tasks.complete(self._caller(), task_id, timedelta(0))
        except BrokerError as failure:
            # Canaries.tidy ends it; its lease's own deadline ends that before, if need be.
            log.error("a canary's task could not be ended yet", task=task_id, reason=failure.reason)
        else:
            self.task_left = None

    # ------------------------------------------------------------------ what is told

    def _caller(self) -> Caller:
        own, now = self._deploy.registry.own, self._tools.clock.now()
        if own is None:
            raise Defect(Reason.INTERNAL, "a canary runs, and the registry has no principal of the broker's own.")
        peer = Peer(own.spiffe_id, now, now + LONGEST_TASK, 0, "")
        return Caller(self._tenant, own, peer, self._deploy, now)

    def _measurement(self, watch: Watch, lease: Lease) -> Measurement:
        outcome, why = outcome_of(watch)
        if not watch.spoilt and outcome is Outcome.UNMEASURED and self._why:
            why = f"{why}: {self._why}"
        revoked = lease.state is LeaseState.REVOKED
        return replace(
            self._unmeasured(why),
            outcome=outcome,
            since=watch.since.at,
            measured=up(watch.refused),
            at_least=down(watch.worked),
            confirmed_at=lease.ended_at if revoked else None,
            looks=watch.looks,
        )

    def _unmeasured(self, why: str) -> Measurement:
        return Measurement(
            tenant=self._tenant,
            id=self._id,
            connector=self._canary.connector,
            kind=self._kind,
            by=self._by,
            outcome=Outcome.UNMEASURED,
            began_at=self._began_at,
            told_at=self._tools.clock.now(),
            bound=self._bound,
            lease_id=self._lease_id,
            why=why[:500],
        )
