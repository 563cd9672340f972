"""``broker connectors canary|canaries``: have a contract measured now, and see what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click

from broker.api.v1 import canaries_pb2 as pb
from broker.approval.inert import inert
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.contracts import ago, bound, precise
from broker.cli.output import format_option, print_json, table
from broker.cli.settings import EXIT_WRONG
from broker.client import read
from broker.client.admin import AdminClient
from broker.client.model import Canary, CanaryMeasurement
from broker.clock import SystemClock

_KINDS = {"revoke": pb.CANARY_KIND_ON_REVOKE, "expiry": pb.CANARY_KIND_ON_EXPIRY}
_ENDS = {"ON_REVOKE": "its revocation", "ON_EXPIRY": "its deadline"}


@click.command()
@admin_options
@format_option("text", "json")
def canaries(admin: AdminSettings, form: str) -> None:
    """List the canaries: how fast each connector's credentials were seen to end, and when that was seen."""
    answer = run_admin(admin, lambda client: client.call("ListCanaries", pb.ListCanariesRequest()))
    found = [read.read(Canary, each) for each in answer.canaries]
    if form == "json":
        print_json(found)
        return
    now = SystemClock().now()
    rows = [row for each in found for row in _rows(each, now)]
    click.echo(table(rows, ("CONNECTOR", "COUNTED FROM", "MEASURED", "BOUND", "WHEN", "")))


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--kind", type=click.Choice(sorted(_KINDS)), help="What ends it; by default a revocation, if one can.")
@click.option("--request-id", default="", help="The same id again joins the same run.")
@admin_options
@format_option("text", "json")
def canary(admin: AdminSettings, name: str, kind: str | None, request_id: str, form: str) -> None:
    """Have the broker issue a lease to itself, use it, end it, and use it until the upstream refuses it.

    NAME is the connector. Exits 1 where the contract was seen not to be kept, or nothing could be measured.
    """

    async def ask(client: AdminClient) -> pb.RunCanaryResponse:
        asked = pb.RunCanaryRequest(connector=name, request_id=request_id or client.new_id())
        asked.wait.FromSeconds(20)
        if kind is not None:
            asked.kind = _KINDS[kind]
        while True:  # an expiry takes as long as its credential lives
            answer: pb.RunCanaryResponse = await client.call("RunCanary", asked)
            if answer.HasField("measurement"):
                return answer

    found = read.read(CanaryMeasurement, run_admin(admin, ask).measurement)
    if form == "json":
        print_json(found)
    else:
        click.echo("\n".join(story(found)))
    if found.outcome != "WITHIN":
        raise SystemExit(EXIT_WRONG)


def story(found: CanaryMeasurement) -> Iterator[str]:
    """What happened, for people."""
    if found.outcome == "UNMEASURED":
        yield f"canary of {inert(found.connector)}: cannot be measured because {inert(found.why)}"
        return
    end = _ENDS.get(found.kind, found.kind)
    yield f"canary of {inert(found.connector)}: lease {found.lease_id}, used {found.looks} times around {end}"
    if found.measured is None:
        yield f"  STILL WORKS: seen to work {precise(found.at_least)} after {end}"
    elif found.measured.total_seconds() < 0:
        yield f"  refused {precise(-found.measured)} before {end}: it died early"
    else:
        yield f"  refused at most {precise(found.measured)} after {end}"
        if found.at_least is not None and found.at_least.total_seconds() >= 0:
            yield f"  worked for certain until {precise(found.at_least)} after {end}"
    kept = "kept" if found.outcome == "WITHIN" else "NOT KEPT"
    yield f"  the contract promises {bound(found.bound)}: {kept}"


def _rows(found: Canary, now: datetime) -> Iterator[tuple[str, ...]]:
    newest = {each.kind: each for each in found.newest}
    measured = {each.kind: each for each in found.measured}
    if not newest and not found.running:
        yield inert(found.connector), "", "not measured yet", "", "", ""
    for kind, latest in newest.items():
        best = measured.get(kind)
        note = "THE CONTRACT IS NOT KEPT" if best and best.outcome != "WITHIN" else ""
        if latest.outcome == "UNMEASURED":
            note = f"{note} since then it could not be measured: {inert(latest.why)}".strip()
        told = "never" if best is None else "STILL WORKS" if best.measured is None else precise(best.measured)
        when = "" if best is None else ago(best.tell_time, now)
        yield inert(found.connector), _ENDS.get(kind, kind), told, bound(latest.bound), when, note
    for kind in found.running:
        yield inert(found.connector), _ENDS.get(kind, kind), "running", "", "", ""
