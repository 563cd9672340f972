"""From the command line to a client: one event loop for one command."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import click

from broker.cli.child import Signals
from broker.cli.settings import Settings
from broker.client import AsyncClient, connect

R = TypeVar("R")
# What ends a command before its time, beside Ctrl-C, of which asyncio.run makes the same.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def settings() -> Settings:
    """The global options of the command that is running."""
    return click.get_current_context().ensure_object(Settings)


def client_of(chosen: Settings) -> AsyncClient:
    """A client for these options. Contacts nobody yet."""
    return connect(
        chosen.address,
        chosen.server_name,
        chosen.workload_api,
        trust_domain=chosen.trust_domain,
        certificate=chosen.certificate,
        key=chosen.key,
        bundle=chosen.bundle,
        audience=chosen.audience,
        token_file=chosen.token_file,
        seal=chosen.seal,
    )


def run(work: Callable[[AsyncClient], Awaitable[R]]) -> R:
    """The result of ``work`` with a connected client, which is closed again."""
    chosen = settings()

    async def working() -> R:
        async with client_of(chosen) as client:
            return await work(client)

    return carried_out(working)


def carried_out(working: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """The result of ``working``, in a loop of its own.

    A signal that ends the command (`timeout`, a job that is cancelled, a terminal that is closed) cancels it first, so
    that what it has begun is taken back: files, leases, tasks that nobody else knows of. The exit code is a shell's.
    """
    if threading.current_thread() is not threading.main_thread():  # no thread but that hears signals
        return asyncio.run(working())
    heard: list[Signals] = []

    async def stoppable() -> R:
        with Signals(_ENDING) as signals:
            heard.append(signals)
            return await working()

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        if not heard or heard[0].stopped_by is None:
            raise
        raise SystemExit(heard[0].exit_code) from None
