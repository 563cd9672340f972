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
from pydantic import BaseModel

from broker import metrics
from broker.audit.event import EventType
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
    """Every quoted command line of ``program``, in spans and in shell blocks."""
    yield from _of(program, spans(text))
    yield from whole_commands(text, program)


def whole_commands(text: str, program: str) -> Iterator[str]:
    """The ones in shell blocks, which can be typed as they stand."""
    shell = [content for language, content in blocks(text) if language in ("", "sh", "console")]
    yield from _of(program, [line for content in shell for line in content.replace("\\\n", " ").splitlines()])


def _of(program: str, lines: list[str]) -> Iterator[str]:
    for line in lines:
        command = re.sub(r"^(\$ |# )?(\S+=\S* )*(\.venv/bin/)?", "", re.sub(r"\s+# .*", "", line.strip()))
        if command.split(" ", 1)[0] == program:
            yield command


def parsed(words: list[str]) -> None:
    """Have click parse a command line and run nothing. Raises click.UsageError."""
    context = broker_command.make_context("broker", list(words))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, command, arguments = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, arguments, parent=context)


def wrong_with(command: str) -> str:
    """What of a `broker ...` in running text does not exist; empty if all does. `a|b` stands for either."""
    words = shlex.split(command.replace("...", ""))[1:]
    current: click.Command = broker_command
    options = _options(current)
    for word in words:
        if word == "--":
            break
        if word.startswith("-"):
            if word.split("=")[0] not in options:
                return f"{word} is no option"
        elif isinstance(current, click.Group):
            found = {name: current.get_command(click.Context(current), name) for name in word.split("|")}
            if missing := [name for name, each in found.items() if each is None]:
                return f"{missing[0]} is no command"
            current = next(each for each in found.values() if each is not None)
            options |= _options(current)
    return ""


def _options(command: click.Command) -> set[str]:
    names = (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    return {"--help", *names}


@by_page
def test_every_broker_command_in_a_block_can_be_typed(page: Path) -> None:
    for command in whole_commands(page.read_text(), "broker"):
        try:
            parsed(shlex.split(command)[1:])
        except click.UsageError as error:
            # The paths of an example are an operator's, not ours.
            assert "does not exist" in error.message, f"{command}: {error.message}"


@pytest.mark.parametrize("command", ["reload", "audit show", "exec -- true", "leases --no-such", "leaks"])
def test_a_command_that_cannot_be_typed_is_found(command: str) -> None:
    with pytest.raises(click.UsageError):
        parsed(command.split())


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


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    pages = [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "connectors").glob("*.md"),
        ROOT / "docs" / "decisions" / "README.md",
    ]
    assert [page for page in pages if f"]({page.relative_to(ROOT).as_posix()})" not in text] == []


@cache
def make_targets() -> frozenset[str]:
    """The targets for people: the ones with a description."""
    return frozenset(re.findall(r"^([a-z][a-z-]*):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@by_page
def test_every_make_target_that_is_quoted_exists(page: Path) -> None:
    for command in commands(page.read_text(), "make"):
        words = [word for word in shlex.split(command)[1:] if "=" not in word]
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
def _words_of_the_sources() -> frozenset[str]:
    tracked = [*(ROOT / ".ci").iterdir(), ROOT / "Makefile"]
    for folder in ("broker", "protos", "deploy", "requirements"):
        tracked += (ROOT / folder).rglob("*.*")
    kinds = {".py", ".proto", ".yaml", ".json", ".cedar", ".cedarschema", ".sql", ".hcl", ""}
    files = [path for path in tracked if path.is_file() and path.suffix in kinds]
    return frozenset(word for path in files for word in re.findall(r"\w+", path.read_text()))


@by_page
def test_every_constant_that_is_named_is_in_the_code(page: Path) -> None:
    # Reasons, states, variables of the environment: UPPER_CASE with an underscore.
    named = {word for span in spans(page.read_text()) for word in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", span)}
    assert named - _words_of_the_sources() == set()


def _sections() -> dict[str, type[BaseModel]]:
    """What stands before the dot in a setting's name."""
    fields = {**Config.model_fields, "quotas": AgentFile.model_fields["quotas"]}
    models = {name: field.annotation for name, field in fields.items()}
    return {name: model for name, model in models.items() if isinstance(model, type) and issubclass(model, BaseModel)}


@by_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    sections = _sections()
    settings = {span for span in spans(page.read_text()) if re.fullmatch(r"[a-z]+\.[a-z_]+", span)}
    for setting in settings - set(EventType):
        section, key = setting.split(".")
        if section in sections and key not in ("sql", "hcl", "yaml"):
            assert key in sections[section].model_fields, setting


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
    assert quoted and (quoted[1] + "\n",) == REVOCATION_STATEMENTS


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


def test_the_example_of_deploy_keys_is_accepted(tmp_path: Path) -> None:
    examples = [content for _, content in blocks(OPERATORS.read_text())]
    (example,) = [content for content in examples if content.startswith("# brokerd.yaml")]
    (section,) = [content for content in examples if content.startswith("deploy:\n")]
    file = tmp_path / "brokerd.yaml"
    file.write_text(re.sub(r"^deploy:\n(  .*\n)+", section, example, flags=re.MULTILINE))
    file.chmod(0o600)
    deploy = load_config(file).deploy
    assert {entry.person for entry in deploy.deploy_keys.values()} == {"dana", "alex", "kim"}
    assert deploy.deploy_signatures_required == 2


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
