"""From the command line to the people's door: the options all its commands have, and one event loop for one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.connection import settings
from broker.client.admin import (
    ADMIN_ADDRESS,
    ADMIN_BUNDLE,
    CREDENTIAL,
    AdminClient,
    Believed,
    believed_by_file,
    believed_by_workload_api,
    read_credential,
)
from broker.client.connect import connect_admin
from broker.errors import InvalidInput, Reason

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)
_OPTIONS = (
    click.option(
        "--admin-address",
        envvar=ADMIN_ADDRESS,
        default="",
        show_envvar=True,
        metavar="HOST:PORT",
        help="The people's door.",
    ),
    click.option(
        "--credential",
        type=_FILE,
        envvar=CREDENTIAL,
        show_envvar=True,
        metavar="FILE",
        help="Your credential, in a file that only you can read.",
    ),
    click.option(
        "--admin-bundle",
        type=_FILE,
        envvar=ADMIN_BUNDLE,
        show_envvar=True,
        metavar="FILE",
        help="The bundle of the broker's trust domain in PEM; else the Workload API's.",
    ),
)


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The values of those options."""

    address: str
    credential: Path | None
    bundle: Path | None


def admin_options(command: F) -> F:
    """Adds the options; ``command`` gets one argument ``admin`` for all of them."""

    @wraps(command)
    def collected(**given: Any) -> Any:
        names = ("admin_address", "credential", "admin_bundle")
        return command(admin=AdminSettings(*(given.pop(name) for name in names)), **given)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected  # type: ignore[return-value]


def run_admin(admin: AdminSettings, work: Callable[[AdminClient], Awaitable[R]]) -> R:
    """The result of ``work`` with a client of the people's door, which is closed again."""
    if admin.credential is None:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            "There is no operator's credential.",
            hint=f"Set {CREDENTIAL} (or --credential) to the file that `broker operator new-credential` wrote.",
        )
    credential = read_credential(admin.credential)
    believed = _believed(admin)

    async def working() -> R:
        async with connect_admin(admin.address, credential, believed, settings().server_name) as client:
            return await work(client)

    return asyncio.run(working())


def _believed(admin: AdminSettings) -> Believed:
    chosen = settings()
    bundle = admin.bundle or chosen.bundle
    if bundle is not None:
        return believed_by_file(bundle, chosen.trust_domain)
    if not chosen.workload_api:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            "There is nothing to believe the broker by.",
            hint=f"Set {ADMIN_BUNDLE} (or --admin-bundle) to a file with the bundle of its trust domain, or "
            "SPIFFE_ENDPOINT_SOCKET (or --workload-api) to a SPIFFE agent's socket.",
        )
    return believed_by_workload_api(chosen.workload_api, chosen.trust_domain)
