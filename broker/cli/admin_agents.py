"""``broker admin agents|agent``: the registry in force, and what is alive of it."""

from __future__ import annotations

import click

from broker.api.v1 import admin_view_pb2 as pb
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import format_option, print_json, print_shown, table
from broker.cli.pages import all_of, limit_option
from broker.client import read
from broker.client.model import RegisteredAgent


@click.command()
@limit_option
@admin_options
@format_option("text", "json")
def agents(admin: AdminSettings, limit: int, form: str) -> None:
    """List the entries of the registry in force, by name, with what is alive of each."""
    asked = pb.ListAgentsRequest()
    found = run_admin(admin, lambda client: all_of(client, "ListAgents", asked, "agents", RegisteredAgent, limit))
    if form == "json":
        print_json(found)
        return
    rows = [
        (each.entry, each.tier, _owner(each), str(each.live_leases), str(each.open_tasks), _whom(each))
        for each in found
    ]
    click.echo(table(rows, ("ENTRY", "TIER", "OWNER", "LEASES", "TASKS", "WHOM")))


@click.command()
@click.argument("name", metavar="SPIFFE-ID|ENTRY")
@admin_options
@format_option("text", "json")
def agent(admin: AdminSettings, name: str, form: str) -> None:
    """Show one entry of the registry, or what it makes of one workload."""
    asked = pb.GetAgentRequest(agent=name)
    print_shown(read.read(RegisteredAgent, run_admin(admin, lambda client: client.call("GetAgent", asked))), form)


def _owner(found: RegisteredAgent) -> str:
    return found.owner_name if found.owner_enabled else f"{found.owner_name} (disabled)"


def _whom(found: RegisteredAgent) -> str:
    return f"{found.spiffe_id or found.pattern}{'  DENIED' if found.denied else ''}"
