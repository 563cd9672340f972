"""approvals.yaml: what it says, what is wrong with it, and that gates name nothing else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.approval.rules import ApprovalRule, Quorum
from broker.deployfiles import load
from broker.files import Problems
from tests.deployfiles.test_broken import HERE, private_copy

# Dana and Sam are of the platform, of whom one is enabled; Kim is of both groups.
PEOPLE = """people:
  dana: {issuer: "https://id.example.org", subject: dana, display_name: Dana, groups: [platform]}
  sam: {issuer: "https://id.example.org", subject: sam, display_name: Sam, groups: [platform], disabled: true}
  kim: {issuer: "https://id.example.org", subject: kim, display_name: Kim, groups: [platform, security]}
"""
APPROVALS = """approvals:
  owners:
    description: Production is changed.
    any_of:
      - {group: platform, people: 2}
      - {group: security}
"""
GATE = """@id("gate") @reason("Ask the owners.") @approval("owners")
forbid (principal, action in Action::"change", resource)
unless { context.approvals.contains("owners") };
"""


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    copy = private_copy(HERE / "good", tmp_path / "set")
    (copy / "people.yaml").write_text(PEOPLE)
    (copy / "approvals.yaml").write_text(APPROVALS)
    return copy


def told(directory: Path) -> list[tuple[str, int, str, str]]:
    with pytest.raises(Problems) as caught:
        load(directory)
    return [(Path(each.file).name, each.line, each.field, each.message) for each in caught.value.problems]


def test_a_rule_as_it_is_written(deploy: Path) -> None:
    (deploy / "policies/gate.cedar").write_text(GATE)
    assert load(deploy).approvals == {
        "owners": ApprovalRule(
            "owners",
            "Production is changed.",
            (Quorum("platform", 2), Quorum("security", 1)),
            expires_in=timedelta(minutes=15),
            redeem_within=timedelta(minutes=10),
        )
    }


def test_its_deadlines_can_be_said(deploy: Path) -> None:
    (deploy / "approvals.yaml").write_text(APPROVALS + "    expires_in: 24h\n    redeem_within: 1m\n")
    rule = load(deploy).approvals["owners"]
    assert (rule.expires_in, rule.redeem_within) == (timedelta(hours=24), timedelta(minutes=1))


def test_a_set_without_gates_needs_no_such_file(deploy: Path) -> None:
    (deploy / "approvals.yaml").unlink()
    assert load(deploy).approvals == {}


@pytest.mark.parametrize(
    ("before", "after", "line", "field", "message"),
    [
        ("people: 2", "people: 3", 5, "approvals.owners.any_of.0.people", "takes 3 people of platform, which has 2"),
        ("people: 2", "people: 0", 5, "approvals.owners.any_of.0.people", "greater than or equal to 1"),
        ("people: 2", "people: true", 5, "approvals.owners.any_of.0.people", "valid integer"),
        (
            "group: security",
            "group: nobody",
            6,
            "approvals.owners.any_of.1.group",
            "nobody who is enabled is in nobody",
        ),
        ("group: security", "group: platform", 4, "approvals.owners.any_of", "lists platform twice"),
        ("group: security", "team: security", 6, "approvals.owners.any_of.1.group", "is missing"),
        ("    description: Production is changed.\n", "", 2, "approvals.owners.description", "is missing"),
        ("    any_of:", "    expires_in: 25h\n    any_of:", 4, "approvals.owners.expires_in", "between 1m and 24h"),
        (
            "    any_of:",
            "    redeem_within: 59s\n    any_of:",
            4,
            "approvals.owners.redeem_within",
            "between 1m and 24h",
        ),
        ("owners:", "Owners:", 2, "approvals.Owners", "must match"),
    ],
)
def test_what_is_wrong_with_it(deploy: Path, before: str, after: str, line: int, field: str, message: str) -> None:
    assert before in APPROVALS
    (deploy / "approvals.yaml").write_text(APPROVALS.replace(before, after))
    found = told(deploy)
    assert any(
        (file, at, where) == ("approvals.yaml", line, field) and message in what for file, at, where, what in found
    ), found


def test_who_is_disabled_is_in_no_quorum(deploy: Path) -> None:
    (deploy / "people.yaml").write_text(PEOPLE.replace("[platform, security]", "[platform, security], disabled: true"))
    assert {(field, message) for _, _, field, message in told(deploy)} == {
        ("approvals.owners.any_of.0.people", "takes 2 people of platform, which has 1 enabled"),
        ("approvals.owners.any_of.1.group", "nobody who is enabled is in security"),
    }


@pytest.mark.parametrize("approvals", [APPROVALS, None], ids=["another rule", "no file"])
def test_a_gate_that_no_rule_opens(deploy: Path, approvals: str | None) -> None:
    (deploy / "policies/gate.cedar").write_text("\n" + GATE.replace("owners", "owner"))
    if approvals is None:
        (deploy / "approvals.yaml").unlink()
    (problem,) = told(deploy)
    assert problem == ("gate.cedar", 4, "gate", "'owner' is no rule of approvals.yaml")


def test_where_the_rules_cannot_be_read_gates_are_not_blamed(deploy: Path) -> None:
    (deploy / "policies/gate.cedar").write_text(GATE)
    (deploy / "approvals.yaml").write_text("approvals: {owners: {}}\n")
    assert {file for file, *_ in told(deploy)} == {"approvals.yaml"}


@pytest.mark.parametrize(
    ("name", "is_something"),
    [
        *(("orders", True), ("read:dev", True)),
        *((name, False) for name in ("order", "read:prod", "reads:dev", "")),
        *((name, False) for name in ("change:dev", "write:dev")),  # nothing of this set changes anything
    ],
)
def test_a_grant_that_a_policy_names_can_be_had(deploy: Path, name: str, is_something: bool) -> None:
    (deploy / "policies/toxic.cedar").write_text(
        '@id("toxic") @reason("Not both.") forbid (principal, action, resource)\n'
        f'when {{ context.active_grants.contains("{name}") }};\n'
    )
    if is_something:
        assert "toxic" in load(deploy).policies.statements
    else:
        assert told(deploy) == [("toxic.cedar", 2, "toxic", f"'{name}' is nothing that can be granted")]
