"""Step: the broker measures its own promise. It uses a credential of its own after its end, until it is refused."""

from __future__ import annotations

import asyncio

from broker.api.v1 import canaries_pb2 as pb
from broker.api.v1 import connectors_pb2
from broker.cli.demo.narrator import StepFailed
from broker.cli.demo.world import World

_CONNECTOR = "openbao-orders"
_TRIES = 40


async def contract_is_measured(world: World) -> None:
    """One canary, on OpenBao and PostgreSQL: issued, used, revoked, used until refused; the contract shows it."""
    tell, sam = world.tell, world.person("sam")
    found = await _measured(world)
    if found.outcome != pb.CanaryMeasurement.OUTCOME_WITHIN:
        raise StepFailed(f"the canary came to {pb.CanaryMeasurement.Outcome.Name(found.outcome)}: {found.why}")
    measured, bound = found.measured.ToTimedelta(), found.bound.ToTimedelta()
    tell.checked(
        measured <= bound,
        f"The broker issues a login to itself, logs in, revokes it, and logs in until PostgreSQL refuses: at most"
        f" {measured.total_seconds() * 1000:.0f} ms after the revocation. The contract promises"
        f" {bound.total_seconds():g} s.",
    )
    shown = await sam.call("GetConnector", connectors_pb2.GetConnectorRequest(name=_CONNECTOR))
    tell.checked(
        shown.contract.measured_on_revoke == found.measured,
        "Whoever looks at the connector's contract sees what was measured, and when.",
    )


async def _measured(world: World) -> pb.CanaryMeasurement:
    """What a run comes to. One that was due may be under way: then the next one."""
    sam = world.person("sam")
    for _ in range(_TRIES):
        canary = (await sam.call("GetCanary", pb.GetCanaryRequest(connector=_CONNECTOR))).canary
        if pb.CANARY_KIND_ON_REVOKE not in canary.running:
            break
        await asyncio.sleep(0.1)
    request = pb.RunCanaryRequest(request_id=sam.new_id(), connector=_CONNECTOR, kind=pb.CANARY_KIND_ON_REVOKE)
    request.wait.FromSeconds(20)
    answer: pb.RunCanaryResponse = await sam.call("RunCanary", request)
    if not answer.HasField("measurement"):
        raise StepFailed("a canary of 20 s ago still runs.")
    return answer.measurement
