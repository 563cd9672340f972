"""``broker break-glass``: for a person at 3 a.m., and for those who look at it afterwards.

Every text that comes from the broker is made inert once more, because a terminal obeys what it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from google.protobuf.duration_pb2 import Duration

from broker.api.v1 import break_glass_pb2 as pb
from broker.api.v1 import lease_pb2
from broker.approval.inert import inert
from broker.approval.intent_digest import BREAK_GLASS
from broker.breakglass.intent import use_fields
from broker.cli.admin import AdminSettings, admin_options, run_admin, run_fresh
from broker.cli.break_glass_codes import CodeToken, codes
from broker.cli.break_glass_reviews import override, review
from broker.cli.delivery import Delivery, choose, written
from broker.cli.output import clock, format_option, lease_state, note, print_json, span, table
from broker.cli.person import How, login_options
from broker.cli.task import wait_option
from broker.cli.values import Pair, Span, Text
from broker.client import Decision, Grant, Lease, read
from broker.client.admin import AdminClient
from broker.client.task import uninterrupted
from broker.clock import SystemClock
from broker.errors import BrokerError, InvalidInput, Reason

_PAGE = 500
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("break-glass")
def break_glass() -> None:
    """In an emergency: a credential now, without approval. Told to everybody at once, and reviewed afterwards.

    \b
    broker break-glass list                     what you may, and what is open
    broker break-glass use TEMPLATE ... --reveal
    broker break-glass end LEASE                as soon as it is over
    """


@break_glass.command()
@click.argument("template", metavar="TEMPLATE")
@click.option("--account", required=True, help="The upstream account.")
@click.option("--environment", required=True, help="The environment.")
@click.option("--resource", required=True, help="The resource.")
@click.option("--ttl", required=True, type=Span(), help="For how long: 15m. End it as soon as it is over.")
@click.option("--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="What is broken. Everybody reads it.")
@click.option("--incident", required=True, metavar="ID", help="The incident it belongs to.")
@click.option(
    "--param", "parameters", multiple=True, type=Pair(), metavar="NAME=VALUE", help="A parameter; repeatable."
)
@click.option("--task", "task_id", default="", metavar="TASK", help="For an agent's task, not for yourself.")
@click.option("--agent", default="", metavar="SPIFFE-ID", help="With --task: which agent.  [default: its creator]")
@click.option("--plan", default="", type=Text(), metavar="TEXT|@FILE", help="With --task: what is to be done.")
@click.option("--code-file", type=_FILE, metavar="FILE", help="A sealed code, where nobody can log in; with --as.")
@click.option("--as", "key", default="", metavar="KEY", help="With --code-file: who you are in people.yaml.")
@click.option("--out", type=_FILE, help="Into this file: new, mode 0600.")
@click.option("--fd", type=int, metavar="N", help="Into this open descriptor, which is closed then.")
@click.option("--reveal", is_flag=True, help="Print the secret on standard output.")
@click.option("--request-id", default="", help="The same id and content again replaces the credential; one use.")
@login_options
@admin_options
@format_option("env", "json", "text")
def use(
    template: str,
    account: str,
    environment: str,
    resource: str,
    ttl: timedelta,
    reason: str,
    incident: str,
    parameters: tuple[tuple[str, str], ...],
    task_id: str,
    agent: str,
    plan: str,
    code_file: Path | None,
    key: str,
    out: Path | None,
    fd: int | None,
    reveal: bool,
    request_id: str,
    how: How,
    admin: AdminSettings,
    form: str,
) -> None:
    """Get a credential now, without approval.

    You log in for exactly this, or come with a sealed code. Everybody who would have approved is told at once, and
    somebody else has to review it. Only when the credential is written is its arrival confirmed; if that fails, it is
    revoked.
    """
    request = pb.BreakGlassRequest(
        request_id=request_id or "",
        template=template,
        parameters=dict(parameters),
        account=account,
        environment=environment,
        resource=resource,
        ttl=_duration(ttl),
        reason=reason,
        incident=incident,
        task_id=task_id,
        agent=agent,
        plan=plan,
    )
    fields = use_fields(
        template=template,
        parameters=dict(parameters),
        account=account,
        environment=environment,
        resource=resource,
        ttl=ttl,
        reason=reason,
        incident=incident,
        task_id=task_id,
        agent=agent,
        plan=plan,
    )
    code = _code(code_file, key)
    delivery = choose(out, fd, reveal=reveal)

    async def work(client: AdminClient, token: str) -> Grant:
        request.request_id = request.request_id or client.new_id()
        request.fresh_id_token = token
        return await _delivered(client, request, delivery, form)

    try:
        if code is not None:
            grant = run_admin(admin, lambda client: work(client, ""), code)
        else:
            grant = run_fresh(admin, how, BREAK_GLASS, fields, work)
    except BaseException:
        delivery.discard()
        raise
    lease = grant.lease
    click.echo(f"{lease.id}  {inert(lease_state(lease, SystemClock().now()))}", err=reveal)
    note(f"as soon as it is over: broker break-glass end {lease.id}")
    if lease.break_glass is not None:
        due = clock(lease.break_glass.review_due_time, SystemClock().now())
        note(f"somebody else has to review it by {due}: broker break-glass review {lease.id}")


async def _delivered(client: AdminClient, request: pb.BreakGlassRequest, delivery: Delivery, form: str) -> Grant:
    """What was granted, put where it is needed and then confirmed; else ended."""
    answer: pb.BreakGlassResponse = await client.call("BreakGlass", request)
    lease = read.read(Lease, answer.lease)
    try:
        grant = Grant(lease, read.credential(answer.credential), read.read(Decision, answer.decision))
        await asyncio.to_thread(delivery.write, written(grant, form))
        confirm = pb.ConfirmBreakGlassRequest(lease_id=lease.id, attempt_id=lease.attempt_id)
        confirmed: lease_pb2.Lease = await client.call("ConfirmBreakGlass", confirm)
    except BaseException as error:
        await uninterrupted(_last_resort(client, lease.id))
        if isinstance(error, OSError):
            raise click.ClickException(f"the credential could not be delivered: {error.strerror}.") from None
        raise
    return Grant(read.read(Lease, confirmed), grant.credential, grant.decision)


async def _last_resort(client: AdminClient, lease_id: str) -> None:
    try:
        await client.call("EndBreakGlass", pb.EndBreakGlassRequest(lease_id=lease_id))
    except BrokerError as error:
        note(f"{lease_id} could not be ended; unconfirmed, the broker revokes it by itself: {error}")


def _code(file: Path | None, key: str) -> CodeToken | None:
    if (file is None) is bool(key):
        raise click.UsageError("--code-file and --as KEY come together: a code names its person.")
    if file is None:
        return None
    try:
        text = "".join(file.read_text("ascii").split())
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"{file} holds no code, or cannot be read.",
            hint="Write the code as it is printed into a file; /dev/stdin will do.",
            metadata={"file": str(file)},
        )
    return CodeToken.of(key, text)


# --------------------------------------------------------------------------- afterwards


@break_glass.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are over and reviewed.")
@admin_options
@format_option("text", "json")
def list_(everything: bool, admin: AdminSettings, form: str) -> None:
    """What you may break glass on, and every use that is alive or not reviewed, newest first."""
    options, uses = run_admin(admin, lambda client: _list(client, settled=everything))
    if form == "json":
        print_json({"options": [_option(each) for each in options], "uses": [data(each) for each in uses]})
        return
    for each in options:
        blocked = f"  BLOCKED until {each.blocked_by} is reviewed" if each.blocked_by else ""
        where = f"{', '.join(each.accounts)} / {', '.join(each.environments)}"
        longest = span(each.max_ttl.ToTimedelta())
        click.echo(f"you may: {each.template}  {inert(where)}  up to {longest}, as {', '.join(each.groups)}{blocked}")
    if not options:
        click.echo("you may: nothing; no template pre-authorises a group of yours")
    if uses:
        click.echo("")
        header = ("LEASE", "WHO", "TEMPLATE", "RESOURCE", "INCIDENT", "REVIEW", "STATE")
        click.echo(table([_row(each) for each in uses], header))


@break_glass.command()
@click.argument("lease_id", metavar="LEASE")
@admin_options
@format_option("text", "json")
def show(lease_id: str, admin: AdminSettings, form: str) -> None:
    """One use: who, why, who was told, and what its review found."""
    found = run_admin(admin, lambda client: client.call("GetBreakGlass", pb.GetBreakGlassRequest(lease_id=lease_id)))
    _tell(found, form)


@break_glass.command()
@click.argument("lease_id", metavar="LEASE")
@click.option("--code-file", type=_FILE, metavar="FILE", help="The sealed code that it was got with; with --as.")
@click.option("--as", "key", default="", metavar="KEY", help="With --code-file: who you are in people.yaml.")
@wait_option
@admin_options
@format_option("text", "json")
def end(lease_id: str, code_file: Path | None, key: str, wait: timedelta, admin: AdminSettings, form: str) -> None:
    """End a use now, yours or (approvers, operators, security) another's."""
    request = pb.EndBreakGlassRequest(lease_id=lease_id, wait=_duration(wait))
    found = run_admin(admin, lambda client: client.call("EndBreakGlass", request, 90.0), _code(code_file, key))
    if form == "json":
        print_json(data(found))
    else:
        click.echo(f"{lease_id}  {inert(lease_state(read.read(Lease, found.lease), SystemClock().now()))}")


for _command in (review, override, codes):
    break_glass.add_command(_command)


async def _list(client: AdminClient, *, settled: bool) -> tuple[list[pb.BreakGlassOption], list[pb.BreakGlassUse]]:
    request = pb.ListBreakGlassRequest(page_size=_PAGE, include_settled=settled)
    options: list[pb.BreakGlassOption] = []
    uses: list[pb.BreakGlassUse] = []
    while True:
        page: pb.ListBreakGlassResponse = await client.call("ListBreakGlass", request)
        options.extend(page.options)
        uses.extend(page.uses)
        if not page.next_page_token:
            return options, uses
        request.page_token = page.next_page_token


def _row(use: pb.BreakGlassUse) -> tuple[str, ...]:
    lease, now = read.read(Lease, use.lease), SystemClock().now()
    badge = lease.break_glass
    who = "" if badge is None else badge.person_name
    incident = "" if badge is None else badge.incident
    state = read.read(Lease, use.lease).state
    return (lease.id, inert(who), lease.template, inert(lease.resource), inert(incident), _review(use, now), state)


def _review(use: pb.BreakGlassUse, now: Any) -> str:
    badge = read.read(Lease, use.lease).break_glass
    if badge is None:
        return ""
    if badge.review_state in ("AHEAD", "DUE"):
        return f"due {clock(badge.review_due_time, now)}"
    return badge.review_state + (f" by {inert(use.reviewer_name)}" if use.reviewer_name else "")


def _tell(use: pb.BreakGlassUse, form: str) -> None:
    if form == "json":
        print_json(data(use))
    else:
        click.echo("\n".join(_lines(use)))


def _lines(use: pb.BreakGlassUse) -> Iterator[str]:
    lease, now = read.read(Lease, use.lease), SystemClock().now()
    badge = lease.break_glass
    yield f"{lease.id}  {inert(lease_state(lease, now))}"
    if badge is not None:
        yield f"who       {inert(badge.person_name)} ({inert(badge.person)}), by {badge.authenticated_by}"
        yield f"incident  {inert(badge.incident)}"
        yield f"reason    {inert(badge.reason)}"
    yield f"what      {lease.template}: {', '.join(lease.actions)} on {inert(lease.resource)}, {inert(lease.account)}"
    yield f"holder    {lease.holder}"
    yield f"groups    {', '.join(use.groups)}"
    yield f"told      {', '.join(use.told) or 'nobody: no approval was in the way'}"
    if use.overrode:
        yield f"overrode  {', '.join(use.overrode)}"
    yield f"review    {_review(use, now)}"
    for line in use.findings.splitlines():
        yield f"  | {inert(line)}"


def data(use: pb.BreakGlassUse) -> dict[str, object]:
    """A use, as the stable JSON of ``--format json``."""
    return {
        "lease": read.read(Lease, use.lease),
        "groups": list(use.groups),
        "told": list(use.told),
        "overrode": list(use.overrode),
        "codeId": use.code_id,
        "reviewer": use.reviewer,
        "reviewerName": use.reviewer_name,
        "findings": use.findings,
        "reviewTime": read.moment(use.review_time) if use.HasField("review_time") else None,
    }


def _option(option: pb.BreakGlassOption) -> dict[str, object]:
    return {
        "template": option.template,
        "description": option.description,
        "accounts": list(option.accounts),
        "environments": list(option.environments),
        "resource": option.resource,
        "maxTtl": option.max_ttl.ToTimedelta(),
        "groups": list(option.groups),
        "blockedBy": option.blocked_by,
    }


def _duration(value: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(value)
    return message
