"""The break_glass section of templates: what it says, what can never be used, and what a digest is over."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.breakglass.rules import BreakGlassRule
from broker.deployfiles import listing, load
from broker.deployfiles.load import build
from broker.files import Problems
from tests.deployfiles.test_broken import HERE, private_copy

PEOPLE = """people:
  dana: {issuer: "https://id.example.org", subject: dana, display_name: Dana, groups: [oncall]}
  sam: {issuer: "https://id.example.org", subject: sam, display_name: Sam, groups: [dba], disabled: true}
  kim: {issuer: "https://id.example.org", subject: kim, display_name: Kim, groups: [security]}
"""
SECTION = """break_glass:
  groups: [oncall, security]
  max_ttl: 1h
  review_within: 8h
  rate: {uses: 2, per: 7d}
  strong: {acr: [phr, phrh], amr: [mfa]}
"""


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    copy = private_copy(HERE / "good", tmp_path / "set")
    (copy / "people.yaml").write_text(PEOPLE)
    return copy


def add(directory: Path, section: str) -> None:
    path = directory / "templates/orders.yaml"
    path.write_text(path.read_text() + section)


def test_a_section_as_it_is_written(deploy: Path) -> None:
    add(deploy, SECTION)
    assert load(deploy).break_glass == {
        "orders": BreakGlassRule(
            groups=frozenset({"oncall", "security"}),
            max_ttl=timedelta(hours=1),
            review_within=timedelta(hours=8),
            max_uses=2,
            per=timedelta(days=7),
            acr=frozenset({"phr", "phrh"}),
            amr=frozenset({"mfa"}),
        )
    }


def test_what_is_not_said_is_the_strictest_that_is_usable(deploy: Path) -> None:
    add(deploy, "break_glass: {groups: [oncall], max_ttl: 1h}\n")
    rule = load(deploy).break_glass["orders"]
    assert (rule.review_within, rule.max_uses, rule.per) == (timedelta(hours=24), 3, timedelta(hours=24))


def test_without_a_section_nobody_may_and_the_templates_digest_is_what_it_was(deploy: Path) -> None:
    before = load(deploy)
    assert before.break_glass == {}
    digest = before.templates["orders"].digest
    add(deploy, SECTION)
    assert load(deploy).templates["orders"].digest != digest


def test_a_group_of_disabled_people_is_told_but_serves(deploy: Path) -> None:
    add(deploy, "break_glass: {groups: [oncall, dba], max_ttl: 1h}\n")
    with pytest.raises(Problems) as caught:
        load(deploy)
    (problem,) = caught.value.problems
    assert (problem.field, problem.hint) == ("break_glass.groups.1", "Groups: oncall, security.")
    # Who is disabled must be gone at once, whatever cannot be reached without them.
    assert "orders" in build(listing.read_set(deploy), to_serve=True).break_glass


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("{groups: [], max_ttl: 1h}", "break_glass.groups"),
        ("{groups: [oncall, oncall], max_ttl: 1h}", "break_glass.groups"),
        ("{groups: [oncall], max_ttl: 59s}", "break_glass.max_ttl"),
        ("{groups: [oncall], max_ttl: 1h, review_within: 8d}", "break_glass.review_within"),
        ("{groups: [oncall], max_ttl: 1h, rate: {uses: 0}}", "break_glass.rate.uses"),
        ("{groups: [oncall], max_ttl: 1h, rate: {per: 1m}}", "break_glass.rate.per"),
        ("{groups: [oncall]}", "break_glass.max_ttl"),
        ("anybody", "break_glass"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(deploy: Path, section: str, field: str) -> None:
    add(deploy, f"break_glass: {section}\n")
    with pytest.raises(Problems) as caught:
        load(deploy)
    assert [each.field for each in caught.value.problems] == [field]
