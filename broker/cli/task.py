"""``broker task start|get|complete|hold``."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

import click

from broker.cli.connection import run
from broker.cli.output import format_option, lease_state, note, print_json, print_record, span
from broker.cli.values import Span, Text
from broker.client import AsyncClient, Completion
from broker.client.report import parse_report
from broker.clock import SystemClock

wait_option = click.option(
    "--wait",
    type=Span(zero=True, most=timedelta(seconds=60)),
    default="10s",
    show_default=True,
    help="How long to wait for the proof that every lease has ended; at most 60s.",
)


@click.group()
def task() -> None:
    """Tasks bound leases: when a task ends, so does everything granted under it."""


@task.command()
@click.option("--purpose", type=Text(), metavar="TEXT|@FILE", required=True, help="What it is for, in a sentence.")
@click.option("--participant", multiple=True, metavar="SPIFFE-ID", help="Another agent that may request under it.")
@click.option("--max-duration", type=Span(), help="How long it may take; default: the broker's.")
@click.option("--ticket", default="", help="The ticket it belongs to.")
@click.option("--sponsor", default="", help="The human on whose behalf it runs.")
@click.option("--type", "task_type", default="", metavar="WORD", help="What kind of work it is; policies may ask.")
@click.option("--request-id", default="", help="The same id and content again: the same task.")
@format_option("text", "json", "env")
def start(
    purpose: str,
    participant: tuple[str, ...],
    max_duration: timedelta | None,
    ticket: str,
    sponsor: str,
    task_type: str,
    request_id: str,
    form: str,
) -> None:
    """Start a task. It goes on until `broker task complete`, or its deadline."""
    facts = run(
        lambda client: client.start_task(
            purpose,
            participants=participant,
            max_duration=max_duration,
            ticket=ticket,
            sponsor=sponsor,
            task_type=task_type,
            request_id=request_id,
        )
    )
    print_record(facts, form, "BROKER_TASK")


@task.command()
@click.argument("task_id", metavar="TASK")
@format_option("text", "json", "env")
def get(task_id: str, form: str) -> None:
    """Show a task you started or take part in."""
    print_record(run(lambda client: client.get_task(task_id)), form, "BROKER_TASK")


@task.command()
@click.argument("task_id", metavar="TASK")
@wait_option
@click.option(
    "--report",
    default="",
    type=Text(),
    metavar="JSON|@FILE",
    help='What it made and changed, for the audit trail: {"artifacts": [...], "mutations": [...]}. No secrets.',
)
@format_option("text", "json")
def complete(task_id: str, wait: timedelta, report: str, form: str) -> None:
    """Complete a task you started: all its leases end, and no new one can start."""
    told = parse_report(report) if report else None
    completion = run(lambda client: client.complete_task(task_id, wait=wait, report=told))
    if form == "json":
        print_json(completion)
    else:
        tell(completion)


def tell(completion: Completion) -> None:
    """What became of a task and its leases, for people."""
    now = SystemClock().now()
    click.echo(f"{completion.task.id}  {completion.task.state}")
    for lease in completion.leases:
        click.echo(f"{lease.id}  {lease_state(lease, now)}")


@task.command()
@click.argument("task_id", metavar="TASK")
@click.option(
    "--grace",
    type=Span(),
    default="10s",
    show_default=True,
    help="The task ends this long after this command is gone.",
)
def hold(task_id: str, grace: timedelta) -> None:
    """Hold a task you started for as long as this command runs.

    However this command ends, also by SIGKILL, the task ends once the grace time has passed.
    """
    run(lambda client: _hold(client, task_id, grace))


async def _hold(client: AsyncClient, task_id: str, grace: timedelta) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with client.hold(task_id, grace=grace) as held:
        note(f"holding {task_id}")
        waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(held.ended.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
    if held.error is not None:
        raise held.error
    ended = held.task is not None and not held.task.is_open
    note(f"{task_id} has ended" if ended else f"let go of {task_id}; it ends in {span(grace)}")
