"""One engine of Vault or OpenBao whose credentials are leases: everything that does not depend on which.

Issuing, in this order: a token of the attempt's own, an orphan whose life is the TTL and cannot be
renewed; its accessor durably noted; the credential made with it. Then, at once: its lease id durably noted,
together with the activation, and its end set, where the engine takes that only afterwards. Whatever dies in between,
the upstream ends the credential when the token's time is over, and ``vault_sweep.py`` finds it sooner.

An engine is a subclass that says what is made (:meth:`VaultEngine.make`), how it is known again
(:meth:`VaultEngine.refuse_foreign`), and what it promises.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar

from broker.connectors.refusals import SEE_PAGE, check_can_begin, grant_mismatch, replaced
from broker.connectors.threads import Closing, Threads, being_replaced
from broker.connectors.vault_calls import AttemptToken, BrokerToken
from broker.connectors.vault_cluster import WhichCluster
from broker.connectors.vault_examine import NOBODYS, Rights, examined
from broker.connectors.vault_failures import step_failed, tending_failed
from broker.connectors.vault_http import VaultFailure
from broker.connectors.vault_login import JwtLogin
from broker.connectors.vault_sweep import LeaseEnder
from broker.connectors.vault_upstream import LeasingUpstream, open_calls
from broker.connectors.vault_wrapping import noted as noted_wrapping
from broker.connectors.vault_wrapping import seconds_of, wrap, wrapped
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import Contract, Credential, WrappedSecret
from broker.ports.clock import Clock
from broker.ports.connectors import (
    Carried,
    Checkpoint,
    Doubt,
    Handle,
    Issued,
    Noted,
    NotYet,
    Returned,
    RevokeContext,
    RevokeOutcome,
    Unsettled,
)
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
# Display names are changed by the server unless they are letters, digits and hyphens.
_ATTEMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,47}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Made:
    """What an engine made, and the lease that ends it."""

    lease_id: str
    credential: Credential
    observed: Mapping[str, JsonValue] = field(default_factory=dict)
    # What ending or proving it needs besides the lease; goes into the handle.
    noted: Mapping[str, JsonValue] = field(default_factory=dict)
    ends: datetime | None = None  # by the credential's own word, where it has one
    named: str | None = None  # what the upstream calls it, where that carries the attempt's id


class VaultEngine:
    """The connector. ``token`` yields the broker's own token and is asked before every call, or is a login."""

    kind: ClassVar[str] = "creds"  # the path that credentials are made at, between mount and role
    what: ClassVar[str] = "credential"  # in what operators and agents read
    sets_end: ClassVar[bool] = False  # whether the credential's own end is set after it was made

    def __init__(self, name: str, upstream: LeasingUpstream, token: BrokerToken, clock: Clock) -> None:
        self._name = name
        self._upstream = upstream
        self._clock = clock
        self._calls = open_calls(upstream, token)
        # Two pools: a storm of requests must not keep credentials from being ended.
        self._issuing = Threads(f"{name}-issue", upstream.threads)
        self._revoking = Threads(f"{name}-revoke", upstream.threads)
        self._using = Threads(f"{name}-use", 2)
        self._examining = Threads(f"{name}-examine", 2)
        self._logs_in = isinstance(token, JwtLogin)
        self._cluster = WhichCluster(self._calls, upstream.namespace, clock)
        self._ender = LeaseEnder(name, self._calls, self._revoking, self._cluster, self.kind, self.proof)
        self._closing = Closing()

    # ------------------------------------------------------------------ what an engine says

    @property
    @abstractmethod
    def contract(self) -> Contract:
        """What is promised about ending what it makes."""

    def check(self, scope: Scope) -> None:
        """Refuse what the engine would refuse, or must not be asked. Pure. Raises InvalidInput."""

    @abstractmethod
    def make(self, handle: Handle, scope: Scope, token: AttemptToken, ttl: int) -> Made:
        """Make the credential, with one exchange that blocks, for ``ttl`` seconds. Raises VaultFailure."""

    def refuse_foreign(self, made: Made, handle: Handle, scope: Scope) -> None:
        """Refuse what is not what was asked for. Raises what :meth:`mismatch` makes."""

    def set_end(self, made: Made, ttl: int) -> None:
        """Set the credential's own end, with one exchange that blocks, where :meth:`make` could not (``sets_end``).

        Raises VaultFailure, or what :meth:`mismatch` makes.
        """

    def proof(self, handle: Handle, now: datetime) -> Mapping[str, JsonValue]:
        """What proves the end besides the lease's absence; blocks. Raises VaultFailure where it does not yet."""
        return {}

    def rights(self) -> Rights:
        """What the broker needs at this engine, and what it must not have."""
        mount, kind, upstream = self._upstream.mount, self.kind, self._upstream
        update, lists = frozenset({"update"}), frozenset({"list", "sudo"})
        return Rights(
            needed={
                f"auth/token/create/{upstream.token_role}": (update, "nothing can be issued"),
                "auth/token/revoke-accessor": (update, "attempts' tokens cannot be ended"),
                "sys/leases/lookup": (update, "no end can be proven"),
                "sys/leases/revoke": (update, "nothing can be ended"),
                f"sys/leases/lookup/{mount}/{kind}/{NOBODYS}": (lists, "what was never noted cannot be found"),
            },
            forbidden={f"{mount}/roles/{NOBODYS}": "change roles"},
            closed={f"{mount}/{kind}/{NOBODYS}": "make credentials that belong to no attempt"},
        )

    # ------------------------------------------------------------------ the port

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """Names only. Raises InvalidInput for a grant or an attempt id that is no plain name."""
        role = scope.grant.get("role")
        if not isinstance(role, str) or not _NAME.match(role):
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"the grant of template {scope.template} names no role.",
                hint="Operators: grant.role is a name of letters, digits, '.', '_' and '-'.",
                metadata={"template": scope.template},
            )
        if not _ATTEMPT.match(attempt_id):
            raise InvalidInput(
                Reason.SCOPE_TOO_LARGE,
                f"the attempt id {attempt_id!a} cannot be part of a name upstream: it takes at most 48 letters, digits"
                f" and hyphens, this has {len(attempt_id)} characters.",
                metadata={"attempt": ascii(attempt_id)[:100], "length": str(len(attempt_id)), "limit": "48"},
            )
        self.check(scope)
        about = {"holder": holder, **({"task": task_id} if task_id else {})}
        return {"attempt": attempt_id, "mount": self._upstream.mount, "role": role, **about}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A credential until ``expires_at``, in whole seconds rounded down (but at least one).

        Raises UpstreamFailed, its outcome known only while no token can have been made, and whatever
        ``checkpoint`` raises.
        """
        begun = self._clock.now()
        ttl = self._whole_seconds(begun, expires_at)
        with self._closing.call():
            return await self._issue(handle, scope, begun, ttl, checkpoint)

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """End the credential, the token, and any credential of this attempt that was never noted."""
        if self._closing.closed:
            return NotYet(f"{self._name} is being replaced.", failed=False)
        with self._closing.call():
            return await self._ender.end(handle, context)

    async def inventory(self) -> Sequence[Carried]:
        """Every living lease of the mount. The mount is the broker's own, so each is ours by its place.

        A lease does not tell whose it is; nor does a credential's name, to us. Raises UpstreamFailed.
        """
        if self._closing.closed:
            raise replaced(self._name)
        try:
            with self._closing.call():
                return await self._ender.inventory(self._upstream.mount, self._clock)
        except VaultFailure as failure:
            raise self.failed("list the leases of its mount", failure, first=True) from None

    async def tend(self) -> None:
        """Keep the broker's own token alive (renew it, or log in anew), and see which cluster it is.

        So a server that was put in the place of another is noticed, whoever needs it next. Raises UpstreamFailed.
        """
        if self._closing.closed:
            return
        try:
            with self._closing.call():
                await self._revoking.run(self._tended)
        except VaultFailure as failure:
            raise tending_failed(self._name, failure) from None

    def _tended(self) -> None:
        try:
            self._calls.renew_own()
        finally:
            self._cluster.ask()  # with the token that the next request will have

    async def examine(self) -> Sequence[Doubt]:
        """Whether OpenBao answers, who the broker is there, and what it may do."""
        if self._closing.closed:
            return [being_replaced()]
        with self._closing.call():
            look = partial(examined, self._calls, self.rights(), logs_in=self._logs_in)
            return await self._examining.run(look)

    async def close(self) -> None:
        """Let calls under way finish, then let go of threads and connections."""
        await self._closing.close()
        await self._issuing.close()
        await self._revoking.close()
        await self._using.close()
        await self._examining.close()
        self._calls.close()

    # ------------------------------------------------------------------ the steps of issuing

    async def _issue(self, handle: Handle, scope: Scope, begun: datetime, ttl: int, checkpoint: Checkpoint) -> Issued:
        role = str(handle["role"])
        token, handle = await self._make_token(handle, ttl)
        await self._note(checkpoint, handle, None, undo=partial(self._calls.revoke_accessor, token.accessor))
        self._refuse_wider_token(token, self._policy(role), ttl)
        made = await self._make(handle, scope, token, ttl)
        handle = {**handle, "lease": made.lease_id, **made.noted}
        drop = partial(self._drop, token, made)
        note = partial(self._note, checkpoint, handle, made.lease_id, undo=drop)
        try:
            self._refuse_foreign_lease(made, handle)
            self.refuse_foreign(made, handle, scope)
        except UpstreamFailed:
            await note()
            raise
        # Ends with its token, if not sooner by itself; later by itself is for the issuer to compare and refuse.
        ends = made.ends or begun + timedelta(seconds=ttl)
        kept: WrappedSecret | None = None
        if scope.wrap is not None:
            await note()
            kept, handle = await self._wrap(made, handle, scope.wrap, ends, checkpoint)
        return Issued(
            kept or made.credential,
            expires_at=ends,
            inside=None if kept is None else made.credential,
            observed={
                **made.observed,
                **({} if kept is None else {"wrapping_accessor": kept.wrapping_accessor}),
                "lease_id": made.lease_id,
                "token_accessor": token.accessor,
                "token_ttl_seconds": token.ttl,
            },
            returned=Returned(role=_role_of(made.lease_id), name=made.named),
            # Until the lease is noted, the token's accessor is what ends it.
            unsettled=Unsettled(
                Noted(handle, made.lease_id), self._settling(made, ttl), partial(self._revoking.later, drop)
            ),
        )

    def _settling(self, made: Made, ttl: int) -> asyncio.Future[None]:
        """Begun when this returns, so that closing waits for it."""
        if not self.sets_end:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            settled.set_result(None)
            return settled
        setting = asyncio.ensure_future(self._settled(self._issuing.begin(partial(self.set_end, made, ttl))))
        # Of one that nobody waits for any more, because all is taken back, no failure is of interest.
        setting.add_done_callback(lambda done: done.cancelled() or done.exception())
        return setting

    async def _settled(self, setting: asyncio.Future[None]) -> None:
        try:
            await setting
        except VaultFailure as failure:
            raise self.failed(f"set the end of the {self.what}", failure) from None

    async def _wrap(
        self, made: Made, handle: Handle, asked: timedelta, ends: datetime, checkpoint: Checkpoint
    ) -> tuple[WrappedSecret, Handle]:
        """Keep it for one reader, and note what ends that; nothing is delivered before."""
        now = self._clock.now()
        seconds = seconds_of(asked, now, ends)
        try:
            token = await self._issuing.run(
                partial(wrap, self._calls, made.credential, seconds),
                undo=lambda late: self._calls.revoke_accessor(late.accessor),
            )
        except VaultFailure as failure:
            raise self.failed(f"wrap the {self.what}", failure) from None
        undo = partial(self._calls.revoke_accessor, token.accessor)
        handle = noted_wrapping(handle, token)
        await self._note(checkpoint, handle, None, undo=undo)
        if not 0 < token.ttl <= seconds:
            raise self.mismatch(f"the wrapping token lives {token.ttl} s, asked were {seconds} s")
        return wrapped(token, made.credential, self._upstream, now), handle

    def _whole_seconds(self, begun: datetime, expires_at: datetime) -> int:
        left = expires_at - begun
        check_can_begin(self._name, closed=self._closing.closed, left=left)
        return max(1, left // timedelta(seconds=1))

    async def _make_token(self, handle: Handle, ttl: int) -> tuple[AttemptToken, Handle]:
        """The token, and the handle with what ends it and where that is."""
        role, attempt = str(handle["role"]), str(handle["attempt"])
        create = partial(
            self._calls.create_token,
            self._upstream.token_role,
            self._policy(role),
            ttl,
            attempt,
            # What OpenBao's audit log shows of every use of the token.
            {"attempt": attempt, **{name: str(handle[name]) for name in ("holder", "task") if name in handle}},
        )

        def made() -> tuple[AttemptToken, Handle]:
            token = create()
            # Asked after it was made: by then the broker's own token is the one that it was made with.
            return token, self._cluster.noted({**handle, "accessor": token.accessor})

        try:
            return await self._issuing.run(made, undo=lambda late: self._calls.revoke_accessor(late[0].accessor))
        except VaultFailure as failure:
            raise self.failed("make a token for the attempt", failure, first=True) from None

    async def _make(self, handle: Handle, scope: Scope, token: AttemptToken, ttl: int) -> Made:
        make = partial(self.make, handle, scope, token, ttl)
        try:
            return await self._issuing.run(make, undo=partial(self._drop, token))
        except VaultFailure as failure:
            raise self.failed(f"make a {self.what} of role {handle['role']}", failure) from None

    async def _note(
        self, checkpoint: Checkpoint, handle: Handle, upstream: str | None, *, undo: Callable[[], object]
    ) -> None:
        """Nothing goes on unless the ledger has it. If it has not, what was made is taken back at once."""
        try:
            await checkpoint(handle, upstream)
        except BaseException:
            self._revoking.later(undo)
            raise

    def _drop(self, token: AttemptToken, made: Made) -> None:
        self._calls.revoke_lease(made.lease_id)
        self._calls.revoke_accessor(token.accessor)

    # ------------------------------------------------------------------ comparing what came back

    def _refuse_wider_token(self, token: AttemptToken, policy: str, ttl: int) -> None:
        if token.policies != (policy,):
            raise self.mismatch(f"the attempt's token has policies {list(token.policies)}, asked was {policy!r} alone")
        if not 0 < token.ttl <= ttl:
            raise self.mismatch(f"the attempt's token lives {token.ttl} s, asked were {ttl} s")
        if token.renewable or not token.orphan or token.kind != "service":
            raise self.mismatch("the attempt's token is not an orphan service token that cannot be renewed")

    def _refuse_foreign_lease(self, made: Made, handle: Handle) -> None:
        if not made.lease_id.startswith(f"{handle['mount']}/{self.kind}/{handle['role']}/"):
            raise self.mismatch(f"the {self.what}'s lease is not one of the role that was asked for")

    def _policy(self, role: str) -> str:
        return self._upstream.policy_prefix + role

    def mismatch(self, what: str, hint: str = SEE_PAGE) -> UpstreamFailed:
        """The error for an upstream that granted something else than was asked."""
        return grant_mismatch(self._name, what, hint)

    def failed(self, step: str, failure: VaultFailure, *, first: bool = False) -> UpstreamFailed:
        """The error for a step that failed; ``first``: before it, nothing can have been made."""
        return step_failed(self._name, step, failure, first=first)


def _role_of(lease_id: str) -> str:
    """``MOUNT/KIND/ROLE/ID``, as the server names the lease."""
    return lease_id.rsplit("/", 2)[-2]
