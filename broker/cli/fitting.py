"""Whether what a template gives can be handed over as is wanted: found out before anything is asked for.

The broker tells the kind with the template, so nobody's lease is made, and taken back, for a form that cannot be. Where
it does not tell, or there is no such template, the request itself finds out.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from broker.cli.asking import Asking
from broker.client import AsyncClient
from broker.client.forms import Form, fits
from broker.lease.credential import KINDS, SshCertificate, WrappedSecret, X509Certificate

_BY_NAME = {name: kind for kind, name in KINDS.items()}
# What a key of --new-key is made for.
_CERTIFICATES: Mapping[str, type] = {"x509": X509Certificate, "ssh": SshCertificate}


async def demand_form(client: AsyncClient, asked: Asking, form: Form, new_key: str | None = None) -> None:
    """A usage error where the template's credentials have no such form, or are no certificates of such a key."""
    if form is Form.ENVIRONMENT and new_key is None:
        return  # it fits all
    kind = await _kind(client, asked)
    if kind is None:
        return
    if not fits(form, kind):
        raise unfit(form, kind, f"nothing was asked for, and template {asked.template} gives no other")
    if new_key is not None and kind is not _CERTIFICATES[new_key]:
        raise click.UsageError(
            f"template {asked.template} gives a {kind.__name__}, for which --new-key {new_key} makes no key;"
            " nothing was asked for."
        )


def unfit(form: Form, kind: type, then: str) -> click.UsageError:
    """The usage error: what such a credential can be delivered as, and what has become of it."""
    able = ", ".join(each.value for each in Form if fits(each, kind))
    return click.UsageError(f"a {kind.__name__} cannot be delivered as {form.value}, but as {able}; {then}.")


async def _kind(client: AsyncClient, asked: Asking) -> type | None:
    if asked.wrap is not None:
        return WrappedSecret
    templates = {each.name: each for each in await client.templates()}
    found = templates.get(asked.template)
    return None if found is None else _BY_NAME.get(found.gives)
