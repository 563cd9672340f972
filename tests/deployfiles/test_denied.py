"""denied.yaml: what it may say, and each way to get it wrong, with its line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from broker.deployfiles import load
from broker.deployfiles.schemas import published
from broker.files import Problems
from broker.identity.denied import Below, Certificate
from broker.identity.spiffe_id import SpiffeId
from tests.deployfiles.test_broken import HERE, private_copy

GOOD = """\
denied:
  - spiffe_id: spiffe://example.org/agent/analyst
    reason: token found in a public log
    who: dana
    since: "2026-05-01T12:00:00Z"
  - below: spiffe://partner.org/ci
    reason: their runners are compromised
    who: dana
    since: "2026-05-01T14:00:00+02:00"
    until: "2026-06-01T00:00Z"
  - below: spiffe://gone.org
    reason: federation ended
    who: dana
    since: "2026-05-01T12:00:00Z"
  - trust_domain: example.org
    serial: 0A:B1:ff
    issuer: CN=our CA,O=Example
    reason: key copied
    who: dana
    since: "2026-05-01T12:00:00Z"
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return private_copy(HERE / "good", tmp_path / "set")


def write(directory: Path, text: str) -> None:
    file = directory / "denied.yaml"
    file.write_text(text)
    file.chmod(0o600)


def problems(directory: Path) -> list[tuple[int, str, str]]:
    with pytest.raises(Problems) as caught:
        load(directory)
    assert {problem.file for problem in caught.value.problems} == {str(directory / "denied.yaml")}
    return [(problem.line, problem.field, problem.message) for problem in caught.value.problems]


def test_what_it_says(good: Path) -> None:
    write(good, GOOD)
    loaded = load(good)
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert [(each.subject, each.since, each.until) for each in loaded.denied] == [
        (SpiffeId("example.org", "/agent/analyst"), noon, None),
        (Below("partner.org", "/ci"), noon, datetime(2026, 6, 1, tzinfo=UTC)),
        (Below("gone.org", ""), noon, None),
        (Certificate("example.org", 0x0AB1FF, "CN=our CA,O=Example"), noon, None),
    ]
    assert {each.who for each in loaded.denied} == {loaded.people["dana"]}


def test_it_is_part_of_the_set_and_of_its_digest(good: Path) -> None:
    without = load(good)
    assert len(without.denied) == 0
    write(good, "denied: []\n")
    empty = load(good)
    write(good, GOOD)
    assert len({without.digest, empty.digest, load(good).digest}) == 3


ENTRY = "denied:\n  - {subject}\n    reason: a reason\n    who: dana\n    since: '2026-05-01T12:00:00Z'\n"
ONE = "says one of spiffe_id, below, or serial"


@pytest.mark.parametrize(
    ("subject", "field", "told"),
    [
        ("spiffe_id: spiffe://example.org/agent/", "spiffe_id", "is not a SPIFFE ID"),
        ("spiffe_id: spiffe://example.org", "spiffe_id", "names a trust domain, not a workload"),
        ("spiffe_id: 'spiffe://example.org/agent/*'", "spiffe_id", "is not a SPIFFE ID"),
        ("spiffe_id:", "", ONE),
        ("below: example.org", "below", "does not start with spiffe://"),
        ("below: spiffe://example.org/", "below", "is not a SPIFFE ID"),
        ("below: spiffe://Example.org", "below", "is not a SPIFFE ID"),
        ("serial: ab", "", "says trust_domain with serial"),
        ("trust_domain: example.org", "", ONE),
        ("{trust_domain: example.org, serial: 12", "serial", "must be a text"),
        ("{trust_domain: example.org, serial: '0'", "serial", "not zero"),
        ("{trust_domain: example.org, serial: '0x12'", "serial", "in hex"),
        ("{trust_domain: example.org, serial: 'a:b'", "serial", "in hex"),
        ("{trust_domain: example.org, serial: '" + "f" * 41 + "'", "serial", "in hex"),
        ("{trust_domain: Example.org, serial: 'ab'", "trust_domain", "must be a trust domain"),
        ("{trust_domain: example.org, serial: 'ab', issuer: nobody", "issuer", "RFC 4514"),
        ("{spiffe_id: 'spiffe://example.org/a', below: 'spiffe://example.org/a'", "", ONE),
        ("{spiffe_id: 'spiffe://example.org/a', issuer: 'CN=one'", "", "issuer only beside them"),
        ("fingerprint: ab", "fingerprint", "is not a known key"),
    ],
)
def test_a_subject_that_is_none(good: Path, subject: str, field: str, told: str) -> None:
    if subject.startswith("{"):
        write(good, f"denied:\n  - {subject}, reason: a reason, who: dana, since: '2026-05-01T12:00:00Z'}}\n")
    else:
        write(good, ENTRY.replace("{subject}", subject))
    place = "denied.0" + (f".{field}" if field else "")
    assert any((line, at) == (2, place) and told in message for line, at, message in problems(good)), problems(good)


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "told"),
    [
        ("who: dana", "who: nobody", 4, "who", "nobody is not in people.yaml"),
        ("who: dana", "who: ''", 4, "who", "must match"),
        ("reason: a reason", "reason: ''", 3, "reason", "at least 1"),
        ("since: '2026-05-01T12:00:00Z'", "since: 2026-05-01T12:00:00Z", 5, "since", "no plain whole number"),
        ("since: '2026-05-01T12:00:00Z'", "since: '2026-05-01T12:00:00'", 5, "since", "must be an instant"),
        ("since: '2026-05-01T12:00:00Z'", "since: '2026-13-01T12:00:00Z'", 5, "since", "must be an instant"),
        ("since: '2026-05-01T12:00:00Z'", "since: '0001-01-01T00:00:00+23:59'", 5, "since", "must be an instant"),
        ("since: '2026-05-01T12:00:00Z'", "since: 'yesterday'", 5, "since", "must be an instant"),
        ("12:00:00Z'\n", "12:00:00Z'\n    until: '2026-05-01T12:00:00Z'\n", 2, "", "ends (until) before it begins"),
        ("12:00:00Z'\n", "12:00:00Z'\n    until:\n    forever: true\n", 7, "forever", "is not a known key"),
    ],
)
def test_everything_else_that_can_be_wrong(good: Path, old: str, new: str, line: int, field: str, told: str) -> None:
    text = ENTRY.replace("{subject}", "spiffe_id: spiffe://example.org/a")
    assert old in text
    write(good, text.replace(old, new, 1))
    found = problems(good)
    assert any(at == line and where.endswith(field) and told in message for at, where, message in found), found


@pytest.mark.parametrize("text", ["", "denied:\n", "denied: {}\n", "denyed: []\n", "[]\n"])
def test_a_file_that_says_nothing_is_not_taken_for_an_empty_list(good: Path, text: str) -> None:
    write(good, text)
    assert problems(good)


def test_twice_the_same_subject(good: Path) -> None:
    twice = GOOD + GOOD.removeprefix("denied:\n").replace("0A:B1:ff", "ab1ff", 1)
    write(good, twice)
    found = problems(good)
    assert [(line, field) for line, field, _ in found] == [
        (21, "denied.4"),
        (25, "denied.5"),
        (30, "denied.6"),
        (34, "denied.7"),
    ]
    assert f"{good / 'denied.yaml'}:2" in found[0][2]


def test_who_is_not_complained_about_while_people_cannot_be_read(good: Path) -> None:
    write(good, GOOD)
    (good / "people.yaml").write_text("people: {}\n")
    with pytest.raises(Problems) as caught:
        load(good)
    assert "denied.yaml" not in str(caught.value)


def test_the_published_schema_takes_it_too() -> None:
    schema: Any = yaml.safe_load(published()["denied.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(GOOD), schema)
