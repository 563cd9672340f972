"""A request to try, as typed in options or written in a file, checked as a request of a test file is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.policy_trials import TrialSet
from broker.cli.values import Pair
from broker.clock import SystemClock
from broker.deployfiles.policy_tests import REQUIRED, RequestEntry, SupposeEntry, together
from broker.files import Document, Place, Problem, Problems, parse_yaml, validated
from broker.files.reading import MAX_BYTES, as_text
from broker.identity.agent import Delivery
from broker.policy.trial import Trial

F = TypeVar("F", bound=Callable[..., Any])

_TYPED = "the options"
_OPTIONS = (
    click.option("--request", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
                 help="A request in YAML, as under `request` in a test file; options are put over it."),
    click.option("--agent", metavar="ENTRY|ID", help="Who asks: a file of agents/ without .yaml, or a SPIFFE ID."),
    click.option("--template", metavar="NAME", help="What is asked for."),
    click.option("--account", metavar="NAME", help="In which account."),
    click.option("--environment", metavar="NAME", help="In which environment."),
    click.option("--resource", metavar="NAME", help="Which resource."),
    click.option("--ttl", metavar="SPAN", help="For how long: 90s, 5m."),
    click.option("--parameter", "parameters", type=Pair(), multiple=True, metavar="NAME=VALUE",
                 help="A parameter of the template; repeatable."),
    click.option("--time", metavar="TIME", help="When, in RFC 3339 with an offset. Not said: now."),
    click.option("--step", metavar="TEXT", help="The step the agent would name."),
    click.option("--intent", metavar="TEXT", help="The intent it would name."),
    click.option("--ticket", metavar="TEXT", help="The ticket it would name."),
    click.option("--reason", is_flag=True, default=None, help="It gives a reason."),
    click.option("--prompt", is_flag=True, default=None, help="It hands in its prompt."),
    click.option("--tool-call", is_flag=True, default=None, help="It hands in its tool call."),
    click.option("--plan", is_flag=True, default=None, help="It hands in its plan."),
    click.option("--delivery", type=click.Choice([each.value for each in Delivery]), help="Which way it asks."),
    click.option("--approval", "approvals", multiple=True, metavar="NAME",
                 help="An approval that is held for it, of approvals.yaml; repeatable."),
    click.option("--task-type", metavar="WORD", help="The type of the task it is under."),
    click.option("--sealed", is_flag=True, default=None, help="It has the credential sealed."),
)  # fmt: skip


def request_options(command: F) -> F:
    """Every option that says something of a request."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asked(file: Path | None, options: dict[str, Any]) -> Trial | None:
    """The request of ``file`` with ``options`` put over it; None where neither says anything.

    Raises :class:`Problems` for the file, :class:`click.UsageError` for the options and for what is missing.
    """
    said = {name: value for name, value in options.items() if value not in (None, ())}
    if "parameters" in said:
        said["parameters"] = dict(said["parameters"])
    if not said and file is None:
        return None
    if suppose := {name: said.pop(name) for name in ("approvals", "task_type") if name in said}:
        said["suppose"] = {**suppose, **({"approvals": list(suppose["approvals"])} if "approvals" in suppose else {})}
    written = RequestEntry() if file is None else _read(file)
    typed = _typed(said)
    request = together(written, typed)
    if typed.suppose.model_fields_set:
        request = together(request, RequestEntry(suppose=_over(written.suppose, typed.suppose)))
    if missing := [f"--{name}" for name in REQUIRED if name not in request.model_fields_set]:
        raise click.UsageError(f"A request names {', '.join(missing)}, too.")
    if "time" not in request.model_fields_set:
        request = together(request, RequestEntry(time=SystemClock().now().isoformat()))
    return request.trial()


def check_names(trial: Trial, trials: TrialSet) -> None:
    """Raises :class:`click.UsageError` for a name in what is supposed that names nothing of the set."""
    supposed = trial.supposed
    entries = {each.principal for each in (*trials.rules.registry, *trials.rules.registry.patterns)}
    for what, named, known in (
        ("rule of approvals.yaml", supposed.situation.approvals, trials.approvals),
        ("person of people.yaml", {supposed.on_behalf_of} - {""}, trials.rules.people),
        ("file of agents/", supposed.situation.delegators, entries),
    ):
        for name in sorted(set(named) - set(known)):
            raise click.UsageError(f"{name} is no {what}. There is: {', '.join(sorted(known)) or 'none'}.")


def _over(written: SupposeEntry, typed: SupposeEntry) -> SupposeEntry:
    """What the file supposes, with what was typed put over it."""
    return written.model_copy(update={name: getattr(typed, name) for name in typed.model_fields_set})


def _read(file: Path) -> RequestEntry:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}.") from None
    if len(data) > MAX_BYTES:
        raise Problems([Problem(str(file), 1, "", f"is larger than {MAX_BYTES // 1024} KiB")])
    return validated(RequestEntry, parse_yaml(str(file), as_text(data, str(file))))


def _typed(said: dict[str, Any]) -> RequestEntry:
    try:
        return validated(RequestEntry, Document(_TYPED, said, {(): Place(1, 1, 1, 1)}))
    except Problems as found:
        told = "; ".join(
            f"{problem.message} ({problem.hint})" if problem.hint else problem.message for problem in found.problems
        )
        raise click.UsageError(f"{', '.join(said)}: {told}") from None
