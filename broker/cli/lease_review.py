"""``broker leases review``: which live leases the rules in force would not grant any more."""

from __future__ import annotations

import click

from broker.api.v1 import lease_review_pb2 as pb
from broker.approval.inert import inert
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import format_option, print_json, table
from broker.client import Lease, read
from broker.client.admin import AdminClient

_PAGE = 200


@click.command()
@click.option("--revoke", is_flag=True, help="End them, whatever their templates say.")
@admin_options
@format_option("text", "json")
def review(revoke: bool, admin: AdminSettings, form: str) -> None:
    """Decide on every live lease again; list what would not be granted any more.

    For operators. The broker does the same by itself whenever another deploy set comes into force, and then ends what a
    template with `on_policy_change: revoke` granted.
    """
    found, revoked = run_admin(admin, lambda client: _review(client, revoke))
    if form == "json":
        print_json(found)
    elif not found:
        click.echo("every live lease would be granted again")
    else:
        header = ("LEASE", "HOLDER", "TEMPLATE", "WAS GRANTED BY", "NOW", "", "WHY")
        click.echo(table([_row(each, revoked) for each in found], header))


async def _review(client: AdminClient, revoke: bool) -> tuple[list[Lease], frozenset[str]]:
    found: list[Lease] = []
    revoked: set[str] = set()
    token = ""
    while True:
        asked = pb.ReviewLeasesRequest(request_id=client.new_id(), revoke=revoke, page_size=_PAGE, page_token=token)
        answer = await client.call("ReviewLeases", asked)
        found.extend(read.read(Lease, each) for each in answer.leases)
        revoked.update(answer.revoked)
        token = answer.next_page_token
        if not token:
            return found, frozenset(revoked)


def _row(lease: Lease, revoked: frozenset[str]) -> tuple[str, ...]:
    now = lease.policy_tightened
    assert now is not None  # noqa: S101 - the broker lists no other
    by = f" by {', '.join(now.policies)}" if now.policies else ""
    return (
        lease.id,
        lease.holder,
        lease.template,
        ", ".join(lease.policies),
        now.outcome + by,
        "revoking" if lease.id in revoked else "",
        inert(now.why),
    )
