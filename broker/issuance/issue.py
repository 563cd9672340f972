"""The flow of one request (docs/architecture.md): bind, decide, intend, issue, activate.

The one path to a credential. Up to the intent everything is a pure decision; the intent is durable
before the upstream is called; after it, every way out has a compensating line: whatever is not
proven void is moved to REVOKING, durably, and the revoker does the rest. If even that write fails,
the attempt's due time is already in the ledger and the revoker finds it by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import structlog

from broker.errors import BrokerError, Defect, Denied, NotFound, NotReady, Reason, UpstreamFailed
from broker.identity.behalf import check_within
from broker.issuance.caller import Caller
from broker.issuance.citations import cite
from broker.issuance.comparison import clamped, mismatch
from broker.issuance.filing import DENIED_COOL_DOWN, filing_of
from broker.issuance.gate import Gate
from broker.issuance.quotas import Rates, live_quotas
from broker.issuance.records import decided_on, delivered, shadow_told, told_by_agent, tool_told, what_was_asked
from broker.issuance.redemption import LEASE_PREFIX, approvals_held, funded, not_held
from broker.issuance.situation import Situations, seen
from broker.issuance.stopped import check_suspended
from broker.issuance.verdicts import denied_by, too_late, within_contract
from broker.issuance.waiting import until
from broker.lease.breaker import Breakers
from broker.lease.credential import Contract, ContractClass, Credential
from broker.lease.deadlines import CONFIRM_WITHIN
from broker.lease.fingerprint import fingerprints
from broker.lease.machine import Event
from broker.lease.mark import Mark
from broker.lease.root import Roots, Work
from broker.policy.decision import Decision, Effect
from broker.policy.facts import RequestFacts, Situation, wanted
from broker.policy.shadow import ShadowVerdict
from broker.policy.tools import check_tool
from broker.ports.access_requests import FiledRequest
from broker.ports.clock import Clock, Rng
from broker.ports.connectors import Connector, Handle, Issued, Unsettled
from broker.ports.intents import Intent, Opened
from broker.ports.keys import KeyRing
from broker.ports.leases import Attempt, EndCause, Lease
from broker.ports.ledger import Ledger
from broker.ports.tasks import DEFAULT_LIMITS, TaskLimits
from broker.scope.bind import bind
from broker.scope.model import Scope
from broker.scope.request import AccessRequest, Digested

log = structlog.get_logger("broker.issuance")

# How often policy decides on one request whose circumstances move under it, before its caller is asked to retry.
DECISIONS = 4


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request came to: a lease with its credential, or people to be asked; or neither, if only validated."""

    decision: Decision
    lease: Lease | None = None
    credential: Credential | None = None
    access_request: FiledRequest | None = None
    recipient_public_key: bytes = b""  # whom the credential is to be sealed to; empty: nobody asked for that
    contract: Contract | None = None  # what its connector promises about ending it


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A request that may be granted, at once or with people's yes: bound, decided, and its connector at hand."""

    scope: Scope
    decision: Decision
    connector: Connector
    situation: Situation
    shadow: ShadowVerdict | None
    tool: str = ""  # that its tool call names, where the agent has an allow list

    @property
    def contract(self) -> Contract:
        """What is promised of this credential: the connector's contract, and what the template narrows."""
        return self.connector.contract.of_grant(self.scope.grant)


class Issuer:
    """Carries requests. ``connectors`` finds a connector by name; ``kick`` wakes its revoker.

    ``keys`` make the digests by which the trail knows issued secrets again. ``mark`` is in the id of every attempt, so
    that upstreams can tell whose it is; ``roots`` knows which upstreams refuse the broker itself, ``breakers`` which do
    not answer. ``shadow_seen`` is told what shadow policies would have made of each request, where there are any.
    """

    def __init__(
        self,
        store: Ledger,
        connectors: Callable[[str], Connector | None],
        kick: Callable[[str], None],
        gate: Gate,
        clock: Clock,
        rng: Rng,
        *,
        keys: KeyRing,
        mark: Mark,
        issue_timeout: timedelta,
        confirm_within: timedelta = CONFIRM_WITHIN,
        denied_cool_down: timedelta = DENIED_COOL_DOWN,
        limits: TaskLimits = DEFAULT_LIMITS,
        shadow_seen: Callable[[ShadowVerdict], None] = lambda verdict: None,
        roots: Roots | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        self._store = store
        self._situations = Situations(store)
        self._rates = Rates(store)
        self._connectors = connectors
        self._kick = kick
        self._gate = gate
        self._clock = clock
        self._rng = rng
        self._keys = keys
        self.mark = mark
        self._roots = roots or Roots()
        self._breakers = breakers or Breakers()
        self._issue_timeout = issue_timeout
        self._confirm_within = confirm_within
        self._denied_cool_down = denied_cool_down
        self._limits = limits
        self._shadow_seen = shadow_seen
        self._in_flight: set[asyncio.Task[Grant] | asyncio.Task[None]] = set()

    async def request(self, caller: Caller, request: AccessRequest, *, validate_only: bool = False) -> Grant:
        """Grant ``request``, ask people about it, or say why not. Cancelling this call takes back what it issued."""
        if caller.deploy.quotas and not caller.is_broker:
            await self._rates.admit(caller, request)
        if validate_only:
            return await self._validated(caller, request)
        opened = await self._open(caller, request)
        if isinstance(opened, _Admitted):
            if caller.is_broker:
                # People are not asked for what the broker wants for itself.
                raise denied_by(opened.decision, opened.scope, opened.connector.contract)
            return await self._ask_people(caller, request, opened)
        return await self._deliver(*opened)

    async def redeem(self, caller: Caller, access_request_id: str, request_id: str) -> Grant:
        """Grant what people approved: decided on again, under the rules in force, with exactly the approvals held.

        The credential's time begins now. Like :meth:`request`, also when it is cancelled; the same ``request_id``
        again is a retry of this redemption, another one a second use of the approval, which is refused.
        """
        filed = await self._store.get_access_request(caller.tenant, access_request_id, caller.id)
        if caller.deploy.quotas:
            await self._rates.admit(caller, filed.request)
        task = await self._store.get_task(caller.tenant, filed.request.task_id)
        held = approvals_held(filed, request_id, caller, task.sponsor)
        request = replace(filed.request, request_id=request_id)
        if filed.tool_call:  # kept until it is redeemed, to be looked at; of prompt and plan only the digests count
            request = replace(request, tool_call=filed.tool_call)
        opened = await self._open(caller, request, held, partial(funded, filed, caller, held))
        if isinstance(opened, _Admitted):
            raise not_held(filed, opened.decision.approvals)
        return await self._deliver(*opened)

    async def emergency(self, intent: Intent, connector: Connector, situation: Situation) -> Grant:
        """Grant what break-glass has decided on (``break_glass.py``): from the intent on, the same way as all else."""
        opened = await self._store.open_intent(intent)
        return await self._deliver(_Admitted(intent.scope, intent.decision, connector, situation, None), intent, opened)

    async def _deliver(self, admitted: _Admitted, intent: Intent, opened: Opened) -> Grant:
        """The one way from a durable intent to a credential."""
        work = asyncio.create_task(self._carry_out(opened, intent, admitted))
        self._in_flight.add(work)
        work.add_done_callback(self._in_flight.discard)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # Nobody is left to take delivery. The upstream call goes on (cancelling it would lose
            # its outcome) and whatever it yields is taken back.
            takeback = asyncio.ensure_future(self._take_back(work, intent))
            self._in_flight.add(takeback)
            takeback.add_done_callback(self._in_flight.discard)
            raise

    async def drain(self) -> None:
        """Wait until nothing is in flight (the caller bounds the time)."""
        while self._in_flight:
            await asyncio.gather(*self._in_flight, return_exceptions=True)

    # ------------------------------------------------------------------ decide

    async def _open(
        self,
        caller: Caller,
        request: AccessRequest,
        held: frozenset[str] = frozenset(),
        fund: Callable[[Intent], Intent] = lambda intent: intent,
    ) -> tuple[_Admitted, Intent, Opened] | _Admitted:
        """Decide, with the approvals ``held``, and intend. Where its grounds move, decide again, but not for ever.

        Nothing but what was decided: people must agree to it first, and nothing was intended.
        """
        for last in range(DECISIONS, 0, -1):
            admitted = await self._decide(caller, request, held)
            if not admitted.decision.allowed:
                return admitted
            self._gate.check(caller.now)
            self._roots.check(admitted.scope.connector)
            self._breakers.check(admitted.scope.connector, caller.now)
            intent = fund(self._intent(caller, request, admitted))
            try:
                return admitted, intent, await self._store.open_intent(intent)
            except NotReady as moved:
                if moved.reason is not Reason.SITUATION_MOVED or last == 1:
                    raise
        raise Defect(Reason.INTERNAL, "a request is decided on at least once.")

    async def _decide(self, caller: Caller, request: AccessRequest, held: frozenset[str] = frozenset()) -> _Admitted:
        situation = await self._situations.read(caller, request)
        try:
            return self._admit(caller, request, replace(situation, approvals=held) if held else situation)
        except Denied:
            # Who is stopped hears of that, and not what policy would say; of what is admitted the intent tells it.
            await check_suspended(self._store, caller)
            raise

    def _admit(self, caller: Caller, request: AccessRequest, situation: Situation) -> _Admitted:
        template = caller.deploy.templates.get(request.template)
        if template is None:
            raise NotFound(
                Reason.TEMPLATE_NOT_FOUND,
                f"there is no template {request.template!a}.",
                hint="ListTemplates (`broker templates`) shows what can be asked for.",
                metadata={"template": request.template},
            )
        # Once a request is redeemed its tool call is erased: of a retry it was checked before.
        tool = "" if isinstance(request.tool_call, Digested) else check_tool(caller.agent, request)
        scope = bind(template, request, dict(caller.agent.segments))
        connector = self._connectors(template.connector)
        if connector is None:
            raise Defect(Reason.INTERNAL, f"template {template.name} names a connector that is not running.")
        if situation.on_behalf_of is not None:
            check_within(situation.on_behalf_of, wanted(scope))
        within_contract(scope, connector.contract)
        promised, delivery = connector.contract.of_grant(scope.grant), caller.peer.delivery
        facts = RequestFacts(caller.agent, request, scope, promised, caller.now, delivery, situation)
        decision = caller.deploy.policies.decide(facts)
        shadow = None if caller.deploy.shadow is None else caller.deploy.shadow.verdict(facts, decision)
        if shadow is not None:
            self._shadow_seen(shadow)
        if not decision.allowed and (decision.effect is not Effect.NEEDS_APPROVAL or decision.errors):
            denial = denied_by(decision, scope, promised)
            asked = {**what_was_asked(facts), **decided_on(caller, scope, situation), **tool_told(tool)}
            denial.evidence = {"decided_on": asked, **shadow_told(shadow)}
            raise denial
        return _Admitted(scope, decision, connector, situation, shadow, tool)

    async def _ask_people(
        self, caller: Caller, request: AccessRequest, admitted: _Admitted, *, validate_only: bool = False
    ) -> Grant:
        """File the request; nothing is issued. What the upstream would refuse is refused before anybody is asked."""
        scope, contract_class = admitted.scope, admitted.connector.contract.cls
        ends, task_id = caller.now + scope.ttl, request.task_id
        admitted.connector.prepare(scope, self.mark.attempt("x"), caller.id, ends, task_id=task_id)
        task = await self._store.get_task(caller.tenant, request.task_id)
        if caller.id in task.participants:  # others hear nothing of the task, not even that it is stopped
            await check_suspended(self._store, caller, request.task_id, scope)
        filing = filing_of(
            caller,
            request,
            scope,
            contract_class,
            admitted.decision,
            admitted.situation,
            sponsor=task.sponsor,
            id_=self._rng.id(),
            cool_down=self._denied_cool_down,
            audit={
                **told_by_agent(request),
                **delivered(caller.peer, request),
                "decided_on": decided_on(caller, scope, admitted.situation),
                **shadow_told(admitted.shadow),
                **tool_told(admitted.tool),
            },
        )
        if validate_only:
            await self._store.check_access_request(filing)
            return Grant(admitted.decision, contract=admitted.contract)
        self._gate.check(caller.now)
        filed = await self._store.open_access_request(filing)
        return Grant(admitted.decision, access_request=filed, contract=admitted.contract)

    def _intent(self, caller: Caller, request: AccessRequest, admitted: _Admitted) -> Intent:
        name = self._rng.id()
        attempt_id = self.mark.attempt(name)
        expires_at = caller.now + admitted.scope.ttl
        if admitted.situation.latest_end is not None:
            expires_at = min(expires_at, admitted.situation.latest_end)
        handle = admitted.connector.prepare(admitted.scope, attempt_id, caller.id, expires_at, task_id=request.task_id)
        claimed = request.claimed()
        return Intent(
            tenant=caller.tenant,
            lease_id=LEASE_PREFIX + name,  # a lease is named as its first attempt is
            attempt_id=attempt_id,
            holder=caller.id,
            entry=caller.agent.principal,
            owner=caller.agent.owner.id,
            svid_serial=f"{caller.peer.serial:x}",
            request=request,
            request_digest=request.digest(claimed),
            scope=admitted.scope,
            contract_class=admitted.connector.contract.cls,
            decision=admitted.decision,
            handle=handle,
            now=caller.now,
            issue_deadline=caller.now + self._issue_timeout,
            expires_at=expires_at,
            max_live_leases=caller.agent.quotas.live_leases,
            seen=seen(caller, request, admitted.situation),
            audit={
                **told_by_agent(request, claimed),
                **delivered(caller.peer, request),
                "principal": caller.agent.principal,
                "decided_on": decided_on(caller, admitted.scope, admitted.situation),
                **shadow_told(admitted.shadow),
                **tool_told(admitted.tool),
            },
            citation=cite(caller, request, admitted.scope),
            limits=self._limits,
            quotas=live_quotas(caller, request),
        )

    async def _validated(self, caller: Caller, request: AccessRequest) -> Grant:
        """AIP-163: everything that can be said without issuing, the task and the upstream's limits included."""
        admitted = await self._decide(caller, request)
        if not admitted.decision.allowed:
            return await self._ask_people(caller, request, admitted, validate_only=True)
        intent = self._intent(caller, request, admitted)
        await self._store.check_intent(intent)
        return Grant(admitted.decision, contract=admitted.contract)

    # ------------------------------------------------------------------ carry out

    async def _carry_out(self, opened: Opened, intent: Intent, admitted: _Admitted) -> Grant:
        attempt = opened.attempt
        try:
            if opened.previous:
                await self._end_previous(opened, admitted.connector)
            issued = await self._issue(attempt, intent, admitted)
        except UpstreamFailed as failure:
            await self._failed(intent, failure)
            raise
        except BaseException:
            await self._end(intent, Event.END, EndCause.OUTCOME_UNKNOWN, "the issue was broken off")
            raise
        self._roots.works(intent.scope.connector, Work.ISSUE)
        self._breakers.works(intent.scope.connector, Work.ISSUE)
        unsettled = issued.unsettled
        try:
            grant = await self._compared(attempt, issued, intent, admitted)
        except BaseException:
            if unsettled is not None:
                unsettled.take_back()
            raise
        if unsettled is not None:
            await self._settle(attempt, unsettled, intent)
        return grant

    async def _compared(self, attempt: Attempt, issued: Issued, intent: Intent, admitted: _Admitted) -> Grant:
        wider = mismatch(issued, intent.scope, attempt.id, attempt.expires_at, admitted.connector.contract)
        if wider is not None:
            if issued.unsettled is not None:
                with suppress(BrokerError):  # what is not noted is ended by its handle all the same, only later
                    noted = issued.unsettled.noted
                    await self._store.checkpoint(attempt.tenant, attempt.id, attempt.epoch, *noted, self._clock.now())
            await self._end(intent, Event.END, EndCause.GRANT_MISMATCH, wider.message)
            raise wider
        return await self._activate(attempt, issued, intent, admitted)

    async def _settle(self, attempt: Attempt, unsettled: Unsettled, intent: Intent) -> None:
        """Wait for what the upstream was still being told. If it failed, the credential is not delivered, and ends."""
        left = attempt.issue_deadline - self._clock.now()
        try:
            async with asyncio.timeout(max(0.0, left.total_seconds())):
                await unsettled.settled
        except TimeoutError:
            failure = too_late(outcome_known=False)
        except UpstreamFailed as failed:
            failure = failed
            failure.outcome_known = False  # whatever became of this step: something was made
        else:
            return
        await self._failed(intent, failure)
        raise failure

    async def _issue(self, attempt: Attempt, intent: Intent, admitted: _Admitted) -> Issued:
        async def checkpoint(handle: Handle, upstream: str | None) -> None:
            await self._store.checkpoint(attempt.tenant, attempt.id, attempt.epoch, handle, upstream, self._clock.now())

        allowance = (attempt.issue_deadline - self._clock.now()).total_seconds()
        if allowance <= 0:
            raise too_late(outcome_known=True)
        try:
            async with asyncio.timeout(allowance):
                return await admitted.connector.issue(attempt.handle, intent.scope, attempt.expires_at, checkpoint)
        except TimeoutError:
            raise too_late(outcome_known=False) from None

    async def _failed(self, intent: Intent, failure: UpstreamFailed) -> None:
        """What the connector's failure proves: never issued, or all that may be there is ended."""
        if failure.reason is Reason.UPSTREAM_ROOT_REFUSED:
            self._roots.refused(intent.scope.connector, failure.message, Work.ISSUE, self._clock.now())
        if failure.reason is Reason.UPSTREAM_UNAVAILABLE:
            who, now, jitter = intent.attempt_id, self._clock.now(), self._rng.fraction()
            self._breakers.failed(intent.scope.connector, Work.ISSUE, who, failure.message, now, jitter)
        if failure.outcome_known:
            await self._end(intent, Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, failure.message)
            return
        mismatched = failure.reason is Reason.UPSTREAM_GRANT_MISMATCH
        cause = EndCause.GRANT_MISMATCH if mismatched else EndCause.OUTCOME_UNKNOWN
        await self._end(intent, Event.END, cause, failure.message)

    async def _activate(self, attempt: Attempt, issued: Issued, intent: Intent, admitted: _Admitted) -> Grant:
        now, short = self._clock.now(), clamped(issued, attempt.expires_at)
        try:
            lease = await self._store.activate(
                attempt.tenant,
                attempt.id,
                attempt.epoch,
                min(issued.expires_at, attempt.expires_at),
                now + self._confirm_within,
                {
                    **issued.observed,
                    **({"clamped_seconds": int(short.total_seconds())} if short else {}),
                    "secrets": fingerprints(*self._keys.current(), issued.credential, issued.inside),
                },
                now,
                None if issued.unsettled is None else issued.unsettled.noted,
            )
        except NotReady:
            # The commit may or may not have happened: the row is due either way, and nothing is delivered.
            await self._end(intent, Event.END, EndCause.OUTCOME_UNKNOWN, "activation could not be stored")
            raise
        except BaseException:
            self._kick(intent.scope.connector)
            raise
        if intent.redeems is not None:
            lease = replace(lease, access_request_id=intent.redeems.access_request_id)
        key = intent.request.recipient_public_key
        promised = admitted.contract
        return Grant(admitted.decision, lease, issued.credential, recipient_public_key=key, contract=promised)

    async def _end_previous(self, opened: Opened, connector: Connector) -> None:
        """Never two live: a retry's new attempt waits for proof that the older ones are gone."""
        ids = frozenset(previous.id for previous in opened.previous)
        self._kick(opened.attempt.connector)

        async def gone() -> bool:
            living = await self._store.living_attempts(opened.attempt.tenant, opened.lease_id)
            return not any(attempt.id in ids for attempt in living)

        wait = (opened.attempt.issue_deadline - self._clock.now()) / 2
        if connector.contract.cls is not ContractClass.IMMEDIATE:  # no proof comes as soon as that
            wait = timedelta(0)
        if not await until(gone, self._store, wait.total_seconds()):
            ends = max(previous.expires_at for previous in opened.previous)
            raise UpstreamFailed(
                Reason.PREVIOUS_ATTEMPT_LIVE,
                f"the earlier credential of this request id has not ended yet; it does by {ends.isoformat()}.",
                outcome_known=True,
                hint="Retry later with the same request_id, or ask with a new one.",
                metadata={"expireTime": ends.isoformat()},
            )

    async def _take_back(self, work: asyncio.Task[Grant], intent: Intent) -> None:
        await asyncio.wait({work})
        if work.cancelled():
            return
        if (failure := work.exception()) is None:
            await self._end(intent, Event.END, EndCause.ABANDONED, "the caller was gone before delivery")
        elif isinstance(failure, Exception) and not isinstance(failure, BrokerError):
            # What failed was ended where it failed; of a defect nobody else hears.
            log.error("a request failed that nobody waited for", attempt=intent.attempt_id, exc_info=failure)

    async def _end(self, intent: Intent, event: Event, cause: EndCause, detail: str) -> None:
        try:
            await self._store.end_attempt(intent.tenant, intent.attempt_id, event, cause, self._clock.now(), detail)
        except BrokerError as failure:
            # The attempt stays due at its issue deadline; the revoker will take it from there.
            log.error("attempt could not be ended yet", attempt=intent.attempt_id, reason=failure.reason)
        self._kick(intent.scope.connector)
