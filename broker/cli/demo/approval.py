"""Step: a change of production waits for a person, whose yes is good for one credential and no more."""

from __future__ import annotations

from dataclasses import replace

from broker.api.v1 import access_review_pb2 as pb
from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST
from broker.cli.demo.database import enter, turned_away
from broker.cli.demo.narrator import failed, refusal
from broker.cli.demo.world import CHANGE_PRODUCTION, World
from broker.client import AccessRequest, ApprovalNeeded, AsyncClient, read
from broker.errors import Reason

_ASKED_FOR = "approval of what the agent itself answers for"


async def people_approve_it(world: World) -> None:
    """Nothing is issued before a person says yes; one yes is one credential; the agent's owner cannot give it."""
    tell, releaser = world.tell, world.agent("releaser")
    before = await world.database.logins()
    async with releaser.task("refund returned orders", ticket=CHANGE_PRODUCTION.ticket) as task:
        filed = await _filed(world, releaser, task.id)
        tell.checked(
            filed.state == "AWAITING_APPROVAL" and await world.database.logins() == before,
            f"Policy {', '.join(filed.policies)}: the request waits for people. No lease, no PostgreSQL login.",
        )
        await refusal(releaser.redeem(filed.id), Reason.ACCESS_REQUEST_PENDING, "redeeming it unapproved")
        error = await refusal(_approve(world, "dana", filed), Reason.SELF_APPROVAL, _ASKED_FOR)
        tell.checked(bool(error.message), f"Dana owns the agent and may not say yes: {error.reason}: {error.message}")
        other = replace(filed, digest=f"{int(filed.digest, 16) ^ 1:064x}")
        error = await refusal(_approve(world, "kim", other), Reason.APPROVAL_DIGEST_MISMATCH, "a yes to something else")
        unproven = _approve(world, "kim", filed, logged_in_for_it=False)
        error = await refusal(unproven, Reason.FRESH_LOGIN_REQUIRED, "a yes by somebody who is merely logged in")
        tell.checked(
            bool(error.metadata["nonce"]),
            f"Kim is logged in, and that is not enough: {error.reason}. A yes takes a login for exactly this request.",
        )
        approved = await _approve(world, "kim", filed)
        tell.checked(
            approved.state == "APPROVED",
            f"Kim logs in for exactly this request (digest {filed.digest[:12]}) and says yes.",
        )
        grant = world.keep_secret(await releaser.redeem(filed.id))
        async with await enter(grant.conninfo()) as session:
            changed = await session.execute("UPDATE orders SET state = state")
        tell.checked(changed.rowcount > 0, f"The agent redeems it: its login changes {changed.rowcount} rows.")
        error = await refusal(releaser.redeem(filed.id), Reason.ACCESS_REQUEST_REDEEMED, "redeeming it again")
        tell.checked(
            len(await world.database.logins() - before) == 1,
            f"The second time it is refused: {error.reason}. One yes, one login.",
        )
    words = await turned_away(grant.conninfo())
    tell.checked(words is not None, f"The task is over: {words}.", "the login still works after its task.")


async def _filed(world: World, releaser: AsyncClient, task_id: str) -> AccessRequest:
    try:
        await world.ask(releaser, CHANGE_PRODUCTION, task_id)
        failed("a write in production was granted without asking anybody.")
    except ApprovalNeeded as needed:
        return needed.access_request


async def _approve(world: World, person: str, filed: AccessRequest, *, logged_in_for_it: bool = True) -> AccessRequest:
    admin = world.person(person)
    fields = {"access_request_id": filed.id, "digest": filed.digest}
    token = world.fresh_login(person, APPROVE_ACCESS_REQUEST, fields) if logged_in_for_it else ""
    request = pb.ApproveAccessRequestRequest(**fields, request_id=admin.new_id(), fresh_id_token=token)
    return read.read(AccessRequest, await admin.call("ApproveAccessRequest", request))
