"""``broker break-glass codes``: sealed codes for the day on which nobody can log in."""

from __future__ import annotations

from dataclasses import dataclass

import click

from broker.api.v1 import break_glass_pb2 as pb
from broker.approval.inert import inert
from broker.breakglass.intent import CREATE_BREAK_GLASS_CODES, codes_fields
from broker.cli.admin import AdminSettings, admin_options, run_admin, run_fresh
from broker.cli.output import format_option, moment, note, print_json, table
from broker.cli.person import How, login_options
from broker.cli.values import Text
from broker.client import read
from broker.client.admin import AdminClient
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class CodeToken:
    """A sealed code in place of a login: what says who calls, and that it is them."""

    held: Secret

    @classmethod
    def of(cls, key: str, code: str) -> CodeToken:
        """``key`` of people.yaml says whom the code names."""
        return cls(Secret(f"break-glass-code:{key}:{code}"))

    def token(self) -> str:
        """It."""
        return self.held.reveal()

    def close(self) -> None:
        """Nothing is held open."""


@click.group()
def codes() -> None:
    """Sealed codes: printed beforehand, each for one person, once, for when the identity provider is down."""


@codes.command()
@click.option("--person", "whom", default="", metavar="PERSON", help="Ask for codes that name this person.")
@click.option("--count", type=click.IntRange(1, 20), default=5, show_default=True, help="How many.")
@click.option("--reason", default="", type=Text(), metavar="TEXT|@FILE", help="Where they will lie.")
@click.option("--confirm", "batch_id", default="", metavar="BATCH", help="Make those that somebody else has asked for.")
@click.option("--request-id", default="", help="The same id and content again asks for nothing more.")
@login_options
@admin_options
def create(whom: str, count: int, reason: str, batch_id: str, request_id: str, how: How, admin: AdminSettings) -> None:
    """Ask for codes; or, as a second person, make and print them. There is no second look at them.

    \b
    broker break-glass codes create --person sam --reason 'safe 3'     one person
    broker break-glass codes create --confirm batch-... | lp           another: prints them, once
    """
    if bool(whom) == bool(batch_id):
        raise click.UsageError("Say one of --person PERSON, to ask, and --confirm BATCH, to make.")
    if batch_id:
        count, reason = 0, ""
    request = pb.CreateBreakGlassCodesRequest(
        request_id=request_id, batch_id=batch_id, person=whom, count=count, reason=reason
    )

    async def work(client: AdminClient, token: str) -> pb.CreateBreakGlassCodesResponse:
        request.request_id = request.request_id or client.new_id()
        request.fresh_id_token = token
        answer: pb.CreateBreakGlassCodesResponse = await client.call("CreateBreakGlassCodes", request)
        return answer

    fields = codes_fields(batch_id, whom, count, reason)
    answer = run_fresh(admin, how, CREATE_BREAK_GLASS_CODES, fields, work)
    if not answer.codes:
        note(f"another person makes them, within a day: broker break-glass codes create --confirm {answer.batch.id}")
        click.echo(answer.batch.id)
        return
    for each in answer.codes:
        until = moment(read.moment(each.expire_time))
        click.echo(f"{each.code}   for {inert(answer.batch.person_name)}, once, until {until}")
    note("print them now, seal each by itself, and give them to whom they name; nobody can read them again")


@codes.command("list")
@admin_options
@format_option("text", "json")
def list_(admin: AdminSettings, form: str) -> None:
    """The codes there are, and those that wait for a second person; nothing that opens anything."""
    found: pb.ListBreakGlassCodesResponse = run_admin(
        admin, lambda client: client.call("ListBreakGlassCodes", pb.ListBreakGlassCodesRequest())
    )
    if form == "json":
        print_json(
            {"waiting": [_batch(each) for each in found.waiting], "codes": [_kept(each) for each in found.codes]}
        )
        return
    for each in found.waiting:
        click.echo(f"{each.id}  {each.count} for {inert(each.person_name)} wait for a second person to --confirm")
    rows = [
        (each.id, inert(each.person_name), each.state, moment(read.moment(each.expire_time)), each.used_by)
        for each in found.codes
    ]
    click.echo(table(rows, ("CODE", "FOR", "STATE", "UNTIL", "USED BY")) if rows else "there are no codes")


@codes.command()
@click.argument("named", metavar="CODE|BATCH")
@admin_options
def revoke(named: str, admin: AdminSettings) -> None:
    """Revoke a code by its id (the first part after JBG1), or a batch with all its codes."""
    request = pb.RevokeBreakGlassCodesRequest(named=named)
    answer = run_admin(admin, lambda client: client.call("RevokeBreakGlassCodes", request))
    click.echo(f"{answer.revoked} revoked")


def _batch(batch: pb.BreakGlassBatch) -> dict[str, object]:
    return {
        "id": batch.id,
        "person": batch.person,
        "personName": batch.person_name,
        "count": batch.count,
        "reason": batch.reason,
        "requestedBy": batch.requested_by,
        "requestTime": read.moment(batch.request_time),
    }


def _kept(code: pb.KeptCode) -> dict[str, object]:
    return {
        "id": code.id,
        "batchId": code.batch_id,
        "person": code.person,
        "personName": code.person_name,
        "state": code.state,
        "createTime": read.moment(code.create_time),
        "expireTime": read.moment(code.expire_time),
        "usedBy": code.used_by,
        "failures": code.failures,
    }
