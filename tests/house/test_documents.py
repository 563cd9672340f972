"""Whatever README and docs/ quote exists: commands, options, targets, files, names, figures, examples."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from broker import metrics
from broker.cli.main import cli as broker_command
from broker.config import Config, load_config
from broker.deployfiles.models import AgentFile
from broker.dev.openbao_database import REVOCATION_STATEMENTS
from tests.house.project import ROOT, blocks, documents, spans

PAGES = documents()
OPERATORS = ROOT / "docs" / "operators.md"
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


# --------------------------------------------------------------------------- commands


def commands(text: str, program: str) -> Iterator[str]:
    """Every quoted command line of ``program``, in spans and in unlabelled or shell blocks."""
    lines = [
        line for language, content in blocks(text) if language in ("", "sh", "console") for line in _lines(content)
    ]
    for line in [*lines, *spans(text)]:
        words = re.sub(r"^(\$ |# )?(\S+=\S* )*(\.venv/bin/)?", "", line.strip())
        if words.split(" ", 1)[0] == program:
            yield words


def _lines(content: str) -> list[str]:
    return content.replace("\\\n", " ").splitlines()


def wrong_with(command: str) -> str:
    """What of a quoted `broker ...` does not exist; empty if all does."""
    words = shlex.split(re.sub(r"\s{2,}#.*|\s#\s.*", "", command).replace("...", ""))[1:]
    current: click.Command = broker_command
    context = click.Context(broker_command)
    options = _options(current)
    for word in words:
        if word == "--":
            break
        for name in word.split("|") if isinstance(current, click.Group) else [word]:
            if name.startswith("-"):
                if name.split("=")[0] not in options:
                    return f"{name} is no option"
            elif isinstance(current, click.Group):
                found = current.get_command(context, name)
                if found is None:
                    return f"{name} is no command"
        if isinstance(current, click.Group) and not word.startswith("-") and "|" not in word:
            current = found
            options |= _options(current)
    return ""


def _options(command: click.Command) -> set[str]:
    options = {"--help"}
    for parameter in command.params:
        options |= {*parameter.opts, *parameter.secondary_opts}
    return options


@by_page
def test_every_broker_command_that_is_quoted_exists(page: Path) -> None:
    problems = {command: wrong_with(command) for command in commands(page.read_text(), "broker")}
    assert {command: problem for command, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("command", ["broker leaks", "broker leases --no-such", "broker audit verify|forge"])
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    assert wrong_with(command)


def test_the_readme_does_quote_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(list(commands(text, "broker"))) >= 5
    assert {"make demo", "make test"} <= set(commands(text, "make"))


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@by_page
def test_every_make_target_that_is_quoted_exists(page: Path) -> None:
    for command in commands(page.read_text(), "make"):
        words = [word for word in shlex.split(command, comments=True)[1:] if "=" not in word]
        assert set(words) <= make_targets(), command


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(
        ["make"], cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}
    )
    assert set(re.findall(r"^  make ([a-z-]+) ", listed.stdout, re.MULTILINE)) == make_targets()


# --------------------------------------------------------------------------- files and links

PATH = re.compile(r"(?:broker|docs|deploy|tests|protos|requirements|bench|integration|\.ci)/[A-Za-z0-9_./*-]*\Z")
# Made by running things, and not committed.
MADE = {"bench/latest.json"}


@by_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = {span for span in spans(page.read_text()) if PATH.match(span) and span not in MADE}
    assert {span for span in named if not list(ROOT.glob(span.rstrip("/")))} == set()


@by_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        if anchor:
            assert anchor in {_anchor(line) for line in path.read_text().splitlines() if line.startswith("#")}, target


def _anchor(heading: str) -> str:
    text = re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower())
    return text.strip().replace(" ", "-")


# --------------------------------------------------------------------------- names


@cache
def _sources() -> str:
    folders = ("broker", "protos", "deploy", "requirements", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path.read_text() for path in files if path.suffix not in (".pyc", ".txt")]
    return "\n".join([*texts, (ROOT / "Makefile").read_text()])


@by_page
def test_every_constant_that_is_named_is_in_the_code(page: Path) -> None:
    # Reasons, states, variables of the environment: UPPER_CASE with an underscore.
    named = {word for span in spans(page.read_text()) for word in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", span)}
    assert {word for word in named if not re.search(rf"\b{word}\b", _sources())} == set()


@by_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    for span in spans(page.read_text()):
        section, _, key = span.partition(".")
        model = {
            **{n: f.annotation for n, f in Config.model_fields.items()},
            "quotas": AgentFile.model_fields["quotas"].annotation,
        }.get(section)
        if re.fullmatch(r"[a-z]+\.[a-z_]+", span) and model is not None and hasattr(model, "model_fields"):
            assert key in model.model_fields, span


def _metric_names() -> set[str]:
    source = Path(metrics.__file__).read_text()
    return set(re.findall(r'"(broker_[a-z_]+)"', source))


def test_every_metric_is_explained_and_every_explained_metric_exists() -> None:
    told = {name.removesuffix("_total") for name in re.findall(r"\bbroker_[a-z_]+", OPERATORS.read_text())}
    assert told == _metric_names()


# --------------------------------------------------------------------------- what was drawn and copied from the code


def test_what_is_drawn_from_the_code_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_revocation_statements_in_the_docs_are_the_ones_that_are_tested() -> None:
    page = (ROOT / "docs" / "connectors" / "vault-database.md").read_text()
    quoted = re.search(r"<!-- revocation-statements -->\n```sql\n(.*?)\n```", page, re.DOTALL)
    assert quoted and tuple(quoted[1].splitlines()) == REVOCATION_STATEMENTS


# --------------------------------------------------------------------------- examples


def test_the_example_configuration_is_accepted(tmp_path: Path) -> None:
    (example,) = [
        content for language, content in blocks(OPERATORS.read_text()) if content.startswith("# brokerd.yaml")
    ]
    file = tmp_path / "brokerd.yaml"
    file.write_text(example)
    file.chmod(0o600)
    config = load_config(file)
    assert config.tenant == "acme"
    # What the table calls defaults are the defaults.
    for key, default in re.findall(
        r"^\| `([a-z_]+\.[a-z_]+)` \| ([0-9]+)(?: \||$)", OPERATORS.read_text(), re.MULTILINE
    ):
        section, name = key.split(".")
        assert getattr(getattr(config, section), name) == int(default), key


def test_the_example_deploy_set_is_accepted(tmp_path: Path) -> None:
    from broker.deployfiles import load

    examples = re.findall(
        r"^```(?:yaml|cedar)\n(?:#|//) (\S+)\n(.*?)^```$", OPERATORS.read_text(), re.MULTILINE | re.DOTALL
    )
    for name, content in examples:
        if name == "brokerd.yaml":
            continue
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, mode=0o700)
        file.write_text(content)
        file.chmod(0o600)
    deploy = load(tmp_path)
    assert set(deploy.templates) == {"orders-of-one-region"}
    assert len(deploy.registry) == 1


@by_page
def test_examples_in_python_compile_and_import(page: Path) -> None:
    for language, content in blocks(page.read_text()):
        if language != "python":
            continue
        tree = compile(content, str(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, type_ignores=[]), str(page), "exec"), {})
