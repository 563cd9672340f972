"""AdminService: reconciliation, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from typing import Any

from broker.api import convert
from broker.api.v1 import reconciliation_pb2 as pb
from broker.errors import InvalidInput, Reason
from broker.issuance.caller import OperatorCaller
from broker.issuance.connectors import ConnectorDesk
from broker.ports.orphans import Orphan, OrphanStore
from broker.revocation.reconciler import Reconciled, Reconciler

_PAGE = 100


class ReconciliationRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, connectors: ConnectorDesk, reconciler: Reconciler, store: OrphanStore) -> None:
        self._connectors = connectors
        self._reconciler = reconciler
        self._store = store

    async def RunReconciliation(
        self, request: pb.RunReconciliationRequest, caller: OperatorCaller, context: Any
    ) -> pb.RunReconciliationResponse:
        """One connector, or all of them at once; how many may be swept is said of one alone."""
        if request.sweep and not request.name:
            raise InvalidInput(
                Reason.FIELD_INVALID,
                "sweep says how many of one connector's may be ended, and no connector is named.",
                hint="Name it.",
                metadata={"field": "name"},
            )
        asked = [self._connectors.get(caller, request.name)] if request.name else self._connectors.list(caller)
        done = await self._reconciler.run([each.spec.name for each in asked], caller.id, sweep=request.sweep)
        return pb.RunReconciliationResponse(reconciliations=[_reconciliation(each) for each in done])

    async def ListUnknown(
        self, request: pb.ListUnknownRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListUnknownResponse:
        """A page of what was found."""
        size = request.page_size or _PAGE
        found = await self._store.orphans(caller.tenant, request.page_token, size, living_only=request.living_only)
        token = found[-1].id if len(found) == size else ""
        return pb.ListUnknownResponse(unknown=[_unknown(each) for each in found], next_page_token=token)


def _reconciliation(value: Reconciled) -> pb.Reconciliation:
    return pb.Reconciliation(
        connector=value.connector,
        listed=value.listed,
        found=value.found,
        young=value.young,
        foreign=value.foreign,
        missing=value.missing,
        problem=value.problem,
        braked=value.braked,
    )


def _unknown(value: Orphan) -> pb.UnknownCredential:
    return pb.UnknownCredential(
        id=value.id,
        connector=value.connector,
        name=value.name,
        attempt_id=value.attempt_id,
        why=f"WHY_{value.why}",
        create_time=convert.timestamp(value.created_at),
        find_time=convert.timestamp(value.found_at),
        due_time=None if value.due_at is None else convert.timestamp(value.due_at),
        end_time=None if value.ended_at is None else convert.timestamp(value.ended_at),
        outcome="OUTCOME_UNSPECIFIED" if value.outcome is None else f"OUTCOME_{value.outcome}",
        failures=value.failures,
        last_error=value.last_error,
        stuck=value.stuck,
    )
