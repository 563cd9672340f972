"""AdminService: recovery, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from typing import Any

from broker.api import convert
from broker.api.v1 import recovery_pb2 as pb
from broker.issuance.caller import OperatorCaller
from broker.issuance.recovering import RecoveryDesk
from broker.ports.trail import Recovery

_STATES = pb.Recovery


class RecoveryRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: RecoveryDesk) -> None:
        self._desk = desk

    async def GetRecovery(
        self, request: pb.GetRecoveryRequest, caller: OperatorCaller, context: Any
    ) -> pb.GetRecoveryResponse:
        """The one that is open, or else the last one."""
        found = await self._desk.show(caller)
        return pb.GetRecoveryResponse(recovery=None if found is None else told(found))

    async def ReleaseRecovery(
        self, request: pb.ReleaseRecoveryRequest, caller: OperatorCaller, context: Any
    ) -> pb.ReleaseRecoveryResponse:
        """End it, or be the first to."""
        found = await self._desk.release(
            caller, request.recovery_id, request.request_id, request.reason, fresh_id_token=request.fresh_id_token
        )
        return pb.ReleaseRecoveryResponse(recovery=told(found))


def told(recovery: Recovery) -> pb.Recovery:
    """As the wire has it."""
    evidence, first, released = recovery.evidence, recovery.first, recovery.released
    return pb.Recovery(
        id=recovery.id,
        state=_state(recovery),
        enter_time=convert.timestamp(recovery.entered_at),
        witness=evidence.witness,
        why=evidence.why,
        evidence=evidence.note,
        witnessed_records=evidence.count,
        ledger_records=recovery.ledger_count,
        first_released_by=first.by if first else "",
        first_reason=first.reason if first else "",
        released_by=released.by if released else "",
        reason=released.reason if released else "",
        release_time=convert.timestamp(released.at) if released else None,
    )


def _state(recovery: Recovery) -> pb.Recovery.State:
    if not recovery.trusted:
        return _STATES.STATE_TAMPERED
    if not recovery.open:
        return _STATES.STATE_RELEASED
    return _STATES.STATE_OPEN if recovery.first is None else _STATES.STATE_RELEASE_BEGUN
