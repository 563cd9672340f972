"""``broker leases forget``: two people say that what cannot be ended cannot be alive any more."""

from __future__ import annotations

import click

from broker.api.v1 import lease_forgetting_pb2 as pb
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import note
from broker.cli.values import Text


@click.command()
@click.argument("lease_id", metavar="LEASE")
@click.option("--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="Why; it goes into the audit trail.")
@admin_options
def forget(admin: AdminSettings, lease_id: str, reason: str) -> None:
    """For operators: stop trying to end a lease that can never be ended. It takes two people.

    Only a lease that is stuck, or whose record was tampered with, and only a day after the upstream itself must have
    ended it. Look there first: what is still alive goes on without the broker.
    """
    asked = pb.ForgetLeaseRequest(lease_id=lease_id, reason=reason)
    done = run_admin(admin, lambda client: client.call("ForgetLease", asked))
    if done.forgotten:
        note(f"Lease {lease_id} is forgotten: {done.first_by} and you stand for it.")
    else:
        note(f"Proposed. It is forgotten when a second person runs: broker leases forget {lease_id} --reason TEXT")
