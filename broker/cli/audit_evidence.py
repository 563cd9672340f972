"""``broker audit evidence``: what the trail shows for one framework, as a package that can be handed over."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from broker.audit.verify import StoredHead
from broker.cli.database import database_option
from broker.cli.evidence_package import Collected, Package, Span
from broker.cli.output import moment
from broker.cli.settings import EXIT_WRONG
from broker.cli.values import When
from broker.clock import SystemClock
from broker.compliance import framework as compliance
from broker.keys import FileKeyRing
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Where


@click.command()
@click.option("--framework", "key", type=click.Choice(compliance.names()), required=True, help="For which framework.")
@click.option("--since", type=When(), required=True, metavar="WHEN", help="2026-01-31, an RFC 3339 time, or 90d.")
@click.option("--until", type=When(), default=None, metavar="WHEN", help="Before this.  [default: the trail's end]")
@database_option()
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="REF",
    help="A ledger key (file:PATH or env:NAME); repeatable. Without it MACs are not checked.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="A directory that does not exist yet.",
)
def evidence(
    key: str, since: datetime, until: datetime | None, database: Where, keys: tuple[str, ...], output: Path
) -> None:
    """Collect the evidence for a framework: each control, its records, what is not covered, and how the trail verifies.

    Nothing is written over. Exits 1 where the trail is damaged; the package is written all the same, and says so.
    """
    if until is not None and until <= since:
        raise click.UsageError(f"--until {moment(until)} is not after --since {moment(since)}.")
    found = compliance.framework(key)
    span = Span(since, until)
    try:
        with AuditReader(database) as trail, Package(output, found, span) as package:
            package.verified(trail.verify(FileKeyRing(keys).find if keys else None))
            package.take(trail.rows())
            collected = package.collected
            package.close(_facts(found, span, collected, trail.head(), bool(keys)))
    except FileExistsError:
        raise click.UsageError(f"{output} is there already: evidence is not written over. Name another one.") from None
    except OSError as error:
        raise click.ClickException(
            f"{output} cannot be written: {error.strerror or error}. Without manifest.json it is no package: remove it."
        ) from None
    told = sum(collected.types.values())
    click.echo(f"{output}: {told} records for {len(found.controls)} controls of {found.name} {found.edition}")
    if collected.findings:
        click.echo(f"{output}: the trail is damaged: {collected.findings} findings in verification.jsonl", err=True)
        raise SystemExit(EXIT_WRONG)


def _facts(
    found: compliance.Framework, span: Span, collected: Collected, head: StoredHead | None, macs: bool
) -> dict[str, Any]:
    by = f"jit-broker {version('jit-broker')}"
    how = "with their MACs" if macs else "MACs not checked"
    last = f"{head.seq} records, {how}; the last one's hash is {head.hash.hex()}" if head else "no records"
    state = f"DAMAGED, {collected.findings} findings (verification.jsonl)" if collected.findings else "whole"
    return {
        "framework": f"{found.name} {found.edition}",
        "source": found.source,
        "since": moment(span.since),
        "until": moment(span.until) if span.until else None,
        "by": by,
        "made": moment(SystemClock().now()),
        "trail": f"{state}; {last}.",
        "findings": collected.findings,
        "damagedRecords": collected.damaged,
    }
