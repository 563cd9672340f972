"""``broker operator``: who you are at the people's door, and the credential that says so."""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import click

from broker.api.v1 import admin_service_pb2 as pb
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.output import format_option, print_record
from broker.errors import InvalidInput, Reason

_BYTES = 32


@click.group()
def operator() -> None:
    """You, as one who operates the broker."""


@operator.command("whoami")
@admin_options
@format_option("text", "json", "env")
def whoami(admin: AdminSettings, form: str) -> None:
    """Who the broker thinks you are: the person your credential names, and the roles you have."""
    told = run_admin(admin, lambda client: client.call("GetOperator", pb.GetOperatorRequest()))
    print_record(_told(told), form, "BROKER_OPERATOR")


@operator.command("new-credential")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def new_credential(path: Path) -> None:
    """Write a new credential into FILE, which must not exist and gets mode 0600.

    Whoever keeps brokerd's configuration names it there, on the machine of brokerd: operators: {dana: file:FILE}.
    One person, one credential; nobody else ever has it.
    """
    text = base64.b64encode(secrets.token_bytes(_BYTES)).decode()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
    except OSError as error:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"{path} cannot be written: {error.strerror}.",
            hint="Name a file that does not exist yet, in a directory of yours.",
            metadata={"file": str(path)},
        ) from None
    click.echo(f"written to {path}")


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
