"""``broker operator``: who you are at the people's door."""

from __future__ import annotations

from dataclasses import dataclass

import click

from broker.api.v1 import admin_service_pb2 as pb
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import format_option, print_record


@click.group()
def operator() -> None:
    """You, as one who operates the broker."""


@operator.command("whoami")
@admin_options
@format_option("text", "json", "env")
def whoami(admin: AdminSettings, form: str) -> None:
    """Who the broker thinks you are: the person your login names, and the roles you have."""
    told = run_admin(admin, lambda client: client.call("GetOperator", pb.GetOperatorRequest()))
    print_record(_told(told), form, "BROKER_OPERATOR")


@dataclass(frozen=True, slots=True)
class OperatorFacts:
    """``GetOperatorResponse``, as a value."""

    key: str
    issuer: str
    subject: str
    display_name: str
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    authenticated_by: str
    tenant: str
    deploy_digest: str


def _told(message: pb.GetOperatorResponse) -> OperatorFacts:
    return OperatorFacts(
        key=message.key,
        issuer=message.issuer,
        subject=message.subject,
        display_name=message.display_name,
        groups=tuple(message.groups),
        roles=tuple(message.roles),
        authenticated_by=message.authenticated_by,
        tenant=message.tenant,
        deploy_digest=message.deploy_digest,
    )
