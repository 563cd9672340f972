"""``broker audit verify`` and ``broker audit keygen``: can the trail be believed?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from broker.audit.offline import Audit
from broker.audit.verify import Finding, Problem
from broker.cli.audit_offline import examine, public_keys, witness
from broker.cli.audit_offline import records as from_exports
from broker.cli.database import database_option
from broker.cli.deploy_keys import write_pair
from broker.cli.output import format_option
from broker.cli.settings import EXIT_WRONG
from broker.keys import FileKeyRing
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Where


@click.command()
@click.argument("private", type=click.Path(path_type=Path))
@click.argument("public", type=click.Path(path_type=Path))
def keygen(private: Path, public: Path) -> None:
    """Make a key pair for checkpoints: PRIVATE (0600, for audit.checkpoints.signing_keys) and PUBLIC, for auditors."""
    write_pair(private, public, None)
    click.echo(f"{private} and {public} are written; give {public} to whoever checks the trail")


@click.command()
@database_option(required=False)
@click.option(
    "--export",
    "exports",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Or else an export of it; repeatable, in order, where it was cut into several.",
)
@click.option(
    "--public-key",
    "public",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PEM",
    help="A key that signs checkpoints; repeatable. Needed for --export.",
)
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="What a witness has: a file of checkpoints, or a folder of such files; repeatable.",
)
@click.option("--origin", default="", metavar="NAME", help="Whose log it must be: the first line of its checkpoints.")
@click.option("--closed", is_flag=True, help="Its broker has stopped: everything must be covered by a checkpoint.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="REF",
    help="A ledger key (file:PATH or env:NAME), the current one first; repeatable. Without it MACs are not checked.",
)
@click.option("--most", type=click.IntRange(1, 100_000), default=100, metavar="N", help="Findings to print at most.")
@format_option("text", "json")
def verify(
    database: Where | None,
    exports: tuple[Path, ...],
    public: tuple[Path, ...],
    witnesses: tuple[Path, ...],
    origin: str,
    closed: bool,
    keys: tuple[str, ...],
    most: int,
    form: str,
) -> None:
    """Check every record of the trail; exits 1 and names the place of each damage.

    With --public-key and --witness nothing that the broker holds has to be believed, and no secret is needed; an
    export is enough. With --key, also the MACs of a ledger are checked.
    """
    if (database is None) != bool(exports):
        raise click.UsageError("name one of --database and --export")
    if exports and (not public or keys):
        raise click.UsageError("an export is checked with --public-key, and has no MACs for --key")
    if witnesses and not public:
        raise click.UsageError("--witness needs --public-key: who has signed what it shows?")
    told = _verified(database, exports, public, witnesses, origin, closed, keys, most)
    if form == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        _tell(database or exports[-1], told)
    if not told["ok"]:
        raise SystemExit(EXIT_WRONG)


def _verified(
    database: Where | None,
    exports: tuple[Path, ...],
    public: tuple[Path, ...],
    witnesses: tuple[Path, ...],
    origin: str,
    closed: bool,
    keys: tuple[str, ...],
    most: int,
) -> dict[str, Any]:
    shown: list[Finding] = []
    count, records = 0, 0
    told: dict[str, Any] = {}
    if database is not None:
        find_key = FileKeyRing(keys).find if keys else None
        with AuditReader(database) as trail:
            head = trail.head()
            records = head.seq if head else 0
            for finding in trail.verify(find_key):
                count += 1
                if len(shown) < most:
                    shown.append(finding)
    if public:
        signers = public_keys(public)
        audit = Audit(signers, [witness(each, signers) for each in witnesses], origin=origin, closed=closed)
        with ExitStack() as opened:
            lines = _bodies(opened.enter_context(AuditReader(database))) if database else from_exports(exports)
            more, further = examine(audit, lines, most - len(shown))
        shown, count, records = [*shown, *more], count + further, audit.records
        told |= {"signed": audit.signed, "checkpoints": audit.checkpoints, "witnessed": audit.witnessed}
        told |= {"witnesses": len(witnesses), "log": audit.log.hex()}
    told |= {"ok": not count, "records": records, "macsChecked": bool(keys)}
    told["findings"] = [asdict(finding) for finding in shown]
    if count > len(shown):
        told["findingsNotShown"] = count - len(shown)
    return told


def _bodies(trail: AuditReader) -> Iterator[bytes]:
    return (row.body for row in trail.rows())


def _tell(path: Where, told: dict[str, Any]) -> None:
    for each in told["findings"]:
        click.echo(str(Finding(each["sequence"], Problem(each["problem"]), each["detail"])))
    count, records = len(told["findings"]) + told.get("findingsNotShown", 0), told["records"]
    macs = "with their MACs" if told["macsChecked"] else "MACs not checked (no --key)"
    said = f"{path}: {f'{count} findings' if count else 'whole'}, {records} records, {macs}"
    if "signed" in told:
        said += f"\nsigned up to record {told['signed']} ({told['checkpoints']} checkpoints)"
        said += f", witnessed up to record {told['witnessed']}" if told["witnesses"] else ", no witness was asked"
        if left := records - told["signed"]:
            said += f"; the last {left} are covered by no checkpoint yet" if left > 1 else ""
    click.echo(said)
