"""``broker admin leases|lease|revoke``: everybody's leases, for operators."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import click

from broker.api.v1 import admin_view_pb2 as pb
from broker.api.v1 import broker_service_pb2 as service
from broker.approval.inert import inert
from broker.cli import contracts
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.ending import end, end_options
from broker.cli.output import format_option, lease_state, print_json, print_shown, table
from broker.cli.pages import all_of, limit_option
from broker.client import Lease, read
from broker.clock import SystemClock


@click.command()
@click.option("--holder", default="", metavar="ID", help="Only those of this SPIFFE ID, or person (issuer#subject).")
@click.option("--task", "task_id", default="", metavar="TASK", help="Only those of this task.")
@click.option("--template", default="", metavar="NAME", help="Only those by this template.")
@click.option("--living", "living_only", is_flag=True, help="Only those that may still be alive.")
@limit_option
@admin_options
@format_option("text", "json")
def leases(
    admin: AdminSettings, holder: str, task_id: str, template: str, living_only: bool, limit: int, form: str
) -> None:
    """List everybody's leases, newest first."""
    asked = pb.AdminServiceListLeasesRequest(holder=holder, task_id=task_id, template=template, living_only=living_only)
    found = run_admin(admin, lambda client: all_of(client, "ListLeases", asked, "leases", Lease, limit))
    if form == "json":
        print_json(found)
        return
    now = SystemClock().now()
    rows = [
        (each.id, each.holder, each.task_id, each.template, inert(each.resource), inert(lease_state(each, now)))
        for each in found
    ]
    click.echo(table(rows, ("LEASE", "HOLDER", "TASK", "TEMPLATE", "RESOURCE", "STATE")))


@click.command()
@click.argument("lease_id", metavar="LEASE")
@admin_options
@format_option("text", "json")
def lease(admin: AdminSettings, lease_id: str, form: str) -> None:
    """Show one lease, whoever holds it."""
    asked = service.GetLeaseRequest(lease_id=lease_id)
    _show(read.read(Lease, run_admin(admin, lambda client: client.call("GetLease", asked))), form)


@click.command()
@click.argument("lease_id", metavar="LEASE")
@end_options
@admin_options
@format_option("text", "json")
def revoke(admin: AdminSettings, lease_id: str, reason: str, wait: timedelta, request_id: str, form: str) -> None:
    """End one lease now, whoever holds it, and tell what is proven of its end. Repeating it is harmless."""
    asked = pb.AdminServiceRevokeLeaseRequest(lease_id=lease_id)
    answer = run_admin(admin, lambda client: end(client, "RevokeLease", asked, wait, request_id, reason))
    ended = read.read(Lease, answer)
    if form == "json":
        print_json(ended)
    else:
        click.echo(f"{ended.id}  {inert(lease_state(ended, SystemClock().now()))}")


def _show(found: Lease, form: str) -> None:
    if form != "text":
        print_shown(found, form)
        return
    print_shown(replace(found, contract=None), form)
    for line in contracts.lines(found.contract) if found.contract else ():
        click.echo(line)
    click.echo(inert(lease_state(found, SystemClock().now())))
