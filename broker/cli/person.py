"""From the command line to a person at an OpenID provider: the options, the clock, the browser and the terminal."""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

import click

from broker.cli.connection import settings
from broker.cli.values import Span
from broker.client.login.cached import CachedLogin, LoginCache, state_directory
from broker.client.login.person import FreshLogin, fresh_login
from broker.client.login.settings import CLIENT_ID, ISSUER, LoginSettings, Surroundings
from broker.clock import SystemClock
from broker.errors import Denied, Reason

F = TypeVar("F", bound=Callable[..., Any])

_WHO = (
    click.option(
        "--oidc-issuer",
        envvar=ISSUER,
        default="",
        show_envvar=True,
        metavar="URL",
        help="Your organisation's OpenID provider.",
    ),
    click.option(
        "--oidc-client-id",
        envvar=CLIENT_ID,
        default="",
        show_envvar=True,
        metavar="ID",
        help="The application that the broker is there.",
    ),
    click.option(
        "--oidc-scopes",
        envvar="BROKER_OIDC_SCOPES",
        default="",
        show_envvar=True,
        metavar="WORDS",
        help="Scopes to ask for.  [default: the usual ones that it has]",
    ),
)
_HOW = (
    click.option("--device", is_flag=True, help="Log in with a browser on another device."),
    click.option("--no-browser", is_flag=True, help="Open no browser here; print where to go."),
    click.option(
        "--login-timeout", type=Span(), default="5m", show_default=True, help="How long to wait for you to log in."
    ),
    click.option(
        "--acr-values",
        envvar="BROKER_OIDC_ACR_VALUES",
        default="",
        show_envvar=True,
        metavar="WORDS",
        help="How strongly to be authenticated, in the provider's words.",
    ),
    click.option(
        "--login-hint",
        envvar="BROKER_OIDC_LOGIN_HINT",
        default="",
        show_envvar=True,
        metavar="TEXT",
        help="Who you are, so that the provider need not ask.",
    ),
    click.option(
        "--redirect-port",
        envvar="BROKER_OIDC_REDIRECT_PORT",
        type=click.IntRange(0, 65535),
        default=0,
        show_envvar=True,
        help="The port of 127.0.0.1 that the browser comes back to.  [default: any]",
    ),
)


@dataclass(frozen=True, slots=True)
class Person:
    """Which provider, and which application there."""

    issuer: str
    client_id: str
    scopes: str

    @property
    def is_given(self) -> bool:
        """Whether both are."""
        return bool(self.issuer and self.client_id)


@dataclass(frozen=True, slots=True)
class How:
    """How to log in."""

    device: bool = False
    no_browser: bool = False
    timeout: timedelta = timedelta(minutes=5)
    acr_values: str = ""
    login_hint: str = ""
    redirect_port: int = 0


def person_options(command: F) -> F:
    """Adds the options of a person; ``command`` gets one argument ``person`` for all of them."""
    return _collected(command, _WHO, "person", Person, ("oidc_issuer", "oidc_client_id", "oidc_scopes"))


def login_options(command: F) -> F:
    """Adds those of commands that have a person log in; they come as one argument ``how``."""
    names = ("device", "no_browser", "login_timeout", "acr_values", "login_hint", "redirect_port")
    return _collected(command, _HOW, "how", How, names)


def _collected(command: F, options: tuple[Any, ...], name: str, kind: type, names: tuple[str, ...]) -> F:
    @wraps(command)
    def collected(**given: Any) -> Any:
        return command(**{name: kind(*(given.pop(each) for each in names))}, **given)

    for option in reversed(options):
        collected = option(collected)
    return collected  # type: ignore[return-value]


def login_settings(person: Person, how: How | None = None) -> LoginSettings:
    """For the SDK. Raises :class:`InvalidInput` (CONFIG_INVALID) where issuer or application is not given."""
    how = how or How()
    return LoginSettings(
        issuer=person.issuer,
        client_id=person.client_id,
        scopes=tuple(person.scopes.split()),
        acr_values=how.acr_values,
        login_hint=how.login_hint,
        redirect_port=how.redirect_port,
        device=how.device,
        timeout=how.timeout,
    )


def surroundings(*, browser: bool = True) -> Surroundings:
    """This machine: its clock, its browser, and standard error, because standard output is for results."""
    given = settings().environment
    opens = open_browser if browser and can_show(given) else _no_browser
    return Surroundings(SystemClock().now, time.sleep, lambda text: click.echo(text, err=True), opens)


def can_show(environment: Mapping[str, str]) -> bool:
    """Whether a browser of its own window can open here; a text browser would take the terminal over."""
    return sys.platform == "darwin" or any(environment.get(each) for each in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))


def open_browser(url: str) -> bool:
    """Whether a browser was opened (RFC 8252: the person's own, with its address bar)."""
    try:
        return webbrowser.open(url)
    except (webbrowser.Error, ValueError):
        # ValueError: a BROWSER that cannot be taken apart into words.
        return False


def _no_browser(_: str) -> bool:
    return False


def cache_of(person: Person) -> LoginCache:
    """Where this person's login is kept."""
    chosen = login_settings(person)
    return LoginCache(state_directory(os.environ), chosen.issuer, chosen.client_id)


def cached_login(person: Person) -> CachedLogin:
    """The token of a call that reads."""
    return CachedLogin(cache_of(person), login_settings(person), surroundings())


def log_in_for(person: Person, how: How, action: str, fields: Mapping[str, str]) -> FreshLogin:
    """A fresh login for doing ``action`` with exactly ``fields``, by the one who is logged in.

    Raises as :func:`fresh_login` does; :class:`Denied` (FRESH_LOGIN_OF_ANOTHER) for somebody else's.
    """
    kept = cache_of(person).read()
    fresh = fresh_login(login_settings(person, how), surroundings(browser=not how.no_browser), action, fields)
    if kept is not None and kept.subject != fresh.id_token.subject:
        raise Denied(
            Reason.FRESH_LOGIN_OF_ANOTHER,
            "You are logged in here as one person, and this login was another's; nothing was sent.",
            hint="If you are the other one: broker login, look again, and then decide.",
            metadata={"loggedIn": kept.subject, "fresh": fresh.id_token.subject},
        )
    return fresh
