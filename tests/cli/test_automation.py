"""Operators' automation on the command line: a registered workload, by its SVID."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from broker.cli.main import cli as command
from broker.client import calls
from broker.dev.loopback import free_port
from tests.api.served import ANALYST, CA, Served, people_changes, serve, svid, write_config
from tests.api.test_automation import GUARD, REGISTERED, register
from tests.client.fake_broker import svid_files

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    changes = people_changes(tmp_path)
    changes["listen"]["automation"] = f"127.0.0.1:{free_port()}"
    write_config(tmp_path, **changes)
    register(tmp_path, REGISTERED)
    async with serve(tmp_path, **changes) as running:
        yield running
    structlog.reset_defaults()


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [each for each in os.environ if each.startswith(("BROKER_", "SPIFFE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("broker.client.admin.RETRY_WAITS", tuple(wait / 100 for wait in calls.RETRY_WAITS))

    async def invoke(spiffe_id: str, *arguments: str, port: int | None = None) -> Result:
        files = svid_files(served.root / "client" / spiffe_id.rpartition("/")[2], svid(spiffe_id), CA)
        given = {
            "BROKER_ADMIN_ADDRESS": f"127.0.0.1:{port or served.daemon.doors.automation_port}",
            "BROKER_SERVER_NAME": "localhost",
        }
        words = [*files.options(), *arguments]
        done = await asyncio.to_thread(CliRunner().invoke, command, words, env=given, prog_name="broker")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


async def test_it_looks_and_stops(run: Run) -> None:
    told = await run(GUARD, "operator", "whoami", "--svid")
    assert (told.exit_code, GUARD in told.stdout, "x509-svid" in told.stdout) == (0, True, True), told.stderr
    done = await run(GUARD, "suspend", "agent", ANALYST, "--reason", "it scans", "--svid")
    assert (done.exit_code, f"agent {ANALYST} is suspended" in done.stdout) == (0, True), done.stderr
    assert ANALYST in (await run(GUARD, "suspensions", "--svid")).stdout


async def test_who_is_not_registered_and_who_has_another_way_in(run: Run, served: Served) -> None:
    done = await run(ANALYST, "operator", "whoami", "--svid")
    assert (done.exit_code, "AUTOMATION_UNKNOWN" in done.stderr) == (3, True), done.stderr
    # Without its SVID it is nobody there, and at the people's port its SVID is nothing.
    done = await run(GUARD, "operator", "whoami")
    assert (done.exit_code, "Set BROKER_OIDC_ISSUER" in done.stderr) == (2, True), done.stderr
    done = await run(GUARD, "operator", "whoami", "--svid", port=served.daemon.doors.admin_port)
    assert (done.exit_code, "ID_TOKEN_MISSING" in done.stderr) == (3, True), done.stderr
