"""Logging in with a browser on another machine: the device authorization grant (RFC 8628).

Belongs here: asking for the two codes, showing one, and polling with the other, never faster than was allowed. Whoever
types a user code logs *this* terminal in; the person is told to compare it. Does not belong here: the token
endpoint's form of an answer (``token_endpoint.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from broker.client.login.http import Answer, checked_url, misbehaved
from broker.client.login.provider import Provider
from broker.client.login.redirect import timed_out
from broker.client.login.settings import LoginSettings, Surroundings
from broker.client.login.token_endpoint import OAuthError, Tokens, exchange, oauth_error
from broker.errors import InvalidInput, NotReady, Reason, Unauthenticated
from broker.secret import Secret

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
# RFC 8628, 3.2 and 3.5.
_INTERVAL = 5
_SLOWER = 5
# Nobody is kept waiting for longer between two questions, whatever the provider says.
_LONGEST_INTERVAL = 60
_CODE_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class DeviceCodes:
    """What the provider gave; ``interval`` and ``lifetime`` in seconds."""

    device_code: Secret
    user_code: str
    verification_uri: str
    interval: int
    lifetime: int


def by_device(
    provider: Provider, settings: LoginSettings, world: Surroundings, scopes: tuple[str, ...], asked: Mapping[str, str]
) -> Tokens:
    """The tokens of a login on another device; arguments and errors as in ``code_flow.by_code``."""
    if not provider.device_authorization_endpoint:
        raise NotReady(
            Reason.IDENTITY_PROVIDER_INVALID,
            f"The identity provider {provider.issuer} has no device flow.",
            hint="Log in with a browser on this machine: without --device.",
        )
    form = {"client_id": settings.client_id, "scope": " ".join(scopes), **asked}
    codes = _codes(provider, world.http.post(provider.device_authorization_endpoint, form))
    world.tell(f"On any device, open {codes.verification_uri} and enter the code {codes.user_code}")
    world.tell("Enter it only there, and only if the code on the page is this one.")
    return _polled(provider, settings, world, codes)


def _polled(provider: Provider, settings: LoginSettings, world: Surroundings, codes: DeviceCodes) -> Tokens:
    """Asks until there is an answer. Time is what was waited: a slow provider gets more of it, never less."""
    form = {"grant_type": GRANT_TYPE, "device_code": codes.device_code.reveal(), "client_id": settings.client_id}
    interval, waited = codes.interval, 0
    within = min(settings.timeout, timedelta(seconds=codes.lifetime))
    while waited + interval <= within.total_seconds():
        world.pause(interval)
        waited += interval
        try:
            return exchange(world.http, provider, form)
        except OAuthError as error:
            if error.code == "expired_token":
                raise _late("the code expired before anybody entered it", timedelta(seconds=waited)) from None
            if error.code not in ("authorization_pending", "slow_down"):
                raise
            interval += _SLOWER if error.code == "slow_down" else 0
        except NotReady as error:
            # Section 3.5: a connection that fails is tried again, more slowly.
            if error.reason is not Reason.IDENTITY_PROVIDER_UNREACHABLE:
                raise
            interval *= 2
    raise _late("nobody entered the code", within)


def _late(what: str, timeout: timedelta) -> Unauthenticated:
    return timed_out(what, timeout, "any other device's does")


def _codes(provider: Provider, answer: Answer) -> DeviceCodes:
    """Section 3.2. The code and the address are shown to a person, so they must be plain."""
    url = provider.device_authorization_endpoint
    if answer.status != 200:
        raise oauth_error(url, answer)
    said = answer.members
    device_code, user_code, uri = (said.get(name) for name in ("device_code", "user_code", "verification_uri"))
    if not isinstance(device_code, str) or not device_code:
        raise misbehaved(url, "its answer has no device_code")
    if not isinstance(user_code, str) or not user_code.isascii() or not user_code.isprintable() or not user_code:
        raise misbehaved(url, "the user_code in its answer cannot be typed")
    if len(user_code) > _CODE_CHARACTERS or not isinstance(uri, str):
        raise misbehaved(url, "its answer has no verification_uri, or a user_code that nobody types")
    try:
        checked_url(uri, "The verification_uri")
    except InvalidInput as error:
        raise misbehaved(url, error.message.removesuffix(".")) from None
    interval = min(_seconds(said, "interval", _INTERVAL, url), _LONGEST_INTERVAL)
    return DeviceCodes(Secret(device_code), user_code, uri, interval, _seconds(said, "expires_in", 0, url))


def _seconds(said: Mapping[str, Any], name: str, default: int, url: str) -> int:
    value = said.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 86_400:
        raise misbehaved(url, f"the {name} in its answer is no number of seconds")
    return int(value)
