"""``broker audit``: the audit trail of a ledger file, beside a running broker or from a copy."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from broker.approval.inert import inert
from broker.audit.record import Record
from broker.audit.story import sentence
from broker.cli.audit_evidence import evidence
from broker.cli.audit_export import export
from broker.cli.audit_find import find_secret
from broker.cli.audit_texts import erase_texts, texts
from broker.cli.audit_verify import keygen, verify
from broker.cli.audit_wanted import Wanted
from broker.cli.database import database_option
from broker.cli.output import F, camel, format_option, moment_ms
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Where


@click.group()
def audit() -> None:
    """What happened, provably: a chain of records in which each quotes the one before."""


def _chosen(command: F) -> F:
    """Which records."""
    for option in reversed(
        (
            click.option("--after", type=click.IntRange(min=0), default=0, metavar="SEQUENCE", help="Only later ones."),
            click.option("--task", "task_id", default="", metavar="TASK", help="Only of this task."),
            click.option("--lease", "lease_id", default="", metavar="LEASE", help="Only of this lease."),
            click.option("--agent", default="", metavar="ID", help="Only what this agent did, or what is about it."),
            click.option("--actor", default="", metavar="ID", help="Only what this principal did or asked."),
            click.option(
                "--type",
                "kind",
                default="",
                metavar="TYPE",
                help="Only of this type, or of its family (lease.).",
            ),
        )
    ):
        command = option(command)
    return command


@audit.command()
@database_option()
@_chosen
@format_option("story", "records", "json")
def show(database: Where, form: str, **chosen: Any) -> None:
    """Tell what happened, oldest first: a sentence each; with json one object per line.

    Records are told as they are stored: `broker audit verify` says whether they can be believed. What is in quotes
    is an agent's or a person's word.
    """
    tell = {"story": _story, "records": _line, "json": _json}[form]
    wanted = Wanted(**chosen)
    with AuditReader(database) as trail:
        for record in trail.records(wanted.after):
            if wanted.has(record):
                click.echo(tell(record))


def _ids(record: Record) -> tuple[str, ...]:
    return tuple(each for each in (record.task_id, record.lease_id, record.attempt_id) if each)


def _story(record: Record) -> str:
    """Texts of agents cannot do anything to a terminal."""
    about = record.lease_id or record.data.get("access_request") or record.data.get("plan") or record.task_id
    return inert(f"{moment_ms(record.at_ms)}  {sentence(record)}{f'  [{about}]' if about else ''}")


def _line(record: Record) -> str:
    data = json.dumps(record.data, ensure_ascii=False) if record.data else ""
    vouched = f"({record.vouched_by})"
    facts = (str(record.seq), moment_ms(record.at_ms), record.type, record.actor, vouched, " ".join(_ids(record)), data)
    return inert("  ".join(each for each in facts if each))


def _json(record: Record) -> str:
    body = {camel(name): value for name, value in asdict(record).items() if name != "at_ms"}
    return json.dumps({**body, "time": moment_ms(record.at_ms)}, ensure_ascii=False)


audit.add_command(evidence)
audit.add_command(verify)
audit.add_command(keygen)
audit.add_command(export)
audit.add_command(find_secret)
audit.add_command(texts)
audit.add_command(erase_texts)
