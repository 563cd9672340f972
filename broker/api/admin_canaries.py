"""AdminService: canaries, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from broker.api import convert
from broker.api.v1 import canaries_pb2 as pb
from broker.canary.canary import Kind
from broker.canary.measurement import Measurement
from broker.issuance.caller import OperatorCaller
from broker.issuance.canaries import Canaries, CanaryStatus

_SHOWN = 20
_WAIT = timedelta(seconds=10)
_KINDS = {pb.CANARY_KIND_ON_REVOKE: Kind.ON_REVOKE, pb.CANARY_KIND_ON_EXPIRY: Kind.ON_EXPIRY}


class CanaryRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries

    async def ListCanaries(
        self, request: pb.ListCanariesRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListCanariesResponse:
        """All of them."""
        return pb.ListCanariesResponse(canaries=[_canary(each) for each in self._canaries.all()])

    async def GetCanary(
        self, request: pb.GetCanaryRequest, caller: OperatorCaller, context: Any
    ) -> pb.GetCanaryResponse:
        """One of them, with its runs."""
        status = self._canaries.status(request.connector)
        found = await self._canaries.history(request.connector, _SHOWN)
        return pb.GetCanaryResponse(canary=_canary(status), measurements=[measurement(each) for each in found])

    async def RunCanary(
        self, request: pb.RunCanaryRequest, caller: OperatorCaller, context: Any
    ) -> pb.RunCanaryResponse:
        """A run now; it goes on whether its asker waits or not."""
        wait = convert.duration(request.wait, "wait") if request.HasField("wait") else _WAIT
        status, came_to = await self._canaries.run(
            request.connector, _KINDS.get(request.kind), caller.id, request.request_id, wait
        )
        return pb.RunCanaryResponse(
            canary=_canary(status), measurement=None if came_to is None else measurement(came_to)
        )


def measurement(value: Measurement) -> pb.CanaryMeasurement:
    """As the wire has it."""
    return pb.CanaryMeasurement(
        id=value.id,
        connector=value.connector,
        kind=f"CANARY_KIND_{value.kind}",
        outcome=f"OUTCOME_{value.outcome}",
        measured=None if value.measured is None else convert.to_duration(value.measured),
        at_least=None if value.at_least is None else convert.to_duration(value.at_least),
        bound=convert.to_duration(value.bound),
        begin_time=convert.timestamp(value.began_at),
        since_time=None if value.since is None else convert.timestamp(value.since),
        confirm_time=None if value.confirmed_at is None else convert.timestamp(value.confirmed_at),
        tell_time=convert.timestamp(value.told_at),
        lease_id=value.lease_id,
        looks=value.looks,
        asked_by=value.by,
        why=value.why,
    )


def _canary(value: CanaryStatus) -> pb.Canary:
    canary = value.canary
    return pb.Canary(
        connector=canary.connector,
        contract=None if value.contract is None else convert.contract(value.contract, value.measured),
        template=canary.template,
        ttl=convert.to_duration(canary.ttl),
        every=convert.to_duration(canary.every),
        running=[f"CANARY_KIND_{kind}" for kind in value.running],
        measured=[measurement(value.measured[kind]) for kind in Kind if kind in value.measured],
        newest=[measurement(value.newest[kind]) for kind in Kind if kind in value.newest],
    )
