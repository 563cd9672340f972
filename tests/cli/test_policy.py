"""``broker policy``: what an operator reads, and what the exit code says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.main import cli as command
from tests.deployfiles.test_broken import HERE, private_copy
from tests.house.project import ROOT

Run = Callable[..., Result]
TESTS = "policies/starter.test.yaml"
WRITE = (
    *("--agent", "migrator", "--template", "orders-readwrite", "--account", "dev", "--resource", "orders"),
    *("--ttl", "1m", "--intent", "repair", "--ticket", "T-1", "--reason"),
)


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str | Path) -> Result:
        done = CliRunner().invoke(command, ["policy", *[str(each) for each in arguments]])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    return private_copy(Path(__file__).parent / "policies", tmp_path / "dev")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --------------------------------------------------------------------------- check


def test_check_needs_only_the_policies_to_be_right(run: Run, dev: Path) -> None:
    assert run("check", dev).stdout == f"{dev}/policies: ok\n"
    (dev / "people.yaml").write_text("nonsense: [")
    done = run("check", dev)
    assert done.exit_code == 0
    assert "names were not looked up" in done.stdout
    assert json.loads(run("check", dev, "--format", "json").stdout)["namesLookedUp"] is False


def test_check_tells_every_problem_of_policies_and_tests(run: Run, dev: Path) -> None:
    edit(dev / "policies/starter.cedar", 'resource.environment == "dev"', 'resource.enviroment == "dev"')
    edit(dev / TESTS, "effect: allow", "effect: perhaps")
    edit(dev / "agents/analyst.yaml", "owner: dana", "owner: mallory")
    done = run("check", dev)
    assert done.exit_code == 1
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{dev}/policies/starter.cedar:23: migrators-write-in-dev: ")
    assert second.startswith(f"{dev}/{TESTS}:14: tests.0.expect.effect: ")
    told = json.loads(run("check", dev, "--format", "json").stdout)
    assert (told["ok"], [each["line"] for each in told["problems"]]) == (False, [23, 14])


# --------------------------------------------------------------------------- test


def test_tests_that_pass(run: Run, dev: Path) -> None:
    done = run("test", dev, "--strict")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{dev}: 12 of 12 tests passed, 6 of 6 policies decided in one\n"


def test_a_test_that_fails_is_told_with_its_line_and_what_was_decided(run: Run, dev: Path) -> None:
    edit(dev / "policies/starter.cedar", "context.ttl_seconds > 300", "context.ttl_seconds > 299")
    done = run("test", dev)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"{dev}/{TESTS}:21: an autonomous agent reads for five minutes:"
        " expected ALLOW by read-in-own-environments, decided DENY POLICY_DENIED by autonomous-five-minutes"
        " (Autonomous agents get credentials for at most 5 minutes. Ask for a shorter TTL, and again if needed.)"
    ]
    told = json.loads(run("test", dev, "--format", "json").stdout)
    (failed,) = [each for each in told["tests"] if not each["passed"]]
    assert (told["ok"], failed["line"], failed["unmet"]) == (False, 21, ["effect", "policies"])
    assert failed["decided"]["policies"] == ["autonomous-five-minutes"]


@pytest.mark.parametrize(
    ("old", "new", "unmet"),
    [
        ("[read-in-own-environments]", "[]", "policies"),
        ("[read-in-own-environments]", "[read-in-own-environments, migrators-write-in-dev]", "policies"),
        ("reason: FIELD_REQUIRED_BY_TEMPLATE", "reason: POLICY_DENIED", "reason"),
        ("effect: allow, policies: [read-in-own-environments]", "effect: deny", "effect"),
    ],
)
def test_each_part_of_an_expectation_counts(run: Run, dev: Path, old: str, new: str, unmet: str) -> None:
    edit(dev / TESTS, old, new)
    told = json.loads(run("test", dev, "--format", "json").stdout)
    assert [each["unmet"] for each in told["tests"] if not each["passed"]] == [[unmet]]


def test_a_policy_that_decides_nowhere_is_a_warning_or_with_strict_an_error(run: Run, dev: Path) -> None:
    text = (dev / TESTS).read_text()
    (dev / TESTS).write_text(text[: text.index("  - name: nothing that only rotation")])
    done = run("test", dev)
    assert done.exit_code == 0
    place = f"{dev}/policies/starter.cedar:58"
    assert done.stderr == f"{place}: warning: no-static-credentials decides in no test that passes\n"
    strict = run("test", dev, "--strict")
    assert strict.exit_code == 1
    assert "error: no-static-credentials" in strict.stderr


def test_no_tests_is_a_failure(run: Run, tmp_path: Path) -> None:
    good = private_copy(HERE / "good", tmp_path / "good")
    done = run("test", good)
    assert done.exit_code == 1
    assert f"{good}/policies: has no *.test.yaml" in done.stderr


def test_a_set_with_problems_is_not_tested(run: Run, dev: Path) -> None:
    edit(dev / "agents/analyst.yaml", "owner: dana", "owner: mallory")
    done = run("test", dev)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{dev}/agents/analyst.yaml:4: owner: mallory is not in people.yaml" in done.stderr


# --------------------------------------------------------------------------- explain


def test_an_allowed_request_is_explained(run: Run, dev: Path) -> None:
    done = run("explain", dev, *WRITE, "--environment", "dev", "--time", "2026-11-21T08:00:00Z")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "ALLOW by migrators-write-in-dev",
        "  at 2026-11-21T08:00:00+00:00",
        f"  {dev}/policies/starter.cedar:15: migrators-write-in-dev",
        "  Migrators may change data in dev, with a ticket.",
    ]


def test_a_refused_one_says_what_would_have_to_change(run: Run, dev: Path) -> None:
    done = run("explain", dev, *WRITE, "--environment", "staging")
    assert done.stdout.startswith("DENY POLICY_DENIED by no policy\n")
    assert done.stdout.endswith("if any of these changed:\n  - ask for the environment dev\n")
    told = json.loads(run("explain", dev, *WRITE, "--environment", "staging", "--format", "json").stdout)
    assert (told["effect"], told["wouldBeAllowed"]) == ("DENY", [["ask for the environment dev"]])


def test_a_request_from_a_file_with_options_over_it(run: Run, dev: Path, tmp_path: Path) -> None:
    file = tmp_path / "request.yaml"
    file.write_text(
        "agent: reporter\ntemplate: reports-read\naccount: '123456789012'\nenvironment: dev\n"
        "resource: orders-reports\nttl: 10m\nintent: look\nparameters: {day: daily/2026-11-20}\n"
    )
    done = run("explain", dev, "--request", file)
    assert "by autonomous-five-minutes" in done.stdout
    assert "  - ask for 300s or less\n" in done.stdout
    assert run("explain", dev, "--request", file, "--ttl", "5m").stdout.startswith("ALLOW")
    wrong = run("explain", dev, "--request", file, "--parameter", "day=yesterday")
    assert wrong.stdout.startswith("DENY PARAMETER_INVALID")
    file.write_text("agent: reporter\ntemplte: reports-read\n")
    broken = run("explain", dev, "--request", file)
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert broken.stderr.startswith(f"{file}:2: templte: is not a known key")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Say the request"),
        (("--agent", "analyst"), "--template, --account, --environment, --resource, --ttl"),
        ((*WRITE, "--environment", "dev", "--ttl", "60"), "must be a duration"),
        ((*WRITE, "--environment", "dev", "--time", "noon"), "must be a time with its offset"),
        ((*WRITE, "--environment", "dev", "--delivery", "pigeon"), "pigeon"),
    ],
)
def test_what_cannot_be_a_request_is_a_usage_error(run: Run, dev: Path, arguments: tuple[str, ...], told: str) -> None:
    done = run("explain", dev, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("supposed", "told"),
    [
        ("on_behalf_of: nobody", "nobody is no person of people.yaml. There is: "),
        ("approvals: [nope]", "nope is no rule of approvals.yaml. There is: "),
        ("delegators: [stranger]", "stranger is no file of agents/. There is: "),
    ],
)
@pytest.mark.parametrize("what", ["explain", "simulate"])
def test_what_is_supposed_must_be_there(
    run: Run, dev: Path, tmp_path: Path, what: str, supposed: str, told: str
) -> None:
    file = tmp_path / "request.yaml"
    file.write_text(f"suppose: {{{supposed}}}\n")
    done = run(what, dev, *WRITE, "--environment", "dev", "--request", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"agent: a\nintent: \xff\n", ":2: is not UTF-8"), (b"#" * 300_000, ":1: is larger than 256 KiB")],
)
def test_a_request_that_cannot_be_read_is_told_with_its_line(
    run: Run, dev: Path, tmp_path: Path, data: bytes, told: str
) -> None:
    file = tmp_path / "request.yaml"
    file.write_bytes(data)
    done = run("explain", dev, "--request", file)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"{file}{told}\n")


# --------------------------------------------------------------------------- approvals

RELEASE = (
    *("--agent", "releaser", "--template", "orders-production", "--account", "dev", "--environment", "production"),
    *("--resource", "orders", "--ttl", "1m", "--intent", "repair", "--ticket", "T-1", "--reason", "--plan"),
)


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return private_copy(ROOT / "deploy/dev", tmp_path / "shipped")


def test_what_people_must_approve_is_told(run: Run, shipped: Path) -> None:
    done = run("explain", shipped, *RELEASE)
    assert done.stdout.startswith("NEEDS_APPROVAL of production-change by production-changes-are-approved\n")
    assert "  - have people give: production-change\n" in done.stdout
    told = json.loads(run("explain", shipped, *RELEASE, "--format", "json").stdout)
    assert (told["effect"], told["approvals"], told["reason"]) == ("NEEDS_APPROVAL", ["production-change"], None)
    assert run("simulate", shipped, *RELEASE).stdout.startswith("request: NEEDS_APPROVAL of production-change by")


def test_an_approval_that_is_held_is_typed(run: Run, shipped: Path, tmp_path: Path) -> None:
    held = run("explain", shipped, *RELEASE, "--approval", "production-change")
    assert held.stdout.startswith("ALLOW by releasers-change-where-registered\n")
    file = tmp_path / "request.yaml"
    file.write_text("suppose: {approvals: [production-change], agent_promoted: false}\n")
    assert run("explain", shipped, "--request", file, *RELEASE).stdout.startswith("DENY POLICY_DENIED by unpromoted")
    # What is typed is put over what the file supposes, and leaves the rest of it.
    file.write_text("suppose: {approvals: [production-change], task_type: report}\n")
    typed = run("explain", shipped, "--request", file, *RELEASE, "--approval", "change")
    assert typed.stdout.startswith("NEEDS_APPROVAL of production-change")


def test_an_expected_approval_counts(run: Run, shipped: Path) -> None:
    edit(shipped / "policies/production.test.yaml", "approvals: [production-change], pol", "approvals: [change], pol")
    done = run("test", shipped)
    assert done.exit_code == 1
    assert (
        "expected NEEDS_APPROVAL by production-changes-are-approved of change, decided NEEDS_APPROVAL of" in done.stderr
    )


# --------------------------------------------------------------------------- simulate


def test_every_request_of_the_tests_is_tried(run: Run, dev: Path) -> None:
    lines = run("simulate", dev).stdout.splitlines()
    assert len(lines) == 12
    assert lines[0] == f"{dev}/{TESTS}:12: an analyst reads in dev: ALLOW by read-in-own-environments"
    assert run("simulate", dev, *WRITE, "--environment", "dev").stdout == "request: ALLOW by migrators-write-in-dev\n"


def test_only_what_changes_is_told_against_another_set(run: Run, dev: Path, tmp_path: Path) -> None:
    tighter = private_copy(dev, tmp_path / "new")
    edit(tighter / "policies/starter.cedar", "context.ttl_seconds > 300", "context.ttl_seconds > 60")
    done = run("simulate", tighter, "--against", dev)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"{tighter}/{TESTS}:21: an autonomous agent reads for five minutes: ALLOW by read-in-own-environments"
        " -> DENY POLICY_DENIED by autonomous-five-minutes",
        f"12 requests, 1 decided otherwise than by {dev}",
    ]
    told = json.loads(run("simulate", tighter, "--against", dev, "--format", "json").stdout)
    (changed,) = told["outcomes"]
    assert (told["requests"], changed["before"]["effect"], changed["after"]["effect"]) == (12, "ALLOW", "DENY")
    assert run("simulate", dev, "--against", dev).stdout == f"12 requests, 0 decided otherwise than by {dev}\n"


def test_the_requests_of_both_sets_are_tried(run: Run, dev: Path, tmp_path: Path) -> None:
    # Dropping a test along with its rule does not hide what changes.
    looser = private_copy(dev, tmp_path / "new")
    edit(
        looser / "policies/starter.cedar", 'principal.tier == "autonomous" &&', 'principal.tier == "semi-autonomous" &&'
    )
    text = (looser / TESTS).read_text()
    start, end = text.index("  - name: an autonomous agent does not"), text.index("  - name: who is not registered")
    (looser / TESTS).write_text(text[:start] + text[end:])
    done = run("simulate", looser, "--against", dev)
    assert f"{dev}/{TESTS}:44: an autonomous agent does not read for a second longer: DENY" in done.stdout
    assert "12 requests, 1 decided otherwise" in done.stdout
