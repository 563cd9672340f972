"""One engine of Vault or OpenBao whose credentials leave no lease behind: nothing to revoke, nothing to sweep.

One call with the broker's own token makes or reads the credential. What ends it is time, or nothing; the engine's
contract says which.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar

from broker.connectors.refusals import check_can_begin, grant_mismatch
from broker.connectors.threads import Closing, Threads, being_replaced
from broker.connectors.vault_calls import BrokerToken, WrappingToken
from broker.connectors.vault_cluster import WhichCluster
from broker.connectors.vault_examine import Rights, examined
from broker.connectors.vault_failures import step_failed, tending_failed
from broker.connectors.vault_http import VaultFailure
from broker.connectors.vault_login import JwtLogin
from broker.connectors.vault_upstream import Upstream, open_calls
from broker.connectors.vault_wrapping import noted, seconds_of, wrap, wrapped
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import Contract
from broker.ports.clock import Clock
from broker.ports.connectors import (
    Carried,
    Checkpoint,
    Doubt,
    Expired,
    Handle,
    Issued,
    Noted,
    NotYet,
    RevokeContext,
    RevokeOutcome,
    Unsettled,
)
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)


class VaultUnleased:
    """The connector. ``token`` yields the broker's own token and is asked before every call, or is a login."""

    what: ClassVar[str] = "credential"  # in what operators and agents read
    # Whether what ends it is looked for upstream, and so where it was given out is noted.
    looks_again: ClassVar[bool] = False

    def __init__(self, name: str, upstream: Upstream, token: BrokerToken, clock: Clock) -> None:
        self._name = name
        self._upstream = upstream
        self._clock = clock
        self.calls = open_calls(upstream, token)
        self.cluster = WhichCluster(self.calls, upstream.namespace, clock)
        self._threads = Threads(name, upstream.threads)
        self._closing = Closing()
        self._logs_in = isinstance(token, JwtLogin)

    @property
    @abstractmethod
    def contract(self) -> Contract:
        """What is promised about the end of what it gives out."""

    @abstractmethod
    def names(self, scope: Scope) -> Mapping[str, JsonValue]:
        """What of the grant goes into the handle. Pure. Raises InvalidInput."""

    @abstractmethod
    def make(self, handle: Handle, scope: Scope, begun: datetime, ttl: int) -> Issued:
        """Make or read it, with one exchange that blocks. Raises VaultFailure, and what :meth:`mismatch` makes."""

    @abstractmethod
    def rights(self) -> Rights:
        """What the broker needs at this engine, and what it must not have."""

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """Names only. Raises InvalidInput."""
        return {"attempt": attempt_id, "mount": self._upstream.mount, "holder": holder, **self.names(scope)}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """One call, so nothing to note in between; wrapping it is another. Raises UpstreamFailed."""
        begun = self._clock.now()
        left = expires_at - begun
        check_can_begin(self._name, closed=self._closing.closed, left=left)
        ttl = max(1, left // timedelta(seconds=1))
        try:
            with self._closing.call():
                issued = await self._threads.run(lambda: self.make(handle, scope, begun, ttl))
                if self.looks_again:
                    handle = await self._threads.run(lambda: self.cluster.noted(handle))
                if scope.wrap is not None:
                    return await self._wrapped(issued, handle, scope.wrap, checkpoint)
                return replace(issued, unsettled=_only_noted(handle)) if self.looks_again else issued
        except VaultFailure as failure:
            raise step_failed(self._name, f"make a {self.what}", failure, first=True) from None

    async def _wrapped(self, issued: Issued, handle: Handle, asked: timedelta, checkpoint: Checkpoint) -> Issued:
        """Keep it for one reader, and note what ends that; nothing is delivered before."""
        now = self._clock.now()
        seconds = seconds_of(asked, now, issued.expires_at)

        def undo(made: WrappingToken) -> None:
            self.calls.revoke_accessor(made.accessor)

        token = await self._threads.run(partial(wrap, self.calls, issued.credential, seconds), undo=undo)
        try:
            await checkpoint(noted(handle, token), None)
        except BaseException:
            self._threads.later(partial(undo, token))
            raise
        if not 0 < token.ttl <= seconds:
            raise self.mismatch(f"the wrapping token lives {token.ttl} s, asked were {seconds} s")
        return replace(
            issued,
            credential=wrapped(token, issued.credential, self._upstream, now),
            inside=issued.credential,
            observed={**issued.observed, "wrapping_accessor": token.accessor},
        )

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Only time ends it."""
        left = context.expires_at - context.now
        if left <= timedelta(0):
            return Expired()
        return NotYet(f"nothing upstream can end a {self.what} of {self._name}; time does.", left, failed=False)

    async def inventory(self) -> Sequence[Carried] | None:
        """None: the engine keeps no list of what it has given out."""
        return None

    async def tend(self) -> None:
        """Keep the broker's own token alive: renew it, or log in anew. Raises UpstreamFailed."""
        if self._closing.closed:
            return
        try:
            with self._closing.call():
                await self._threads.run(self._tended)
        except VaultFailure as failure:
            raise tending_failed(self._name, failure) from None

    def _tended(self) -> None:
        try:
            self.calls.renew_own()
        finally:
            if self.looks_again:
                self.cluster.ask()

    async def examine(self) -> Sequence[Doubt]:
        """Whether OpenBao answers, who the broker is there, and what it may do."""
        if self._closing.closed:
            return [being_replaced()]
        with self._closing.call():
            return await self._threads.run(lambda: examined(self.calls, self.rights(), logs_in=self._logs_in))

    async def close(self) -> None:
        """Let calls under way finish, then let go of threads and connections."""
        await self._closing.close()
        await self._threads.close()
        self.calls.close()

    def mismatch(self, what: str) -> UpstreamFailed:
        """The error for an upstream that granted something else than was asked."""
        return grant_mismatch(self._name, what)


def _only_noted(handle: Handle) -> Unsettled:
    """To be noted with the activation; nothing else is left to do, and nothing to take back."""
    settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    settled.set_result(None)
    return Unsettled(Noted(handle, None), settled, lambda: None)


def name_in(scope: Scope, field: str) -> str:
    """A plain name of the grant. Raises InvalidInput (CONFIG_INVALID)."""
    value = scope.grant.get(field)
    if isinstance(value, str) and _NAME.match(value):
        return value
    raise InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} names no {field}.",
        hint=f"Operators: grant.{field} is a name of letters, digits, '.', '_' and '-'.",
        metadata={"template": scope.template},
    )
