"""Recovery: the ledger was found behind a witness, so nothing is granted until two people say so.

What the ledger holds open may have been used, ended or taken back since it was copied. So all of it is ended when
recovery begins; what an upstream holds and the ledger does not know is ended by the sweeps, as after a crash. What two
people have to look at before they release it is in docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from broker.approval.intent_digest import RELEASE_RECOVERY
from broker.issuance.caller import OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.gate import Gate
from broker.ports.clock import Clock, Rng
from broker.ports.suspensions import Lifting
from broker.ports.trail import Evidence, Recovery, TrailStore
from broker.scope.blank import refuse_blank

log = structlog.get_logger("broker.recovery")

RECOVERY_PREFIX = "rec-"


class Recovering:
    """Begins recovery."""

    def __init__(
        self,
        store: TrailStore,
        gate: Gate,
        clock: Clock,
        rng: Rng,
        tenant: str,
        *,
        reconcile: Callable[[], None] = lambda: None,
    ) -> None:
        """``reconcile`` has every upstream's inventory compared with the ledger soon."""
        self._reconcile = reconcile
        self._store = store
        self._gate = gate
        self._clock = clock
        self._rng = rng
        self._tenant = tenant

    async def resume(self) -> None:
        """At start: what was not released before stays so, and what was left to burn is burnt."""
        recovery = await self._store.recovery(self._tenant)
        if recovery is not None and recovery.open:
            await self._closed(recovery)

    async def enter(self, evidence: Evidence) -> None:
        """A witness has seen more than the ledger has."""
        # First of all: from here on nothing is granted, also if the next line fails.
        self._gate.recovery = self._gate.recovery or "begins"
        id_ = RECOVERY_PREFIX + self._rng.id()
        await self._closed(await self._store.enter_recovery(self._tenant, id_, evidence, self._clock.now()))

    async def _closed(self, recovery: Recovery) -> None:
        self._gate.recovery = recovery.id
        self._reconcile()
        ended = await self._store.burn_open(self._tenant, self._clock.now())
        log.error(
            "recovery mode: nothing is granted until two people release it",
            recovery=recovery.id,
            witness=recovery.evidence.witness,
            why=recovery.evidence.why,
            tasks_ended=ended,
            hint="broker recovery show; docs/audit.md says what to look at first",
        )


class RecoveryDesk:
    """What people do about it."""

    def __init__(
        self,
        store: TrailStore,
        gate: Gate,
        fresh: FreshLogins,
        clock: Clock,
        *,
        reconcile: Callable[[], None] = lambda: None,
    ) -> None:
        self._reconcile = reconcile
        self._store = store
        self._gate = gate
        self._fresh = fresh
        self._clock = clock

    async def show(self, caller: OperatorCaller) -> Recovery | None:
        """The one that is open, or else the last one."""
        return await self._store.recovery(caller.tenant)

    async def release(
        self, caller: OperatorCaller, recovery_id: str, request_id: str, reason: str, *, fresh_id_token: str
    ) -> Recovery:
        """One person's word, each by a login for exactly this; the second one's opens the gate.

        Raises WrongState (NOT_IN_RECOVERY), :class:`Denied` (SECOND_PERSON_REQUIRED, FRESH_LOGIN_*) or
        :class:`Unauthenticated` (ID_TOKEN_*).
        """
        refuse_blank("reason", reason)
        fields = {"recovery_id": recovery_id, "reason": reason}
        # Its id is random: nobody can have logged in for it before it was there.
        proof = self._fresh.demand(caller, fresh_id_token, RELEASE_RECOVERY, fields, about=recovery_id)
        word = Lifting(
            tenant=caller.tenant,
            id=recovery_id,
            request_id=request_id,
            by=caller.id,
            name=caller.operator.person.display_name,
            reason=reason,
            now=self._clock.now(),
            proof=proof,
        )
        recovery = await self._store.release_recovery(word)
        if not recovery.open:
            self._gate.recovery = ""
            self._reconcile()
        return recovery
