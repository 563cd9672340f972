"""Step: an emergency. A person passes over approval, everybody is told, and what is not reviewed blocks the next."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from broker.api import convert
from broker.api.v1 import break_glass_pb2 as pb
from broker.approval.intent_digest import BREAK_GLASS, REVIEW_BREAK_GLASS
from broker.breakglass.intent import review_fields, use_fields
from broker.cli.demo.database import enter, turned_away
from broker.cli.demo.later import LaterInstance
from broker.cli.demo.narrator import failed, refusal
from broker.cli.demo.world import CHANGE_PRODUCTION, World
from broker.client import Decision, Grant, Lease, read
from broker.errors import Reason
from broker.issuance.break_glass_order import BreakGlassOrder

_TTL = timedelta(minutes=10)
_SECONDS = 20.0
_ORDER = BreakGlassOrder(
    request_id="demo-emergency",
    template=CHANGE_PRODUCTION.template,
    account=CHANGE_PRODUCTION.account,
    environment=CHANGE_PRODUCTION.environment,
    resource=CHANGE_PRODUCTION.resource,
    ttl=_TTL,
    reason="Checkout is down: orders are locked.",
    incident="INC-4711",
)


async def glass_is_broken(world: World) -> None:
    """A person of a pre-authorised group gets in now; a day later, unreviewed, nobody of that group does."""
    tell, kim = world.tell, world.person("kim")
    error = await refusal(_use(world, "kim"), Reason.BREAK_GLASS_NOT_ALLOWED, "an emergency of the wrong group")
    tell.checked(bool(error.message), f"Kim would: {error.reason}: {error.message}")
    grant = world.keep_secret(await _use(world, "sam"))
    badge = grant.lease.break_glass
    tell.checked(
        badge is not None and badge.incident == _ORDER.incident,
        "Sam of operations logs in for exactly this and gets a credential for production. Nobody was asked; the lease"
        f" wears a badge: break-glass by {badge.person_name if badge else ''}, {_ORDER.incident}.",
    )
    async with await enter(grant.conninfo()) as session:
        changed = await session.execute("UPDATE orders SET state = state")
    tell.checked(changed.rowcount > 0, f"The login changes {changed.rowcount} rows of production.")
    await _tell_who_was_told(world, grant.lease.id)
    ended = await kim.call("EndBreakGlass", pb.EndBreakGlassRequest(lease_id=grant.lease.id, wait={"seconds": 20}))
    words = await turned_away(grant.conninfo())
    tell.checked(
        words is not None and read.read(Lease, ended.lease).state == "REVOKED",
        f"Kim ends it with one command: {words}.",
    )
    fields = review_fields(grant.lease.id, "All was well.")
    own = pb.ReviewBreakGlassRequest(
        request_id=kim.new_id(),
        lease_id=grant.lease.id,
        findings="All was well.",
        fresh_id_token=world.fresh_login("sam", REVIEW_BREAK_GLASS, fields),
    )
    reviewing = world.person("sam").call("ReviewBreakGlass", own)
    error = await refusal(reviewing, Reason.REVIEW_OF_ONES_OWN, "a review of one's own")
    tell.checked(bool(error.message), f"Sam would review it himself: {error.reason}: {error.message}")
    await _a_day_later(world, grant.lease.id)


async def _use(world: World, key: str) -> Grant:
    person, asked = world.person(key), _ORDER
    said = use_fields(
        template=asked.template,
        parameters={},
        account=asked.account,
        environment=asked.environment,
        resource=asked.resource,
        ttl=asked.ttl,
        reason=asked.reason,
        incident=asked.incident,
        task_id="",
        agent="",
        plan="",
    )
    request = pb.BreakGlassRequest(
        request_id=person.new_id(),
        template=asked.template,
        account=asked.account,
        environment=asked.environment,
        resource=asked.resource,
        ttl={"seconds": int(asked.ttl.total_seconds())},
        reason=asked.reason,
        incident=asked.incident,
        fresh_id_token=world.fresh_login(key, BREAK_GLASS, said),
    )
    answer = await person.call("BreakGlass", request)
    confirm = pb.ConfirmBreakGlassRequest(lease_id=answer.lease.id, attempt_id=answer.lease.attempt_id)
    lease = read.read(Lease, await person.call("ConfirmBreakGlass", confirm))
    return Grant(lease, read.credential(answer.credential), read.read(Decision, answer.decision))


async def _tell_who_was_told(world: World, lease_id: str) -> None:
    """The signed webhook, as it came."""

    def wanted(event: dict[str, Any]) -> bool:
        return str(event["type"]).endswith(".break_glass.used") and bool(event["subject"] == lease_id)

    event = None if world.receiver is None else await world.receiver.event(wanted, _SECONDS)
    if event is None:
        failed("nobody was told that glass was broken.")
    details = event["data"]["details"]
    names = [each["name"] for each in details["told"]]
    world.tell.checked(
        "Kim Adeyemi" in names and details["incident"] == _ORDER.incident,
        f"Everybody who would have approved is told at once, by a signed webhook: {', '.join(names)}.",
    )


async def _a_day_later(world: World, lease_id: str) -> None:
    tell = world.tell
    async with LaterInstance(world, timedelta(hours=24, minutes=5)) as later:
        tell.told("A test instance of the broker, on a copy of the ledger: its clock is a day ahead.")
        blocked = await later.tick()
        tell.checked(
            blocked.get("operations") == lease_id, "Nobody has reviewed it: overdue is told, and operations is blocked."
        )
        order = replace(_ORDER, request_id="demo-next")
        error = await refusal(later.use("sam", order), Reason.BREAK_GLASS_BLOCKED, "the next emergency, unreviewed")
        tell.checked(bool(error.message), f"Sam breaks glass again: {error.reason}: {error.message}")
        use = await later.review("kim", lease_id, "PostgreSQL's log has one statement, on orders.")
        tell.checked(use.findings is not None, "Kim reviews it, by a login for exactly these findings.")
        grant = world.keep_secret(_as_client(await later.use("sam", order)))
        tell.checked(await turned_away(grant.conninfo()) is None, "Now Sam's next attempt is granted: he is in.")
        ended = await later.end("sam", grant.lease.id, timedelta(seconds=_SECONDS))
        words = await turned_away(grant.conninfo())
        tell.checked(words is not None, f"It is ended ({ended.state}): {words}.")


def _as_client(grant: Any) -> Grant:
    """A grant of the inside as the SDK shows one."""
    if grant.lease is None or grant.credential is None:
        failed("nothing was granted.")
    decision = read.read(Decision, convert.decision(grant.decision, grant.contract))
    return Grant(read.read(Lease, convert.lease(grant.lease)), grant.credential, decision)
