"""Commands that act with weight: each with a login of its own, made for exactly what is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from broker.cli.admin import AdminSettings, run_admin, run_fresh
from broker.cli.person import How
from broker.client.admin import AdminClient

R = TypeVar("R")


def acting(
    admin: AdminSettings,
    how: How,
    action: str,
    fields: Mapping[str, str],
    work: Callable[[AdminClient, str], Awaitable[R]],
) -> R:
    """The result of ``work``, which is given a client, and the ID token of a login for exactly this.

    With a token file there is nobody to log in: what is sent then is without such a token, and the broker says so.
    """
    if admin.token_file is not None:
        return run_admin(admin, lambda client: work(client, ""))
    return run_fresh(admin, how, action, fields, work)
