"""``broker doctor login``: every step from a person's settings to the broker's answer, and the first that fails.

Belongs here: the order of the steps. What is true of each is asked of the parts that log in, so that what is told here
is what would happen there.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from broker.api.v1 import admin_service_pb2 as pb
from broker.cli.admin import AdminSettings, admin_options, run_admin
from broker.cli.findings import Finding, failed, report
from broker.cli.output import format_option, moment, span
from broker.cli.person import cache_of, login_settings, surroundings
from broker.client.login.cached import CachedLogin
from broker.client.login.provider import Provider, discover
from broker.client.login.settings import LoginSettings, Surroundings
from broker.client.login.verifying import provider_keys, verified
from broker.client.tokens import HeldToken
from broker.errors import BrokerError
from broker.secret import Secret


@click.command()
@admin_options
@format_option("text", "json")
def login(admin: AdminSettings, form: str) -> None:
    """Find out, step by step, why a person cannot log in, or is not believed.

    Looks at the settings, the identity provider's own description and keys, the login that is kept on this machine
    (each rule that the broker will ask of its token), and at what the broker says to it. Opens no browser.
    """
    report(examine(admin), form)


def examine(admin: AdminSettings) -> Iterator[Finding]:
    """The steps in order; ends after the first that nothing can follow."""
    try:
        chosen = login_settings(admin.person)
    except BrokerError as error:
        yield failed("settings", error)
        return
    yield Finding("settings", True, f"{chosen.client_id} at {chosen.issuer}")
    world = surroundings(browser=False)
    try:
        provider = discover(chosen.issuer, world.http)
    except BrokerError as error:
        yield failed("provider", error)
        return
    yield Finding("provider", True, f"it is {provider.issuer}; authorization at {provider.authorization_endpoint}")
    yield _flows(provider, chosen)
    try:
        keys = provider_keys(world.http, provider)
    except BrokerError as error:
        yield failed("keys", error)
        return
    yield Finding("keys", True, f"{len(keys.keys)} that sign: {', '.join(sorted(keys.keys))}"[:200])
    yield from _kept(admin, chosen, provider, world)


def _flows(provider: Provider, chosen: LoginSettings) -> Finding:
    """What can be done there; none of it is wrong by itself."""
    device = "and by device" if provider.device_authorization_endpoint else "and not by device"
    scopes = chosen.wanted_scopes(provider.scopes, lasting=True)
    lasting = "renewed when used" if "offline_access" in scopes else "not renewed: it is no scope of the provider's"
    return Finding("flows", True, f"by browser {device}; scopes {' '.join(scopes)}; a login is {lasting}")


def _kept(admin: AdminSettings, chosen: LoginSettings, provider: Provider, world: Surroundings) -> Iterator[Finding]:
    cache = cache_of(admin.person)
    try:
        token = Secret(CachedLogin(cache, chosen, world).token())
    except BrokerError as error:
        yield failed("login", error)
        return
    yield Finding("login", True, f"kept in {cache.path}")
    now = world.now()
    try:
        proven = verified(world.http, provider, chosen.client_id, token, now, nonce=None)
    except BrokerError as error:
        yield failed("token", error)
        return
    told = f"{proven.subject}, until {moment(proven.expires_at)}, another {span(proven.expires_at - now)}"
    strength = f"acr {proven.acr or 'none'}, amr {' '.join(sorted(proven.amr)) or 'none'}"
    yield Finding("token", True, f"{told}; {strength}")
    yield _broker(admin, token)


def _broker(admin: AdminSettings, token: Secret) -> Finding:
    try:
        told = run_admin(admin, lambda client: client.call("GetOperator", pb.GetOperatorRequest()), HeldToken(token))
    except BrokerError as error:
        return failed("broker", error)
    roles = ", ".join(told.roles) or "no role"
    return Finding("broker", True, f"you are {told.display_name} ({told.key}): {roles}")
