"""``broker check``: says whether a deploy set or a brokerd file would be taken, and if not, every reason.

Needs no broker, no network and no secret, so it runs in CI before anything is deployed. The readers
come with the daemon (``pip install jit-broker[daemon]``) and are imported when the command is used.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from broker.files import Problem


@dataclass(frozen=True, slots=True)
class _Checked:
    path: str
    summary: str
    facts: dict[str, Any]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(paths: tuple[Path, ...], form: str) -> None:
    """Check deploy directories (and brokerd configuration files) before use.

    Exits 0 if all would be taken. Otherwise prints each problem as FILE:LINE: FIELD: MESSAGE (HINT) and exits 1.
    """
    try:
        own = _own_trust_domain(paths)
        results = [_check(path, own) for path in paths]
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing. Run: pip install 'jit-broker[daemon]'") from None
    if form == "json":
        click.echo(json.dumps([_json(result) for result in results], indent=2))
    else:
        for result in results:
            _print(result)
    if not all(result.ok for result in results):
        raise SystemExit(1)


def _own_trust_domain(paths: tuple[Path, ...]) -> str:
    """The broker's own, where its configuration is checked along with the deploy directory; else empty."""
    from broker.config import load_config
    from broker.files import Problems

    for path in paths:
        if not path.is_dir():
            with contextlib.suppress(Problems):
                return load_config(path).trust_domain
    return ""


def _check(path: Path, trust_domain: str) -> _Checked:
    from broker.files import Problems

    try:
        summary, facts = _directory(path, trust_domain) if path.is_dir() else _config(path)
    except Problems as found:
        return _Checked(str(path), "", {}, found.problems)
    return _Checked(str(path), summary, facts, ())


def _directory(path: Path, trust_domain: str) -> tuple[str, dict[str, Any]]:
    from broker.deployfiles import load

    loaded = load(path, trust_domain)
    counts = {
        "agents": len(loaded.registry),
        "templates": len(loaded.templates),
        "policies": len(loaded.policies),
        "connectors": len(loaded.connectors),
        "people": len(loaded.people),
    }
    told = ", ".join(_count(counts[what], what) for what in ("agents", "templates", "policies"))
    digest = f"sha256:{loaded.digest}"
    return f"{told}, digest {digest}", {**counts, "digest": digest}


def _count(count: int, what: str) -> str:
    singular = {"policies": "policy"}.get(what, what.removesuffix("s"))
    return f"{count} {singular if count == 1 else what}"


def _config(path: Path) -> tuple[str, dict[str, Any]]:
    from broker.config import load_config

    config = load_config(path)
    return f"brokerd of {config.trust_domain}", {"trust_domain": config.trust_domain}


def _print(result: _Checked) -> None:
    if result.ok:
        click.echo(f"{result.path}: ok, {result.summary}")
    for problem in result.problems:
        click.echo(str(problem), err=True)


def _json(result: _Checked) -> dict[str, Any]:
    return {"path": result.path, "ok": result.ok, **result.facts, "problems": [asdict(p) for p in result.problems]}
