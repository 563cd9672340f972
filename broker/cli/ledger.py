"""``broker verify``, ``backup`` and ``migrate``, ``broker ledger move``: a ledger looked at, copied, changed, moved."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from broker.cli.database import database_option
from broker.cli.output import format_option
from broker.cli.settings import EXIT_WRONG
from broker.errors import InvalidInput, NotReady, Reason
from broker.keys import FileKeyRing
from broker.stores.backup import back_up
from broker.stores.invariants import CHAIN, INVARIANTS, MACS, LedgerChecks, Violation
from broker.stores.migrating import carry_out, pending_steps
from broker.stores.moving import move
from broker.stores.offline import ServerReference, Where


@click.command()
@database_option()
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="REF",
    help="A ledger key (file:PATH or env:NAME), the current one first; repeatable. Without it MACs are not checked.",
)
@click.option("--most", type=click.IntRange(1, 100_000), default=100, metavar="N", help="Violations to print at most.")
@format_option("text", "json")
def verify(database: Where, keys: tuple[str, ...], most: int, form: str) -> None:
    """Check the invariants of a ledger, beside a running broker; exits 1 and names each row that breaks one.

    Read-only, in one snapshot. The trail's signatures and witnesses are `broker audit verify`'s.
    """
    ring = FileKeyRing(keys) if keys else None
    shown: list[Violation] = []
    count = 0
    with LedgerChecks(database) as checks:
        for violation in checks.violations(ring):
            count += 1
            if len(shown) < most:
                shown.append(violation)
    checked = [CHAIN, *([MACS] if keys else []), *INVARIANTS.values()]
    if form == "json":
        told = {"ok": not count, "violations": [asdict(each) for each in shown], "inAll": count, "checked": checked}
        click.echo(json.dumps(told, indent=2))
    else:
        for each in shown:
            click.echo(f"{each.where}: {each.detail}\n  but {each.invariant}")
        macs = "" if keys else "; MACs not checked (no --key)"
        click.echo(f"{database}: {f'{count} violations' if count else 'all well'}, {len(checked)} invariants{macs}")
    if count:
        raise SystemExit(EXIT_WRONG)


@click.command()
@database_option()
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@format_option("text", "json")
def backup(database: Where, target: Path, form: str) -> None:
    """Copy the ledger of a running broker to FILE, whole and at one moment; FILE.checkpoint is its last checkpoint.

    Keep its keys somewhere else. Restoring one leads to recovery mode: docs/audit.md.
    """
    if not isinstance(database, Path):
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"{database} is no file.",
            hint="pg_dump copies a server's database, and restoring it is told in docs/postgresql-store.md.",
        )
    try:
        made = back_up(database, target)
    except OSError as error:
        raise NotReady(
            Reason.STORE_UNAVAILABLE, f"{target} was not written: {error}.", hint="Nothing of it is left."
        ) from None
    if form == "json":
        beside = None if made.checkpoint is None else str(made.checkpoint)
        click.echo(json.dumps({"file": str(target), "records": made.records, "checkpoint": beside}, indent=2))
    else:
        beside = f", its last checkpoint {made.checkpoint}" if made.checkpoint else ", which has no checkpoint yet"
        click.echo(f"{target}: {made.records} audit records{beside}")


@click.command()
@database_option(what="The ledger: a file that no broker has, or a reference (env:, file:) to its owner's DSN.")
@click.option("--grant-to", "daemon", default="", metavar="ROLE", help="brokerd's role: what it needs, and no more.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
def migrate(database: Where, daemon: str, dry_run: bool) -> None:
    """Bring a ledger to the schema of this release; never back. A ledger of a newer release is refused.

    brokerd does it by itself where the ledger is a file. On a server its role makes no tables: this is done by the
    role that owns them, while brokers of the release before may run.
    """
    steps = pending_steps(database) if dry_run else carry_out(database, daemon)
    for step in steps:
        click.echo(f"{'would carry out' if dry_run else 'carried out'} step {step.number}")
    if not steps:
        click.echo(f"{database}: nothing to do")
    elif (oldest := max(step.readable_from for step in steps)) < steps[0].number:
        click.echo(f"brokers that know schema {oldest} or a newer one can go on meanwhile")
    elif steps[0].number > 1:
        click.echo("brokers of the release before cannot go on: stop every one of them first")


@click.group()
def ledger() -> None:
    """The ledger as a whole."""


@ledger.command("move")
@click.option("--from", "source", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE")
@click.option("--to", "target", required=True, metavar="REF", help="A reference (env:, file:) to a DSN.")
@click.option("--key", "keys", multiple=True, required=True, metavar="REF", help="The ledger's keys, current first.")
def move_ledger(source: Path, target: str, keys: tuple[str, ...]) -> None:
    """Move a ledger from a file to a PostgreSQL server, while no broker runs; all of it or nothing.

    Rows are counted, and their MACs, the audit chain and every invariant checked, on the server, before it is
    committed. What is interrupted is begun again. The file is then renamed.
    """
    moved = move(source, ServerReference(target).address(), FileKeyRing(keys))
    for table, count in moved.rows.items():
        click.echo(f"{count:>9} {table}")
    click.echo(f"moved, and verified there; the file is kept as {moved.kept}")
