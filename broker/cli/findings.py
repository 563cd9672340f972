"""What ``broker doctor`` tells: steps, in order, each fine or wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import click

from broker.cli.output import print_json
from broker.cli.settings import EXIT_WRONG
from broker.errors import BrokerError


@dataclass(frozen=True, slots=True)
class Finding:
    """One step: fine, or what is wrong and what to do."""

    step: str
    ok: bool
    detail: str
    reason: str = ""
    hint: str = ""


def failed(step: str, error: BrokerError) -> Finding:
    """A step that ``error`` stopped."""
    return Finding(step, False, error.message, error.reason, error.hint)


def report(findings: Iterable[Finding], form: str, width: int = 13) -> None:
    """Each as soon as it is known, or all as JSON; exits 1 if something is wrong."""
    told = []
    for finding in findings:
        told.append(finding)
        if form == "text":
            _print(finding, width)
    if form == "json":
        print_json(told)
    if not all(finding.ok for finding in told):
        raise SystemExit(EXIT_WRONG)


def _print(finding: Finding, width: int) -> None:
    mark = "ok   " if finding.ok else "error"
    reason = f"{finding.reason}: " if finding.reason else ""
    click.echo(f"{mark}  {finding.step:<{width}}  {reason}{finding.detail}")
    if finding.hint:
        click.echo(f"{'':{width + 9}}{finding.hint}")
