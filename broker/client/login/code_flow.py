"""Logging in with a browser on this machine: authorization code with PKCE (RFC 6749, 7636, 8252).

Belongs here: what is asked of the authorization endpoint, and what of its answer is believed. The answer comes by way
of a browser, so from anybody: it counts only with our ``state``, at our address, from our issuer (RFC 9207). Does not
belong here: how the answer reaches this process (``redirect.py``).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from broker.client.login.provider import Provider
from broker.client.login.redirect import Redirect
from broker.client.login.settings import LoginSettings, Surroundings
from broker.client.login.token_endpoint import OAuthError, Tokens, exchange, plain
from broker.errors import Reason, Unauthenticated

# RFC 7636, 4.1: 32 bytes make a verifier of 43 characters.
_BYTES = 32


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login under way: what binds its answer to it. Each value is used once."""

    state: str
    verifier: str

    @classmethod
    def new(cls) -> Attempt:
        """With values that nobody can guess."""
        return cls(secrets.token_urlsafe(_BYTES), secrets.token_urlsafe(_BYTES))

    @property
    def challenge(self) -> str:
        """BASE64URL(SHA256(verifier)): RFC 7636, 4.2."""
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def by_code(
    provider: Provider, settings: LoginSettings, world: Surroundings, scopes: tuple[str, ...], asked: Mapping[str, str]
) -> Tokens:
    """The tokens of a login in the browser; ``asked`` are further parameters of OpenID Connect (``nonce``, ...).

    Blocks for ``settings.timeout`` at most. Raises :class:`OAuthError`; :class:`Unauthenticated` (LOGIN_*);
    :class:`NotReady` (IDENTITY_PROVIDER_*).
    """
    attempt = Attempt.new()
    with Redirect(settings.redirect_port) as redirect:
        url = authorization_url(provider, settings.client_id, redirect.uri, attempt, scopes, asked)
        _show(world, url)
        answer = redirect.wait(settings.timeout)
    code = _believed(answer, attempt, provider)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect.uri,
        "client_id": settings.client_id,
        "code_verifier": attempt.verifier,
    }
    return exchange(world.http, provider, form)


def authorization_url(
    provider: Provider,
    client_id: str,
    redirect_uri: str,
    attempt: Attempt,
    scopes: tuple[str, ...],
    asked: Mapping[str, str],
) -> str:
    """Where the browser goes. Parameters that the endpoint itself has are kept (RFC 6749, 3.1)."""
    parts = urlsplit(provider.authorization_endpoint)
    parameters = {
        **dict(parse_qsl(parts.query, keep_blank_values=True)),
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(scopes),
        "state": attempt.state,
        "code_challenge": attempt.challenge,
        "code_challenge_method": "S256",
        **asked,
    }
    return urlunsplit(parts._replace(query=urlencode(parameters)))


def _show(world: Surroundings, url: str) -> None:
    if world.open_browser(url):
        world.tell("Your browser opens the identity provider's page. If it does not, open this:")
    else:
        world.tell("Open this in a browser on this machine:")
    world.tell(url)


def _believed(answer: Mapping[str, str], attempt: Attempt, provider: Provider) -> str:
    """The code in ``answer``. Nothing of an answer without our ``state`` is even told."""
    if not secrets.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
        raise _mixed_up("it is not the answer to this login (state)")
    if answer.get("iss", provider.issuer) != provider.issuer or (provider.says_issuer and "iss" not in answer):
        raise _mixed_up(f"it is from {plain(answer.get('iss')) or 'nobody'} and not from {provider.issuer} (iss)")
    if "error" in answer:
        raise OAuthError(plain(answer["error"]), plain(answer.get("error_description")))
    if not answer.get("code"):
        raise _mixed_up("it has neither a code nor an error")
    return answer["code"]


def _mixed_up(why: str) -> Unauthenticated:
    return Unauthenticated(
        Reason.LOGIN_FAILED,
        f"The browser brought an answer that is not believed: {why}.",
        hint="Nothing was exchanged. Log in again, and follow no link that somebody sent you.",
    )
