"""What `broker check` warns of in the statements of AWS templates: at file, line and field, and without refusing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.deployfiles import listing
from broker.deployfiles.load import build, warnings
from tests.deployfiles.test_broken import HERE, private_copy
from tests.deployfiles.test_check import run

TEMPLATE = "templates/reports.yaml"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return private_copy(HERE / "good", tmp_path / "good")


def with_statement(directory: Path, statement: str) -> Path:
    path = directory / TEMPLATE
    head = path.read_text().partition("grant:\n")[0]
    path.write_text(f"{head}grant:\n  role_name: reader\n  policy:\n{statement}")
    return directory


def told(directory: Path) -> list[tuple[int, str, str]]:
    files = listing.read_set(directory)
    build(files)  # is taken all the same
    return [(each.line, each.field.rpartition("policy.")[2], each.message) for each in warnings(files)]


ORDERS = 'resources: ["arn:aws:s3:::orders/*"]'


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (f'    - actions: ["s3:GetObject"]\n      {ORDERS}\n', []),
        (
            f'    - actions: ["s3:GetObject", "s3:GetObjet"]\n      {ORDERS}\n',
            [("0.actions.1", "s3:GetObjet is no action that AWS is known to have")],
        ),
        (
            f'    - actions: ["s4:GetObject"]\n      {ORDERS}\n',
            [("0.actions.0", "s4:GetObject is of no service that AWS is known to have")],
        ),
        (
            '    - actions: ["s3:GetObject"]\n      resources: ["arn:aws:s3:::orders"]\n',
            [("0.actions.0", "s3:GetObject takes none of these resources")],
        ),
        # One of them is enough, as with the two halves of reading a bucket.
        ('    - actions: ["s3:ListBucket"]\n      resources: ["arn:aws:s3:::o", "arn:aws:s3:::o/*"]\n', []),
        # Of a wildcard's many actions there are always some for other resources.
        (f'    - actions: ["s3:Get*"]\n      {ORDERS}\n', []),
        (
            f'    - actions: ["s3:GetObject"]\n      {ORDERS}\n      conditions: {{StringEquals: {{"s3:foo": [x]}}}}\n',
            [("0.actions.0", "s3:GetObject does not know this condition")],
        ),
        (
            f'    - actions: ["s3:GetObject"]\n      {ORDERS}\n'
            '      conditions: {DateLessThan: {"aws:CurrentTime": [soon]}}\n',
            [("0.actions.0", "s3:GetObject compares a condition's key with a value of another type")],
        ),
    ],
)
def test_what_is_warned_of(good: Path, statement: str, expected: list[tuple[str, str]]) -> None:
    found = told(with_statement(good, statement))
    assert [(field, message) for _, field, message in found] == expected
    first = (good / TEMPLATE).read_text().splitlines().index("  policy:") + 2
    assert all(line == first for line, *_ in found)


def test_the_command_warns_and_succeeds(good: Path) -> None:
    with_statement(good, f'    - actions: ["s3:GetObjet"]\n      {ORDERS}\n')
    result = run(good)
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"warning: {good}/{TEMPLATE}:")
    assert "grant.policy.0.actions.0: s3:GetObjet is no action" in line
    (as_json,) = json.loads(run("--format=json", good).stdout)
    assert as_json["ok"]
    assert [each["field"] for each in as_json["warnings"]] == ["grant.policy.0.actions.0"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("revocation: {propagation: 10s}", "must be from 1m to 30m"),
        ("revocation: {}\n      proves_identity: true", "what proves_identity cannot be revoked"),
        ("network: {}", "must name an address or a VPC endpoint"),
        ("network: {source_ips: [0.0.0.0/0]}", "binds to nothing"),
        ("network: {source_ips: [203.0.113.7]}", "CIDR notation"),
        ("network: {source_ips: [203.0.113.7/24]}", "bits set behind its prefix"),
        ("web_identity: {role_arn: jit-broker}", "must match"),
        (
            'access_key_id: "env:A"\n      secret_access_key: "env:B"\n'
            '      web_identity: {role_arn: "arn:aws:iam::123456789012:role/jit-broker"}',
            "not with both",
        ),
    ],
)
def test_settings_that_contradict_themselves_are_refused(good: Path, settings: str, words: str) -> None:
    path = good / "connectors.yaml"
    path.write_text(path.read_text().replace("region: eu-central-1", f"region: eu-central-1\n      {settings}"))
    result = run(good)
    assert result.exit_code == 1
    assert words in result.stderr


def test_a_grant_of_nothing_in_particular_is_refused(good: Path) -> None:
    path = good / TEMPLATE
    path.write_text(path.read_text().partition("grant:\n")[0] + "grant:\n  role_name: reader\n")
    result = run(good)
    assert result.exit_code == 1
    assert "the whole role would be granted" in result.stderr


def test_settings_and_grant_of_every_new_kind_are_taken(good: Path) -> None:
    path = good / "connectors.yaml"
    more = """region: eu-central-1
      revocation: {propagation: 3m, role_name: ops/jit-broker-revoker}
      network: {source_ips: [203.0.113.0/24, "2001:db8::/32"], source_vpces: [vpce-0123456789abcdef0]}
      web_identity: {role_arn: "arn:aws:iam::123456789012:role/jit-broker"}"""
    path.write_text(path.read_text().replace("region: eu-central-1", more))
    template = good / TEMPLATE
    grant = """grant:
  role_name: reader
  managed_policies: [team/orders-read, "arn:aws:iam::aws:policy/ReadOnlyAccess"]
  network: {source_ips: [203.0.113.7/32]}
"""
    template.write_text(template.read_text().partition("grant:\n")[0] + grant)
    result = run(good)
    assert result.exit_code == 0, result.stderr
