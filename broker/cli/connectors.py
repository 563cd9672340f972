"""``broker connectors list|show|doctor``: what each connector promises, and whether its upstream is as it must be.

``reconcile`` and ``unknown`` of the same group are in ``reconciliation.py``.
What is measured of the promises is in ``canaries.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from broker.api.v1 import connectors_pb2 as pb
from broker.approval.inert import inert
from broker.cli import canaries, contracts
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import format_option, print_json, table
from broker.cli.reconciliation import reconcile, unknown
from broker.cli.settings import EXIT_WRONG
from broker.client import read
from broker.client.model import Connector, Examination


@click.group()
def connectors() -> None:
    """The connectors in force: what each promises about ending what it issues, and whether its upstream is sound."""


connectors.add_command(reconcile)
connectors.add_command(unknown)
connectors.add_command(canaries.canary)
connectors.add_command(canaries.canaries)


@connectors.command("list")
@admin_options
@format_option("text", "json")
def list_(admin: AdminSettings, form: str) -> None:
    """List the connectors, by name, with their revocation contracts."""
    answer = run_admin(admin, lambda client: client.call("ListConnectors", pb.ListConnectorsRequest()))
    found = [read.read(Connector, each) for each in answer.connectors]
    if form == "json":
        print_json(found)
        return
    click.echo(table([_row(each) for each in found], ("CONNECTOR", "KIND", "ENDS", "REVOKED", "TTL", "BOUND TO")))
    for each in found:
        if each.circuit_open:
            click.echo(f"{inert(each.name)}: {inert(each.circuit_open)}")


@connectors.command()
@click.argument("name", metavar="NAME")
@admin_options
@format_option("text", "json")
def show(admin: AdminSettings, name: str, form: str) -> None:
    """Show one connector, with its contract in full."""
    asked = pb.GetConnectorRequest(name=name)
    found = read.read(Connector, run_admin(admin, lambda client: client.call("GetConnector", asked)))
    print_json(found) if form == "json" else click.echo("\n".join(_in_full(found)))


@connectors.command()
@click.argument("name", required=False, default="", metavar="[NAME]")
@admin_options
@format_option("text", "json")
def doctor(admin: AdminSettings, name: str, form: str) -> None:
    """Have brokerd examine its upstreams: reachable, with the rights it needs, and with no more than declared.

    Nothing is changed there. All connectors at once, or NAME alone. Exits 1 if there is an error; warnings exit 0.
    """
    asked = pb.ExamineConnectorRequest(name=name)
    answer = run_admin(admin, lambda client: client.call("ExamineConnector", asked))
    found = [read.read(Examination, each) for each in answer.examinations]
    if form == "json":
        print_json(found)
    else:
        for each in found:
            click.echo("\n".join(_findings(each)))
    if any(doubt.severity == "ERROR" for each in found for doubt in each.doubts):
        raise SystemExit(EXIT_WRONG)


def _row(found: Connector) -> tuple[str, ...]:
    promised = found.contract
    if promised is None:
        return inert(found.name), found.kind, "DOES NOT RUN", "", "", ""
    ttl = f"{contracts.bound(promised.ttl_floor)}-{contracts.bound(promised.ttl_ceiling)}"
    ends, revoked = promised.contract_class, contracts.revoked_within(promised)
    return inert(found.name), found.kind, ends, revoked, ttl, promised.binding.lower()


def _in_full(found: Connector) -> Iterator[str]:
    yield inert(found.name)
    yield f"  {'kind':<14}  {found.kind}"
    yield f"  {'templates':<14}  {', '.join(map(inert, found.templates)) or 'none'}"
    if found.circuit_open:
        yield f"  {'circuit':<14}  OPEN: {inert(found.circuit_open)}"
    if found.contract is None:
        yield "  DOES NOT RUN: see brokerd's log"
    else:
        yield from (f"  {line}" for line in contracts.lines(found.contract))


def _findings(found: Examination) -> Iterator[str]:
    name = inert(found.connector.name) if found.connector else ""
    if not found.doubts:
        yield f"ok       {name}"
    for doubt in found.doubts:
        yield f"{doubt.severity.lower():<7}  {name}: {inert(doubt.what)}"
        yield f"{'':<9}{inert(doubt.remedy)}"
