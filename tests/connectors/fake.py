"""A connector with its upstream in memory, that can be told to misbehave.

It implements the port, keeps the ground truth beside it (``alive``), and takes one mishap per call
from a queue. What it tells is what a real adapter would tell in that case; what it *does* is in
``alive``, which no code under test may look at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial

from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import Binding, Contract, ContractClass, Credential, DatabaseLogin
from broker.lease.deadlines import no_late_create_after
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
    Refused,
    Returned,
    RevokeContext,
    Revoked,
    RevokeOutcome,
    Unsettled,
    Use,
)
from broker.scope.model import Scope
from broker.secret import Secret


class IssueMishap(Enum):
    """What goes wrong in one ``issue``."""

    REFUSED = auto()  # nothing is made, and that is proven
    ROOT_REFUSED = auto()  # the broker's own credential is refused: nothing is made, proven
    BUSY = auto()  # 429 with Retry-After 7: nothing is made, proven
    LOST_REPLY = auto()  # it is made, and the reply is lost
    LATE_CREATE = auto()  # the call fails, and it is made later, by land()
    HANG = auto()  # it is made, and the reply never comes (until the call is cancelled)
    LONGER = auto()  # it is made, for an hour longer than asked
    SHORTER = auto()  # it is made, for half of the time that is left
    WIDER = auto()  # it is made, with another role than asked
    ELSEWHERE = auto()  # it is made, in another account than asked
    ANOTHERS = auto()  # somebody else's is returned, and it is made
    DEFECT = auto()  # it is made, and the adapter itself breaks
    UNSETTLED = auto()  # it is made, and what it is told afterwards is refused
    NEVER_SETTLED = auto()  # it is made, and what it is told afterwards is never answered


class RevokeMishap(Enum):
    """What goes wrong in one ``revoke``."""

    LIES = auto()  # says Revoked, and it stays alive
    BROKEN = auto()  # 500
    FORBIDDEN = auto()  # 403 on the broker's own credential
    NOT_FOUND = auto()  # a 404 that proves nothing
    BUSY = auto()  # 429 with Retry-After 7
    HANG = auto()  # never answers (until the call is cancelled)
    DONE_BUT_LOST = auto()  # it is ended, and the reply is lost


class UseMishap(Enum):
    """What goes wrong in one ``use``."""

    NO_ANSWER = auto()  # whether it works cannot be told
    HANG = auto()  # does not answer until it is let_go, and then by no answer
    REFUSED = auto()  # it is refused, though it lives
    DEFECT = auto()  # the adapter itself breaks, with a secret in its text


class InventoryMishap(Enum):
    """What goes wrong in one ``inventory``."""

    CANNOT_TELL = auto()  # this upstream has no list
    BROKEN = auto()  # 500
    FORBIDDEN = auto()  # 403 on the broker's own credential
    HANG = auto()  # never answers (until the call is cancelled)
    NO_TIMES = auto()  # it does not tell when things were made
    NO_ATTEMPTS = auto()  # nor by which attempt
    DEFECT = auto()  # the adapter itself breaks


def contract(cls: ContractClass = ContractClass.IMMEDIATE) -> Contract:
    """A contract of that class, with wide bounds."""
    return Contract(
        cls=cls,
        binding=Binding.NONE,
        ttl_floor=timedelta(seconds=1),
        ttl_ceiling=timedelta(hours=1),
        on_expiry=timedelta(seconds=1),
        on_revoke=timedelta(seconds=1) if cls is ContractClass.IMMEDIATE else None,
        broker_dead="The fake upstream ends it by its TTL.",
        upstream_dead="The fake upstream does not die.",
        on_broker_dead=timedelta(seconds=1),
    )


@dataclass
class FakeConnector:
    """One fake upstream and its adapter. Times come from ``clock``."""

    clock: Clock
    name: str = "fake"
    contract: Contract = field(default_factory=contract)
    issue_mishaps: deque[IssueMishap] = field(default_factory=deque)
    revoke_mishaps: deque[RevokeMishap] = field(default_factory=deque)
    use_mishaps: deque[UseMishap | None] = field(default_factory=deque)
    inventory_mishaps: deque[InventoryMishap] = field(default_factory=deque)
    # The ground truth: what lives upstream, by attempt, and until when.
    alive: dict[str, datetime] = field(default_factory=dict)
    born: dict[str, datetime] = field(default_factory=dict)  # of what lives, since when
    late: dict[str, datetime] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)  # set: what hangs in `use` comes to an end
    # What an examination finds, if it ever ends.
    doubts: tuple[Doubt, ...] = ()
    examination_hangs: bool = False
    closed: bool = False
    gives_up_after: float | None = None  # seconds: what a real adapter's timeouts are for; None: never

    def usable(self, attempt: str, now: datetime) -> bool:
        """Whether the upstream would let this attempt's credential in."""
        return attempt in self.alive and now < self.alive[attempt]

    def land(self) -> list[str]:
        """The late creates arrive; their attempts."""
        landed, self.late = self.late, {}
        for attempt, ends in landed.items():
            self.plant(attempt, ends)
        return list(landed)

    def plant(self, attempt: str, ends: datetime, born: datetime | None = None) -> None:
        """It lives upstream from now on, whoever made it."""
        self.alive[attempt], self.born[attempt] = ends, born or self.clock.now()

    async def _hang(self) -> None:
        """Until it is given up: by the caller, or as an adapter's timeouts do it."""
        self.hanging.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.gives_up_after):
                await asyncio.Event().wait()

    # ------------------------------------------------------------------ the port

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        return {"attempt": attempt_id, "holder": holder}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        attempt = str(handle["attempt"])
        self.calls.append(("issue", attempt))
        mishap = self.issue_mishaps.popleft() if self.issue_mishaps else None
        if expires_at <= self.clock.now():
            raise _failure(Reason.UPSTREAM_UNAVAILABLE, known=True)
        if mishap is IssueMishap.REFUSED:
            raise _failure(Reason.UPSTREAM_REFUSED, known=True)
        if mishap is IssueMishap.ROOT_REFUSED:
            raise _failure(Reason.UPSTREAM_ROOT_REFUSED, known=True)
        if mishap is IssueMishap.BUSY:
            raise _failure(Reason.UPSTREAM_UNAVAILABLE, known=True, retry_after=7.0)
        await checkpoint({**handle, "noted": True}, None)
        await asyncio.sleep(0)  # where a real adapter would be in another thread
        if mishap is IssueMishap.LATE_CREATE:
            self.late[attempt] = expires_at
            raise _failure(Reason.UPSTREAM_UNAVAILABLE, known=False)
        ends = expires_at + timedelta(hours=1) if mishap is IssueMishap.LONGER else expires_at
        if mishap is IssueMishap.SHORTER:
            ends -= (expires_at - self.clock.now()) / 2
        self.plant(attempt, ends)
        if mishap is IssueMishap.LOST_REPLY:
            raise _failure(Reason.UPSTREAM_UNAVAILABLE, known=False)
        if mishap is IssueMishap.HANG:
            await self._hang()
            raise _failure(Reason.UPSTREAM_UNAVAILABLE, known=False)
        if mishap is IssueMishap.DEFECT:
            raise RuntimeError("the adapter broke")
        login = DatabaseLogin(
            "postgresql", "db.test", 5432, "orders", f"login-{attempt}", Secret(f"password-{attempt}")
        )
        role = scope.grant.get("role")
        returned = Returned(
            account="elsewhere" if mishap is IssueMishap.ELSEWHERE else scope.account,
            role="admin" if mishap is IssueMishap.WIDER else str(role) if role is not None else None,
            name="login-of-somebody" if mishap is IssueMishap.ANOTHERS else login.username,
        )
        return Issued(
            login,
            ends,
            {"upstream": f"up-{attempt}"},
            returned,
            unsettled=Unsettled(
                Noted({**handle, "noted": True, "upstream": f"up-{attempt}"}, f"up-{attempt}"),
                self._settling(mishap),
                partial(self._take_back, attempt),
            ),
        )

    def _settling(self, mishap: IssueMishap | None) -> asyncio.Future[None]:
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if mishap is IssueMishap.UNSETTLED:
            settled.set_exception(_failure(Reason.UPSTREAM_REFUSED, known=True))
        elif mishap is not IssueMishap.NEVER_SETTLED:
            settled.set_result(None)
        return settled

    def _take_back(self, attempt: str) -> None:
        self.calls.append(("take back", attempt))
        self.alive.pop(attempt, None)

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        attempt = str(handle["attempt"])
        self.calls.append(("revoke", attempt))
        mishap = self.revoke_mishaps.popleft() if self.revoke_mishaps else None
        if mishap is RevokeMishap.HANG:
            await self._hang()
            return NotYet("no answer in time.")
        if mishap is RevokeMishap.LIES:
            return Revoked()
        failed = _REVOKE_FAILURES.get(mishap) if mishap is not None else None
        if failed is not None:
            return failed
        if self.contract.cls is ContractClass.EXPIRY_ONLY:
            left = context.expires_at - context.now
            return Expired() if left <= timedelta(0) else NotYet("only time ends it.", left, failed=False)
        self.alive.pop(attempt, None)
        if mishap is RevokeMishap.DONE_BUT_LOST:
            return NotYet("no answer in time.")
        wait = no_late_create_after(context.created_at, context.issue_deadline) - context.now
        if not context.outcome_known and "upstream" not in handle and wait > timedelta(0):
            return NotYet("a late create may still land.", wait, failed=False)
        return Revoked({"upstream": handle.get("upstream")})

    async def use(self, credential: Credential, scope: Scope) -> Use:
        assert isinstance(credential, DatabaseLogin)
        attempt = credential.username.removeprefix("login-")
        self.calls.append(("use", attempt))
        mishap = self.use_mishaps.popleft() if self.use_mishaps else None
        if mishap is UseMishap.HANG:
            self.hanging.set()
            await self.let_go.wait()
        if mishap in (UseMishap.HANG, UseMishap.NO_ANSWER):
            raise _failure(Reason.CREDENTIAL_USE_UNKNOWN, known=False)
        if mishap is UseMishap.DEFECT:
            raise RuntimeError(f"the adapter broke with {credential.password.reveal()}")
        if mishap is UseMishap.REFUSED:
            return Use.REFUSED
        return Use.WORKS if self.usable(attempt, self.clock.now()) else Use.REFUSED

    async def inventory(self) -> Sequence[Carried] | None:
        self.calls.append(("inventory", ""))
        mishap = self.inventory_mishaps.popleft() if self.inventory_mishaps else None
        now = self.clock.now()
        listed = [
            Carried(
                f"up-{attempt}",
                None if mishap is InventoryMishap.NO_ATTEMPTS else attempt,
                None if mishap in _TIMELESS else self.born[attempt],
                {"attempt": attempt, "upstream": f"up-{attempt}"},
            )
            for attempt in self.alive
            if self.usable(attempt, now)
        ]
        await asyncio.sleep(0)  # what is told was so when it was asked
        match mishap:
            case InventoryMishap.CANNOT_TELL:
                return None
            case InventoryMishap.BROKEN:
                raise _failure(Reason.UPSTREAM_UNAVAILABLE, known=True)
            case InventoryMishap.FORBIDDEN:
                raise _failure(Reason.UPSTREAM_ROOT_REFUSED, known=True)
            case InventoryMishap.HANG:
                await self._hang()
                raise _failure(Reason.UPSTREAM_UNAVAILABLE, known=False)
            case InventoryMishap.DEFECT:
                raise RuntimeError("the adapter broke")
        return listed

    async def tend(self) -> None:
        self.calls.append(("tend", ""))

    async def examine(self) -> Sequence[Doubt]:
        self.calls.append(("examine", ""))
        if self.examination_hangs:
            self.hanging.set()
            await asyncio.Event().wait()
        return self.doubts

    async def close(self) -> None:
        self.closed = True


_TIMELESS = (InventoryMishap.NO_TIMES, InventoryMishap.NO_ATTEMPTS)
_REVOKE_FAILURES: Mapping[RevokeMishap, RevokeOutcome] = {
    RevokeMishap.BROKEN: NotYet("answered 500."),
    RevokeMishap.FORBIDDEN: Refused("answered 403."),
    RevokeMishap.NOT_FOUND: NotYet("answered 404, which proves nothing."),
    RevokeMishap.BUSY: NotYet("answered 429.", timedelta(seconds=7)),
}


def _failure(reason: Reason, *, known: bool, retry_after: float | None = None) -> UpstreamFailed:
    return UpstreamFailed(reason, "the fake upstream failed as told.", outcome_known=known, retry_after=retry_after)
