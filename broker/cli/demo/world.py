"""The stage of the story: the running stack, the agents' SDK clients, and PostgreSQL as its superuser sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

from broker.approval.intent_digest import nonce_of
from broker.cli.demo.database import Database
from broker.cli.demo.narrator import Narrator
from broker.client import AsyncClient, Grant, connect
from broker.client.admin import AdminClient, believed_by_file
from broker.client.connect import connect_admin
from broker.client.tokens import HeldToken
from broker.clock import SystemClock
from broker.dev.identity_provider import CLIENT_ID
from broker.dev.stack import TRUST_DOMAIN, DevFacts, DevStack
from broker.dev.webhook_receiver import WebhookReceiver
from broker.identity.spiffe_id import SpiffeId
from broker.lease.fingerprint import secrets_in
from broker.scope.request import AccessRequest
from broker.secret import Secret

# What the agents of deploy/dev ask for, but for task and time.
READ_ORDERS = AccessRequest(
    request_id="",
    template="orders-readonly",
    task_id="",
    account="dev",
    environment="dev",
    resource="orders",
    ttl=timedelta(minutes=5),
    intent="count the open orders",
)
CHANGE_ORDERS = replace(
    READ_ORDERS,
    template="orders-readwrite",
    intent="mark returned orders",
    reason="customers wait for their refunds",
    ticket="OPS-1207",
    plan="set status to 'refunded' where returned_at is not null and status = 'returned'",
)
CHANGE_PRODUCTION = replace(
    CHANGE_ORDERS,
    template="orders-production",
    environment="production",
    plan="Mark the returned orders of OPS-1207 in one transaction; roll back if another number of rows changes.",
)
READ_REPORT = replace(
    READ_ORDERS,
    template="reports-read",
    account="123456789012",
    resource="orders-reports",
    parameters={"day": "daily/2026-01-31"},
    intent="sum up the day",
)
READ_S3 = replace(READ_REPORT, template="reports-s3", account="dev")


def agent_id(name: str) -> SpiffeId:
    """The SPIFFE ID of one of deploy/dev's agents."""
    return SpiffeId(TRUST_DOMAIN, f"/agent/{name}")


class World:
    """Everything a step needs. An asynchronous context manager, because it keeps connections.

    ``dial`` connects an agent, given its SPIFFE ID; None: with the SDK, to the running brokerd.
    """

    def __init__(
        self,
        stack: DevStack,
        tell: Narrator,
        *,
        dial: Callable[[SpiffeId], AsyncClient] | None = None,
        receiver: WebhookReceiver | None = None,
    ) -> None:
        self.receiver = receiver  # who is told by webhooks
        self.stack = stack
        self.tell = tell
        self.clock = SystemClock()
        self.database = Database(stack.facts().postgres)
        self._dial = self._connect if dial is None else dial
        self._clients: dict[str, AsyncClient] = {}
        self._people: dict[str, AdminClient] = {}

    @property
    def facts(self) -> DevFacts:
        """Addresses and paths."""
        return self.stack.facts()

    async def __aenter__(self) -> Self:
        await self.database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hang_up()
        await self.database.__aexit__(kind, error, trace)

    def agent(self, name: str) -> AsyncClient:
        """The SDK's client of one of deploy/dev's agents."""
        if name not in self._clients:
            self._clients[name] = self._dial(agent_id(name))
        return self._clients[name]

    def person(self, key: str) -> AdminClient:
        """One of the people of deploy/dev at the people's door, logged in at the development provider."""
        if key not in self._people:
            facts = self.facts
            believed = believed_by_file(facts.bundle)
            tokens = HeldToken(self._logged_in(key))
            self._people[key] = connect_admin(facts.admin_address, tokens, believed, facts.broker_dns_name)
        return self._people[key]

    def fresh_login(self, key: str, action: str, fields: Mapping[str, str]) -> str:
        """The ID token of a login for exactly this act, as ``broker`` gets it by a browser or a device."""
        return self._logged_in(key, nonce_of(action, fields)).reveal()

    def _logged_in(self, key: str, nonce: str = "") -> Secret:
        token = Secret(self.stack.identity_provider.id_token(key, CLIENT_ID, nonce))
        self.tell.hide(token)
        return token

    async def ask(
        self, client: AsyncClient, request: AccessRequest, task_id: str, ttl: timedelta | None = None
    ) -> Grant:
        """Request a credential under a task; its secrets are kept out of what is told."""
        asked = replace(request, request_id=client.new_id(), task_id=task_id, ttl=request.ttl if ttl is None else ttl)
        return self.keep_secret(await client.request(asked))

    def keep_secret(self, grant: Grant) -> Grant:
        """The grant, of which no secret is told from now on."""
        self.tell.hide(*(secret for _, secret in secrets_in(grant.credential)))
        return grant

    async def kill_brokerd(self) -> None:
        """``kill -9``: no chance to tidy up. Everything else runs on."""
        await self.stack.stop_brokerd(kill=True)

    async def start_brokerd(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it again, single variables of its environment changed; agents connect anew."""
        await self._hang_up()
        await self.stack.start_brokerd(environment)

    async def _hang_up(self) -> None:
        agents, people = [*self._clients.values()], [*self._people.values()]
        self._clients.clear()
        self._people.clear()
        await asyncio.gather(*(client.close() for client in agents), *(client.close() for client in people))

    def _connect(self, agent: SpiffeId) -> AsyncClient:
        facts = self.facts
        # Nothing of somebody's environment: this is the demo's own broker, reached directly.
        return connect(facts.api_address, facts.broker_dns_name, facts.endpoints[agent], trust_domain="", audience="")
