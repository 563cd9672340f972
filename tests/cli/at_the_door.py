"""``broker`` at the people's door of a brokerd that runs in this process."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from broker.cli.main import cli as command
from tests.api.served import CA, Served, people_changes, private, serve
from tests.cli.logging_in import logged_in

# ``who`` asks (empty: nobody who is logged in), then words; by name: what is typed, and more of the environment.
Invoke = Callable[..., Awaitable[Result]]


@asynccontextmanager
async def served_quietly(root: Path, **changes: Any) -> AsyncIterator[Served]:
    """brokerd with its people's door. Its log must not mix with what a command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    async with serve(root, **{**people_changes(root), **changes}) as running:
        yield running
    structlog.reset_defaults()


def at_the_door(served: Served, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs a command in a thread, because brokerd runs on this loop. What it raises fails the test."""
    for name in [each for each in os.environ if each.startswith(("BROKER_", "SPIFFE_"))]:
        monkeypatch.delenv(name)
    bundle = private(served.root / "client" / "bundle.pem", CA.pem)

    async def invoke(who: str, *words: str, typed: str = "", **environment: str) -> Result:
        given = {
            "BROKER_ADMIN_ADDRESS": f"127.0.0.1:{served.daemon.doors.admin_port}",
            "BROKER_SERVER_NAME": "localhost",
            "BROKER_ADMIN_BUNDLE": str(bundle),
            **(logged_in(served, who) if who else {}),
            **environment,
        }
        done = await asyncio.to_thread(
            CliRunner().invoke, command, list(words), env=given, input=typed or None, prog_name="broker"
        )
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke
