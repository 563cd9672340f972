"""``broker admin reload``: have brokerd take in its deploy files, from elsewhere than its own machine."""

from __future__ import annotations

from typing import Any

import click

from broker.api.v1 import admin_view_pb2 as pb
from broker.approval.inert import inert
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import format_option, print_json
from broker.cli.settings import EXIT_WRONG
from broker.client.admin import AdminClient


@click.command()
@click.option("--request-id", default="", help="What names the call; default: a new one.")
@admin_options
@format_option("text", "json")
def reload(admin: AdminSettings, request_id: str, form: str) -> None:
    """Take in the deploy files as they are on brokerd's disk; exits 1, and says why, where they are refused."""

    async def ask(client: AdminClient) -> Any:
        return await client.call("ReloadDeploy", pb.ReloadDeployRequest(request_id=request_id or client.new_id()))

    answer = run_admin(admin, ask)
    if form == "json":
        told = {"accepted": answer.accepted, "deployDigest": answer.deploy_digest, "problems": list(answer.problems)}
        print_json(told)
    else:
        for line in answer.problems:
            click.echo(inert(line), err=True)
        outcome = "in force" if answer.accepted else "refused; still in force is"
        click.echo(f"{outcome} sha256:{answer.deploy_digest}")
    if not answer.accepted:
        raise SystemExit(EXIT_WRONG)
