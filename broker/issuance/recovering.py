"""Recovery: the ledger was found behind a witness, so nothing is granted until two people say so.

What the ledger holds open may have been used, ended or taken back since it was copied. So all of it is ended when
recovery begins; what an upstream holds and the ledger does not know is ended by the sweeps, as after a crash. What two
people have to look at before they release it is in docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from broker.issuance.caller import OperatorCaller
from broker.issuance.gate import Gate
from broker.ports import Clock, Evidence, Lifting, Recovery, Rng, TrailStore

log = structlog.get_logger("broker.recovery")

RECOVERY_PREFIX = "rec-"
# The action that a person's fresh login is for, with these fields: recovery_id, reason.
RELEASE_RECOVERY = "ReleaseRecovery"


class RecoveryDesk:
    """Begins recovery, and what people do about it."""

    def __init__(self, store: TrailStore, gate: Gate, clock: Clock, rng: Rng, tenant: str) -> None:
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
        ended = await self._store.burn_open(self._tenant, self._clock.now())
        log.error(
            "recovery mode: nothing is granted until two people release it",
            recovery=recovery.id,
            witness=recovery.evidence.witness,
            why=recovery.evidence.why,
            tasks_ended=ended,
            hint="broker recovery show; docs/audit.md says what to look at first",
        )

    async def show(self, caller: OperatorCaller) -> Recovery | None:
        """The one that is open, or else the last one."""
        return await self._store.recovery(caller.tenant)

    async def release(
        self, caller: OperatorCaller, recovery_id: str, request_id: str, reason: str, *, fresh_id_token: str
    ) -> Recovery:
        """One person's word; the second one's opens the gate.

        Raises WrongState (NOT_IN_RECOVERY) or Denied (SECOND_PERSON_REQUIRED).
        """
        _demand_fresh_login(caller, fresh_id_token, RELEASE_RECOVERY, {"recovery_id": recovery_id, "reason": reason})
        word = Lifting(
            tenant=caller.tenant,
            id=recovery_id,
            request_id=request_id,
            by=caller.id,
            name=caller.operator.person.display_name,
            reason=reason,
            now=self._clock.now(),
        )
        recovery = await self._store.release_recovery(word)
        if not recovery.open:
            self._gate.recovery = ""
        return recovery


def _demand_fresh_login(caller: OperatorCaller, token: str, action: str, fields: Mapping[str, str]) -> None:
    """Seam: where people log in, this is FreshLogins.demand, whose proof goes into ``Lifting``.

    As long as the people's door takes local credentials, on loopback, whoever has authenticated there is as fresh as
    anybody can be; a token is not looked at.
    """
