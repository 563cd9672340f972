"""What the stories share: one provider, its people, and the command line as one of them uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.oidc.browser import Person
from integration.oidc.provider import CLIENT, Account, Provider, install, missing_programs

ROOT = Path(__file__).resolve().parents[2]
# The last three are people of deploy/dev; the provider does not confirm all that Dana has there.
ACCOUNTS = {
    "anna": Account("correct horse", "246810", ("sre", "platform"), "Anna Okafor", "anna@example.org"),
    "ben": Account("battery staple", "135791", ("sre",), "Ben Sato", "ben@example.org"),
    "sam": Account("sesame", "111222", ("release", "operations"), "Sam Lindqvist"),
    "kim": Account("open up", "333444", ("release", "security"), "Kim Adeyemi"),
    "dana": Account("let me in", "555666", (), "Dana Okafor"),
}
_COMMAND_SECONDS = 300


@pytest.fixture(scope="session")
def installed() -> None:
    if missing := missing_programs():
        pytest.skip(f"{' and '.join(missing)} not found: the OpenID provider of these stories runs on Node.js")
    install()


@pytest.fixture(scope="session")
def provider(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """One for all: each story logs in anew, and a key that changes is the next story's usual one."""
    with Provider(ACCOUNTS, tmp_path_factory.mktemp("provider") / "log") as running:
        yield running


def person(subject: str, *, strong: bool = True, cancels: bool = False) -> Person:
    """Somebody with a browser of their own; not ``strong``: without the second factor."""
    account = ACCOUNTS[subject]
    return Person(subject, account.password, account.otp if strong else "", cancels)


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


def _browser_of(who: Person, program: Path) -> Path:
    """A program that is ``who`` at a browser; the module webbrowser runs it with the address."""
    told = {"login": who.login, "password": who.password, "otp": who.otp, "cancels": who.cancels}
    lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
    lines += ["from integration.oidc.visit import main", f"main({told!r}, sys.argv[1])"]
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o700)
    return program


@pytest.fixture
def command(provider: Provider, tmp_path: Path) -> Command:
    """``broker ARGUMENTS`` as a program, for somebody whose browser does what they would do."""

    def run(who: Person | None, *arguments: str, typed: str = "", **environment: str) -> Done:
        given = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "BROKER_OIDC_ISSUER": provider.issuer,
            "BROKER_OIDC_CLIENT_ID": CLIENT,
            **environment,
        }
        if who is not None:
            given["BROWSER"] = f"{_browser_of(who, tmp_path / 'browser')} %s"
        done = subprocess.run(
            [sys.executable, "-m", "broker.cli", *arguments],
            input=typed,
            capture_output=True,
            text=True,
            env=given,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run
