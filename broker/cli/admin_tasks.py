"""``broker admin tasks|task|complete``: everybody's tasks, for operators."""

from __future__ import annotations

from datetime import timedelta

import click

from broker.api.v1 import admin_view_pb2 as pb
from broker.api.v1 import broker_service_pb2 as service
from broker.approval.inert import inert
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.ending import end, end_options
from broker.cli.output import clock, format_option, print_json, print_shown, table
from broker.cli.pages import all_of, limit_option
from broker.cli.task import tell
from broker.client import Completion, TaskFacts, read
from broker.clock import SystemClock


@click.command()
@click.option("--agent", default="", metavar="SPIFFE-ID", help="Only those that it started or takes part in.")
@click.option("--open", "open_only", is_flag=True, help="Only open ones.")
@limit_option
@admin_options
@format_option("text", "json")
def tasks(admin: AdminSettings, agent: str, open_only: bool, limit: int, form: str) -> None:
    """List everybody's tasks, newest first."""
    asked = pb.ListTasksRequest(agent=agent, open_only=open_only)
    found = run_admin(admin, lambda client: all_of(client, "ListTasks", asked, "tasks", TaskFacts, limit))
    if form == "json":
        print_json(found)
        return
    now = SystemClock().now()
    rows = [
        (each.id, each.creator, each.state, clock(each.end_time or each.deadline, now), inert(each.purpose))
        for each in found
    ]
    click.echo(table(rows, ("TASK", "CREATOR", "STATE", "ENDS", "PURPOSE, BY THE AGENT'S WORD")))


@click.command()
@click.argument("task_id", metavar="TASK")
@admin_options
@format_option("text", "json")
def task(admin: AdminSettings, task_id: str, form: str) -> None:
    """Show one task. Purpose, ticket and sponsor are its creator's words."""
    asked = service.GetTaskRequest(task_id=task_id)
    print_shown(read.read(TaskFacts, run_admin(admin, lambda client: client.call("GetTask", asked))), form)


@click.command()
@click.argument("task_id", metavar="TASK")
@end_options
@admin_options
@format_option("text", "json")
def complete(admin: AdminSettings, task_id: str, reason: str, wait: timedelta, request_id: str, form: str) -> None:
    """End one task now: all its leases end, and no new one can start. Repeating it is harmless."""
    asked = pb.AdminServiceCompleteTaskRequest(task_id=task_id)
    answer = run_admin(admin, lambda client: end(client, "CompleteTask", asked, wait, request_id, reason))
    completion = read.read(Completion, answer)
    if form == "json":
        print_json(completion)
    else:
        tell(completion)
