"""Every way to get a deploy set wrong that we thought of: what is told, and where.

``broken/<name>/`` is ``good/`` with one mistake, so that ``broker check`` can be tried on it by hand.
"""

from pathlib import Path

import pytest

from broker.deployfiles import load
from broker.files import Problems

HERE = Path(__file__).parent
AGENT, ORDERS, REPORTS = "agents/analyst.yaml", "templates/orders.yaml", "templates/reports.yaml"
JOBS, PAYMENTS, PATTERN = "agents/jobs.yaml", "agents/payments.yaml", "spiffe_id_pattern"
PEOPLE, CONNECTORS, POLICY = "people.yaml", "connectors.yaml", "policies/read.cedar"
DAY = "parameters.day"
STATEMENT = "grant.policy.0"

# name: every (file, line, field, part of the message)
BROKEN: dict[str, list[tuple[str, int, str, str]]] = {
    "account-not-aws": [(REPORTS, 4, "accounts.0", "production is no AWS account id")],
    "account-unquoted": [(REPORTS, 4, "accounts.0", "must be a text")],
    "agent-file-badly-named": [("agents/The_Jobs.yaml", 1, "", "'The_Jobs' names no agent")],
    "agent-registered-twice": [("agents/twin.yaml", 1, "spiffe_id", "is registered in")],
    "agent-with-empty-owner": [(AGENT, 3, "owner", "is empty")],
    "agent-with-id-and-pattern": [(AGENT, 2, PATTERN, "stands beside spiffe_id")],
    "agent-with-null-id": [(AGENT, 1, "spiffe_id", "is empty")],
    "agent-without-environments": [(AGENT, 5, "environments", "at least 1 item")],
    "agent-without-id": [(AGENT, 1, "spiffe_id", "is missing")],
    "agent-without-owner": [(AGENT, 1, "owner", "is missing")],
    "agent-without-tier": [(AGENT, 1, "tier", "is missing")],
    "agent-zero-quota": [(AGENT, 6, "quotas.live_leases", "greater than or equal to 1")],
    "bad-spiffe-id": [(AGENT, 1, "spiffe_id", "is not a SPIFFE ID")],
    "break-glass-group-of-nobody": [
        (ORDERS, 10, "break_glass", "has nobody else who could review it"),
        (ORDERS, 11, "break_glass.groups.0", "nobody who is enabled is in oncall"),
    ],
    "break-glass-strong-of-nothing": [(ORDERS, 13, "break_glass.strong", "says neither acr nor amr")],
    "break-glass-too-long": [(ORDERS, 12, "break_glass.max_ttl", "must be between 1m and 12h")],
    "break-glass-unknown-key": [(ORDERS, 13, "break_glass.reviewed_within", "is not a known key")],
    "break-glass-without-groups": [(ORDERS, 10, "break_glass.groups", "is missing")],
    "connector-half-a-key": [(CONNECTORS, 10, "connectors.aws.settings", "come together or not at all")],
    "connector-plain-http": [(CONNECTORS, 5, "connectors.vault.settings.address", "must be https")],
    "connector-relative-secret": [(CONNECTORS, 6, "connectors.vault.settings.token", "absolute path")],
    "connector-secret-inside": [(CONNECTORS, 6, "connectors.vault.settings.token", "must be a reference")],
    "connector-unknown-kind": [(CONNECTORS, 3, "connectors.vault.kind", "is vault-databse")],
    "disabled-owner": [(AGENT, 3, "owner", "dana is disabled")],
    "duplicate-key": [(ORDERS, 10, "max_ttl", "comes twice")],
    "grant-all-of-a-service": [(REPORTS, 19, f"{STATEMENT}.actions.0", "must match")],
    "grant-of-another-kind": [
        (ORDERS, 10, "grant.role", "is missing"),
        (ORDERS, 11, "grant.role_name", "is not a known key"),
    ],
    "grant-resource-without-arn": [(REPORTS, 21, f"{STATEMENT}.resources.0", "must start with the text of an ARN")],
    "grant-role-badly-named": [(ORDERS, 11, "grant.role", "must match")],
    "grant-role-no-role": [(ORDERS, 13, "grant.role", "'a/b', a value of team, is no role")],
    "grant-role-of-a-pattern": [(ORDERS, 13, "grant.role", "team is of type regex, and chooses the role")],
    "grant-role-unknown-parameter": [(ORDERS, 13, "grant.role", "teem is not a parameter of this template")],
    "mandatory-field-unknown": [(REPORTS, 10, "requires.1", "must be one of intent")],
    "no-people": [(PEOPLE, 1, "", "is missing")],
    "no-policies": [("policies", 1, "", "has no *.cedar")],
    "overrides-another-pattern": [(AGENT, 6, "overrides", "is inside the pattern spiffe://example.org/agent/{name}")],
    "overrides-from-a-pattern": [(JOBS, 6, "overrides", "there is no spiffe_id")],
    "overrides-nothing": [(AGENT, 6, "overrides", "no pattern of jobs matches spiffe://example.org/agent/analyst")],
    "parameter-unknown-in-grant": [(REPORTS, 21, f"{STATEMENT}.resources.0.3", "month is not a parameter")],
    "parameter-unknown-type": [(REPORTS, 13, f"{DAY}.type", "is glob")],
    "parameter-unsafe-in-grant": [(REPORTS, 20, f"{STATEMENT}.resources.0.3", "day may hold more than plain text")],
    "pattern-dotted": [(JOBS, 1, PATTERN, "empty, dotted or non-canonical")],
    "pattern-name-bad": [(JOBS, 1, PATTERN, "has the name 'Namespace'")],
    "pattern-name-twice": [(JOBS, 1, PATTERN, "names job twice")],
    "pattern-of-any-trust-domain": [(JOBS, 1, PATTERN, "trust domain that is no literal")],
    "pattern-part-of-a-segment": [(JOBS, 1, PATTERN, "only whole segments are named")],
    "pattern-percent": [(JOBS, 1, PATTERN, "empty, dotted or non-canonical")],
    "pattern-shadows-exact": [(AGENT, 1, "spiffe_id", "is inside the pattern spiffe://example.org/agent/{name}")],
    "pattern-too-many-names": [(JOBS, 1, PATTERN, "names 9 segments; at most 8 are")],
    "pattern-trailing-slash": [(JOBS, 1, PATTERN, "empty, dotted or non-canonical")],
    "pattern-with-star": [(JOBS, 1, PATTERN, "has the wildcard *: name a whole segment instead")],
    "pattern-with-two-stars": [(JOBS, 1, PATTERN, "has the wildcard **: name a whole segment instead")],
    "pattern-with-unknown-owner": [(JOBS, 3, "owner", "mallory is not in people.yaml")],
    "pattern-with-zero-quota": [(JOBS, 6, "quotas.live_leases", "greater than or equal to 1")],
    "pattern-without-literal": [(JOBS, 1, PATTERN, "has no literal segment")],
    "pattern-without-name": [(JOBS, 1, PATTERN, "names no segment: write it as spiffe_id")],
    "patterns-overlap": [
        (
            JOBS,
            1,
            PATTERN,
            "spiffe://example.org/ns/payments/job/x would match spiffe://example.org/ns/payments/{kind}",
        ),
        (
            PAYMENTS,
            1,
            PATTERN,
            "spiffe://example.org/ns/payments/job/x would match spiffe://example.org/ns/{namespace}",
        ),
    ],
    "patterns-overlap-in-regex": [
        (JOBS, 1, PATTERN, "an id could match spiffe://example.org/ns/{namespace} at"),
        (PAYMENTS, 1, PATTERN, "an id could match spiffe://example.org/ns/{namespace} at"),
    ],
    "person-twice": [(PEOPLE, 6, "people.dana-too", "the same person as dana")],
    "policy-forbid-without-reason": [(POLICY, 4, "never", "forbids without a @reason")],
    "policy-id-twice": [(POLICY, 4, "read", "has the @id read again")],
    "policy-segment-not-asked-for": [(POLICY, 11, "more", "unable to guarantee safety of access to tag")],
    "policy-syntax": [(POLICY, 2, "", "is not Cedar: '=' is not a valid operator")],
    "policy-unknown-action": [
        (POLICY, 1, "read", "unable to find an applicable action"),
        (POLICY, 2, "read", 'unrecognized action `Action::"reed"`'),
    ],
    "policy-unknown-agent": [(POLICY, 12, "more", "'spiffe://example.org/agent/analist' is no registered agent")],
    "policy-unknown-attribute": [(POLICY, 7, "never", "attribute `colour`")],
    "policy-unknown-entry": [(POLICY, 12, "more", "'analist' is no file of agents/")],
    "policy-unknown-person": [(POLICY, 11, "more", "'https://id.example.org#nobody' is nobody of people.yaml")],
    "policy-unknown-segment": [(POLICY, 11, "more", "names a segment 'team'")],
    "policy-unknown-template": [(POLICY, 11, "more", "'order' is no template")],
    "policy-without-id": [(POLICY, 1, "", "has no @id")],
    "regex-empty-range": [(REPORTS, 12, DAY, "the range is empty")],
    "regex-not-re2": [(REPORTS, 14, f"{DAY}.pattern", "is not RE2")],
    "regex-unanchored": [(REPORTS, 14, f"{DAY}.pattern", "is not anchored: write ^...$")],
    "regex-without-length": [(REPORTS, 12, f"{DAY}.max_length", "is missing")],
    "segment-enum-and-regex": [(JOBS, 3, "segments.namespace", "says enum or regex, one of the two")],
    "segment-not-in-pattern": [(JOBS, 3, "segments.team", "is not a segment that spiffe_id_pattern names")],
    "segment-regex-unanchored": [(JOBS, 3, "segments.namespace.regex", "is not anchored: write ^...$")],
    "segment-unrestricted": [(JOBS, 3, "segments.namespace", "says enum or regex, one of the two")],
    "segment-value-with-slash": [(JOBS, 3, "segments.namespace", "lists 'a/b', which is no segment")],
    "segments-without-pattern": [(AGENT, 6, "segments", "there is no spiffe_id_pattern")],
    "spiffe-id-dotted": [(AGENT, 1, "spiffe_id", "non-canonical path segment")],
    "stray-file": [("agents/typo.yml", 1, "", "is not part of a deploy set")],
    "template-resource-from-identity": [(ORDERS, 6, "resource.from_identity", "is not for the resource")],
    "template-twice": [("templates/zz.yaml", 1, "name", "orders is defined in")],
    "template-unknown-connector": [(ORDERS, 3, "connector", "volt is not in connectors.yaml")],
    "template-unknown-segment": [(REPORTS, 16, f"{DAY}.from_identity", "names a segment day")],
    "ttl-without-unit": [(ORDERS, 9, "max_ttl", "must be a duration")],
    "unknown-access-class": [(ORDERS, 7, "access", "must be 'read'")],
    "unknown-key": [(AGENT, 1, "tier", "is missing"), (AGENT, 4, "teir", "is not a known key")],
    "unknown-owner": [(AGENT, 3, "owner", "mallory is not in people.yaml")],
    "unknown-tier": [(AGENT, 4, "tier", "must be 'advisory'")],
    "yaml-anchor": [(ORDERS, 4, "accounts", "anchor &names"), (ORDERS, 5, "environments", "alias *names")],
    "yaml-boolean": [(ORDERS, 4, "accounts.0", "is no, which")],
    "yaml-merge-key": [(AGENT, 3, "", "merge key <<")],
    "yaml-syntax": [(AGENT, 6, "", "is not YAML")],
    "yaml-tag": [(AGENT, 3, "owner", "has the tag")],
    "yaml-two-documents": [(AGENT, 6, "", "second document")],
    "zero-ttl": [(ORDERS, 9, "max_ttl", "more than zero")],
}


def private_copy(source: Path, target: Path) -> Path:
    """The set without the group's right to write, which git does not keep and some umasks give."""
    for path in sorted([source, *source.rglob("*")]):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(mode=0o755)
        else:
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o644)
    return target


def test_the_set_without_a_mistake_is_taken(tmp_path: Path) -> None:
    good = load(private_copy(HERE / "good", tmp_path / "set"))
    assert len(good.registry) == 1
    assert good.templates.keys() == {"orders", "reports"}


def test_every_broken_set_stands_in_the_table() -> None:
    assert {path.name for path in (HERE / "broken").iterdir()} == BROKEN.keys()


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_told_with_file_line_and_field(name: str, tmp_path: Path) -> None:
    directory = private_copy(HERE / "broken" / name, tmp_path / "set")
    with pytest.raises(Problems) as caught:
        load(directory)
    found = caught.value.problems
    expected = sorted(BROKEN[name])
    assert [(p.file, p.line, p.field) for p in found] == [
        (str(directory / file), line, field) for file, line, field, _ in expected
    ]
    for problem, (*_, told) in zip(found, expected, strict=True):
        assert told in problem.message
        assert "hvs.CAESIJ" not in str(problem)  # a secret in the wrong place is not repeated
