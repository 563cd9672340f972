"""``broker exec``: a command with a credential in its environment, and no credential after it.

Belongs here: the order of things. Whatever happens (an exit, a signal, an exception), the leases asked for
here are ended; the task is completed only if it was started here. A task started here is also held, so that
even ``kill -9`` ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import PurePath
from typing import Any

import click

from broker.cli.agent_key import KINDS, AgentKey, with_files
from broker.cli.asking import Asking, asking_options
from broker.cli.child import Signals
from broker.cli.connection import client_of, settings
from broker.cli.delivery import demand_fit
from broker.cli.fitting import demand_form
from broker.cli.handing import handed
from broker.cli.output import lease_state, note, span, tell_waiting
from broker.cli.private_files import PrivateDirectory, passing_key, private_directory
from broker.cli.settings import Settings
from broker.cli.task import wait_option
from broker.cli.values import Span, Text
from broker.client import AsyncClient, Grant, Lease
from broker.client.forms import Form
from broker.client.hold import Hold
from broker.client.renewing import TaskCredential
from broker.client.task import uninterrupted
from broker.clock import SystemClock
from broker.errors import BrokerError

_COMPLETED = "COMPLETED"  # Task.end_cause, where we ended it ourselves


@click.command("exec", context_settings={"allow_interspersed_args": False})
@asking_options
@click.option("--task", "task_id", default="", metavar="TASK", help="A task of yours, which goes on afterwards.")
@click.option(
    "--purpose",
    default="",
    type=Text(),
    metavar="TEXT|@FILE",
    help="What the task is for; default: to run the command.",
)
@click.option("--task-type", default="", metavar="WORD", help="Without --task: what kind of work it is.")
@click.option(
    "--grace", type=Span(), default="10s", show_default=True, help="How long the task outlives a killed `broker exec`."
)
@click.option(
    "--wait-for-approval",
    type=Span(),
    metavar="SPAN",
    help="If people must agree first, wait for them this long; else the command does not run.",
)
@click.option(
    "--deliver",
    type=click.Choice([form.value for form in Form if form is not Form.CREDENTIAL_PROCESS]),
    default=Form.ENVIRONMENT.value,
    show_default=True,
    help="How the command gets the credential.",
)
@click.option(
    "--new-key",
    type=click.Choice(KINDS),
    help="Make a key to be certified, for the command's life; BROKER_KEY_FILE and _CERTIFICATE_FILE say where.",
)
@wait_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(
    asked: Asking,
    task_id: str,
    purpose: str,
    task_type: str,
    grace: timedelta,
    wait_for_approval: timedelta | None,
    deliver: str,
    new_key: str | None,
    wait: timedelta,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with a credential in its environment, and end the credential with it.

    \b
    broker exec --template orders-readonly --account shop --environment dev \\
                --resource orders --ttl 5m -- psql -c 'select 1'

    A database login comes as PGHOST, PGPORT, PGDATABASE, PGUSER and PGPASSWORD, an AWS session as AWS_..., a
    certificate for the key of --new-key as files; never on the command line. With --deliver pgpass a login comes in
    libpq's password and service files, with container a session from an endpoint on loopback that AWS SDKs ask, and
    which asks the broker again before it ends, with token a token in a file that BROKER_TOKEN_FILE names. These files
    are the caller's alone, and are removed at the end. Signals are passed on, and those ignored (nohup) left ignored;
    open descriptors are handed on. The exit code is the command's: 128 and the number for a signal, 127 not found, 126
    not executable. Before there is a command: 2 usage, 3 refused, 4 unreachable.

    Without --task a task is started, held, and completed at the end; if this process is killed, the task ends after
    --grace. With --task only the lease asked for here is ended; if this process is killed, that lease lives until
    its TTL, or until its task ends.
    """
    if task_id and (purpose or task_type):
        raise click.UsageError("--purpose and --task-type are for a task started here; with --task there is none.")
    if asked.wrap is not None:
        raise click.UsageError("--wrap is for `broker request`: a command needs the credential itself.")
    named = purpose or f"run {PurePath(command[0]).name}"
    form = Form(deliver)
    execution = Execution(
        asked, task_id, named, grace, wait, command, task_type, wait_for_approval, form=form, new_key=new_key
    )
    raise SystemExit(asyncio.run(execution.run(settings())))


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of one command."""

    asked: Asking
    task_id: str  # empty: start one
    purpose: str
    grace: timedelta
    wait: timedelta
    command: Sequence[str]
    task_type: str = ""
    wait_for_approval: timedelta | None = None
    form: Form = Form.ENVIRONMENT
    new_key: str | None = None  # the kind of key to make
    key: AgentKey | None = None  # that was made

    async def run(self, chosen: Settings) -> int:
        """The exit code to end with."""
        with Signals() as signals:
            try:
                # What cannot be written to is told before anybody is asked for a credential.
                with (
                    passing_key(self.new_key, chosen.environment) as key,
                    self._place(chosen.environment) as place,
                ):
                    mine = replace(self, asked=self.asked.of_key(key), key=key)
                    async with client_of(chosen) as client:
                        await demand_form(client, mine.asked, mine.form, mine.new_key)
                        under = mine._borrowing if mine.task_id else mine._owning
                        return await under(client, signals, chosen.environment, place)
            except OSError as error:
                raise click.ClickException(f"the credential could not be delivered: {error.strerror}.") from None
            except asyncio.CancelledError:
                if signals.stopped_by is None:
                    raise
                return signals.exit_code

    def _place(self, environment: Mapping[str, str]) -> AbstractContextManager[PrivateDirectory | None]:
        return nullcontext() if self.form is Form.ENVIRONMENT else private_directory(environment)

    async def _owning(
        self, client: AsyncClient, signals: Signals, environment: Mapping[str, str], place: PrivateDirectory | None
    ) -> int:
        """Under a task of our own, which is completed whatever happens."""
        task = await client.start_task(self.purpose, task_type=self.task_type)
        hold = client.hold(task.id, grace=self.grace)
        async with AsyncExitStack() as stack:
            # Let go of last: a task let go of would end by itself, for another cause.
            stack.push_async_callback(hold.release)
            stack.push_async_callback(self._at_last, signals, self._complete(client, task.id, hold))
            await hold.__aenter__()
            return await self._hand_over(self._source(client, task.id), signals, environment, place)

    async def _borrowing(
        self, client: AsyncClient, signals: Signals, environment: Mapping[str, str], place: PrivateDirectory | None
    ) -> int:
        """Under somebody's task, which goes on."""
        source = self._source(client, self.task_id)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._at_last, signals, self._revoke(client, source))
            return await self._hand_over(source, signals, environment, place)

    async def _hand_over(
        self,
        source: TaskCredential,
        signals: Signals,
        environment: Mapping[str, str],
        place: PrivateDirectory | None,
    ) -> int:
        grant = await source.first()
        demand_fit(self.form, grant)
        try:
            async with handed(self.form, grant, source, environment, place) as variables:
                return await self._carry_out(signals, with_files(variables, self.key, grant.credential))
        finally:
            await source.close()

    async def _carry_out(self, signals: Signals, variables: Mapping[str, str]) -> int:
        return await signals.run(self.command, variables)

    def _source(self, client: AsyncClient, task_id: str) -> TaskCredential:
        # The first has the id that was given; another of the same id would replace it.
        given = iter([self.asked.under(task_id, client.new_id)])

        async def ask() -> Grant:
            asked = next(given, None) or replace(self.asked, request_id="").under(task_id, client.new_id)
            return await client.request(asked, wait_for_approval=self.wait_for_approval, on_waiting=tell_waiting)

        return TaskCredential(client, task_id, ask, SystemClock().now)

    async def _at_last(self, signals: Signals, ending: Coroutine[Any, Any, None]) -> None:
        signals.end()
        await uninterrupted(ending)

    async def _complete(self, client: AsyncClient, task_id: str, hold: Hold) -> None:
        heard = hold.lost  # afterwards we have ended it ourselves
        try:
            done = await client.complete_task(task_id, wait=self.wait)
        except BrokerError as error:
            if heard:
                _tell_lost(task_id, "", hold.error)
            note(f"task {task_id} could not be completed; let go of, it ends in {span(self.grace)}: {error}")
            return
        # What ended just before the command did may not have been heard yet: the broker knows.
        if heard or done.task.end_cause != _COMPLETED:
            _tell_lost(task_id, done.task.end_cause, hold.error)
        _tell_living(done.may_be_alive)

    async def _revoke(self, client: AsyncClient, source: TaskCredential) -> None:
        # At once: there may be one for each quarter of an hour of a day, and a broker that does not answer.
        await asyncio.gather(*(self._revoke_one(client, lease_id) for lease_id in source.lease_ids))

    async def _revoke_one(self, client: AsyncClient, lease_id: str) -> None:
        try:
            lease = await client.revoke(lease_id, wait=self.wait)
            _tell_living([lease] if lease.may_be_alive else [])
        except BrokerError as error:
            note(f"lease {lease_id} could not be revoked; it ends with its TTL or its task: {error}")


def _tell_lost(task_id: str, cause: str, error: Exception | None) -> None:
    why = f" ({cause})" if cause else ""
    note(f"task {task_id}, and its credential, had ended before the command did{why}. {error or ''}".rstrip())


def _tell_living(leases: Iterable[Lease]) -> None:
    now = SystemClock().now()
    for lease in leases:
        note(f"lease {lease.id}: {lease_state(lease, now)}")
