"""``broker audit texts`` and ``broker audit erase-texts``: what agents said in whole, and the end of it."""

from __future__ import annotations

from datetime import UTC

import click

from broker.api.v1 import claimed_text_pb2 as pb
from broker.approval.inert import inert
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import format_option, moment, note, print_json
from broker.cli.values import Text

_NAMES = (("prompt", "prompt"), ("tool_call", "tool call"), ("plan", "plan"))


@click.command()
@click.argument("task_id", metavar="TASK")
@admin_options
@format_option("text", "json")
def texts(admin: AdminSettings, task_id: str, form: str) -> None:
    """Show the prompts, tool calls and plans that a task's credentials were asked for with.

    They are the agents' words. That you read them is told in the audit trail.
    """
    asked = pb.GetTaskTextsRequest(task_id=task_id)
    found = run_admin(admin, lambda client: client.call("GetTaskTexts", asked)).texts
    if form == "json":
        print_json([_data(each) for each in found])
        return
    if not found:
        note("Nothing is kept of this task: nothing was said, or it was erased.")
    for each in found:
        click.echo(f"{moment(each.create_time.ToDatetime(UTC))}  {each.about}")
        for name, title in _NAMES:
            if said := getattr(each, name):
                cut = " (its beginning only)" if name in each.cut else ""
                click.echo(f"  {title}{cut}:")
                click.echo("\n".join(f"    {line}" for line in inert(said, lines=True).splitlines()))


@click.command("erase-texts")
@click.argument("task_id", metavar="TASK")
@click.option("--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="Why; it goes into the audit trail.")
@admin_options
def erase_texts(admin: AdminSettings, task_id: str, reason: str) -> None:
    """Erase a task's prompts, tool calls and plans, for good. Their digests stay in the audit trail."""
    asked = pb.EraseTaskTextsRequest(task_id=task_id, reason=reason)
    erased = run_admin(admin, lambda client: client.call("EraseTaskTexts", asked)).erased
    note("Erased." if erased else "There was nothing to erase.")


def _data(message: pb.ClaimedText) -> dict[str, object]:
    return {
        "about": message.about,
        "createTime": moment(message.create_time.ToDatetime(UTC)),
        **{name: getattr(message, name) for name, _ in _NAMES},
        "cut": list(message.cut),
    }
