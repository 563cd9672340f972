"""``broker approvals``: people decide on what agents ask for.

Belongs here: showing a request so that its effect comes first and an agent's words are marked as such, and making
sure that who says yes has that request before them: its digest is typed, or given. Every text that comes from the
broker is made inert once more, because a terminal obeys what it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import access_review_pb2 as review_pb
from broker.approval.inert import inert
from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST
from broker.cli.admin import AdminSettings, admin_options, run_admin, run_fresh
from broker.cli.output import clock, format_option, print_json, table
from broker.cli.person import How, login_options
from broker.cli.requests import request_state
from broker.client import AccessRequest, RevocationContract, read
from broker.client.admin import AdminClient
from broker.clock import SystemClock
from broker.errors import Conflict, Reason

# So many characters of a digest are typed: 48 bits, which nobody makes two requests collide in within minutes.
TYPED = 12
_PAGE = 500


@click.group()
def approvals() -> None:
    """Decide on what agents ask for that needs a person's yes."""


@approvals.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@admin_options
@format_option("text", "json")
def list_(admin: AdminSettings, everything: bool, form: str) -> None:
    """List the requests that are open, newest first."""
    found = run_admin(admin, lambda client: _list(client, open_only=not everything))
    if form == "json":
        print_json(found)
        return
    rows = [(each.id, each.holder, each.template, each.account, inert(each.resource), _state(each)) for each in found]
    click.echo(table(rows, ("REQUEST", "AGENT", "TEMPLATE", "ACCOUNT", "RESOURCE", "STATE")))


@approvals.command()
@click.argument("access_request_id", metavar="REQUEST")
@admin_options
@format_option("text", "json")
def show(admin: AdminSettings, access_request_id: str, form: str) -> None:
    """Show everything that is needed to decide on a request."""
    review = run_admin(admin, lambda client: _review(client, access_request_id))
    if form == "json":
        print_json(_data(review))
    else:
        click.echo("\n".join(_page(review)))


@approvals.command()
@click.argument("access_request_id", metavar="REQUEST")
@click.option("--digest", default="", metavar="HEX", help=f"Of what you looked at: {TYPED} characters of it, or all.")
@click.option("--approval", default="", metavar="NAME", help="Which approval your yes counts for.")
@click.option("--note", default="", help="Kept in the audit trail.")
@login_options
@admin_options
def approve(admin: AdminSettings, how: How, access_request_id: str, digest: str, approval: str, note: str) -> None:
    """Say yes to a request, exactly as it is shown.

    Shows it and asks for the first characters of its digest; with --digest, they were taken from `show` before.
    There is no way to say yes to what was not looked at. Then you log in once more, for exactly this.
    """
    review = run_admin(admin, lambda client: _review(client, access_request_id))
    seen = _seen(review, access_request_id, digest)
    fields = {"access_request_id": access_request_id, "digest": seen}

    async def say_yes(client: AdminClient, fresh_id_token: str) -> AccessRequest:
        request = review_pb.ApproveAccessRequestRequest(
            **fields, approval=approval, note=note, request_id=client.new_id(), fresh_id_token=fresh_id_token
        )
        return read.read(AccessRequest, await client.call("ApproveAccessRequest", request))

    told = run_fresh(admin, how, APPROVE_ACCESS_REQUEST, fields, say_yes)
    click.echo(f"{told.id}  {_state(told)}")


@approvals.command()
@click.argument("access_request_id", metavar="REQUEST")
@click.option("--note", default="", help="The agent reads it.")
@admin_options
def deny(admin: AdminSettings, access_request_id: str, note: str) -> None:
    """Say no to a request. One no is enough, and final; it also takes an approval back that is not redeemed yet."""
    told = run_admin(admin, lambda client: _deny(client, access_request_id, note))
    click.echo(f"{told.id}  {_state(told)}")


async def _list(client: AdminClient, *, open_only: bool) -> list[AccessRequest]:
    found: list[AccessRequest] = []
    request = requests_pb.ListAccessRequestsRequest(page_size=_PAGE, open_only=open_only)
    while True:
        page = await client.call("ListAccessRequests", request)
        found.extend(read.read(AccessRequest, each) for each in page.access_requests)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def _review(client: AdminClient, access_request_id: str) -> review_pb.AccessReview:
    request = requests_pb.GetAccessRequestRequest(access_request_id=access_request_id)
    review: review_pb.AccessReview = await client.call("GetAccessRequest", request)
    return review


def _seen(review: review_pb.AccessReview, access_request_id: str, digest: str) -> str:
    """The whole digest, which the person has before them. Raises :class:`Conflict`."""
    whole = str(review.access_request.digest)
    if not digest:
        click.echo("\n".join(_page(review)), err=True)
        digest = click.prompt(f"To approve, type the first {TYPED} characters of its digest", err=True)
    _check_seen(digest, whole, access_request_id)
    return whole


def _check_seen(typed: str, whole: str, access_request_id: str) -> None:
    typed = typed.strip().lower().removeprefix("sha256:")
    if len(typed) < TYPED or not whole.startswith(typed):
        raise Conflict(
            Reason.APPROVAL_DIGEST_MISMATCH,
            f"that is not the digest of access request {access_request_id}; nothing was approved.",
            hint=f"Give {TYPED} characters or more of the digest that `broker approvals show` prints.",
        )


async def _deny(client: AdminClient, access_request_id: str, note: str) -> AccessRequest:
    review = await _review(client, access_request_id)
    request = review_pb.DenyAccessRequestRequest(
        access_request_id=access_request_id,
        digest=review.access_request.digest,
        note=note,
        request_id=client.new_id(),
    )
    return read.read(AccessRequest, await client.call("DenyAccessRequest", request))


def _state(request: AccessRequest) -> str:
    return inert(request_state(request))


def _page(review: review_pb.AccessReview) -> Iterator[str]:
    """A review for people: the effect first, then who is behind it, then what is only claimed."""
    request = read.read(AccessRequest, review.access_request)
    yield f"{request.id}  {_state(request)}"
    yield f"digest  {request.digest[:TYPED]} {request.digest[TYPED:]}"
    if review.obstacle:
        yield f"IT CANNOT BE APPROVED: {inert(review.obstacle)}"
    yield from _section("What the credential will be able to do", review.effect)
    yield from _section(
        "Who asks",
        [
            f"agent {review.principal} ({request.holder}), tier {review.tier}: {review.agent_description}",
            f"owner {review.owner}",
            f"task {request.task_id}",
        ],
    )
    yield from _section("Why it needs a person", [f"policies {', '.join(request.policies)}"])
    yield from _section("Still missing", review.missing or ["nothing"])
    yield from _section("Votes", [_vote(each) for each in review.votes] or ["none"])
    yield from _section("May not approve", review.barred)
    claims = [f"{each.name}: {each.text}" for each in review.claims]
    yield from _section("CLAIMED by the agent or the task's creator; nobody has checked it", claims)
    if review.plan:
        yield from _section("CLAIMED: the plan", [review.plan])
    if review.plan_diff_base and review.plan:
        diff = review.plan_diff or "no difference"
        yield from _section(f"The plan against the last approved one, of {review.plan_diff_base}", [diff])


def _section(title: str, texts: object) -> Iterator[str]:
    lines = [line for text in list(texts) for line in str(text).split("\n")]  # type: ignore[call-overload]
    if lines:
        yield ""
        yield title
        # Each line of a text begins with a bar, so that none of it looks like the broker's own.
        yield from (f"  | {inert(line)}" for line in lines)


def _vote(vote: review_pb.ApprovalVote) -> str:
    when = clock(read.moment(vote.vote_time), SystemClock().now())
    answer = f"yes, for {vote.approval}" if vote.yes else "no"
    counted = "" if vote.counts else " (does not count any more)"
    said = f": {vote.note}" if vote.note else ""
    return f"{answer}{counted}, by {vote.display_name} ({vote.person}) at {when}, {vote.authenticated_by}{said}"


def _data(review: review_pb.AccessReview) -> dict[str, object]:
    return {
        "accessRequest": read.read(AccessRequest, review.access_request),
        "effect": list(review.effect),
        "contract": read.read(RevocationContract, review.contract) if review.HasField("contract") else None,
        "principal": review.principal,
        "agentDescription": review.agent_description,
        "tier": review.tier,
        "owner": review.owner,
        "claims": [{"name": each.name, "text": each.text} for each in review.claims],
        "plan": review.plan,
        "planDiff": review.plan_diff,
        "planDiffBase": review.plan_diff_base,
        "votes": [
            {
                "person": each.person,
                "displayName": each.display_name,
                "yes": each.yes,
                "approval": each.approval,
                "authenticatedBy": each.authenticated_by,
                "note": each.note,
                "voteTime": read.moment(each.vote_time),
                "counts": each.counts,
            }
            for each in review.votes
        ],
        "missing": list(review.missing),
        "barred": list(review.barred),
        "obstacle": review.obstacle,
    }
