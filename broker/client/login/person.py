"""A person at one provider: logging in, and logging in afresh for exactly one thing.

Belongs here: what each kind of login asks for, and that what comes back is judged before anybody uses it. A cached
login reads. What must never rest on something kept (approving, resuming, breaking glass and reviewing) takes a fresh
one: its ``nonce`` says what is agreed to, so the provider's signature is over both. Does not belong here: keeping a
login (``cached.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.approval.inert import inert
from broker.approval.intent_digest import nonce_of
from broker.client.login.code_flow import by_code
from broker.client.login.device_flow import by_device
from broker.client.login.provider import Provider, discover
from broker.client.login.settings import LoginSettings, Surroundings
from broker.client.login.token_endpoint import OAuthError, Tokens
from broker.client.login.verifying import verified
from broker.errors import Reason, Unauthenticated
from broker.identity.fresh_proof import FRESH
from broker.identity.id_token import IdToken
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A finished login: what it proved, and its tokens."""

    id_token: IdToken
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class FreshLogin:
    """A finished login for one thing. ``raw`` is sent with the request, as ``fresh_id_token``, and kept nowhere."""

    id_token: IdToken
    raw: Secret


def log_in(settings: LoginSettings, world: Surroundings) -> LoggedIn:
    """A login to read with. Blocks until the person has finished, or ``settings.timeout``.

    Raises :class:`Unauthenticated` (LOGIN_*, ID_TOKEN_*), :class:`Denied` (LOGIN_REFUSED), :class:`NotReady`
    (IDENTITY_PROVIDER_*), :class:`InvalidInput` (CONFIG_INVALID).
    """
    provider = discover(settings.issuer, world.http)
    scopes = settings.wanted_scopes(provider.scopes, lasting=True)
    # OpenID Connect Core 1.0, section 11: offline access is agreed to, each time.
    asked = {"prompt": "consent"} if "offline_access" in scopes else {}
    tokens = _tokens(provider, settings, world, scopes, asked)
    return LoggedIn(_judged(provider, settings, world, tokens), tokens)


def fresh_login(settings: LoginSettings, world: Surroundings, action: str, fields: Mapping[str, str]) -> FreshLogin:
    """A login for doing ``action`` with exactly these ``fields``, which are shown before the browser opens.

    ``action`` and ``fields`` are those of ``broker.approval.intent_digest``: the broker computes the same nonce from
    the request that comes with it. Raises as :func:`log_in` does.
    """
    nonce = nonce_of(action, fields)
    provider = discover(settings.issuer, world.http)
    _tell_what(world, settings, action, fields)
    asked = {"prompt": "login", "max_age": "0", "nonce": nonce}
    scopes = settings.wanted_scopes(provider.scopes, lasting=False)
    tokens = _tokens(provider, settings, world, scopes, asked)
    proven = verified(world.http, provider, settings.client_id, tokens.id_token, world.now(), nonce=None, max_age=FRESH)
    if proven.nonce != nonce:
        raise _other_nonce(proven, settings)
    return FreshLogin(proven, tokens.id_token)


def _tokens(
    provider: Provider, settings: LoginSettings, world: Surroundings, scopes: tuple[str, ...], asked: Mapping[str, str]
) -> Tokens:
    told = {"acr_values": settings.acr_values, "login_hint": settings.login_hint}
    asked = {**asked, **{name: value for name, value in told.items() if value}}
    flow = by_device if settings.device else by_code
    try:
        return flow(provider, settings, world, scopes, asked)
    except OAuthError as error:
        raise error.told("Nobody is logged in") from None


def _judged(provider: Provider, settings: LoginSettings, world: Surroundings, tokens: Tokens) -> IdToken:
    return verified(world.http, provider, settings.client_id, tokens.id_token, world.now(), nonce=None)


def _tell_what(world: Surroundings, settings: LoginSettings, action: str, fields: Mapping[str, str]) -> None:
    """What the person is about to sign. A field's text may be an agent's, so it is made inert."""
    world.tell(f"Logging in now at {settings.issuer} signs this, once, and nothing else:")
    world.tell(f"  {action}")
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        world.tell(f"    {name:<{width}}  {inert(value)}")


def _other_nonce(proven: IdToken, settings: LoginSettings) -> Unauthenticated:
    device = settings.device and not proven.nonce
    return Unauthenticated(
        Reason.ID_TOKEN_NONCE,
        "The identity provider signed another login than the one for this.",
        hint="This provider's device flow takes no nonce: do this with a browser, without --device."
        if device
        else "Nothing was sent to the broker. Do it again, and log in with the page that this command opens.",
    )
