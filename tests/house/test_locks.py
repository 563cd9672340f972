"""The lock files, and the two programs that judge them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from tests.house.project import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
HASH = "--hash=sha256:" + "0" * 64


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "requirements")
    import lock

    return lock


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "requirements")
    monkeypatch.delenv("AUDIT", raising=False)
    import audit

    return audit


# --------------------------------------------------------------------------- the files


def test_there_are_three() -> None:
    assert [path.stem for path in LOCKS] == ["base", "daemon", "dev"]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_host_and_no_option(path: Any) -> None:
    text = path.read_text()
    assert not re.search(r"https?:|--index|--find-links|--extra-index|file:", text)
    assert not [line for line in text.splitlines() if line.startswith("-")]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_answers_what_pyproject_requires_now(path: Any, lock: ModuleType) -> None:
    assert path.read_text().splitlines()[0] == lock.DIGEST_LINE + lock.digest(path.stem)
    locked = {pin.name: pin for pin in lock.pins(path.read_text())}
    for requirement in lock.wanted(path.stem):
        pin = locked[lock.canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version) and pin.hashes


def test_the_narrower_locks_have_the_versions_of_the_wider_ones(lock: ModuleType) -> None:
    base, daemon, dev = ({pin.name: pin.version for pin in lock.pins(path.read_text())} for path in LOCKS)
    assert base.items() <= daemon.items() <= dev.items()


# --------------------------------------------------------------------------- reading them


def test_a_pin_is_read_with_its_marker_and_hashes(lock: ModuleType) -> None:
    text = f"# comment\nTz_Data==2026.6 ; sys_platform == 'never' \\\n    {HASH} \\\n    {HASH}\n    # via x\n"
    (pin,) = lock.pins(text)
    assert (pin.name, pin.version, pin.hashes, pin.wanted_here) == ("tz-data", "2026.6", 2, False)


@pytest.mark.parametrize(
    "line",
    [
        f"click>=8 {HASH}",
        f"click==8.1,<9 {HASH}",
        f"click {HASH}",
        f"click @ https://example.org/click.whl {HASH}",
        "click==8.1 --hash=sha256:abc",
        "--index-url https://example.org/simple",
    ],
)
def test_anything_but_an_exact_hashed_pin_is_refused(line: str, lock: ModuleType) -> None:
    with pytest.raises(ValueError):
        lock.pins(line + "\n")


# --------------------------------------------------------------------------- asking about vulnerabilities

Answers = Mapping[str, Mapping[str, Any]]
CLEAN = {"name": "a", "version": "1", "vulns": []}
HOLE = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
SKIPPED = {"name": "a", "skip_reason": "not found"}
KNOWN_BAD = {"jinja2": {"name": "jinja2", "version": "2.10", "vulns": [{"id": "CVE-0", "fix_versions": ["3"]}]}}


class Service:
    """Stands in for `audit.ask`: what each service answers to the first question, and to the second."""

    def __init__(self, trust: Answers | None, answer: Answers | None) -> None:
        self._trust, self._answer = trust, answer
        self.asked: list[str] = []

    def __call__(self, service: str, pinned: list[str]) -> tuple[Answers | None, str]:
        self.asked.append(service)
        answer = self._trust if pinned == ["jinja2==2.10"] else self._answer
        return answer, "" if answer is not None else "no route to host"


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        ({"a": CLEAN}, 0, "1 packages, nothing known (pypi)"),
        ({"a": HOLE}, 1, "a 1: CVE-1, fixed in 2"),
        ({"a": SKIPPED}, 1, "a: NOT AUDITED, not found"),
        ({}, 1, "a: the answer does not mention it"),
        (None, 1, "no route to host"),
    ],
    ids=["clean", "vulnerable", "skipped", "missing", "lost half way"],
)
def test_a_believed_service_decides(
    answer: Answers | None, code: int, told: str, audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.audit({"a": "1"}, Service(KNOWN_BAD, answer)) == code
    assert told in "".join(capsys.readouterr())


@pytest.mark.parametrize("trust", [None, {}, {"jinja2": SKIPPED}, {"jinja2": {**CLEAN, "name": "jinja2"}}], ids=str)
def test_a_service_that_knows_nothing_is_no_audit(
    trust: Answers | None,
    audit: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service(trust, {"a": CLEAN})
    assert audit.audit({"a": "1"}, service) == 0
    assert "NOT AUDITED" in capsys.readouterr().out
    assert service.asked == list(audit.SERVICES)
    monkeypatch.setenv("AUDIT", "required")
    assert audit.audit({"a": "1"}, service) == 1


def test_what_npm_installs_is_locked_by_hash_and_by_no_address() -> None:
    lock = (ROOT / "integration" / "oidc" / "package-lock.json").read_text()
    assert re.findall(r"https?://\S+", lock) == []
    packages = json.loads(lock)["packages"]
    assert all(each["integrity"].startswith("sha512-") for name, each in packages.items() if name)
