"""What operators say to end something: why, under which id, and how long they wait for the proof."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click

from broker.cli.task import wait_option
from broker.cli.values import Text
from broker.client.admin import AdminClient

F = TypeVar("F", bound=Callable[..., Any])

# Beyond the wait: for the way there and back.
_WAY_SECONDS = 30.0


def end_options(command: F) -> F:
    """Adds ``--reason``, ``--wait`` and ``--request-id``."""
    command = click.option("--request-id", default="", help="What the audit trail calls it; default: a new one.")(
        command
    )
    command = wait_option(command)
    return click.option(
        "--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="Why; it goes into the audit trail."
    )(command)


async def end(client: AdminClient, rpc: str, request: Any, wait: timedelta, request_id: str, reason: str) -> Any:
    """The answer to ``request``, which names what is ended, completed by what was said."""
    request.request_id, request.reason = request_id or client.new_id(), reason
    request.wait.FromTimedelta(wait)
    return await client.call(rpc, request, seconds=wait.total_seconds() + _WAY_SECONDS)
