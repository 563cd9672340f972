"""A test instance of the broker whose clock is ahead: its inside, on a copy of the ledger, for what takes a day.

No flag and no variable of brokerd moves a clock. So this is not brokerd: it has no doors and no ticks, and what a tick
would do is called. Everything behind that is what brokerd wires: the deploy set in force, the real upstream, the rules
of the ledger. Its people log in at a development provider whose clock is ahead, too.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from broker.approval.intent_digest import BREAK_GLASS, REVIEW_BREAK_GLASS, nonce_of
from broker.breakglass.intent import review_fields, use_fields
from broker.breakglass.reviews import Use
from broker.cli.demo.world import World
from broker.clock import SystemClock, SystemRng
from broker.connectors.own_identity import OwnToken
from broker.connectors.registry import build
from broker.deployfiles.load import load
from broker.dev.configuration import TENANT
from broker.dev.identity_provider import CLIENT_ID, ON_BEHALF_OF, IdentityProvider
from broker.identity.id_token import Issuer as Provider
from broker.identity.oidc_keys import KeySet
from broker.identity.operator import LOGIN, Operator, Role
from broker.issuance.break_glass import BreakGlassDesk
from broker.issuance.break_glass_order import BreakGlassOrder
from broker.issuance.break_glass_reviews import ReviewDesk
from broker.issuance.caller import OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.gate import Gate
from broker.issuance.id_tokens import IdTokens, TrustedIssuer
from broker.issuance.issue import Grant, Issuer
from broker.keys import FileKeyRing
from broker.lease.mark import Mark
from broker.ports.leases import Lease
from broker.references import resolve
from broker.revocation.revoker import Revoker
from broker.secret import Secret
from broker.stores.sqlite import SqliteStore
from broker.workloadapi.jwt_svids import JwtSvids

_ISSUE_TIMEOUT = timedelta(seconds=10)
_MARK = Mark("demonstr")


class AheadClock:
    """The present, and so much more."""

    def __init__(self, ahead: timedelta) -> None:
        self._clock = SystemClock()
        self._ahead = ahead

    def now(self) -> datetime:
        """The present of the test instance."""
        return self._clock.now() + self._ahead


class _ProvidersKeys:
    def __init__(self, provider: IdentityProvider) -> None:
        self._provider = provider

    def current(self, issuer: str, key_id: str = "") -> KeySet:
        return KeySet.from_jwks(self._provider.jwks_document())


class _BrokersTokens:
    """The broker's own JWT-SVIDs, as long from their end as they are in the present of this one."""

    def __init__(self, endpoint: str, ahead: timedelta) -> None:
        self._svids = JwtSvids(endpoint, SystemClock().now)
        self._ahead = ahead

    def own_token(self, audience: str) -> OwnToken:
        held = self._svids.token(audience)
        return OwnToken(held.token, held.expires_at + self._ahead)


class LaterInstance:
    """The inside of a broker, ``ahead`` of this one. An asynchronous context manager: it has a ledger of its own."""

    def __init__(self, world: World, ahead: timedelta) -> None:
        self._facts = world.facts
        self._clock = AheadClock(ahead)
        self._deploy = load(self._facts.deploy)
        environment = self._facts.broker_environment()
        own = _BrokersTokens(self._facts.broker_endpoint, ahead)
        made = partial(build, resolve=partial(_resolve, environment), clock=self._clock, own=own)
        self._connectors = {name: made(spec) for name, spec in self._deploy.connectors.items()}
        issuer = next(iter(self._deploy.people.values())).issuer
        self._provider = IdentityProvider(issuer, self._deploy.people.values(), self._clock)

    async def __aenter__(self) -> Self:
        # What it logs is not the story.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        ledger = self._facts.state / "later" / "ledger.sqlite3"
        ledger.parent.mkdir(mode=0o700)
        await asyncio.to_thread(_copy, self._facts.ledger, ledger)
        rng = SystemRng()
        keys = FileKeyRing([f"file:{self._facts.mac_key}"])
        self._store = await SqliteStore.open(ledger, keys, writer=rng.id())
        self._revoker = Revoker(self._store, self._connectors.get, self._clock, rng, workers=2)
        trusted = TrustedIssuer(Provider(self._provider.url), CLIENT_ID, ON_BEHALF_OF)
        tokens = IdTokens({self._provider.url: trusted}, _ProvidersKeys(self._provider))
        fresh, kick = FreshLogins(tokens, self._clock), self._revoker.kick
        gate = Gate(timedelta(minutes=1), 1000, timedelta(minutes=1), heartbeat=self._clock.now())
        parts = (self._connectors.get, kick, gate, self._clock, rng)
        issuer = Issuer(self._store, *parts, keys=keys, mark=_MARK, issue_timeout=_ISSUE_TIMEOUT)
        self._desk = BreakGlassDesk(self._store, issuer, *parts, fresh=fresh, issue_timeout=_ISSUE_TIMEOUT)
        self._reviews = ReviewDesk(self._store, fresh, self._clock, rng)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        structlog.reset_defaults()
        await self._revoker.close()
        await self._store.close()
        for connector in self._connectors.values():
            await connector.close()

    async def tick(self) -> Mapping[str, str]:
        """What brokerd does each second about break-glass; the groups that are blocked, and by which lease."""
        return await self._desk.tend(TENANT, self._deploy)

    async def use(self, key: str, order: BreakGlassOrder) -> Grant:
        """Break glass as this person, who logs in for it."""
        asked = {each.name: getattr(order, each.name) for each in fields(order) if each.name != "request_id"}
        token = self._logged_in(key, BREAK_GLASS, use_fields(**asked))
        return await self._desk.use(self._caller(key), order, fresh_id_token=token)

    async def confirm(self, key: str, lease: Lease) -> Lease:
        """Say that it has arrived."""
        return await self._desk.confirm(self._caller(key), lease.id, lease.attempt_id)

    async def end(self, key: str, lease_id: str, wait: timedelta) -> Lease:
        """End it."""
        _, lease = await self._desk.end(self._caller(key), lease_id, wait)
        return lease

    async def review(self, key: str, lease_id: str, findings: str) -> Use:
        """Record a review as this person, who logs in for it."""
        token = self._logged_in(key, REVIEW_BREAK_GLASS, review_fields(lease_id, findings))
        return await self._reviews.review(
            self._caller(key), lease_id, f"review-{lease_id}", findings, fresh_id_token=token
        )

    def _caller(self, key: str) -> OperatorCaller:
        operator = Operator(self._deploy.people[key], key, LOGIN)
        return OperatorCaller(TENANT, operator, frozenset(Role), self._deploy, self._clock.now())

    def _logged_in(self, key: str, action: str, said: dict[str, str]) -> str:
        claims = {"jti": secrets.token_hex(8)}
        return self._provider.id_token(key, CLIENT_ID, nonce_of(action, said), claims=claims)


def _resolve(environment: Mapping[str, str], reference: str) -> Secret:
    """What brokerd has in its environment, this process has at hand."""
    name = reference.removeprefix("env:")
    return Secret(environment[name]) if name in environment else resolve(reference)


def _copy(source: Path, target: Path) -> None:
    """A consistent copy of a ledger that is in use."""
    target.touch(mode=0o600)
    with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as live, sqlite3.connect(target) as copy:
        live.backup(copy)
    live.close()
    copy.close()
