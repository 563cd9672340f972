"""The people of the bench: the development identity provider, in a thread of its own, for brokerd to ask for keys."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import Self

from bench.deploy import GROUPS
from broker.approval.intent_digest import nonce_of
from broker.clock import SystemClock
from broker.dev.identity_provider import CLIENT_ID, IdentityProvider
from broker.dev.identity_provider_http import IdentityProviderServer
from broker.dev.loopback import LOOPBACK, free_port
from broker.identity.agent import Person
from broker.secret import Secret

ISSUER = "https://id.bench.broker.internal"  # as the deploy set names it
_SECONDS = 30.0


class People:
    """A context manager: while it is open, people log in."""

    def __init__(self, names: Sequence[str]) -> None:
        known = [Person(ISSUER, name, name, groups=frozenset(GROUPS)) for name in names]
        self._provider = IdentityProvider(f"http://{LOOPBACK}:{free_port()}", known, SystemClock())
        self._server = IdentityProviderServer(self._provider, SystemClock())
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)

    def config(self) -> dict[str, object]:
        """The section ``people`` of brokerd's configuration."""
        return {"issuers": {self._provider.url: {"audience": CLIENT_ID, "known_as": ISSUER}}}

    def log_in(self, name: str, action: str = "", fields: Mapping[str, str] | None = None) -> Secret:
        """The ID token of a login; for exactly one act, where one is named."""
        return Secret(self._provider.id_token(name, CLIENT_ID, nonce_of(action, fields or {}) if action else ""))
