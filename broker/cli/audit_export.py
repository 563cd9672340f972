"""``broker audit export``: the trail in the forms that other systems read, from where the last export ended.

One JSON object per line, in constant memory. With ``--output`` the file itself says where to go on: its last whole
line names its sequence number; a line that a full disk or a crash cut short is removed first and written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO

import click

from broker.api.v1 import audit_export_pb2 as pb
from broker.audit.cloud_event import cloud_event
from broker.audit.ocsf import ocsf
from broker.audit.record import decode
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.database import database_option
from broker.cli.output import format_option
from broker.client.admin import AdminClient
from broker.stores.audit_file import last_line
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Where

_VERSION = version("jit-broker")
_PAGE = 1_000


@click.command()
@database_option(
    required=False, what="The ledger, or a copy of it; without it a running broker is asked, at the people's door."
)
@click.option("--after", type=click.IntRange(min=0), default=None, metavar="SEQUENCE", help="Only later records.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append to this file, from where it ends; without it everything goes to standard output.",
)
@click.option(
    "--source",
    default="",
    metavar="URI",
    help="Where the events come from, as your webhooks say it; needed for cloudevents.",
)
@admin_options
@format_option("ocsf", "cloudevents", "records")
def export(
    database: Where | None, after: int | None, output: Path | None, source: str, admin: AdminSettings, form: str
) -> None:
    """Write the trail as OCSF 1.9 events, CloudEvents or bare records, one JSON object per line.

    Run again with the same --output, it goes on where it ended. `broker audit verify` says whether the trail can be
    believed. From a running broker it takes the role auditor or security, or operators' automation with one of them.
    """
    if form == "cloudevents" and not source:
        raise click.UsageError("--format cloudevents needs --source, such as //TRUST-DOMAIN/jit-broker/TENANT.")
    if output is not None and after is not None:
        raise click.UsageError("--output goes on where the file ends: leave --after out.")
    take = partial(_from_ledger, database) if database is not None else partial(_from_broker, admin)
    if output is None:
        take(after or 0, lambda body: click.echo(_line(form, source, body), nl=False))
    else:
        _append(output, form, source, take)


# What is given each record's bytes, in order; and what gives them, from a sequence on.
_Give = Callable[[bytes], object]
_Take = Callable[[int, _Give], None]


def _from_ledger(database: Where, after: int, give: _Give) -> None:
    with AuditReader(database) as trail:
        for row in trail.rows(after):
            give(row.body)


def _from_broker(admin: AdminSettings, after: int, give: _Give) -> None:
    async def pages(client: AdminClient) -> None:
        last, more = after, True
        while more:
            asked = pb.ReadAuditRequest(after=last, page_size=_PAGE)
            page: pb.ReadAuditResponse = await client.call("ReadAudit", asked)
            for body in page.records:
                give(body)
            last, more = decode(page.records[-1]).seq if page.records else last, page.more

    run_admin(admin, pages)


def _line(form: str, source: str, body: bytes) -> bytes:
    record = decode(body)  # what is no record is not handed on as one
    match form:
        case "ocsf":
            return json.dumps(ocsf(record, body, product_version=_VERSION)).encode() + b"\n"
        case "cloudevents":
            return cloud_event(record, source).body + b"\n"
        case _:
            return body + b"\n"


def _sequence(form: str, line: bytes) -> int:
    told = json.loads(line)
    match form:
        case "ocsf":
            return int(told["metadata"]["sequence"])
        case "cloudevents":
            return int(told["sequence"])
        case _:
            return int(told["seq"])


def _append(output: Path, form: str, source: str, take: _Take) -> None:
    """Append what ``output`` does not have yet, and sync it."""
    written = 0

    def write(file: IO[bytes], body: bytes) -> None:
        nonlocal written
        file.write(_line(form, source, body))
        written += 1

    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(output, flags, 0o600), "ab") as file:
            take(_after(output, form, file.fileno()), partial(write, file))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise click.ClickException(
            f"{output} cannot be written: {error.strerror or error}. What is in it stays;"
            " run the same command again to go on."
        ) from None
    click.echo(f"{output}: {written} more records", err=True)


def _after(output: Path, form: str, descriptor: int) -> int:
    line = last_line(descriptor)
    if not line:
        return 0
    try:
        return _sequence(form, line)
    except (ValueError, KeyError, TypeError):
        raise click.UsageError(f"the last line of {output} is no {form} event: name another file.") from None
