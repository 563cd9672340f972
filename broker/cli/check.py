"""``broker check``: says whether a deploy set or a brokerd file would be taken, and if not, every reason.

Needs no broker, no network and no secret, so it runs in CI before anything is deployed. The readers
come with the daemon (``pip install jit-broker[daemon]``) and are imported when the command is used.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from broker.cli.check_signed import Brokerd
    from broker.files import Problem
    from broker.ports.deploys import DeploySet


@dataclass(frozen=True, slots=True)
class _Checked:
    path: str
    summary: str
    facts: dict[str, Any]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()  # it is taken all the same

    @property
    def ok(self) -> bool:
        return not self.problems


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Check for the brokerd of this configuration, signatures included.  [default PATH: its deploy directory]",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(paths: tuple[Path, ...], config_file: Path | None, form: str) -> None:
    """Check deploy directories (and brokerd configuration files) before use.

    Exits 0 if all would be taken. Otherwise prints each problem as FILE:LINE: FIELD: MESSAGE (HINT) and exits 1.
    What would be taken, but cannot be meant, is a warning.

    Signatures are looked at with --config only. The serial is then compared with that of the newest set that was in
    force, where the ledger of that brokerd is on this machine.
    """
    if not paths and config_file is None:
        raise click.UsageError("Missing argument '[PATH]...', or --config.")
    try:
        results = _check_all(paths, config_file)
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing. Run: pip install 'jit-broker[daemon]'") from None
    if form == "json":
        click.echo(json.dumps([_json(result) for result in results], indent=2))
    else:
        for result in results:
            _print(result)
    if not all(result.ok for result in results):
        raise SystemExit(1)


def _check_all(paths: tuple[Path, ...], config_file: Path | None) -> list[_Checked]:
    from broker.cli.check_signed import Brokerd
    from broker.files import Problems

    if config_file is None:
        own = _own_trust_domain(paths)
        return [_check(path, Brokerd(own)) for path in paths]
    try:
        brokerd = Brokerd.of(config_file)
    except Problems as found:
        return [_Checked(str(config_file), "", {}, found.problems)]
    told = [_check(config_file, brokerd)]
    return told + [_check(path, brokerd) for path in paths or brokerd.directories]


def _own_trust_domain(paths: tuple[Path, ...]) -> str:
    """The broker's own, where its configuration is checked along with the deploy directory; else empty."""
    from broker.config import load_config
    from broker.files import Problems

    for path in paths:
        if not path.is_dir():
            with contextlib.suppress(Problems):
                return load_config(path).trust_domain
    return ""


def _check(path: Path, brokerd: Brokerd) -> _Checked:
    from broker.files import Problems

    try:
        return _directory(path, brokerd) if path.is_dir() else _config(path)
    except Problems as found:
        return _Checked(str(path), "", {}, found.problems)


def _directory(path: Path, brokerd: Brokerd) -> _Checked:
    loaded, signatures = brokerd.load(path)
    counts = {
        "agents": len(loaded.registry),
        "templates": len(loaded.templates),
        "policies": len(loaded.policies),
        "connectors": len(loaded.connectors),
        "people": len(loaded.people),
    }
    told = ", ".join(_count(counts[what], what) for what in ("agents", "templates", "policies"))
    digest = f"sha256:{loaded.digest}"
    summary, facts = f"{told}, digest {digest}{signatures.summary}", {**counts, "digest": digest, **signatures.facts}
    return _Checked(str(path), summary, facts, (), (*_ttl_warnings(path, loaded), *_words(path, loaded), *_lint(path)))


def _lint(path: Path) -> list[Problem]:
    """Actions that AWS is not known to have, or that do not take the resources beside them."""
    from broker.deployfiles import listing
    from broker.deployfiles.load import warnings

    return warnings(listing.read_set(path))


def _ttl_warnings(path: Path, loaded: DeploySet) -> Iterator[Problem]:
    """Templates that offer what their connectors cannot honour."""
    from broker.connectors.contracts import contract_of
    from broker.deployfiles import listing
    from broker.deployfiles.load import templates_in
    from broker.issuance.verdicts import doubts_of_template

    contracts = {name: contract_of(spec) for name, spec in loaded.connectors.items()}
    files = templates_in(listing.read_set(path))
    for name, template in sorted(loaded.templates.items()):
        for doubt in doubts_of_template(template, contracts[template.connector]):
            yield files[name].problem(("max_ttl",), doubt.what.rstrip("."), doubt.remedy)


def _words(path: Path, loaded: DeploySet) -> Iterator[Problem]:
    """Environments, roles, accounts and connectors that policies compare with and nothing of the set has."""
    from broker.deployfiles.mentions import doubtful_mentions
    from broker.files import Problem

    named = (*loaded.policies.mentions, *(loaded.shadow.mentions if loaded.shadow else ()))
    for each, message, hint in doubtful_mentions(named, loaded.registry, loaded.templates):
        yield Problem(str(path / each.file), each.line, each.policy, message, hint)


def _count(count: int, what: str) -> str:
    singular = {"policies": "policy"}.get(what, what.removesuffix("s"))
    return f"{count} {singular if count == 1 else what}"


def _config(path: Path) -> _Checked:
    from broker.config import load_config

    config = load_config(path)
    return _Checked(str(path), f"brokerd of {config.trust_domain}", {"trust_domain": config.trust_domain}, ())


def _print(result: _Checked) -> None:
    if result.ok:
        click.echo(f"{result.path}: ok, {result.summary}")
    for problem in result.problems:
        click.echo(str(problem), err=True)
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)


def _json(result: _Checked) -> dict[str, Any]:
    found = {"problems": [asdict(p) for p in result.problems], "warnings": [asdict(w) for w in result.warnings]}
    return {"path": result.path, "ok": result.ok, **result.facts, **found}
