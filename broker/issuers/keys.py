"""The keys of the providers that operators configured: fetched beside the serving, the last good ones kept.

Whoever asks is answered at once from what is in force; nothing here makes a call wait for the network. Keys are
fetched again when their time has come, and soon when a token names a key that is not among them, because providers
rotate; but at most once per :data:`AGAIN`, so that nobody makes the broker ask by sending nonsense. What cannot be
fetched is told (log, ``/readyz``, metrics) while the last good keys stay, up to :data:`STALE`: a key that a provider
withdrew must not live on because its withdrawal cannot be heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, NoReturn

import structlog

from broker.errors import BrokerError, NotReady, Reason
from broker.identity.oidc_keys import KeySet, UnfitKeySet
from broker.issuers.discovery import UnfitDiscovery, discovery_url, jwks_uri_of
from broker.issuers.fetch import Fetch, NotFetched

log = structlog.get_logger("broker.identity")

RENEW = timedelta(minutes=5)
AGAIN = timedelta(seconds=10)
STALE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one provider's keys are: at ``jwks_uri``, or (empty) where its discovery document says."""

    issuer: str
    fetch: Fetch
    jwks_uri: str = ""


class KeysFigures(NamedTuple):
    """How old the keys in force are, in seconds (None: there are none), and tries by outcome."""

    age: float | None
    fetched: int
    failed: int


class FetchedKeys:
    """The keys of one provider. Belongs to one event loop."""

    def __init__(self, place: Place, monotonic: Callable[[], float]) -> None:
        self._place = place
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._fetched_at = self._tried_at = -float("inf")
        self._wanted = asyncio.Event()
        self._fetched = self._failed = 0
        self.error: BrokerError | None = None

    @property
    def tally(self) -> KeysFigures:
        """What the metrics tell of it."""
        age = None if self._keys is None else self._monotonic() - self._fetched_at
        return KeysFigures(age, self._fetched, self._failed)

    def current(self, key_id: str) -> KeySet:
        """As :meth:`broker.ports.keys.IssuerKeys.current`."""
        if self._keys is None or self._monotonic() - self._fetched_at > STALE.total_seconds():
            self._want()
            self._unavailable("has no keys here that could be renewed lately")
        if key_id and key_id not in self._keys.keys and self._want():
            self._unavailable(f"may have a new key {ascii(key_id)[1:-1][:80]}; its keys are being fetched")
        return self._keys

    async def refresh(self) -> None:
        """Fetch once. Never raises: what is wrong is :attr:`error`, and the last good keys stay."""
        self._tried_at = self._monotonic()
        self._wanted.clear()
        try:
            keys = KeySet.from_jwks(await self._place.fetch(await self._uri()))
        except (NotFetched, UnfitDiscovery, UnfitKeySet) as failure:
            self._failed += 1
            self._tell(f"The OpenID provider {self._place.issuer} {failure}.")
            return
        if self._keys is not None and keys.version != self._keys.version:
            log.info("an OpenID provider has other keys", issuer=self._place.issuer, keys=sorted(keys.keys))
        self._keys, self._fetched_at, self.error = keys, self._monotonic(), None
        self._fetched += 1

    async def follow(self) -> None:
        """Fetch now if there are none, then when it is time, and when somebody wants it; until cancelled."""
        if self._keys is None:
            await self.refresh()
        while True:
            # After a failure sooner: whoever logs in waits for it.
            wait = RENEW if self.error is None else AGAIN
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), wait.total_seconds())
            await self.refresh()

    def _want(self) -> bool:
        """Have them fetched, unless they were just now; whether they are (being) fetched."""
        if not self._wanted.is_set() and self._monotonic() - self._tried_at >= AGAIN.total_seconds():
            self._wanted.set()
        return self._wanted.is_set()

    async def _uri(self) -> str:
        if self._place.jwks_uri:
            return self._place.jwks_uri
        return jwks_uri_of(await self._place.fetch(discovery_url(self._place.issuer)), self._place.issuer)

    def _tell(self, message: str) -> None:
        told = self.error is not None and self.error.message == message
        self.error = NotReady(
            Reason.ISSUER_KEYS_UNAVAILABLE,
            message,
            hint=f"The last good keys stay in force, for at most {STALE}. Can brokerd reach it, and by https?",
            metadata={"issuer": self._place.issuer},
        )
        if not told:
            log.warning(message, hint=self.error.hint, reason=self.error.reason)

    def _unavailable(self, why: str) -> NoReturn:
        raise NotReady(
            Reason.ISSUER_KEYS_UNAVAILABLE,
            f"The OpenID provider {self._place.issuer} {why}.",
            hint="Try again in a moment; operators: the log and /readyz say what is in the way.",
            metadata={"issuer": self._place.issuer},
            retry_after=1.0,
        )


class HttpIssuerKeys:
    """A :class:`broker.ports.keys.IssuerKeys` over HTTP. Belongs to one event loop."""

    def __init__(self, places: Mapping[str, Place], monotonic: Callable[[], float] = time.monotonic) -> None:
        """``places`` by issuer."""
        self._of = {issuer: FetchedKeys(place, monotonic) for issuer, place in places.items()}

    def current(self, issuer: str, key_id: str = "") -> KeySet:
        """See the port. KeyError for an issuer that is not configured: a mistake of the caller's."""
        return self._of[issuer].current(key_id)

    async def refresh(self) -> None:
        """Fetch all of them once, at the same time."""
        await asyncio.gather(*(each.refresh() for each in self._of.values()))

    async def follow(self) -> None:
        """Keep all of them fresh, until cancelled."""
        async with asyncio.TaskGroup() as following:
            for each in self._of.values():
                following.create_task(each.follow())

    def alarms(self) -> tuple[BrokerError, ...]:
        """What is wrong while the last good keys stay in force."""
        return tuple(each.error for each in self._of.values() if each.error is not None)

    def tallies(self) -> Mapping[str, KeysFigures]:
        """For the metrics, by issuer."""
        return {issuer: each.tally for issuer, each in self._of.items()}
