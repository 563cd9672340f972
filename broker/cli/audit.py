"""``broker audit verify|show``: the audit trail of a ledger file, beside a running broker or from a copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from broker.audit.record import Record
from broker.cli.output import camel, format_option, moment
from broker.cli.settings import EXIT_WRONG
from broker.keys import FileKeyRing
from broker.stores.audit_reader import AuditReader

_database = click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The ledger: ledger.sqlite3 in brokerd's state directory, or a copy of it.",
)


@click.group()
def audit() -> None:
    """What happened, provably: a chain of records in which each quotes the one before."""


@audit.command()
@_database
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="REF",
    help="A ledger key (file:PATH or env:NAME), the current one first; repeatable. Without it MACs are not checked.",
)
@format_option("text", "json")
def verify(database: Path, keys: tuple[str, ...], form: str) -> None:
    """Check every record of the trail; exits 1 and names the place of each damage."""
    find_key = FileKeyRing(keys).find if keys else None
    with AuditReader(database) as trail:
        head = trail.head()
        findings = list(trail.verify(find_key))
    records = head.seq if head else 0
    if form == "json":
        problems = [asdict(finding) for finding in findings]
        told = {"ok": not findings, "records": records, "macsChecked": bool(keys), "findings": problems}
        click.echo(json.dumps(told, indent=2))
    else:
        for finding in findings:
            click.echo(str(finding))
        macs = "with their MACs" if keys else "MACs not checked (no --key)"
        click.echo(f"{database}: {f'{len(findings)} findings' if findings else 'whole'}, {records} records, {macs}")
    if findings:
        raise SystemExit(EXIT_WRONG)


@audit.command()
@_database
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="SEQUENCE", help="Only later records.")
@click.option("--task", "task_id", default="", metavar="TASK", help="Only records of this task.")
@click.option("--lease", "lease_id", default="", metavar="LEASE", help="Only records of this lease.")
@click.option("--actor", default="", metavar="ID", help="Only what this principal did or asked.")
@click.option("--type", "kind", default="", metavar="TYPE", help="Only events of this type, or of its family (lease.).")
@format_option("text", "json")
def show(database: Path, after: int, task_id: str, lease_id: str, actor: str, kind: str, form: str) -> None:
    """Print records, oldest first; with json one object per line.

    Records are shown as they are stored: `broker audit verify` says whether they can be believed.
    """
    wanted = {"task_id": task_id, "lease_id": lease_id, "actor": actor}
    with AuditReader(database) as trail:
        for record in _matching(trail.records(after), {name: value for name, value in wanted.items() if value}, kind):
            click.echo(_line(record) if form == "text" else json.dumps(_object(record), ensure_ascii=False))


def _matching(records: Iterator[Record], wanted: dict[str, str], kind: str) -> Iterator[Record]:
    for record in records:
        typed = record.type == kind or (kind.endswith(".") and record.type.startswith(kind)) or not kind
        if typed and all(getattr(record, name) == value for name, value in wanted.items()):
            yield record


def _when(record: Record) -> str:
    return moment(datetime.fromtimestamp(record.at_ms / 1000, UTC))


def _line(record: Record) -> str:
    about = " ".join(each for each in (record.task_id, record.lease_id, record.attempt_id) if each)
    data = json.dumps(record.data, ensure_ascii=False) if record.data else ""
    facts = (str(record.seq), _when(record), record.type, record.actor, f"({record.vouched_by})", about, data)
    return "  ".join(each for each in facts if each)


def _object(record: Record) -> dict[str, Any]:
    body = {camel(name): value for name, value in asdict(record).items() if name != "at_ms"}
    return {**body, "time": _when(record)}
