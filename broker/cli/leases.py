"""``broker leases list|get|watch`` and ``broker revoke``."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import click

from broker.cli import contracts
from broker.cli.connection import run
from broker.cli.lease_review import review
from broker.cli.leases_forget import forget
from broker.cli.output import clock, format_option, lease_state, print_json, print_record, table, to_json
from broker.cli.task import wait_option
from broker.client import AsyncClient, Lease
from broker.clock import SystemClock


@click.group()
def leases() -> None:
    """Your leases: what you hold, held, and what became of it. For operators: those of all agents, reviewed."""


leases.add_command(review)


@leases.command("list")
@click.option("--task", "task_id", default="", metavar="TASK", help="Only those of this task.")
@click.option("--living", is_flag=True, help="Only those that may still be alive.")
@format_option("text", "json")
def list_(task_id: str, living: bool, form: str) -> None:
    """List your leases, newest first."""
    found = run(lambda client: client.leases(task_id=task_id, living_only=living))
    if form == "json":
        print_json(found)
        return
    now = SystemClock().now()
    rows = [
        (each.id, each.task_id, each.template, each.resource, each.contract_class, lease_state(each, now))
        for each in found
    ]
    click.echo(table(rows, ("LEASE", "TASK", "TEMPLATE", "RESOURCE", "ENDS", "STATE")))


@leases.command()
@click.argument("lease_id", metavar="LEASE")
@format_option("text", "json", "env")
def get(lease_id: str, form: str) -> None:
    """Show one of your leases."""
    show(run(lambda client: client.lease(lease_id)), form)


def show(lease: Lease, form: str) -> None:
    """One lease: its facts and, for people, what is true of it."""
    if form != "text":
        print_record(lease, form, "BROKER_LEASE")
        return
    print_record(replace(lease, contract=None), form, "BROKER_LEASE")
    for line in contracts.lines(lease.contract) if lease.contract else ():
        click.echo(line)
    click.echo(lease_state(lease, SystemClock().now()))


@leases.command()
@click.option(
    "--after",
    type=click.IntRange(min=-1),
    default=-1,
    show_default=True,
    metavar="SEQUENCE",
    help="0: from the beginning; -1: from now on; else from the last sequence seen.",
)
@format_option("text", "json")
def watch(after: int, form: str) -> None:
    """Follow your leases until interrupted; one line (one JSON object) for each event.

    Broken connections are resumed where they broke. If the broker no longer has what is in between, it says so and
    ends: list the leases then, and watch from now on.
    """
    run(lambda client: _watch(client, after, form))


async def _watch(client: AsyncClient, after: int, form: str) -> None:
    async for event in client.watch(after_sequence=after):
        if form == "json":
            click.echo(json.dumps(to_json(event), ensure_ascii=False))
            continue
        now = SystemClock().now()
        state = lease_state(event.lease, now) if event.lease else ""
        name = event.lease.id if event.lease else ""
        click.echo(f"{event.sequence}  {clock(event.event_time, now)}  {event.type}  {name}  {state}")


@click.command()
@click.argument("lease_id", metavar="LEASE")
@wait_option
@format_option("text", "json", "env")
def revoke(lease_id: str, wait: timedelta, form: str) -> None:
    """End one of your leases now, and tell what is proven of its end."""
    lease = run(lambda client: client.revoke(lease_id, wait=wait))
    if form == "text":
        click.echo(f"{lease.id}  {lease_state(lease, SystemClock().now())}")
    else:
        show(lease, form)


leases.add_command(forget)
