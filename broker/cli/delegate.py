"""``broker delegate`` and ``broker delegations list|revoke``."""

from __future__ import annotations

from datetime import timedelta

import click

from broker.cli.connection import run
from broker.cli.output import clock, format_option, print_json, print_record, table
from broker.cli.values import Pair, Span
from broker.client import Delegation
from broker.clock import SystemClock


@click.command()
@click.argument("lease_id", metavar="LEASE")
@click.argument("to", metavar="SPIFFE-ID")
@click.option("--resource", default="", help="A narrower resource; default: the lease's.")
@click.option("--param", "parameters", multiple=True, type=Pair(), metavar="NAME=VALUE", help="A narrower parameter.")
@click.option("--ttl", type=Span(), help="For how long; default: until the lease ends.")
@click.option("--further", type=click.IntRange(min=0), default=0, show_default=True, help="May be handed on so often.")
@click.option("--request-id", default="", help="The same id and content again: the same delegation.")
@format_option("text", "json", "env")
def delegate(
    lease_id: str,
    to: str,
    resource: str,
    parameters: tuple[tuple[str, str], ...],
    ttl: timedelta | None,
    further: int,
    request_id: str,
    form: str,
) -> None:
    """Hand a part of a live lease of yours to another agent on its task.

    It redeems it once, by `broker request --delegation DELEGATION`, for a credential of its own, which ends with your
    lease at the latest.
    """
    if len(dict(parameters)) != len(parameters):
        raise click.BadParameter("a parameter is given twice.", param_hint="--param")
    made = run(
        lambda client: client.delegate(
            lease_id,
            to,
            resource=resource,
            parameters=dict(parameters),
            ttl=ttl,
            further=further,
            request_id=request_id,
        )
    )
    print_record(made, form, "BROKER_DELEGATION")


@click.group()
def delegations() -> None:
    """What you handed on, and what was handed to you."""


@delegations.command("list")
@click.option("--task", "task_id", required=True, metavar="TASK", help="On this task.")
@format_option("text", "json")
def list_(task_id: str, form: str) -> None:
    """List what you gave and were given on a task."""
    found = run(lambda client: client.delegations(task_id))
    if form == "json":
        print_json(found)
        return
    rows = [(each.id, each.lease_id, each.resource, _state(each), each.delegate) for each in found]
    click.echo(table(rows, ("DELEGATION", "PART OF", "RESOURCE", "STATE", "DELEGATE")))


def _state(delegation: Delegation) -> str:
    now = SystemClock().now()
    if delegation.revoke_time is not None:
        return f"taken back at {clock(delegation.revoke_time, now)}"
    return f"until {clock(delegation.expire_time, now)} at the latest"


@delegations.command()
@click.argument("delegation_id", metavar="DELEGATION")
@format_option("text", "json", "env")
def revoke(delegation_id: str, form: str) -> None:
    """Take a delegation back; what was issued by it ends now."""
    print_record(run(lambda client: client.revoke_delegation(delegation_id)), form, "BROKER_DELEGATION")
