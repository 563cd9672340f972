"""``broker connectors reconcile|unknown``: what upstreams hold, compared with the ledger, and what became of it."""

from __future__ import annotations

from typing import Any

import click

from broker.api.v1 import reconciliation_pb2 as pb
from broker.approval.inert import inert
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import format_option, moment, print_json, table
from broker.cli.pages import all_of, limit_option
from broker.cli.settings import EXIT_WRONG
from broker.client import read
from broker.client.admin import AdminClient
from broker.client.model import Reconciliation, UnknownCredential

# An inventory is given up after a minute, and waits as long for one that is under way.
_SECONDS = 150.0


@click.command()
@click.argument("name", required=False, default="", metavar="[NAME]")
@click.option(
    "--sweep",
    type=click.IntRange(1),
    metavar="COUNT",
    help="End that many unknown ones of NAME, although it is more than is ended without a word.",
)
@click.option("--request-id", default="", help="What names the call; default: a new one.")
@admin_options
@format_option("text", "json")
def reconcile(name: str, sweep: int | None, request_id: str, admin: AdminSettings, form: str) -> None:
    """Have what upstreams hold compared with the ledger now: what is ours and unknown is ended.

    All connectors at once, or NAME alone. Exits 1 where one could not be compared, and where so much is unknown that
    nothing of it is ended before somebody names how many: that may be the wrong ledger, or a second broker at work.
    """
    if sweep and not name:
        raise click.UsageError("--sweep is for one connector: name it.")

    async def ask(client: AdminClient) -> Any:
        asked = pb.RunReconciliationRequest(request_id=request_id or client.new_id(), name=name, sweep=sweep or 0)
        return await client.call("RunReconciliation", asked, _SECONDS)

    found = [read.read(Reconciliation, each) for each in run_admin(admin, ask).reconciliations]
    if form == "json":
        print_json(found)
    else:
        click.echo(
            table([_row(each) for each in found], ("CONNECTOR", "LISTED", "FOUND", "YOUNG", "FOREIGN", "MISSING"))
        )
        for each in found:
            if each.problem:
                click.echo(f"{inert(each.connector)}: {inert(each.problem)}", err=True)
            if each.braked:
                click.echo(_braked(each), err=True)
    if any(each.problem or each.braked for each in found):
        raise SystemExit(EXIT_WRONG)


@click.command()
@click.option("--living", is_flag=True, help="Only what has not ended yet.")
@limit_option
@admin_options
@format_option("text", "json")
def unknown(living: bool, limit: int, admin: AdminSettings, form: str) -> None:
    """List what was upstream and ours and not alive by the ledger, the newest first, with what became of it."""
    asked = pb.ListUnknownRequest(living_only=living)
    found = run_admin(admin, lambda client: all_of(client, "ListUnknown", asked, "unknown", UnknownCredential, limit))
    if form == "json":
        print_json(found)
        return
    rows = [
        (each.id, inert(each.connector), moment(each.find_time), each.why, _state(each), inert(each.name))
        for each in found
    ]
    click.echo(table(rows, ("ID", "CONNECTOR", "FOUND", "WHY", "STATE", "NAME")))


def _row(found: Reconciliation) -> tuple[str, ...]:
    if found.problem:
        return inert(found.connector), "FAILED", "", "", "", ""
    if found.listed is None:
        return inert(found.connector), "cannot tell", "", "", "", ""
    figures = (found.listed, found.found, found.young, found.foreign, found.missing)
    return inert(found.connector), *map(str, figures)


def _braked(found: Reconciliation) -> str:
    name = inert(found.connector)
    return (
        f"{name}: {found.braked} that carry our mark are unknown to this ledger, and none of them was ended. If it is"
        f" the right ledger, and the only one: broker connectors reconcile {name} --sweep {found.braked}"
    )


def _state(found: UnknownCredential) -> str:
    if found.end_time is not None:
        return f"{found.outcome} {moment(found.end_time)}"
    return f"{'STUCK' if found.stuck else 'being ended'}, {found.failures} failed" if found.failures else "being ended"
