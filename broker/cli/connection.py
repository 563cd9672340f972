"""From the command line to a client: one event loop for one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from broker.cli.settings import Settings
from broker.client import AsyncClient, connect

R = TypeVar("R")


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

    return asyncio.run(working())
