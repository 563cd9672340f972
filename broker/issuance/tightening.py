"""When policy tightens: live leases, decided on again by the deploy set in force.

Once after each set that comes into force, in the background, one lease after the other, so that grants never wait for
it. What would not be granted any more is recorded, and ended where its template says so. Nothing is remembered of how
far a review came: one that was broken off is made again from the start, and records only what is news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from broker.audit.event import BROKER
from broker.errors import BrokerError, Reason
from broker.identity.agent import TO_PEOPLE
from broker.policy.decision import Effect
from broker.policy.recorded import Recorded
from broker.policy.standing import Held, Standing, Verdict, reviewed, reviewed_emergency
from broker.policy.trial import Rules
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.ports.deploys import DeploySet, DeploySource
from broker.ports.leases import Granted, Tightened
from broker.ports.reviews import ReviewStore
from broker.scope.model import OnPolicyChange

log = structlog.get_logger("broker.policy")

# Read at a time; memory holds no more of them.
PAGE = 256
# After what does not fail for ever, such as a full disk.
_AGAIN = timedelta(seconds=10)


class Tell(Protocol):
    """Where verdicts are counted."""

    def policy_review(self, outcome: str, revoked: bool) -> None:
        """One live lease was decided on again."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """A live lease that would not be granted any more."""

    granted: Granted
    tightened: Tightened
    revoked: bool


class TighteningDesk:
    """Reviews live leases. ``connectors`` finds a connector by name, for its contract; ``kick`` wakes its revoker."""

    def __init__(
        self,
        store: ReviewStore,
        deploy: DeploySource,
        connectors: Callable[[str], Connector | None],
        kick: Callable[[str], None],
        tell: Tell,
        clock: Clock,
        tenant: str,
        *,
        straggling: timedelta,
    ) -> None:
        """``straggling``: for so long after a set came into force, intents of the one before may commit."""
        self._store = store
        self._deploy = deploy
        self._connectors = connectors
        self._kick = kick
        self._tell = tell
        self._clock = clock
        self._tenant = tenant
        self._straggling = straggling.total_seconds()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """A deploy set came into force. Returns at once."""
        self._changed.set()

    async def run(self) -> None:
        """Review after each change, and once more for what was decided before it and intended after. For ever."""
        while True:
            await self._changed.wait()
            await self._whole()
            try:
                async with asyncio.timeout(self._straggling):
                    await self._changed.wait()
            except TimeoutError:
                await self._whole()

    async def _whole(self) -> None:
        """One review that comes to its end. A change meanwhile starts the next one."""
        self._changed.clear()
        while True:
            try:
                await self.review_all()
                return
            except BrokerError as failure:
                if failure.reason is Reason.DEPLOY_SET_OVERTAKEN:
                    log.info("another deploy set came into force: who has it reviews live leases")
                    return
                log.error("the review of live leases failed; it is made again", reason=failure.reason)
                await asyncio.sleep(_AGAIN.total_seconds())

    async def review_all(self) -> int:
        """Every live lease; how many would not be granted any more."""
        after, found, seen = "", 0, 0
        while True:
            findings, after, count = await self._page(after, PAGE)
            found, seen = found + len(findings), seen + count
            if not after:
                break
        if found:
            log.warning("live leases would not be granted any more", leases=found, reviewed=seen)
        return found

    async def review(self, after: str, limit: int, *, revoke: bool, by: str) -> tuple[Sequence[Finding], str]:
        """On demand, a page: what would not be granted any more, and the id to continue after (empty: the end).

        Recorded as by itself; with ``revoke`` it is ended, by ``by``, whatever its template says. Raises
        InvalidInput (PAGE_TOKEN_INVALID), and NotReady (DEPLOY_SET_OVERTAKEN) where another set is in force by now.
        """
        findings, after, _ = await self._page(after, limit, revoke_by=by if revoke else "")
        return findings, after

    async def _page(self, after: str, limit: int, *, revoke_by: str = "") -> tuple[list[Finding], str, int]:
        page = await self._store.living_grants(self._tenant, after, limit)
        findings = []
        for granted in page:
            # Between any two decisions whoever waits has a turn.
            await asyncio.sleep(0)
            finding = await self._one(granted, revoke_by)
            findings.extend([finding] if finding else [])
        return findings, page[-1].lease.id if page else "", len(page)

    async def _one(self, granted: Granted, revoke_by: str) -> Finding | None:
        lease, deploy = granted.lease, self._deploy.current
        verdict = self._verdict(granted, deploy)
        if verdict.stands and lease.policy_tightened is None:
            return None  # nearly all of them, nearly always: then nothing is written
        end = not verdict.stands and (bool(revoke_by) or verdict.on_policy_change is OnPolicyChange.REVOKE)
        tightened = None if verdict.stands else self._tightened(verdict, deploy)
        news = await self._store.record_review(
            *(lease.tenant, lease.id, lease.attempt_id, tightened, end, revoke_by or BROKER, self._clock.now()),
            deploy.digest,
        )
        if news:
            self._tell.policy_review(verdict.standing.value, end)
        if end:
            self._kick(lease.connector)
        return None if tightened is None else Finding(granted, tightened, end)

    def _verdict(self, granted: Granted, deploy: DeploySet) -> Verdict:
        lease = granted.lease
        held = Held(lease.template, lease.connector, lease.access, lease.actions)
        recorded = None
        if granted.facts is not None and "decided_on" in granted.facts:
            decided_on = granted.facts["decided_on"]
            facts = {**granted.facts, **(decided_on if isinstance(decided_on, dict) else {})}
            recorded = Recorded(lease.holder, granted.at, Effect.ALLOW, lease.policies, facts)
        rules = self._rules(deploy, lease.connector)
        if granted.facts is not None and granted.facts.get("delivery") == TO_PEOPLE:
            rule = deploy.break_glass.get(lease.template)
            at_most = None if rule is None else rule.max_ttl
            return reviewed_emergency(recorded, held, granted.present, rules, at_most)
        return reviewed(recorded, held, granted.present, rules)

    def _rules(self, deploy: DeploySet, connector: str) -> Rules:
        """What decides. Shadow policies are not part of it."""
        running = self._connectors(connector)
        contracts = {} if running is None else {connector: running.contract}
        return Rules(
            deploy.registry, deploy.templates, deploy.policies, contracts, deploy.denied, deploy.people, shadow=None
        )

    def _tightened(self, verdict: Verdict, deploy: DeploySet) -> Tightened:
        assert verdict.standing is not Standing.ALLOW  # noqa: S101 - asked of what does not stand alone
        return Tightened(
            outcome=verdict.standing,
            reason=verdict.reason,
            policies=verdict.policies,
            why=verdict.why[:2000],
            deploy_digest=deploy.digest,
            policy_digest=deploy.policies.digest,
            at=self._clock.now(),
        )
