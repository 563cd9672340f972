"""``broker break-glass review`` and ``override``: what somebody else does about an emergency."""

from __future__ import annotations

import click

from broker.api.v1 import break_glass_pb2 as pb
from broker.approval.inert import inert
from broker.approval.intent_digest import REVIEW_BREAK_GLASS
from broker.breakglass.intent import OVERRIDE_BREAK_GLASS, override_fields, review_fields
from broker.cli.admin import AdminSettings, admin_options, run_fresh
from broker.cli.output import clock, format_option, print_json
from broker.cli.person import How, login_options
from broker.cli.values import Text
from broker.client import read
from broker.client.admin import AdminClient
from broker.clock import SystemClock


@click.command()
@click.argument("lease_id", metavar="LEASE")
@click.option("--findings", required=True, type=Text(), metavar="TEXT|@FILE", help="What you looked at, and found.")
@click.option("--request-id", default="", help="The same id and content again changes nothing more.")
@login_options
@admin_options
def review(lease_id: str, findings: str, request_id: str, how: How, admin: AdminSettings) -> None:
    """Record what a use of break-glass was. Not your own, nor one for an agent of yours.

    Look first: broker break-glass show LEASE, and broker audit show. You log in for exactly these findings.
    """
    request = pb.ReviewBreakGlassRequest(request_id=request_id, lease_id=lease_id, findings=findings)

    async def work(client: AdminClient, token: str) -> pb.BreakGlassUse:
        request.request_id = request.request_id or client.new_id()
        request.fresh_id_token = token
        answer: pb.BreakGlassUse = await client.call("ReviewBreakGlass", request)
        return answer

    use = run_fresh(admin, how, REVIEW_BREAK_GLASS, review_fields(lease_id, findings), work)
    click.echo(f"{lease_id}  reviewed by {inert(use.reviewer_name)}")


@click.command()
@click.argument("kind", metavar="suspension|review", type=click.Choice(("suspension", "review"), case_sensitive=False))
@click.argument("subject", metavar="SUSPENSION|GROUP")
@click.option("--for", "whom", required=True, metavar="PERSON", help="Whose next break-glass: a key of people.yaml.")
@click.option("--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="Why it may be passed over.")
@click.option("--request-id", default="", help="The same id and content again changes nothing more.")
@login_options
@admin_options
@format_option("text", "json")
def override(
    kind: str, subject: str, whom: str, reason: str, request_id: str, how: How, admin: AdminSettings, form: str
) -> None:
    """Let somebody else pass over a suspension, or over an overdue review, once, within the hour.

    \b
    broker break-glass override suspension susp-... --for sam --reason ...    you and sam: two people
    broker break-glass override review operations --for sam --reason ...      two people beside sam
    """
    request = pb.OverrideBreakGlassRequest(
        request_id=request_id, kind=f"KIND_{kind.upper()}", subject=subject, person=whom, reason=reason
    )

    async def work(client: AdminClient, token: str) -> pb.OverrideBreakGlassResponse:
        request.request_id = request.request_id or client.new_id()
        request.fresh_id_token = token
        answer: pb.OverrideBreakGlassResponse = await client.call("OverrideBreakGlass", request)
        return answer

    fields = override_fields(kind.upper(), subject, whom, reason)
    given = run_fresh(admin, how, OVERRIDE_BREAK_GLASS, fields, work)
    if form == "json":
        print_json(
            {
                "overrideId": given.override_id,
                "by": list(given.by),
                "needed": given.needed,
                "expireTime": read.moment(given.expire_time),
            }
        )
        return
    until = clock(read.moment(given.expire_time), SystemClock().now())
    lacking = given.needed - len(given.by)
    told = f"{lacking} more has to say so" if lacking > 0 else f"{inert(whom)} can break glass"
    click.echo(f"{given.override_id}  {len(given.by)} of {given.needed}: {told}; good until {until}")
