"""``broker policy check|test|explain|simulate|diff``: policies as code, tried before they are in force.

Needs no broker and no network. Belongs here: the commands and how they print. What is decided,
the broker's own functions decide (``policy_trials.py``).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from broker.cli.database import WHICH_LEDGER, LedgerType
from broker.cli.output import format_option
from broker.cli.policy_asked import asked, check_names, request_options
from broker.cli.policy_diff import compared, print_json, print_text
from broker.cli.policy_trials import Judged, TrialSet, judged, never_decisive, trial_set
from broker.cli.problems import problems_told
from broker.cli.settings import EXIT_WRONG
from broker.deployfiles import listing
from broker.deployfiles.load import build
from broker.files import Problems
from broker.keys import FileKeyRing
from broker.policy.remedies import remedies
from broker.policy.trial import Outcome, Trial, shadowed, tried
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Where

_directory = click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))


@click.group()
def policy() -> None:
    """Try policies before they are in force: what they say, to whom, and why."""


@policy.command()
@_directory
@format_option("text", "json")
@problems_told
def check(directory: Path, form: str) -> None:
    """Check the policies of a deploy set, and their tests, alone; exits 1 and tells every problem with file and line.

    The rest of the set may be unfinished; then the names that policies mention are not looked up.
    """
    files = listing.read_set(directory)
    problems: list[Any] = []
    elsewhere = False
    try:
        build(files)
    except Problems as found:
        below = [files.name(folder) for folder in (listing.POLICIES, listing.SHADOW)]
        problems = [each for each in found.problems if any(Path(each.file).is_relative_to(name) for name in below)]
        elsewhere = len(problems) < len(found.problems)
    if form == "json":
        told = [asdict(problem) for problem in problems]
        _print_json({"ok": not problems, "namesLookedUp": not elsewhere, "problems": told})
    elif not problems:
        note = "; the rest of the set has problems (broker check), so names were not looked up" if elsewhere else ""
        click.echo(f"{files.name(listing.POLICIES)}: ok{note}")
    if problems and form == "text":
        raise Problems(problems)
    if problems:
        raise SystemExit(EXIT_WRONG)


@policy.command()
@_directory
@click.option("--strict", is_flag=True, help="Fail, too, where a policy decides in no test.")
@format_option("text", "json")
@problems_told
def test(directory: Path, strict: bool, form: str) -> None:
    """Run policies/*.test.yaml: each request goes the broker's own way, and nothing is issued.

    Exits 1 if a test fails, or if there is none.
    """
    trials = trial_set(directory)
    results = judged(trials)
    failed = [result for result in results if not result.passed]
    uncovered = never_decisive(trials, results)
    ok = bool(results) and not failed and not (strict and uncovered)
    if form == "json":
        _print_json(
            {
                "ok": ok,
                "policyDigest": f"sha256:{trials.rules.policies.digest}",
                "tests": [_judged_json(result) for result in results],
                "neverDecisive": [{"policy": name, "place": trials.place(name)} for name in uncovered],
            }
        )
    else:
        for result in failed:
            click.echo(_failure(result), err=True)
        for name in uncovered:
            word = "error" if strict else "warning"
            click.echo(f"{trials.place(name)}: {word}: {name} decides in no test that passes", err=True)
        if not results:
            click.echo(f"{directory / listing.POLICIES}: has no *{listing.POLICY_TESTS}", err=True)
        covered = len(trials.rules.policies) - len(uncovered)
        click.echo(
            f"{directory}: {len(results) - len(failed)} of {len(results)} tests passed,"
            f" {covered} of {len(trials.rules.policies)} policies decided in one"
        )
    if not ok:
        raise SystemExit(EXIT_WRONG)


@policy.command()
@_directory
@request_options
@format_option("text", "json")
@problems_told
def explain(directory: Path, file: Path | None, form: str, **options: Any) -> None:
    """Say what would be decided on one request, and by which policies.

    Where it is refused: what would have to change for it to be allowed, each change tried.
    """
    trial = asked(file, options)
    if trial is None:
        raise click.UsageError("Say the request: --request FILE, or --agent, --template and so on.")
    trials = trial_set(directory)
    check_names(trial, trials)
    outcome = tried(trial, trials.rules)
    shadow = shadowed(trial, trials.rules)
    changes = () if outcome.allowed else remedies(trial, trials.rules)
    if form == "json":
        places = {name: trials.place(name) for name in outcome.policies}
        told = {"time": trial.now.isoformat(), **_outcome_json(outcome), "places": places}
        told |= {} if shadow is None else {"shadow": {**shadow.told(), "changes": shadow.changes}}
        _print_json({**told, "wouldBeAllowed": [list(each) for each in changes]})
        return
    click.echo(_told(outcome))
    click.echo(f"  at {trial.now.isoformat()}")
    for name in outcome.policies:
        click.echo(f"  {trials.place(name)}: {name}")
    for text in (*outcome.explanations, *outcome.errors):
        click.echo(f"  {text}")
    if shadow is not None:
        named = ", ".join(shadow.shadow_policies) or "no shadow policy"
        click.echo(f"shadow (decides nothing): {shadow.would.value} by {named}")
    if changes:
        click.echo("It would be allowed, if any of these changed:")
        for each in changes:
            click.echo(f"  - {', and '.join(each)}")
    elif not outcome.allowed:
        click.echo("No change of the request that was tried, nor any two, would make it allowed.")


@policy.command()
@_directory
@request_options
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIRECTORY",
    help="Another set, say the one in force: print only what DIRECTORY would decide otherwise.",
)
@format_option("text", "json")
@problems_told
def simulate(directory: Path, file: Path | None, against: Path | None, form: str, **options: Any) -> None:
    """Try requests: one that is typed, or without any option every request of the set's tests.

    With --against, the requests of both sets' tests are tried under both, and what changes is printed.
    """
    trials = trial_set(directory)
    other = None if against is None else trial_set(against)
    typed = asked(file, options)
    if typed is not None:
        check_names(typed, trials)
    requests = _requests(typed, trials, other)
    rows = [(place, None if other is None else tried(trial, other.rules), tried(trial, trials.rules))
            for place, trial in requests]  # fmt: skip
    shown = [row for row in rows if row[1] != row[2]]
    if form == "json":
        _print_json(
            {
                "requests": len(rows),
                "outcomes": [
                    {"request": place, "before": before and _outcome_json(before), "after": _outcome_json(after)}
                    for place, before, after in shown
                ],
            }
        )
        return
    for place, before, after in shown:
        click.echo(f"{place}: {_told(after)}" if before is None else f"{place}: {_told(before)} -> {_told(after)}")
    if other is not None:
        click.echo(f"{len(rows)} requests, {len(shown)} decided otherwise than by {against}")


@policy.command()
@_directory
@click.option(
    "--ledger",
    type=LedgerType(),
    required=True,
    metavar="LEDGER",
    help=WHICH_LEDGER,
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="REF",
    help="A ledger key (file:PATH or env:NAME), the current one first; repeatable. The trail must verify.",
)
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="SEQUENCE", help="Only later records.")
@format_option("text", "json")
@problems_told
def diff(directory: Path, ledger: Where, keys: tuple[str, ...], after: int, form: str) -> None:
    """Say which recorded decisions DIRECTORY would make otherwise: grants, and refusals by policy.

    Each is made again as it was asked, at its own time, with what the ledger knew then; agents, templates and people
    are those of DIRECTORY. What a record does not say is not guessed: how many could not be made again is told.
    With --key the trail is verified first; a damaged one exits 1.
    """
    trials = trial_set(directory)
    with AuditReader(ledger) as trail:
        if keys and (damage := list(trail.verify(FileKeyRing(keys).find))):
            for finding in damage:
                click.echo(str(finding), err=True)
            raise SystemExit(EXIT_WRONG)
        result = compared(trail.records(after), trials.rules)
    if form == "json":
        print_json(result)
    else:
        print_text(result, str(directory))


def _requests(typed: Trial | None, *sets: TrialSet | None) -> list[tuple[str, Trial]]:
    """What to try, each once, with where it stands."""
    if typed is not None:
        return [("request", typed)]
    found: list[tuple[str, Trial]] = []
    for test in (test for each in sets if each is not None for test in each.tests):
        if not any(trial == test.trial for _, trial in found):
            found.append((f"{test.file}:{test.line}: {test.name}", test.trial))
    return found


def _failure(result: Judged) -> str:
    test, expect = result.test, result.test.expect
    wanted = [expect.effect.upper()]
    if "reason" in expect.model_fields_set:
        wanted.append(expect.reason.value)
    if "policies" in expect.model_fields_set:
        wanted.append(f"by {', '.join(sorted(expect.policies)) or 'no policy'}")
    if "approvals" in expect.model_fields_set:
        wanted.append(f"of {', '.join(sorted(expect.approvals)) or 'nobody'}")
    because = " ".join((*result.outcome.explanations, *result.outcome.errors))
    return f"{test.file}:{test.line}: {test.name}: expected {' '.join(wanted)}, decided {_told(result.outcome)}" + (
        f" ({because})" if because else ""
    )


def _told(outcome: Outcome) -> str:
    reason = "" if outcome.reason is None else f" {outcome.reason.value}"
    missing = f" of {', '.join(outcome.approvals)}" if outcome.approvals else ""
    return f"{outcome.effect.value}{reason}{missing} by {', '.join(outcome.policies) or 'no policy'}"


def _judged_json(result: Judged) -> dict[str, Any]:
    test = result.test
    return {
        "file": test.file,
        "line": test.line,
        "name": test.name,
        "passed": result.passed,
        "unmet": list(result.unmet),
        "decided": _outcome_json(result.outcome),
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "effect": outcome.effect.value,
        "reason": None if outcome.reason is None else outcome.reason.value,
        "policies": list(outcome.policies),
        "explanations": list(outcome.explanations),
        "errors": list(outcome.errors),
        "approvals": list(outcome.approvals),
    }


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
