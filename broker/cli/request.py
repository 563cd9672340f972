"""``broker request``: one credential, delivered where it is needed and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from broker.cli import contracts
from broker.cli.agent_key import KINDS, AgentKey
from broker.cli.asking import Asking, asking_options
from broker.cli.connection import run, settings
from broker.cli.credential_process import answer as process_answer
from broker.cli.credential_process import default_directory
from broker.cli.delivery import NEEDED_FORMS, Delivery, KeyDelivery, choose, written
from broker.cli.fitting import demand_form
from broker.cli.output import format_option, lease_state, note, print_json, tell_waiting
from broker.cli.values import Span, Text
from broker.client import ApprovalNeeded, AsyncClient, Decision, Grant
from broker.client.forms import Form
from broker.client.task import uninterrupted
from broker.clock import SystemClock
from broker.errors import BrokerError


@click.command()
@asking_options
@click.option("--task", "task_id", default="", metavar="TASK", help="The task it is for.")
@click.option(
    "--purpose",
    default="",
    type=Text(),
    metavar="TEXT|@FILE",
    help="Start a task for this purpose instead; it goes on afterwards.",
)
@click.option(
    "--wait",
    "wait_for_approval",
    type=Span(),
    metavar="SPAN",
    help="If people must agree first, wait for them this long; else the request is filed and its id told.",
)
@click.option("--task-type", default="", metavar="WORD", help="With --purpose: what kind of work it is.")
@click.option("--new-key", type=click.Choice(KINDS), help="Make a key to be certified, in --key-out.")
@click.option(
    "--key-out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --new-key: its file, new, mode 0600; the certificate is put beside it.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Into this file: new, mode 0600.")
@click.option("--fd", type=int, metavar="N", help="Into this open descriptor, which is closed then.")
@click.option("--reveal", is_flag=True, help="Print the secret on standard output.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIRECTORY",
    help="Of credential-process: where its answer is kept.  [default: in your runtime directory]",
)
@click.option("--validate-only", is_flag=True, help="Only decide; nothing is issued.")
@format_option("env", "json", "text", *NEEDED_FORMS)
def request(
    asked: Asking,
    task_id: str,
    purpose: str,
    wait_for_approval: timedelta | None,
    task_type: str,
    new_key: str | None,
    key_out: Path | None,
    out: Path | None,
    fd: int | None,
    reveal: bool,
    cache: Path | None,
    validate_only: bool,
    form: str,
) -> None:
    """Ask for a credential under a task.

    It goes into a new file or a descriptor, as NAME=value lines (env), JSON, or what the upstream's own tools read
    (text: libpq's connection string, a profile for AWS; pgpass: libpq's password file; token: the token alone). Only
    when it is written is its arrival confirmed; if that fails, it is revoked. Texts may be @FILE, or @- for standard
    input.

    With --format credential-process it prints what AWS SDKs read of a program in ~/.aws/config, and keeps it, so that
    the next call is answered without a new lease; when the task has ended, it says so and fails.

    A certificate is for a key of yours: --new-key makes one, in --key-out, and puts the certificate beside it; only its
    public part is sent.

    Where people must agree first, the request is filed for them, and the task goes on: wait with --wait, or see
    `broker requests`.
    """
    if bool(task_id) == bool(purpose):
        raise click.UsageError("Name the task: one of --task ID or --purpose TEXT.")
    if task_type and task_id:
        raise click.UsageError("--task-type is for a task started here; with --task there is none.")
    if (new_key is None) != (key_out is None):
        raise click.UsageError("--new-key and --key-out come together.")
    if validate_only:
        if new_key is not None:
            raise click.UsageError("--validate-only issues nothing: say --public-key, of a key that you have.")
        if out is not None or fd is not None or reveal:
            raise click.UsageError("--validate-only issues nothing, so there is nothing for --out, --fd or --reveal.")
        _tell_decision(run(lambda client: _validate(client, asked, task_id, purpose, task_type)), form)
        return
    if form == Form.CREDENTIAL_PROCESS and new_key is None and out is None and fd is None and not reveal:
        if not task_id:
            raise click.UsageError("credential-process is run again and again under one task: name it with --task.")
        directory = cache or default_directory(settings().environment)
        told = run(lambda client: process_answer(client, asked, task_id, directory, wait_for_approval))
        click.echo(told, nl=False)
        return
    if cache is not None:
        raise click.UsageError("--cache is for --format credential-process, without --out, --fd and --reveal.")
    delivery = _delivery(new_key, key_out, out, fd, reveal=reveal)
    try:
        how = (wait_for_approval, delivery, form)
        asked = asked.of_key(delivery.key if isinstance(delivery, KeyDelivery) else None)
        grant = run(lambda client: _request(client, asked, task_id, purpose, task_type, *how))
    except BaseException:
        delivery.discard()
        raise
    tell_grant(grant, form, reveal=reveal)
    if purpose:
        started = grant.lease.task_id
        note(f"task {started} goes on; end it, and all its leases: broker task complete {started}")


def _delivery(new_key: str | None, key_out: Path | None, out: Path | None, fd: int | None, *, reveal: bool) -> Delivery:
    """Where it goes: beside the key that is made for it, or where it was said."""
    if new_key is None or key_out is None:
        return choose(out, fd, reveal=reveal)
    if out is not None or fd is not None or reveal:
        raise click.UsageError("With --key-out it goes beside the key: leave out --out, --fd and --reveal.")
    return KeyDelivery(AgentKey(new_key, key_out))


def tell_grant(grant: Grant, form: str, *, reveal: bool) -> None:
    """The lease of what was delivered; not among a secret that was printed."""
    if form == "json" and not reveal:
        print_json(grant.lease)
    else:
        click.echo(f"{grant.lease.id}  {lease_state(grant.lease, SystemClock().now())}", err=reveal)


async def _validate(client: AsyncClient, asked: Asking, task_id: str, purpose: str, task_type: str) -> Decision:
    if task_id:
        return await client.validate(asked.under(task_id, client.new_id))
    async with client.task(purpose, task_type=task_type, wait=timedelta()) as task:
        return await client.validate(asked.under(task.id, client.new_id))


async def _request(
    client: AsyncClient,
    asked: Asking,
    task_id: str,
    purpose: str,
    task_type: str,
    wait: timedelta | None,
    delivery: Delivery,
    form: str,
) -> Grant:
    await demand_form(client, asked, _form(form), delivery.key.kind if isinstance(delivery, KeyDelivery) else None)

    def asking(task: str) -> Awaitable[Grant]:
        what = asked.under(task, client.new_id)
        return client.request(what, confirm=False, wait_for_approval=wait, on_waiting=tell_waiting)

    if task_id:
        return await delivered(client, asking(task_id), delivery, form)
    started = await client.start_task(purpose, task_type=task_type)
    try:
        return await delivered(client, asking(started.id), delivery, form)
    except ApprovalNeeded as waiting:
        # What people are asked about would end with its task.
        note(f"task {started.id} goes on, as does {waiting.access_request.id}; broker task complete ends both")
        raise
    except BaseException:
        # Nobody else knows of the task, so nobody else could complete it.
        await uninterrupted(_last_resort(client.complete_task(started.id), f"task {started.id}"))
        raise


def _form(told: str) -> Form:
    """The form that has to fit; the others fit all."""
    return Form(told) if told in NEEDED_FORMS else Form.ENVIRONMENT


async def delivered(client: AsyncClient, asking: Awaitable[Grant], delivery: Delivery, form: str) -> Grant:
    """What ``asking`` (unconfirmed) yields, put where it is needed and then confirmed; else revoked."""
    grant = await asking
    try:
        if isinstance(delivery, KeyDelivery):
            await asyncio.to_thread(delivery.key.certified, grant.credential)
        else:
            await asyncio.to_thread(delivery.write, written(grant, form))
        return await client.confirm(grant)
    except BaseException as error:
        await uninterrupted(_last_resort(client.revoke(grant.lease.id), f"lease {grant.lease.id}"))
        if isinstance(error, OSError):
            raise click.ClickException(f"the credential could not be delivered: {error.strerror}.") from None
        raise


async def _last_resort(ending: Coroutine[Any, Any, object], what: str) -> None:
    """End something although something else went wrong already; the first error is the one to be told."""
    try:
        await ending
    except BrokerError as error:
        note(f"{what} could not be ended: {error}")


def _tell_decision(decision: Decision, form: str) -> None:
    if form == "json":
        print_json(decision)
        return
    told = f"needs the approval of {', '.join(decision.approvals)}, by" if decision.approvals else "allowed by"
    click.echo(f"{told} {', '.join(decision.policies)} (policies sha256:{decision.policy_digest[:16]})")
    for explanation in decision.explanations:
        click.echo(f"  {explanation}")
    for line in contracts.lines(decision.contract) if decision.contract else ():
        click.echo(f"  {line}")
