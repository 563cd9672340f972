"""``broker leases forget``: two people say that what cannot be ended cannot be alive any more."""

from __future__ import annotations

import click

from broker.api.v1 import lease_forgetting_pb2 as pb
from broker.approval.intent_digest import FORGET_LEASE
from broker.cli.admin import AdminSettings, admin_options, run_fresh
from broker.cli.output import note
from broker.cli.person import How, login_options
from broker.cli.values import Text
from broker.client.admin import AdminClient


@click.command()
@click.argument("lease_id", metavar="LEASE")
@click.option("--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="Why; it goes into the audit trail.")
@login_options
@admin_options
def forget(admin: AdminSettings, how: How, lease_id: str, reason: str) -> None:
    """For operators: stop trying to end a lease that can never be ended. It takes two people, each logging in for it.

    Only a lease that is stuck, or whose record was tampered with, and only a day after the upstream itself must have
    ended it. Look there first: what is still alive goes on without the broker.
    """
    fields = {"lease_id": lease_id, "reason": reason}

    async def ask(client: AdminClient, fresh_id_token: str) -> pb.ForgetLeaseResponse:
        asked = pb.ForgetLeaseRequest(**fields, fresh_id_token=fresh_id_token)
        answer: pb.ForgetLeaseResponse = await client.call("ForgetLease", asked)
        return answer

    done = run_fresh(admin, how, FORGET_LEASE, fields, ask)
    if done.forgotten:
        note(f"Lease {lease_id} is forgotten: {done.first_by} and you stand for it.")
    else:
        note(f"Proposed. It is forgotten when a second person runs: broker leases forget {lease_id} --reason TEXT")
