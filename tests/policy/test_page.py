"""docs/policy.md, carried out as it stands: its rule in the development set, its tests, its commands."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.main import cli as command
from broker.lease.credential import ContractClass
from broker.scope.model import AccessClass
from tests.deployfiles.test_broken import private_copy
from tests.house.project import ROOT, blocks
from tests.policy.world import PERMIT_ALL, facts, policies

PAGE = (ROOT / "docs/policy.md").read_text()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with ``deploy/dev``, and ``deploy/new`` that has the page's rule and tests."""
    (tmp_path / "deploy").mkdir(mode=0o700)
    private_copy(ROOT / "deploy/dev", tmp_path / "deploy/dev")
    new = private_copy(ROOT / "deploy/dev", tmp_path / "deploy/new")
    for language, name in (("cedar", "reports.cedar"), ("yaml", "reports.test.yaml")):
        content = next(content for each, content in blocks(PAGE) if each == language)
        (new / "policies" / name).write_text(content)
        (new / "policies" / name).chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_gate_and_its_tests_are_as_the_page_says(place: Path) -> None:
    _, gate, *_ = [content for language, content in blocks(PAGE) if language == "cedar"]
    _, approvals, tests = [content for language, content in blocks(PAGE) if language == "yaml"]
    dev = place / "deploy/dev"
    (dev / "policies/owners.cedar").write_text(gate)
    shipped = (dev / "approvals.yaml").read_text()
    start, end = shipped.index("  restricted-data:"), shipped.index("  security:")
    (dev / "approvals.yaml").write_text(shipped[:start] + approvals.removeprefix("approvals:\n") + shipped[end:])
    given = (
        'given: {agent: releaser, account: "123456789012", resource: orders-reports, ttl: 1m, intent: look,'
        " parameters: {day: daily/2026-11-20}}\n"
    )
    promoted = tests.replace("suppose: {", "suppose: {template_promoted: true, ")
    (dev / "policies/owners.test.yaml").write_text(given + promoted)
    done = run("broker policy test deploy/dev --strict")
    assert (done.exit_code, done.stderr) == (0, ""), done.output


def run(line: str) -> Result:
    return CliRunner().invoke(command, shlex.split(line)[1:])


def quoted(name: str) -> str:
    """The one quoted command of that name."""
    lines = "\n".join(content.replace("\\\n", " ") for language, content in blocks(PAGE) if not language)
    (line,) = re.findall(rf"^broker {name} .*$", lines, re.MULTILINE)
    return str(line)


@pytest.mark.parametrize("name", ["policy check", "policy test", "policy explain", "policy simulate", "check"])
def test_every_command_does_what_the_page_says(place: Path, name: str) -> None:
    done = run(quoted(name))
    assert (done.exit_code, done.stderr) == (0, ""), done.output


def test_the_rule_breaks_two_shipped_tests_as_the_page_says_and_passes_its_own(place: Path) -> None:
    done = run("broker policy test deploy/new")
    assert done.exit_code == 1
    failed = [line for line in done.stderr.splitlines() if "expected" in line]
    assert len(failed) == 2
    assert all("tiers.test.yaml" in line and "an autonomous agent" in line for line in failed)
    test = place / "deploy/new/policies/tiers.test.yaml"
    text = test.read_text()
    for ttl in ("ttl: 5m\n", "ttl: 301s\n"):
        text = text.replace(ttl, f'{ttl}      time: "2026-01-05T22:00:00Z"\n', 1)
    test.write_text(text)
    done = run("broker policy test deploy/new --strict")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "deploy/new: 63 of 63 tests passed, 20 of 20 policies decided in one\n"


def test_what_the_rule_changes_is_told_before_it_does(place: Path) -> None:
    done = run(quoted("policy simulate"))
    assert "reporters do not read during the working day: ALLOW by" in done.stdout
    assert "-> DENY POLICY_DENIED by no-reports-in-office-hours" in done.stdout


def test_what_the_page_says_of_how_credentials_end_holds() -> None:
    _, _, ended, static = [content for language, content in blocks(PAGE) if language == "cedar"]
    changes = policies(PERMIT_ALL, ended)
    write = {"access": AccessClass.WRITE}
    for bound, allowed in (
        (timedelta(seconds=60), True),
        (timedelta(seconds=60, milliseconds=1), False),
        (None, False),
    ):
        assert changes.decide(facts(scope=write, contract={"on_revoke": bound})).allowed is allowed
    only = {"cls": ContractClass.STATIC, "on_revoke": None}
    by_name = policies(PERMIT_ALL, static)
    billing = {"agent": {"principal": "billing"}, "contract": only}
    assert by_name.decide(facts(scope={"template": "legacy-api-key"}, **billing)).allowed
    assert not by_name.decide(facts(scope={"template": "another"}, **billing)).allowed
