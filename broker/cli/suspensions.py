"""``broker suspend``, ``broker resume`` and ``broker suspensions``: the kill switch, for a person at 3 a.m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from google.protobuf.duration_pb2 import Duration

from broker.api.v1 import admin_service_pb2 as pb
from broker.api.v1 import contract_pb2, suspension_pb2
from broker.approval.inert import inert
from broker.approval.intent_digest import RESUME_SUSPENSION
from broker.cli import contracts
from broker.cli.admin import AdminSettings, admin_options, run_admin, run_fresh
from broker.cli.output import clock, format_option, note, print_json, table
from broker.cli.person import How, login_options
from broker.cli.values import Span, Text
from broker.client.admin import AdminClient
from broker.clock import SystemClock
from broker.errors import Unauthenticated

_KINDS = tuple(
    name.removeprefix("KIND_").lower().replace("_", "-") for name in suspension_pb2.Suspension.Kind.keys()[1:]
)
_PAGE = 500


@dataclass(frozen=True, slots=True)
class SuspensionFacts:
    """``Suspension``, as a value."""

    id: str
    kind: str
    value: str
    state: str
    reason: str
    author: str
    author_name: str
    create_time: datetime
    expire_time: datetime | None
    first_resumed_by: str
    resumed_by: str
    resume_reason: str
    end_time: datetime | None

    @classmethod
    def of(cls, message: suspension_pb2.Suspension) -> SuspensionFacts:
        """From the wire."""
        return cls(
            id=message.id,
            kind=suspension_pb2.Suspension.Kind.Name(message.kind).removeprefix("KIND_"),
            value=message.value,
            state=suspension_pb2.Suspension.State.Name(message.state).removeprefix("STATE_"),
            reason=message.reason,
            author=message.author,
            author_name=message.author_name,
            create_time=message.create_time.ToDatetime(UTC),
            expire_time=message.expire_time.ToDatetime(UTC) if message.HasField("expire_time") else None,
            first_resumed_by=message.first_resumed_by,
            resumed_by=message.resumed_by,
            resume_reason=message.resume_reason,
            end_time=message.end_time.ToDatetime(UTC) if message.HasField("end_time") else None,
        )

    @property
    def subject(self) -> str:
        """What is stopped, in words."""
        return f"{self.kind.lower().replace('_', '-')} {self.value}".strip()


@dataclass(frozen=True, slots=True)
class AliveFacts:
    """``StillAlive``, as a value."""

    connector: str
    credentials: int
    contract_class: str
    bound_on_revoke: timedelta | None
    last_expire_time: datetime

    @classmethod
    def of(cls, message: suspension_pb2.StillAlive) -> AliveFacts:
        """From the wire."""
        return cls(
            connector=message.connector,
            credentials=message.credentials,
            contract_class=contract_pb2.ContractClass.Name(message.contract_class).removeprefix("CONTRACT_CLASS_"),
            bound_on_revoke=message.bound_on_revoke.ToTimedelta() if message.HasField("bound_on_revoke") else None,
            last_expire_time=message.last_expire_time.ToDatetime(UTC),
        )


@dataclass(frozen=True, slots=True)
class Stopped(SuspensionFacts):
    """``SuspendResponse``, as a value."""

    attempts_ended: int
    unknown_value: bool
    still_alive: Sequence[AliveFacts]
    still_alive_unknown: bool


_reason = click.option(
    "--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="Why; it is told to those who are stopped."
)
_request_id = click.option("--request-id", default="", help="The same id and content again changes nothing more.")


@click.command()
@click.argument("kind", metavar="KIND", type=click.Choice(_KINDS, case_sensitive=False))
@click.argument("value", metavar="[VALUE]", default="")
@_reason
@click.option(
    "--for", "lasts", type=Span(), metavar="SPAN", help="It ends by itself: 30m, 2h.  [default: when resumed]"
)
@_request_id
@admin_options
@format_option("text", "json")
def suspend(
    kind: str, value: str, reason: str, lasts: timedelta | None, request_id: str, admin: AdminSettings, form: str
) -> None:
    """Stop something now, and end what lives under it.

    \b
    agent SPIFFE-ID       one workload
    entry NAME            a registry entry: the name of its file under agents/
    owner PERSON          all agents of a person: a key of people.yaml, or issuer#subject
    task ID               one task
    template NAME         a scope template
    connector NAME        a connector
    account NAME          an upstream account
    trust-domain NAME     all agents of a trust domain
    everything            every grant to anybody; two people lift it

    No grant of what it covers is begun after this command returns; what lived is being revoked by then.
    """

    async def ask(client: AdminClient) -> pb.SuspendResponse:
        request = pb.SuspendRequest(
            request_id=request_id or client.new_id(),
            kind=f"KIND_{kind.upper().replace('-', '_')}",
            value=value,
            reason=reason,
        )
        if lasts is not None:
            request.duration.CopyFrom(_duration(lasts))
        answer: pb.SuspendResponse = await client.call("Suspend", request)
        return answer

    answer = run_admin(admin, ask)
    suspension = SuspensionFacts.of(answer.suspension)
    if answer.unknown_value:
        nothing = "no task" if suspension.kind == "TASK" else "nothing that is deployed"
        note(f"{nothing} is called {suspension.value!a}: is it spelt as you mean it?")
    alive = [AliveFacts.of(each) for each in answer.still_alive]
    if form == "json":
        of_it = {each.name: getattr(suspension, each.name) for each in fields(suspension)}
        stopped = Stopped(
            **of_it,
            attempts_ended=answer.attempts_ended,
            unknown_value=answer.unknown_value,
            still_alive=alive,
            still_alive_unknown=answer.still_alive_unknown,
        )
        print_json(stopped)
        return
    credentials = "1 credential" if answer.attempts_ended == 1 else f"{answer.attempts_ended} credentials"
    click.echo(f"{suspension.id}  {suspension.subject} is suspended{_until(suspension)}; {credentials} being revoked")
    for each in alive:
        click.echo(f"  {_lives_on(each)}")
    if answer.still_alive_unknown:
        click.echo("  what may still work could not be read: broker admin leases --living")


@click.command()
@click.argument("suspension_id", metavar="SUSPENSION")
@_reason
@_request_id
@login_options
@admin_options
@format_option("text", "json")
def resume(suspension_id: str, reason: str, request_id: str, admin: AdminSettings, how: How, form: str) -> None:
    """Lift a suspension, by a login for exactly this. What it ended does not come back: agents ask again.

    "everything" is lifted by two different people: each runs this command.
    """

    fields = {"suspension_id": suspension_id, "reason": reason}
    _tell_what_is_lifted(admin, suspension_id)

    async def ask(client: AdminClient, fresh_id_token: str) -> pb.ResumeResponse:
        named = request_id or client.new_id()
        asked = pb.ResumeRequest(**fields, request_id=named, fresh_id_token=fresh_id_token)
        answer: pb.ResumeResponse = await client.call("Resume", asked)
        return answer

    suspension = SuspensionFacts.of(run_fresh(admin, how, RESUME_SUSPENSION, fields, ask).suspension)
    if form == "json":
        print_json(suspension)
    elif suspension.state == "LIFTED":
        click.echo(f"{suspension.id}  {suspension.subject} is not suspended by this any more")
    else:
        click.echo(f"{suspension.id}  {suspension.subject} stays suspended: a second person has to resume it too")


@click.command()
@click.option("--all", "ended", is_flag=True, help="Also those that are over.")
@admin_options
@format_option("text", "json")
def suspensions(ended: bool, admin: AdminSettings, form: str) -> None:
    """List what is suspended, newest first."""
    found = run_admin(admin, lambda client: _listed(client, ended=ended))
    if form == "json":
        print_json(found)
    elif not found:
        click.echo("nothing is suspended")
    else:
        header = ("SUSPENSION", "WHAT", "STATE", "SINCE", "BY", "REASON")
        click.echo(table(_rows(found), header))


async def _listed(client: AdminClient, *, ended: bool) -> list[SuspensionFacts]:
    found: list[SuspensionFacts] = []
    asked = pb.ListSuspensionsRequest(page_size=_PAGE, include_ended=ended)
    while True:
        answer = await client.call("ListSuspensions", asked)
        found.extend(map(SuspensionFacts.of, answer.suspensions))
        asked.page_token = answer.next_page_token
        if not asked.page_token:
            return found


def _tell_what_is_lifted(admin: AdminSettings, suspension_id: str) -> None:
    """Before the login that signs it. Who has no login that is kept can look nothing up, and may go on without."""
    try:
        found = run_admin(admin, lambda client: _listed(client, ended=False))
    except Unauthenticated as error:
        note(f"what this suspends is not shown: {error.message}")
        return
    for each in found:
        if each.id == suspension_id:
            note(f"{each.id} suspends {inert(each.subject)}, by {inert(each.author_name)}: {inert(each.reason)}")


def _lives_on(alive: AliveFacts) -> str:
    """Of one connector: how many are not proven dead, and what that means for who stops them at 3 a.m."""
    last = clock(alive.last_expire_time, SystemClock().now())
    what = f"{inert(alive.connector)}: {alive.credentials} may still work"
    if alive.bound_on_revoke is not None:
        return (
            f"{what}, for at most {contracts.bound(alive.bound_on_revoke)}, and as long as its upstream does not answer"
        )
    if alive.contract_class == "STATIC":
        return f"{what} until somebody rotates it: STATIC, nothing else ends it"
    if alive.contract_class == "UNSPECIFIED":
        return f"{what}, and the connector does not run, so nothing revokes it; the last lease ends at {last}"
    return f"{what}, the last one until {last}: {alive.contract_class}, nothing ends it before"


def _rows(found: Sequence[SuspensionFacts]) -> list[tuple[str, ...]]:
    now = SystemClock().now()
    return [
        (
            each.id,
            each.subject,
            each.state + _until(each),
            clock(each.create_time, now),
            each.author_name,
            each.reason,
        )
        for each in found
    ]


def _until(suspension: SuspensionFacts) -> str:
    if suspension.expire_time is None or suspension.end_time is not None:
        return ""
    return f" until {clock(suspension.expire_time, SystemClock().now())}"


def _duration(lasts: timedelta) -> Any:
    message = Duration()
    message.FromTimedelta(lasts)
    return message
