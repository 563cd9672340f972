"""``broker requests``: what you asked for that people must agree to first."""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.connection import run
from broker.cli.delivery import choose
from broker.cli.output import clock, format_option, print_json, print_record, table
from broker.cli.request import delivered, tell_grant
from broker.client import AccessRequest
from broker.clock import SystemClock


@click.group()
def requests() -> None:
    """What you asked for that people must agree to first."""


@requests.command("list")
@click.option("--open", "open_only", is_flag=True, help="Only those that wait, or are approved and not redeemed.")
@format_option("text", "json")
def list_(open_only: bool, form: str) -> None:
    """List your access requests, newest first."""
    found = run(lambda client: client.access_requests(open_only=open_only))
    if form == "json":
        print_json(found)
        return
    click.echo(
        table(
            [(each.id, each.template, each.account, each.resource, request_state(each)) for each in found],
            ("REQUEST", "TEMPLATE", "ACCOUNT", "RESOURCE", "STATE"),
        )
    )


@requests.command()
@click.argument("access_request_id", metavar="REQUEST")
@format_option("text", "json", "env")
def show(access_request_id: str, form: str) -> None:
    """Show one of your access requests."""
    _show(run(lambda client: client.access_request(access_request_id)), form)


@requests.command()
@click.argument("access_request_id", metavar="REQUEST")
@format_option("text", "json", "env")
def withdraw(access_request_id: str, form: str) -> None:
    """Take one of your access requests back."""
    _show(run(lambda client: client.withdraw(access_request_id)), form)


@requests.command()
@click.argument("access_request_id", metavar="REQUEST")
@click.option("--request-id", default="", help="The same id again replaces the credential; another one is refused.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Into this file: new, mode 0600.")
@click.option("--fd", type=int, metavar="N", help="Into this open descriptor, which is closed then.")
@click.option("--reveal", is_flag=True, help="Print the secret on standard output.")
@format_option("env", "json", "text")
def redeem(access_request_id: str, request_id: str, out: Path | None, fd: int | None, reveal: bool, form: str) -> None:
    """Turn an approved access request into its credential, once. Its time begins now.

    It goes where `broker request` would put it.
    """
    delivery = choose(out, fd, reveal=reveal)
    try:
        grant = run(
            lambda client: delivered(
                client, client.redeem(access_request_id, request_id=request_id, confirm=False), delivery, form
            )
        )
    except BaseException:
        delivery.discard()
        raise
    tell_grant(grant, form, reveal=reveal)


def _show(request: AccessRequest, form: str) -> None:
    print_record(request, form, "BROKER_REQUEST")
    if form == "text":
        click.echo(request_state(request))


def request_state(request: AccessRequest) -> str:
    """What is true of ``request``, in words."""
    now = SystemClock().now()
    match request.state:
        case "AWAITING_APPROVAL":
            lacks = "; ".join(request.missing)
            return f"AWAITING_APPROVAL until {clock(request.expire_time, now)}: {lacks}"
        case "APPROVED":
            return f"APPROVED: redeem it by {clock(request.redeem_by, now)}"
        case "DENIED":
            return f"DENIED at {clock(request.end_time, now)}{': ' + request.note if request.note else ''}"
        case "REDEEMED":
            return f"REDEEMED as {request.lease_id}"
        case other:
            return f"{other} at {clock(request.end_time, now)}"
