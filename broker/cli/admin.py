"""From the command line to the people's door: the options all its commands have, and one event loop for one command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.connection import carried_out, settings
from broker.cli.person import How, Person, cached_login, log_in_for, person_options
from broker.client.admin import (
    ADMIN_ADDRESS,
    ADMIN_BUNDLE,
    ADMIN_TOKEN_FILE,
    AdminClient,
    Believed,
    believed_by_file,
    believed_by_workload_api,
)
from broker.client.connect import connect_admin, svid_source
from broker.client.svid import Material
from broker.client.tokens import HeldToken, TokenFile, TokenSource, no_admin_token
from broker.errors import InvalidInput, Reason
from broker.identity.id_token import MAX_TOKEN_BYTES

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
        "--admin-bundle",
        type=_FILE,
        envvar=ADMIN_BUNDLE,
        show_envvar=True,
        metavar="FILE",
        help="The bundle of the broker's trust domain in PEM; else the Workload API's.",
    ),
    click.option(
        "--admin-token-file",
        type=_FILE,
        envvar=ADMIN_TOKEN_FILE,
        show_envvar=True,
        metavar="FILE",
        help="A token that somebody keeps fresh, instead of a login on this machine.",
    ),
    click.option(
        "--svid",
        is_flag=True,
        envvar="BROKER_ADMIN_SVID",
        show_envvar=True,
        help="Operators' automation: be this workload, by its SVID, at brokerd's listen.automation.",
    ),
)


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The values of those options, and of those that say who one is."""

    address: str
    bundle: Path | None
    token_file: Path | None
    svid: bool
    person: Person


def admin_options(command: F) -> F:
    """Adds the options, and those of a person; ``command`` gets one argument ``admin`` for all of them."""

    @wraps(command)
    def collected(person: Person, svid: bool, **given: Any) -> Any:
        address, bundle, token_file = (given.pop(f"admin_{name}") for name in ("address", "bundle", "token_file"))
        return command(admin=AdminSettings(address, bundle, token_file, svid, person), **given)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return person_options(collected)  # type: ignore[return-value]


def run_admin(
    admin: AdminSettings, work: Callable[[AdminClient], Awaitable[R]], tokens: TokenSource | None = None
) -> R:
    """The result of ``work`` with a client of the people's door, which is closed again.

    ``tokens``: of who calls; None: the cached login, or what automation has. Those read, and stop things.
    """
    caller = _caller(admin) if tokens is None else tokens
    believed = _believed(admin)

    async def working() -> R:
        async with connect_admin(admin.address, caller, believed, settings().server_name) as client:
            return await work(client)

    return carried_out(working)


def run_fresh(
    admin: AdminSettings,
    how: How,
    action: str,
    fields: Mapping[str, str],
    work: Callable[[AdminClient, str], Awaitable[R]],
) -> R:
    """The result of ``work``, which is given a client, and the ID token of a login for exactly this.

    The person is shown ``action`` and ``fields``, and logs in; the call is made with that login alone.
    """
    fresh = log_in_for(admin.person, how, action, fields)
    return run_admin(admin, lambda client: work(client, fresh.raw.reveal()), HeldToken(fresh.raw))


def _caller(admin: AdminSettings) -> TokenSource | Material:
    if admin.svid:
        return _own_svid()
    if admin.token_file is not None:
        return TokenFile(admin.token_file, no_admin_token, MAX_TOKEN_BYTES)
    return cached_login(admin.person)


def _own_svid() -> Material:
    """As it is now: no command lives as long as an SVID."""
    chosen = settings()
    source = svid_source(
        chosen.workload_api,
        trust_domain=chosen.trust_domain,
        certificate=chosen.certificate,
        key=chosen.key,
        bundle=chosen.bundle,
    )
    try:
        return source.current()
    finally:
        source.close()


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
