"""``broker audit find-secret``: was a secret that somebody found one of ours, whose, and is it dead?

The secret comes on standard input, never as an argument: arguments are seen by everybody on the machine and kept by
shells. It goes nowhere but into a keyed digest.
"""

from __future__ import annotations

import hmac
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from broker.audit.event import EventType
from broker.audit.record import Record
from broker.audit.story import sentence
from broker.cli.database import database_option
from broker.cli.output import format_option, moment_ms, print_json
from broker.cli.settings import EXIT_WRONG
from broker.errors import Tampered
from broker.keys import FileKeyRing
from broker.lease.fingerprint import fingerprint
from broker.ports.keys import KeyRing
from broker.secret import Secret
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Where

_ENDS = (EventType.LEASE_REVOKED, EventType.LEASE_EXPIRED)
# Longer than any secret that is issued.
_LONGEST = 64 * 1024


@click.command("find-secret")
@database_option()
@click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    metavar="REF",
    help="A ledger key (file:PATH or env:NAME); repeatable.",
)
@format_option("text", "json")
def find_secret(database: Where, keys: tuple[str, ...], form: str) -> None:
    """Read a secret from standard input and say which lease it was of; exits 1 if of none.

    Type or paste it at the prompt, or pipe it in. A line feed at its end is not part of it.
    """
    secret = _read()
    with AuditReader(database) as trail:
        issued, ended = _search(trail.records(), FileKeyRing(keys), secret)
    if issued is None:
        raise _nobodys(database)
    name, record = issued
    if form == "json":
        print_json(
            {
                "field": name,
                "leaseId": record.lease_id,
                "attemptId": record.attempt_id,
                "holder": record.holder,
                "taskId": record.task_id,
                "issuedTime": moment_ms(record.at_ms),
                "ended": None if ended is None else {"type": ended.type, "time": moment_ms(ended.at_ms)},
            }
        )
        return
    click.echo(f"It is the {name} of lease {record.lease_id} (attempt {record.attempt_id}), of {record.holder}.")
    click.echo(f"{moment_ms(record.at_ms)}  {sentence(record)}")
    if ended is None:
        click.echo("The trail does not say that it is dead: broker leases revoke, or broker suspend, ends it.")
    else:
        click.echo(f"{moment_ms(ended.at_ms)}  {sentence(ended)}")


def _read() -> Secret:
    if sys.stdin.isatty():
        return Secret(click.prompt("The secret", hide_input=True))
    text = sys.stdin.read(_LONGEST + 1).removesuffix("\n")
    if not text or len(text) > _LONGEST:
        raise click.UsageError("Give the secret, and nothing else, on standard input.")
    return Secret(text)


_Issued = tuple[str, Record]


def _search(records: Iterator[Record], ring: KeyRing, secret: Secret) -> tuple[_Issued | None, Record | None]:
    """The field and the issue that bear its digest, and the end of that attempt, as far as it is told."""
    made: dict[str, str] = {}
    found: tuple[str, Record] | None = None
    for record in records:
        if found is None and record.type == EventType.LEASE_ISSUED:
            name = _field(_told(record), ring, secret, made)
            found = None if name is None else (name, record)
        elif found is not None and record.attempt_id == found[1].attempt_id and record.type in _ENDS:
            return found, record
    return found, None


def _told(record: Record) -> Mapping[str, Any]:
    observed: Any = record.data.get("observed")
    told = observed.get("secrets") if isinstance(observed, dict) else None
    return told if isinstance(told, dict) else {}


def _field(told: Mapping[str, Any], ring: KeyRing, secret: Secret, made: dict[str, str]) -> str | None:
    key_id = str(told.get("key_id", ""))
    if key_id not in made:
        try:
            made[key_id] = fingerprint(ring.find(key_id), secret)
        except Tampered:  # a key that is not at hand: what it made cannot be compared
            made[key_id] = ""
    digest = made[key_id]
    names = (name for name, value in told.items() if digest and hmac.compare_digest(str(value), digest))
    return next(names, None)


def _nobodys(database: Where) -> SystemExit:
    click.echo(f"{database} knows of no such secret (with the keys given): this broker did not issue it.", err=True)
    return SystemExit(EXIT_WRONG)
