"""``broker login`` and ``broker logout``: a person, on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import click

from broker.cli.output import clock, format_option, note, print_json
from broker.cli.person import How, Person, cache_of, login_options, login_settings, person_options, surroundings
from broker.client.login.cached import Kept, revoke
from broker.client.login.person import log_in
from broker.clock import SystemClock
from broker.errors import BrokerError


@dataclass(frozen=True, slots=True)
class LoginFacts:
    """What ``broker login`` tells."""

    issuer: str
    subject: str
    expire_time: datetime
    renewable: bool
    file: str


@click.command()
@person_options
@login_options
@format_option("text", "json")
def login(person: Person, how: How, form: str) -> None:
    """Log in at your organisation's OpenID provider, in the browser.

    What is kept of it on this machine (readable by you alone) is for looking, and for stopping things: suspend, revoke,
    deny. Approving and resuming never use it: each has you log in again, for exactly what is then shown.

    \b
    Without a browser on this machine:   broker login --device
    """
    settings = login_settings(person, how)
    world = surroundings(browser=not how.no_browser)
    done = log_in(settings, world)
    cache = cache_of(person)
    kept = Kept.of(done.id_token, done.tokens)
    with cache.locked():
        cache.write(kept)
    renewable = kept.refresh_token is not None
    if form == "json":
        print_json(LoginFacts(settings.issuer, kept.subject, kept.expires_at, renewable, str(cache.path)))
        return
    until = clock(kept.expires_at, SystemClock().now())
    click.echo(f"logged in as {kept.subject} until {until}{', renewed when used' if renewable else ''}")


@click.command()
@person_options
def logout(person: Person) -> None:
    """Forget the login that is kept on this machine, and have the provider end what renews it."""
    cache = cache_of(person)
    with cache.locked():
        try:
            kept = cache.read()
        except BrokerError:
            # Whatever it is, it goes; that is what logging out is for.
            kept = None
        cache.forget()
    if kept is None:
        click.echo("nobody is logged in here")
        return
    try:
        ended = revoke(kept, login_settings(person), surroundings())
    except BrokerError as error:
        note(f"the provider was not told: {error.message}")
        ended = True
    if not ended:
        note("the provider does not end logins of its own accord: what renewed this one runs out by itself")
    click.echo(f"logged out {kept.subject}")
