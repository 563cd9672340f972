"""People of a real provider at a real brokerd: what a kept login may do, and what takes a login of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.dev.loopback import free_port
from integration.oidc.browser import Person
from integration.oidc.conftest import Command, Done, person
from integration.oidc.provider import CLIENT, OTHER_CLIENT, STRONG, Provider
from tests.api.served import ANALYST, CA, DECIDING, Served, ask, gate, private, serve, start_task
from tests.patience import PATIENCE

Run = Callable[..., Awaitable[Done]]


@pytest.fixture
async def served(provider: Provider, tmp_path: Path) -> AsyncIterator[Served]:
    """brokerd, for which people log in there, and strongly where they say yes."""
    issuer = {
        "audience": CLIENT,
        "groups_claim": "groups",
        "acr": [STRONG],
        "amr": ["mfa"],
        "known_as": "https://id.dev.broker.internal",
    }
    listen = {name: f"127.0.0.1:{free_port()}" for name in ("agents", "admin", "operations")}
    people = {"issuers": {provider.issuer: issuer}}
    root = tmp_path / "brokerd"
    async with serve(root, served_provider=False, listen=listen, people=people, roles=DECIDING) as running:
        gate(running, staging=("sre",))
        yield running


@pytest.fixture
def run(served: Served, command: Command) -> Run:
    """A command, in a thread: brokerd runs on this loop."""
    bundle = private(served.root / "client" / "bundle.pem", CA.pem)
    given = {
        "BROKER_ADMIN_ADDRESS": f"127.0.0.1:{served.daemon.doors.admin_port}",
        "BROKER_SERVER_NAME": "localhost",
        "BROKER_ADMIN_BUNDLE": str(bundle),
        "BROKER_OIDC_ACR_VALUES": STRONG,
    }

    async def invoke(who: Person | None, *arguments: str, **environment: str) -> Done:
        return await asyncio.to_thread(command, who, *arguments, **{**given, **environment})

    return invoke


async def filed(served: Served) -> Any:
    stub = served.stub(ANALYST)
    asked = ask(await start_task(stub, "t1"), "r1", environment="staging")
    return (await stub.RequestCredential(asked)).access_request


async def state(served: Served, request: Any) -> str:
    store = served.daemon._store
    assert store is not None
    return (await store.get_access_request("test", request.id)).state


async def test_a_yes_takes_a_login_for_exactly_that(run: Run, served: Served, provider: Provider) -> None:
    sam, request = person("sam"), await filed(served)
    assert "LOGIN_REQUIRED" in (await run(None, "approvals", "list")).err
    assert (await run(sam, "login")).code == 0
    assert "you are Sam Lindqvist (sam): approver, operator" in (await run(None, "doctor", "login")).out
    assert request.id in (await run(None, "approvals", "list")).out

    yes = ("approvals", "approve", request.id, "--digest", request.digest)
    for who, code, told in (
        # Whatever runs as Sam on this machine has the kept login, and no browser with Sam at it.
        (None, 3, "LOGIN_TIMED_OUT"),
        (person("sam", cancels=True), 3, "LOGIN_REFUSED"),
        (person("sam", strong=False), 3, "FRESH_LOGIN_TOO_WEAK"),
        (person("kim"), 3, "FRESH_LOGIN_OF_ANOTHER"),
    ):
        done = await run(who, *yes, "--login-timeout", "1s" if who is None else "1m")
        assert (done.code, told in done.err) == (code, True), done.err
        assert await state(served, request) == "AWAITING_APPROVAL"

    done = await run(sam, *yes)
    assert (done.code, done.out.startswith(f"{request.id}  APPROVED")) == (0, True), done.err
    assert done.err.index(request.digest) < done.err.index("Your browser opens")
    assert await state(served, request) == "APPROVED"
    # The record of the yes names the one login that was signed for it.
    (said,) = [each for each in await served.audit() if each["data"].get("fresh_login")]
    assert said["actor"].endswith("#sam")
    assert "eyJ" not in json.dumps(await served.audit()) + done.out + done.err


async def test_stopping_takes_the_kept_login_and_going_on_a_fresh_one(run: Run, served: Served) -> None:
    sam = person("sam")
    await run(sam, "login")
    done = await run(None, "suspend", "agent", ANALYST, "--reason", "it went mad")
    assert done.code == 0, done.err
    suspension = done.out.partition("  ")[0]
    lift = ("resume", suspension, "--reason", "fixed")
    done = await run(None, *lift, "--login-timeout", "1s")
    assert (done.code, "LOGIN_TIMED_OUT" in done.err) == (3, True)
    assert "IN_FORCE" in (await run(None, "suspensions")).out
    done = await run(sam, *lift)
    assert (done.code, "is not suspended by this any more" in done.out) == (0, True), done.err


async def test_a_login_for_another_application_opens_nothing(run: Run) -> None:
    elsewhere = {"BROKER_OIDC_CLIENT_ID": OTHER_CLIENT}
    assert (await run(person("sam"), "login", **elsewhere)).code == 0
    done = await run(None, "operator", "whoami", **elsewhere)
    assert (done.code, "ID_TOKEN_AUDIENCE" in done.err) == (3, True), done.err


async def test_who_is_nobody_here_and_who_is_less(run: Run) -> None:
    """Anna is not in people.yaml. Dana is, in a group that the provider does not confirm."""
    await run(person("anna"), "login")
    done = await run(None, "operator", "whoami")
    assert (done.code, "PERSON_UNKNOWN" in done.err) == (3, True), done.err
    told = (await run(None, "doctor", "login")).out
    assert "error  broker         PERSON_UNKNOWN" in told
    await run(person("dana"), "login")
    told = await run(None, "operator", "whoami", "--format", "json")
    assert (json.loads(told.out)["key"], json.loads(told.out)["roles"]) == ("dana", []), told.err


async def test_keys_that_change(run: Run, provider: Provider) -> None:
    """brokerd asks for the key it does not know, and goes on believing the one that is still published."""
    await run(person("sam"), "login")
    assert (await run(None, "operator", "whoami")).code == 0
    provider.rotate()
    assert (await run(None, "operator", "whoami")).code == 0
    await run(person("kim"), "login")
    # It asks for unknown keys once in ten seconds at most: whoever makes up key ids must not make it a hammer.
    async with asyncio.timeout(5 * PATIENCE):
        while (done := await run(None, "operator", "whoami", "--format", "json")).code:
            assert "ID_TOKEN_KEY_UNKNOWN" in done.err
    assert json.loads(done.out)["key"] == "kim"
