"""Step: an AWS session, whose deadline is inside its own policy, and what completing it can and cannot do."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

from boto3.session import Session
from botocore.config import Config

from broker.cli.demo.database import seconds_until
from broker.cli.demo.narrator import failed
from broker.cli.demo.world import READ_REPORT, World
from broker.cli.output import lease_state
from broker.client import Lease
from broker.dev.aws_double import DISCLAIMER
from broker.lease.credential import AwsSession

_TTL = timedelta(seconds=6)
_BUCKET_DAY = f"arn:aws:s3:::{READ_REPORT.resource}/{READ_REPORT.parameters['day']}/*"


async def aws_session(world: World) -> None:
    """An STS session with its policy shown; completed, it is REVOKING until its deadline, and not called revoked."""
    tell, reporter = world.tell, world.agent("reporter")
    tell.told(DISCLAIMER)
    async with reporter.task("sum up the day", wait=timedelta()) as task:
        grant = await world.ask(reporter, READ_REPORT, task.id, _TTL)
        session, ends = grant.aws, _end_of(grant.lease)
        who = await asyncio.to_thread(_caller, world.facts.aws.endpoint, session)
        tell.checked(
            who == session.assumed_role_arn and who.endswith(f"/{grant.lease.attempt_id}"),
            f"The keys work: STS says they are {who}. The session is named after the broker's attempt.",
        )
        policy_is_narrow(world, session, ends)
    if task.outcome is None:
        failed("the task was not completed.")
    (completed,) = task.outcome.leases
    tell.checked(
        completed.state == "REVOKING" and world.clock.now() < ends,
        f"The task is completed, and the lease is not called revoked: {lease_state(completed, world.clock.now())}.",
        f"the completed lease is {completed.state}.",
    )
    await expires(world, grant.lease.id, ends)


def policy_is_narrow(world: World, session: AwsSession, ends: datetime) -> None:
    """The policy that was sent allows one day's reports, and denies everything from the deadline on."""
    policy = json.loads(session.session_policy)
    allow, *denials = policy["Statement"]
    tell = world.tell
    tell.told(f"The session policy, {len(session.session_policy)} of at most 2048 characters:")
    for statement in policy["Statement"]:
        tell.told(f"  {json.dumps(statement)}")
    tell.checked(
        (allow["Effect"], allow["Action"], allow["Resource"]) == ("Allow", ["s3:GetObject"], [_BUCKET_DAY]),
        "It allows reading the objects of that day, and nothing else.",
    )
    deadline = {"DateGreaterThanEquals": {"aws:CurrentTime": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}}
    tell.checked(
        any(_denies(each, "*") and each.get("Condition") == deadline for each in denials),
        f"It denies everything from {ends:%H:%M:%S} on: {_TTL.total_seconds():g} s, where STS grants 900 s at least.",
    )
    tell.checked(
        any(_denies(each, "sts:*") and "Condition" not in each for each in denials),
        "It denies STS: no other session can be made from it.",
    )


def _denies(statement: dict[str, Any], action: str) -> bool:
    return (statement["Effect"], statement["Action"], statement["Resource"]) == ("Deny", action, "*")


async def expires(world: World, lease_id: str, ends: datetime) -> None:
    """The lease is REVOKING until its deadline, then EXPIRED, and at no time REVOKED."""
    seen: list[str] = []

    async def is_over() -> bool:
        lease = await world.agent("reporter").lease(lease_id)
        seen.append(lease.state)
        return not lease.may_be_alive

    left = (ends - world.clock.now()).total_seconds()
    await seconds_until(is_over, left + 5, "the ledger says that the session's time is over")
    late = world.clock.now() - ends
    world.tell.checked(
        set(seen) == {"REVOKING", "EXPIRED"} and late >= timedelta(),
        f"It stayed REVOKING until the deadline and then became EXPIRED ({len(seen)} looks). It was never REVOKED.",
        f"the lease went through {sorted(set(seen))}, {late.total_seconds():.1f} s after its deadline.",
    )


def _end_of(lease: Lease) -> datetime:
    return lease.expire_time or failed("the lease does not say when it ends.")


def _caller(endpoint: str, session: AwsSession) -> str:
    """What STS says these keys are (GetCallerIdentity needs no permission)."""
    client = Session(
        session.access_key_id, session.secret_access_key.reveal(), session.session_token.reveal(), session.region
    ).client("sts", endpoint_url=endpoint, config=Config(proxies={}, connect_timeout=5, read_timeout=10))
    return str(client.get_caller_identity()["Arn"])
