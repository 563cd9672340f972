"""``broker serve-credentials``: a container-credentials endpoint for programs that were not started by us.

Belongs here: the command. The order of things is that of ``exec.py``, with waiting for a signal in the command's place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

import click

from broker.cli.asking import Asking, asking_options
from broker.cli.child import Signals
from broker.cli.connection import settings
from broker.cli.delivery import demand_fit
from broker.cli.exec import Execution
from broker.cli.handing import serving
from broker.cli.output import environment_lines
from broker.cli.private_files import PrivateDirectory, private_directory
from broker.cli.task import wait_option
from broker.cli.values import Span, Text
from broker.client.forms import Form
from broker.client.renewing import TaskCredential


@click.command("serve-credentials")
@asking_options
@click.option("--task", "task_id", default="", metavar="TASK", help="A task of yours, which goes on afterwards.")
@click.option(
    "--purpose", default="", type=Text(), metavar="TEXT|@FILE", help="Start a task for this instead, and complete it."
)
@click.option("--task-type", default="", metavar="WORD", help="With --purpose: what kind of work it is.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="On loopback; default: any that is free.")
@click.option("--grace", type=Span(), default="10s", show_default=True, help="How long that task outlives a kill -9.")
@click.option("--wait-for-approval", type=Span(), metavar="SPAN", help="If people must agree first, wait this long.")
@wait_option
def serve_credentials(
    asked: Asking,
    task_id: str,
    purpose: str,
    task_type: str,
    port: int,
    grace: timedelta,
    wait_for_approval: timedelta | None,
    wait: timedelta,
) -> None:
    """Serve a credential to AWS SDKs on loopback until a signal comes.

    Prints the variables that lead an SDK to it, as NAME=value lines, once it serves. Each answer comes from here; the
    broker is asked once in a credential's life, and again before its end for as long as the task is open. When the task
    has ended, every answer is the error "task ended". At the end what was asked for is revoked, and a task started
    here completed.
    """
    if bool(task_id) == bool(purpose):
        raise click.UsageError("Name the task: one of --task ID or --purpose TEXT.")
    if task_type and task_id:
        raise click.UsageError("--task-type is for a task started here; with --task there is none.")
    if asked.wrap is not None:
        raise click.UsageError("--wrap is for `broker request`: SDKs need the credential itself.")
    service = Service(
        asked, task_id, purpose, grace, wait, (), task_type, wait_for_approval, form=Form.CONTAINER, port=port
    )
    code = asyncio.run(service.run(settings()))
    # A signal is how it is meant to end.
    raise SystemExit(0 if code > _SIGNALLED else code)


_SIGNALLED = 128


@dataclass(frozen=True, slots=True)
class Service(Execution):
    """One run of the endpoint."""

    port: int = 0

    def _place(self, environment: Mapping[str, str]) -> AbstractContextManager[PrivateDirectory | None]:
        return private_directory(environment)

    async def _hand_over(
        self,
        source: TaskCredential,
        signals: Signals,
        environment: Mapping[str, str],
        place: PrivateDirectory | None,
    ) -> int:
        if place is None:
            raise TypeError("the endpoint's token needs a place")
        grant = await source.first()
        demand_fit(self.form, grant)
        try:
            async with serving(grant, source, place, self.port) as variables:
                click.echo(environment_lines(variables))
                await asyncio.Event().wait()  # for a signal, which cancels it
                return 0
        finally:
            await source.close()
