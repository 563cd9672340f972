"""An OpenID provider that can misbehave on request, over real HTTP; its tokens are forged (``tests/forge_oidc.py``).

``answers`` replaces what one path answers: (status, body), or a function of the form. ``documents`` changes single
members of the discovery document (None removes one). ``browser`` is a person who says yes at once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from broker.client.login.http import ProviderHttp
from broker.client.login.settings import LoginSettings, Surroundings
from tests.forge import NOW
from tests.forge_oidc import ForgedProvider
from tests.patience import PATIENCE

CLIENT = "jit-broker"
Form = dict[str, str]
# Keys take time to make, and each test's provider has a port of its own.
_KEYS = ForgedProvider("https://id.example.org")
Body = bytes | Mapping[str, Any]
Answering = Callable[[Form], tuple[int, Body]]


class Forger(ForgedProvider):
    """With the same keys wherever it is."""

    @property
    def keys(self) -> dict[str, tuple[str, Any]]:
        return _KEYS.keys


class FakeProvider:
    """A context manager: listens on loopback while it is open."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.answers: dict[str, Answering] = {}
        self.forms: list[tuple[str, Form]] = []
        self.claims: dict[str, Any] = {}
        self.refresh_token: str | None = "refresh-1"
        self.kids: tuple[str, ...] = ()
        self.cut_off = False  # answers end before they are whole
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.forged = Forger(self.url)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def settings(self) -> LoginSettings:
        return LoginSettings(self.url, CLIENT, timeout=timedelta(seconds=PATIENCE))

    def asked(self, path: str) -> list[Form]:
        """The forms that came to ``path``."""
        return [form for where, form in self.forms if where == path]

    def answer(self, path: str, form: Form) -> tuple[int, Body]:
        if form:
            self.forms.append((path, form))
        if path in self.answers:
            return self.answers[path](form)
        match path:
            case "/.well-known/openid-configuration":
                return 200, self._document()
            case "/jwks":
                return 200, self.forged.document(*self.kids)
            case "/token":
                return 200, self.tokens()
            case "/device":
                codes = {"device_code": "d3v1c3", "user_code": "BCDF-GHJK", "verification_uri": f"{self.url}/enter"}
                return 200, {**codes, "expires_in": 600, "interval": 5}
            case "/revoke":
                return 200, b""
        return 404, b"nothing here"

    def tokens(self, **claims: Any) -> dict[str, Any]:
        token = self.forged.token("anna", CLIENT, **{**self.claims, **claims})
        told = {"id_token": token, "access_token": "a", "token_type": "Bearer", "refresh_token": self.refresh_token}
        return {name: each for name, each in told.items() if each is not None}

    def _document(self) -> dict[str, Any]:
        good = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=t",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "device_authorization_endpoint": f"{self.url}/device",
            "revocation_endpoint": f"{self.url}/revoke",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "groups", "offline_access", "profile", "email"],
            "authorization_response_iss_parameter_supported": True,
        }
        return {name: each for name, each in {**good, **self.documents}.items() if each is not None}


def _handler(provider: FakeProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*provider.answer(self.path, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            self._send(*provider.answer(self.path, dict(parse_qsl(body))))

        def _send(self, status: int, body: Body) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("location", data.decode())
            if provider.cut_off:
                self.send_header("transfer-encoding", "chunked")
                data = b"ff\r\n" + data
            else:
                self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@dataclass
class World:
    """Surroundings that are remembered. ``brings``: what the browser brings back for the URL it was sent to."""

    provider: FakeProvider
    now: datetime = NOW
    told: list[str] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)
    sent_to: list[dict[str, str]] = field(default_factory=list)
    pages: list[tuple[int, str]] = field(default_factory=list)
    brings: Callable[[dict[str, str]], dict[str, str] | None] | None = None
    has_browser: bool = True

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(lambda: self.now, self.paused.append, self.told.append, self.browse, ProviderHttp(10.0))

    def browse(self, url: str) -> bool:
        """A person who says yes (or what ``brings`` says), in a thread: the answer is awaited here."""
        if not self.has_browser:
            return False
        query = dict(parse_qsl(urlsplit(url).query))
        self.sent_to.append(query)
        if "nonce" in query:
            self.provider.claims.setdefault("nonce", query["nonce"])
        answer = {"code": "c0de", "state": query["state"], "iss": self.provider.url}
        brought = answer if self.brings is None else self.brings({**query, **answer})
        if brought is not None:
            address = f"{query['redirect_uri']}?{urlencode(brought)}"
            threading.Thread(target=lambda: self.pages.append(fetch(address)), daemon=True).start()
        return True


def fetch(url: str, **headers: str) -> tuple[int, str]:
    """Status and body."""
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(Request(url, headers=headers), timeout=PATIENCE) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def impatient(settings: LoginSettings) -> LoginSettings:
    """For what never comes."""
    return replace(settings, timeout=timedelta(milliseconds=20))
