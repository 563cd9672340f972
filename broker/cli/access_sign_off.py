"""``broker access sign-off``: a person stands for a report that was made with ``broker access report --output``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from broker.api.v1 import access_review_signoff_pb2 as pb
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import moment, note
from broker.cli.values import Text
from broker.client.admin import AdminClient
from broker.entitlement.report import LONGEST, read


@click.command("sign-off")
@click.option(
    "--report",
    "path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The report you have looked at.",
)
@click.option(
    "--findings",
    required=True,
    type=Text(),
    metavar="TEXT|@FILE",
    help="What you found, and what shall follow; it goes into the audit trail.",
)
@click.option("--request-id", default="", help="The same id and content again changes nothing more.")
@admin_options
def sign_off(admin: AdminSettings, path: Path, findings: str, request_id: str) -> None:
    """Stand for an access report: its digest, your name and your findings go into the audit trail.

    The report stays with you: keep it for the next review, which tells what changed since. It must be about the deploy
    set that is in force.
    """
    with path.open("rb") as file:
        report = read(file.read(LONGEST + 1), str(path))
    asked = pb.SignOffAccessReviewRequest(
        request_id=request_id,
        report_digest=report["digest"],
        deploy_digest=report["deploy_digest"],
        findings=findings,
    )
    asked.report_time.FromMilliseconds(report["made_ms"])
    signed = run_admin(admin, lambda client: _signed(client, asked))
    due = f"; the next review is due {_moment(signed.due_time.ToDatetime(UTC))}" if signed.HasField("due_time") else ""
    note(f"Signed off {_moment(signed.sign_off_time.ToDatetime(UTC))}, report {report['digest'][:12]}{due}.")
    if signed.own_agents:
        note(f"You answer for {signed.own_agents} of its agents yourself; the trail says so.")


async def _signed(client: AdminClient, asked: pb.SignOffAccessReviewRequest) -> pb.SignOffAccessReviewResponse:
    asked.request_id = asked.request_id or client.new_id()
    answer: pb.SignOffAccessReviewResponse = await client.call("SignOffAccessReview", asked)
    return answer


def _moment(value: datetime) -> str:
    return moment(value.replace(microsecond=0))
