"""``broker access report`` and ``broker access sign-off``: what every agent could get, looked at by a person."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from broker.cli.access_sign_off import sign_off
from broker.cli.access_told import told
from broker.cli.access_trail import Read, read_trail
from broker.cli.database import database_option
from broker.cli.output import format_option, note
from broker.cli.policy_trials import trial_set
from broker.cli.problems import problems_told
from broker.cli.values import When
from broker.clock import SystemClock
from broker.entitlement.changes import Change, changes
from broker.entitlement.report import LONGEST, Circumstances, digest, made, read
from broker.errors import InvalidInput, Reason
from broker.stores.offline import Where

# How far back use is looked for, where nobody has signed off a report.
_SINCE = timedelta(days=90)
_REPORT = click.Path(path_type=Path, exists=True)


@click.group()
def access() -> None:
    """Access reviews: what agents could get, what they used, and what changed since people last looked."""


@access.command()
@click.option(
    "--deploy",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    metavar="DIR",
    help="The deploy set to evaluate: the one in force.",
)
@database_option()
@click.option(
    "--since", type=When(), metavar="WHEN", help="Count use from here on.  [default: the last review, or 90d]"
)
@click.option(
    "--previous",
    type=_REPORT,
    metavar="FILE|DIR",
    help="The report that was signed off last, or where it lies: to tell what changed.",
)
@click.option(
    "--key", "keys", multiple=True, metavar="REF", help="A ledger key, to check the trail's MACs; repeatable."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the report, to sign it off.",
)
@format_option("text", "json")
@problems_told
def report(
    directory: Path,
    database: Where,
    since: datetime | None,
    previous: Path | None,
    keys: tuple[str, ...],
    output: Path | None,
    form: str,
) -> None:
    """Evaluate what each agent could get today, and say what of it was used.

    Every template, account and environment is decided by the function that decides requests, with everything claimed
    that an agent can claim. Suspensions and quotas, which stop what policy allows, are not looked at.
    """
    trials, now = trial_set(directory, for_review=True), SystemClock().now()
    found = read_trail(database, keys, trials.rules.registry, since, now - _SINCE)
    about = Circumstances(now, found.usage.since_ms, trials.digest, found.told, found.last_review)
    document = made(trials.rules, found.usage, about)
    document["digest"] = digest(document)
    before = _previous(previous, found)
    news = None if before is None else changes(before, document)
    if output is not None:
        _write(output, document)
        note(f"{output} is written. To sign it off: broker access sign-off --report {output} --findings TEXT")
    if form == "json":
        click.echo(json.dumps(_with(document, news), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(told(document, news, str(directory), now)))


def _with(document: Mapping[str, Any], news: list[Change] | None) -> dict[str, Any]:
    """The report, and beside it what is not of it: what changed since another one."""
    if news is None:
        return {"report": document, "changes": None}
    listed = [{"gravity": each.gravity.name, "agent": each.principal, "change": each.told} for each in news]
    return {"report": document, "changes": listed}


def _previous(path: Path | None, found: Read) -> dict[str, Any] | None:
    """The report that the trail says was signed off last. Raises InvalidInput for another one."""
    if path is None:
        return None
    if found.last_review is None:
        raise _not_the_one(path, "The trail knows of no report that was signed off.")
    wanted = found.last_review["digest"]
    passed_over = []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            report = read(_bytes(file), str(file))
        except InvalidInput:
            if not path.is_dir():
                raise
        except OSError as error:  # a colleague's, of mode 0600, for one: another of them may be the one
            passed_over.append(f"{file} cannot be read: {error.strerror}.")
        else:
            if report["digest"] == wanted:
                return report
    raise _not_the_one(path, " ".join([f"That has the digest {wanted}.", *passed_over]))


def _bytes(file: Path) -> bytes:
    # What is no plain file is never waited for.
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        return opened.read(LONGEST + 1)


def _not_the_one(path: Path, hint: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"{path} is not the report that was signed off last.",
        hint=hint,
        metadata={"path": str(path)},
    )


def _write(path: Path, document: Mapping[str, Any]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already: a report is not written over.") from None
    except OSError as error:
        raise _unwritten(path, error) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")
    except BaseException as error:
        path.unlink(missing_ok=True)  # half a report would stand in the way of the whole one
        if isinstance(error, OSError):
            raise _unwritten(path, error) from None
        raise


def _unwritten(path: Path, error: OSError) -> click.ClickException:
    return click.ClickException(f"{path} cannot be written: {error.strerror or error}.")


access.add_command(sign_off)
