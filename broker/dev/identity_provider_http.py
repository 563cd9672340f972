"""The development provider over HTTP, on loopback: code flow with PKCE, and the device flow.

Whoever opens a page chooses who to be, or names it as ``login_hint`` and is not asked. Sources: OpenID Connect Core 3.1
and Discovery; RFC 6749, 7636 (S256 only), 8252 (redirects to loopback only), 8628.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from broker.dev.identity_provider import ALGORITHM, CLIENT_ID, DISCLAIMER, ON_BEHALF_OF, IdentityProvider
from broker.dev.loopback import LOOPBACK

if TYPE_CHECKING:
    from broker.ports.clock import Clock

T = TypeVar("T")
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
CLIENTS = frozenset({CLIENT_ID, ON_BEHALF_OF})
CODE_LIFE = timedelta(minutes=1)
DEVICE_LIFE = timedelta(minutes=10)
POLL_SECONDS = 1
_KEPT = 1000


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a client asked for when it began."""

    client_id: str
    nonce: str
    redirect_uri: str = ""
    challenge: str = ""


@dataclass(slots=True)
class _Login:
    """One login under way: ``subject`` and when, once somebody has come."""

    asked: _Asked
    expires_at: datetime
    subject: str = ""
    auth_time: datetime | None = None


class IdentityProviderServer:
    """Serves ``provider``, whose URL is where this listens: ``http://127.0.0.1:port``."""

    def __init__(self, provider: IdentityProvider, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock
        self._codes: OrderedDict[str, _Login] = OrderedDict()
        self._devices: OrderedDict[str, _Login] = OrderedDict()  # by device code
        self._user_codes: OrderedDict[str, str] = OrderedDict()
        app = web.Application()
        app.on_response_prepare.append(_uncached)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/jwks", self._jwks),
                web.get("/authorize", self._authorize),
                web.post("/token", self._token),
                web.post("/device_authorization", self._device_authorization),
                web.get("/device", self._device),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)

    async def start(self) -> None:
        """Listen where the provider's URL says. Raises OSError if the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, urlsplit(self._provider.url).port).start()

    async def stop(self) -> None:
        """Close the port. Twice is the same as once."""
        await self._runner.cleanup()

    # ------------------------------------------------------------------ what is published

    async def _index(self, request: web.Request) -> web.Response:
        return _page("An identity provider for development", [])

    async def _discovery(self, request: web.Request) -> web.Response:
        url = self._provider.url
        return web.json_response(
            {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "device_authorization_endpoint": f"{url}/device_authorization",
                "jwks_uri": f"{url}/jwks",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", DEVICE_GRANT],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "scopes_supported": ["openid", "profile", "groups"],
                "claims_supported": ["sub", "auth_time", "nonce", "acr", "amr", "name", "groups"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none"],
                "authorization_response_iss_parameter_supported": True,
                "service_documentation": f"{url}/",
            }
        )

    async def _jwks(self, request: web.Request) -> web.Response:
        return web.Response(body=self._provider.jwks_document(), content_type="application/json")

    # ------------------------------------------------------------------ code flow

    async def _authorize(self, request: web.Request) -> web.Response:
        query = _once(request.query)
        redirect = _loopback(query.get("redirect_uri", ""))
        _client(query)
        state = {"state": query["state"]} if "state" in query else {}
        if query.get("response_type") != "code" or "openid" not in query.get("scope", "").split():
            return self._back(redirect, {**state, "error": "unsupported_response_type"})
        if query.get("code_challenge_method") != "S256" or len(query.get("code_challenge", "")) != 43:
            return self._back(redirect, {**state, "error": "invalid_request", "error_description": "PKCE with S256"})
        subject = query.get("login_hint", "")
        if not subject:
            return self._choice("Who are you?", "/authorize", query)
        if subject not in self._provider.people:
            return self._back(redirect, {**state, "error": "access_denied", "error_description": "nobody of that name"})
        asked = _Asked(query["client_id"], query.get("nonce", ""), redirect, query["code_challenge"])
        code, now = secrets.token_urlsafe(32), self._clock.now()
        _keep(self._codes, code, _Login(asked, now + CODE_LIFE, subject, now))
        return self._back(redirect, {**state, "code": code})

    def _back(self, redirect: str, answer: Mapping[str, str]) -> web.Response:
        joined = "&" if "?" in redirect else "?"
        told = urlencode({**answer, "iss": self._provider.url})  # RFC 9207
        return web.Response(status=302, headers={"location": f"{redirect}{joined}{told}"})

    # ------------------------------------------------------------------ device flow

    async def _device_authorization(self, request: web.Request) -> web.Response:
        form = _once(await request.post())
        client = _client(form)
        device, user = secrets.token_urlsafe(32), "-".join(_letters(4) for _ in range(2))
        now = self._clock.now()
        login = _Login(_Asked(client, form.get("nonce", "")), now + DEVICE_LIFE)
        if (subject := form.get("login_hint", "")) in self._provider.people:
            login.subject, login.auth_time = subject, now
        _keep(self._devices, device, login)
        _keep(self._user_codes, user, device)
        page = f"{self._provider.url}/device"
        return web.json_response(
            {
                "device_code": device,
                "user_code": user,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?{urlencode({'user_code': user})}",
                "expires_in": int(DEVICE_LIFE.total_seconds()),
                "interval": POLL_SECONDS,
            }
        )

    async def _device(self, request: web.Request) -> web.Response:
        """The page on which somebody takes a device's login as theirs."""
        query = _once(request.query)
        if not query.get("user_code"):
            return _page("Enter the code that your device shows.", [], form='<form><input name="user_code"></form>')
        login = self._devices.get(self._user_codes.get(query.get("user_code", "").upper(), ""))
        if login is None or login.subject or login.expires_at <= self._clock.now():
            return _page("No login waits under this code.", [], status=404)
        subject = query.get("login_hint", "")
        if subject not in self._provider.people:
            return self._choice("Who are you, at the device that shows this code?", "/device", query)
        login.subject, login.auth_time = subject, self._clock.now()
        return _page(f"You are {subject}. Go back to the device.", [])

    def _choice(self, title: str, path: str, query: Mapping[str, str]) -> web.Response:
        people = sorted(self._provider.people.values(), key=lambda person: person.subject)
        return _page(
            title,
            [(f"{path}?{urlencode({**query, 'login_hint': each.subject})}", each.display_name) for each in people],
        )

    # ------------------------------------------------------------------ tokens

    async def _token(self, request: web.Request) -> web.Response:
        form = _once(await request.post())
        client = _client(form)
        match form.get("grant_type"):
            case "authorization_code":
                login = self._redeemed(form)
            case grant if grant == DEVICE_GRANT:
                login = self._polled(form)
            case _:
                _refuse("unsupported_grant_type")
        if login.asked.client_id != client:
            _refuse("invalid_grant")
        token = self._provider.id_token(login.subject, client, login.asked.nonce, auth_time=login.auth_time)
        body = {"id_token": token, "access_token": secrets.token_urlsafe(16), "token_type": "Bearer", "expires_in": 60}
        return web.json_response(body)

    def _redeemed(self, form: Mapping[str, str]) -> _Login:
        """A code is good once, for who has the verifier, and gone whatever comes of it."""
        login = self._codes.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "").encode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()
        if login is None or login.expires_at <= self._clock.now():
            _refuse("invalid_grant", "the code is unknown, used or too old")
        if form.get("redirect_uri") != login.asked.redirect_uri:
            _refuse("invalid_grant", "another redirect_uri")
        if not hmac.compare_digest(challenge, login.asked.challenge):
            _refuse("invalid_grant", "the code_verifier does not fit")
        return login

    def _polled(self, form: Mapping[str, str]) -> _Login:
        device = form.get("device_code", "")
        login = self._devices.get(device)
        if login is None:
            _refuse("invalid_grant", "the device code is unknown or used")
        if login.expires_at <= self._clock.now():
            _refuse("expired_token")
        if not login.subject:
            _refuse("authorization_pending")
        del self._devices[device]
        return login


async def _uncached(request: web.Request, response: web.StreamResponse) -> None:
    """Nothing of it is kept by anybody on the way."""
    response.headers["cache-control"] = "no-store"


def _once(values: Mapping[str, object]) -> dict[str, str]:
    """Each parameter once (RFC 6749, section 3.1), and text."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if name in found or not isinstance(value, str):
            _refuse("invalid_request", f"{name} stands there twice, or is no text")
        found[name] = value
    return found


def _client(values: Mapping[str, str]) -> str:
    client = values.get("client_id", "")
    if client not in CLIENTS:
        _refuse("invalid_client", f"known are {', '.join(sorted(CLIENTS))}")
    return client


def _loopback(redirect: str) -> str:
    """RFC 8252, section 7.3: any port of this machine, and nowhere else."""
    try:
        parts = urlsplit(redirect)
        _ = parts.port
    except ValueError:
        _refuse("invalid_request", "redirect_uri is no URL")
    if parts.scheme != "http" or parts.hostname not in (LOOPBACK, "::1", "localhost") or parts.fragment:
        _refuse("invalid_request", "redirect_uri must be http on loopback")
    return redirect


def _refuse(error: str, why: str = "") -> NoReturn:
    body = {"error": error, "error_description": why} if why else {"error": error}
    raise web.HTTPBadRequest(text=json.dumps(body), content_type="application/json")


def _keep(kept: OrderedDict[str, T], key: str, value: T) -> None:
    kept[key] = value
    while len(kept) > _KEPT:
        kept.popitem(last=False)


def _letters(count: int) -> str:
    return "".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(count))  # RFC 8628, section 6.1


def _page(title: str, links: list[tuple[str, str]], status: int = 200, form: str = "") -> web.Response:
    listed = "".join(f'<li><a href="{html.escape(to)}">{html.escape(name)}</a></li>' for to, name in links)
    text = (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<h1>{html.escape(title)}</h1><ul>{listed}</ul>{form}<p>{html.escape(DISCLAIMER)}</p>"
    )
    return web.Response(text=text, content_type="text/html", status=status)
