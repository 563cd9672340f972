"""``broker recovery show|release``: the ledger was found behind a witness, and two people decide that it may go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import click

from broker.api.v1 import recovery_pb2 as pb
from broker.approval.intent_digest import RELEASE_RECOVERY
from broker.cli.admin import AdminSettings, admin_options, run_admin, run_fresh
from broker.cli.output import format_option, moment, print_json
from broker.cli.person import How, login_options
from broker.cli.values import Text
from broker.client.admin import AdminClient


@dataclass(frozen=True, slots=True)
class RecoveryFacts:
    """``Recovery``, as a value."""

    id: str
    state: str
    enter_time: datetime
    witness: str
    why: str
    evidence: str
    witnessed_records: int
    ledger_records: int
    first_released_by: str
    first_reason: str
    released_by: str
    reason: str
    release_time: datetime | None

    @classmethod
    def of(cls, message: pb.Recovery) -> RecoveryFacts:
        """From the wire."""
        return cls(
            id=message.id,
            state=pb.Recovery.State.Name(message.state).removeprefix("STATE_"),
            enter_time=message.enter_time.ToDatetime(UTC),
            witness=message.witness,
            why=message.why,
            evidence=message.evidence,
            witnessed_records=message.witnessed_records,
            ledger_records=message.ledger_records,
            first_released_by=message.first_released_by,
            first_reason=message.first_reason,
            released_by=message.released_by,
            reason=message.reason,
            release_time=message.release_time.ToDatetime(UTC) if message.HasField("release_time") else None,
        )


@click.group()
def recovery() -> None:
    """The ledger was found behind a witness of its audit trail: nothing is granted until two people release it."""


@recovery.command()
@admin_options
@format_option("text", "json")
def show(admin: AdminSettings, form: str) -> None:
    """Show the recovery that is open, or else the last one."""

    async def ask(client: AdminClient) -> pb.GetRecoveryResponse:
        answer: pb.GetRecoveryResponse = await client.call("GetRecovery", pb.GetRecoveryRequest())
        return answer

    answer = run_admin(admin, ask)
    if not answer.HasField("recovery"):
        click.echo("null" if form == "json" else "there never was a recovery")
        return
    found = RecoveryFacts.of(answer.recovery)
    if form == "json":
        print_json(found)
        return
    click.echo(f"{found.id}  {found.state}  since {moment(found.enter_time)}")
    click.echo(f"witness {found.witness}: {found.why}")
    for who, why in ((found.first_released_by, found.first_reason), (found.released_by, found.reason)):
        if who:
            click.echo(f"released by {who}: {why}")
    if found.state != "RELEASED":
        click.echo(f"\nTwo people run, each for themselves: broker recovery release {found.id} --reason ...")
    click.echo(f"\nWhat the witness shows:\n\n{found.evidence}")


@recovery.command()
@click.argument("recovery_id", metavar="RECOVERY")
@click.option("--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="Why: what you have looked at.")
@click.option("--request-id", default="", help="The same id and content again changes nothing more.")
@login_options
@admin_options
@format_option("text", "json")
def release(recovery_id: str, reason: str, request_id: str, admin: AdminSettings, how: How, form: str) -> None:
    """Say, by a login for exactly this, that grants may begin again. Two different people: each runs this command."""

    fields = {"recovery_id": recovery_id, "reason": reason}

    async def ask(client: AdminClient, fresh_id_token: str) -> pb.ReleaseRecoveryResponse:
        named = request_id or client.new_id()
        asked = pb.ReleaseRecoveryRequest(**fields, request_id=named, fresh_id_token=fresh_id_token)
        answer: pb.ReleaseRecoveryResponse = await client.call("ReleaseRecovery", asked)
        return answer

    found = RecoveryFacts.of(run_fresh(admin, how, RELEASE_RECOVERY, fields, ask).recovery)
    if form == "json":
        print_json(found)
    elif found.state == "RELEASED":
        click.echo(f"{found.id}  grants have begun again")
    else:
        click.echo(f"{found.id}  nothing is granted yet: a second person has to release it too")
