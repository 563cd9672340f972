"""``broker login``, ``logout`` and ``doctor login`` as a person types them, at the development provider."""

from __future__ import annotations

import asyncio
import io
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from threading import Thread

import pytest
import structlog
from click.testing import CliRunner, Result

from broker.cli import person
from broker.cli.main import cli as command
from broker.dev.identity_provider import CLIENT_ID
from broker.dev.loopback import free_port
from tests.api.served import CA, Served, ask, gate, people_changes, private, serve, start_task
from tests.api.served import DECIDING as ROLES

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    async with serve(tmp_path, **{**people_changes(tmp_path), "roles": ROLES}) as running:
        gate(running, staging=("sre",))
        yield running
    structlog.reset_defaults()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where logins are kept."""
    return tmp_path / "home-state"


@pytest.fixture
def run(served: Served, state: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command of one whose browser goes where it is sent, and at whom the provider believes who they say they are."""
    for name in [each for each in os.environ if each.startswith(("BROKER_", "SPIFFE_", "XDG_"))]:
        monkeypatch.delenv(name)

    def visit(url: str) -> bool:
        Thread(target=lambda: urllib.request.urlopen(url).close(), daemon=True).start()
        return True

    monkeypatch.setattr(person, "open_browser", visit)
    bundle = private(served.root / "client" / "bundle.pem", CA.pem)

    async def invoke(who: str, *arguments: str, **environment: str) -> Result:
        given = {
            "BROKER_ADMIN_ADDRESS": f"127.0.0.1:{served.daemon.doors.admin_port}",
            "BROKER_SERVER_NAME": "localhost",
            "BROKER_ADMIN_BUNDLE": str(bundle),
            "BROKER_OIDC_ISSUER": served.identity_provider.url,
            "BROKER_OIDC_CLIENT_ID": CLIENT_ID,
            "BROKER_OIDC_LOGIN_HINT": who,
            "XDG_STATE_HOME": str(state),
            "DISPLAY": ":0",
            **environment,
        }
        done = await asyncio.to_thread(CliRunner().invoke, command, arguments, env=given, prog_name="broker")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


def kept(state: Path) -> list[Path]:
    return [*(state / "jit-broker").glob("login-*.json")]


async def test_in_and_out(run: Run, state: Path) -> None:
    done = await run("kim", "operator", "whoami")
    assert (done.exit_code, "LOGIN_REQUIRED" in done.stderr, "broker login" in done.stderr) == (3, True, True)
    done = await run("kim", "login", "--format", "json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    (file,) = kept(state)
    assert (told["subject"], told["renewable"], told["file"]) == ("kim", False, str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert "Kim Adeyemi" in (await run("kim", "operator", "whoami")).stdout
    done = await run("kim", "logout")
    assert (done.stdout, done.stderr, kept(state)) == ("logged out kim\n", "", [])
    assert (await run("kim", "logout")).stdout == "nobody is logged in here\n"


async def test_by_device(run: Run, state: Path) -> None:
    """The provider knows by ``login_hint`` who will enter the code."""
    done = await run("sam", "login", "--device")
    assert (done.exit_code, done.stdout.startswith("logged in as sam until ")) == (0, True), done.stderr
    assert "enter the code" in done.stderr


async def test_a_kept_login_that_is_nonsense_is_told_and_forgotten(run: Run, state: Path) -> None:
    await run("kim", "login")
    (file,) = kept(state)
    file.write_text("nonsense")
    done = await run("kim", "operator", "whoami")
    assert (done.exit_code, "does not hold a login" in done.stderr, "broker logout" in done.stderr) == (2, True, True)
    await run("kim", "logout")
    assert kept(state) == []


async def test_settings_that_are_missing_or_wrong(run: Run) -> None:
    elsewhere = f"http://127.0.0.1:{free_port()}"
    for changes, code, told in (
        ({"BROKER_OIDC_ISSUER": ""}, 2, "Set BROKER_OIDC_ISSUER (or --oidc-issuer)"),
        ({"BROKER_OIDC_CLIENT_ID": ""}, 2, "Set BROKER_OIDC_CLIENT_ID (or --oidc-client-id)"),
        ({"BROKER_OIDC_ISSUER": "http://id.example.org"}, 2, "is not https"),
        ({"BROKER_OIDC_ISSUER": elsewhere}, 4, "IDENTITY_PROVIDER_UNREACHABLE"),
        ({"BROKER_OIDC_CLIENT_ID": "unheard-of", "BROKER_OIDC_REDIRECT_PORT": "70000"}, 2, "70000 is not in the range"),
    ):
        done = await run("kim", "login", **changes)
        assert (done.exit_code, told in done.stderr) == (code, True), (changes, done.stderr)


async def test_the_doctor_goes_as_far_as_it_can(run: Run, served: Served) -> None:
    async def seen(**changes: str) -> tuple[int, list[tuple[str, bool]], dict[str, str]]:
        done = await run("kim", "doctor", "login", "--format", "json", **changes)
        steps = json.loads(done.stdout)
        return done.exit_code, [(each["step"], each["ok"]) for each in steps], steps[-1]

    assert (await seen(BROKER_OIDC_ISSUER=""))[1] == [("settings", False)]
    code, steps, last = await seen(BROKER_OIDC_ISSUER=served.identity_provider.url + "/")
    assert (code, steps[-1], last["reason"]) == (1, ("provider", False), "IDENTITY_PROVIDER_INVALID")
    code, steps, last = await seen()
    assert (code, steps[-1], last["reason"]) == (1, ("login", False), "LOGIN_REQUIRED")
    await run("kim", "login")
    code, steps, last = await seen()
    order = ["settings", "provider", "flows", "keys", "login", "token", "broker"]
    assert (code, steps) == (0, [(each, True) for each in order])
    assert last["detail"] == "you are Kim Adeyemi (kim): security"
    code, _, last = await seen(BROKER_ADMIN_ADDRESS=f"127.0.0.1:{free_port()}")
    assert (code, last["step"], last["reason"]) == (1, "broker", "BROKER_UNREACHABLE")
    # The provider takes its key back: what was signed with it proves nothing any more, and the doctor knows why.
    served.identity_provider.rotate(withdraw=True)
    code, steps, last = await seen()
    assert (code, steps[-1], last["reason"]) == (1, ("token", False), "ID_TOKEN_KEY_UNKNOWN")


async def test_a_yes_of_somebody_else_than_who_looked(run: Run, served: Served) -> None:
    stub = served.stub("spiffe://dev.broker.internal/agent/analyst")
    asked = ask(await start_task(stub, "t1"), "r1", environment="staging")
    request = (await stub.RequestCredential(asked)).access_request
    await run("sam", "login")
    yes = ("approvals", "approve", request.id, "--digest", request.digest)
    done = await run("kim", *yes)
    assert (done.exit_code, "FRESH_LOGIN_OF_ANOTHER" in done.stderr) == (3, True), done.stderr
    store = served.daemon._store
    assert store is not None
    assert (await store.get_access_request("test", request.id)).state == "AWAITING_APPROVAL"
    done = await run("sam", *yes)
    assert (done.exit_code, "APPROVED" in done.stdout) == (0, True), done.stderr
    # What is signed is told before it is signed, and the login for it is kept nowhere.
    assert done.stderr.index(request.digest) < done.stderr.index("Your browser opens")


async def test_what_is_lifted_is_told_before_it_is_signed(run: Run, served: Served) -> None:
    await run("kim", "login")
    done = await run("kim", "suspend", "template", "orders-readonly", "--reason", "it leaks\x1b[2J")
    lift = ("resume", done.stdout.partition("  ")[0], "--reason", "mended")
    done = await run("kim", *lift)
    assert done.exit_code == 0, done.stderr
    told = done.stderr
    assert told.index("suspends template orders-readonly, by Kim Adeyemi: it leaks<U+001B>") < told.index(
        "Your browser"
    )
    # Who has no login to look with can lift it all the same, and is told that nothing was looked up.
    await run("kim", "logout")
    done = await run("kim", *lift)
    assert (done.exit_code, "SUSPENSION_ENDED" in done.stderr, "is not shown" in done.stderr) == (3, True, True)


@pytest.mark.parametrize(
    ("environment", "platform", "can"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"BROWSER": "firefox"}, "linux", True),
        ({}, "darwin", True),
    ],
)
def test_a_text_browser_does_not_take_the_terminal_over(
    environment: dict[str, str], platform: str, can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert person.can_show(environment) is can


def test_a_browser_that_cannot_be_opened_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import webbrowser

    for error in (webbrowser.Error("none"), ValueError("No closing quotation")):

        def fails(url: str, error: Exception = error) -> bool:
            raise error

        monkeypatch.setattr(webbrowser, "open", fails)
        assert not person.open_browser("http://127.0.0.1/")
