"""``broker audit export``: the trail in the forms that other systems read, from where the last export ended.

One JSON object per line, in constant memory. With ``--output`` the file itself says where to go on: its last whole
line names its sequence number; a line that a full disk or a crash cut short is removed first and written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import click

from broker.audit.cloud_event import cloud_event
from broker.audit.ocsf import ocsf
from broker.audit.record import decode
from broker.audit.verify import StoredRecord
from broker.cli.output import format_option
from broker.stores.audit_file import last_line
from broker.stores.audit_reader import AuditReader

_VERSION = version("jit-broker")
# Each form: a record's line, and the sequence number in a line.
_Line = Callable[[StoredRecord], bytes]


@click.command()
@click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The ledger: ledger.sqlite3 in brokerd's state directory, or a copy of it.",
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
@format_option("ocsf", "cloudevents", "records")
def export(database: Path, after: int | None, output: Path | None, source: str, form: str) -> None:
    """Write the trail as OCSF 1.9 events, CloudEvents or bare records, one JSON object per line.

    Run again with the same --output, it goes on where it ended. `broker audit verify` says whether the trail can be
    believed.
    """
    if form == "cloudevents" and not source:
        raise click.UsageError("--format cloudevents needs --source, such as //TRUST-DOMAIN/jit-broker/TENANT.")
    if output is not None and after is not None:
        raise click.UsageError("--output goes on where the file ends: leave --after out.")
    with AuditReader(database) as trail:
        if output is None:
            for row in trail.rows(after or 0):
                click.echo(_line(form, source, row), nl=False)
            return
        _append(output, form, lambda last: (_line(form, source, row) for row in trail.rows(last)))


def _line(form: str, source: str, row: StoredRecord) -> bytes:
    match form:
        case "ocsf":
            return json.dumps(ocsf(decode(row.body), row.body, product_version=_VERSION)).encode() + b"\n"
        case "cloudevents":
            return cloud_event(decode(row.body), source).body + b"\n"
        case _:
            decode(row.body)  # what is no record is not handed on as one
            return row.body + b"\n"


def _sequence(form: str, line: bytes) -> int:
    told = json.loads(line)
    match form:
        case "ocsf":
            return int(told["metadata"]["sequence"])
        case "cloudevents":
            return int(told["sequence"])
        case _:
            return int(told["seq"])


def _append(output: Path, form: str, lines: Callable[[int], Iterator[bytes]]) -> None:
    """Append what ``output`` does not have yet, and sync it."""
    written = 0
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(output, flags, 0o600), "ab") as file:
            for line in lines(_after(output, form, file.fileno())):
                file.write(line)
                written += 1
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
