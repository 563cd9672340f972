"""What every test of connectors needs: scopes, a ledger in memory, times, and proof that a text holds no secret."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from broker.clock import SystemClock, SystemRng
from broker.ports.connectors import Handle, Issued, NotYet, RevokeContext, RevokeOutcome
from broker.scope.canonical import JsonValue, canonical_json
from broker.scope.model import AccessClass, Scope

HOLDER = "spiffe://demo.test/agent/reporter"
NOW = datetime(2031, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def new_attempt() -> str:
    """An attempt id as the broker makes them."""
    return f"jb-{SystemRng().id()}"


def make_scope(grant: Mapping[str, JsonValue], **changes: object) -> Scope:
    """A scope with this grant; ``changes`` replace any other field."""
    fields: dict[str, object] = {
        "template": "orders-read",
        "template_digest": "0" * 64,
        "connector": "upstream",
        "account": "123456789012",
        "environment": "dev",
        "resource": "orders",
        "access": AccessClass.READ,
        "actions": ("read",),
        "parameters": {},
        "ttl": timedelta(minutes=5),
        "grant": grant,
    }
    return Scope(**{**fields, **changes})  # type: ignore[arg-type]


@dataclass
class SetClock:
    """A clock that stands still until it is told otherwise."""

    present: datetime = NOW

    def now(self) -> datetime:
        return self.present


# One OpenBao serves all tests of a process, and its mount belongs to one ledger: what any of them noted is known.
_NAMES: set[str] = set()


@dataclass
class Ledger:
    """The part of the ledger that a connector sees: checkpoints, and which upstream names are known."""

    handle: Handle = field(default_factory=dict)
    handles: list[Handle] = field(default_factory=list)
    names: set[str] = field(default_factory=lambda: _NAMES)
    noted: set[str] = field(default_factory=set)  # of these, this ledger's own
    refuse_from: int | None = None  # the number (from 1) of the first checkpoint that is refused
    error: Exception | None = None

    async def checkpoint(self, handle: Handle, upstream: str | None) -> None:
        canonical_json(handle)  # the store keeps it as JSON
        if self.refuse_from is not None and len(self.handles) + 1 >= self.refuse_from:
            assert self.error is not None
            raise self.error
        self.handle = handle
        self.handles.append(handle)
        if upstream is not None:
            self.names.add(upstream)
            self.noted.add(upstream)

    async def issued(self, issuing: Awaitable[Issued]) -> Issued:
        """As the issuer does it: noted with the activation, or taken back; and the upstream waited for in any case."""
        issued = await issuing
        if issued.unsettled is not None:
            try:
                await self.checkpoint(*issued.unsettled.noted)
            except BaseException:
                issued.unsettled.take_back()
                raise
            await issued.unsettled.settled
        return issued

    def kept(self, outcome: RevokeOutcome) -> RevokeOutcome:
        """As the revoker does it: what a try has noted is what the next goes by."""
        if isinstance(outcome, NotYet) and outcome.noted is not None:
            canonical_json(outcome.noted)
            self.handle = outcome.noted
        return outcome

    async def known(self, names: Sequence[str]) -> frozenset[str]:
        return frozenset(names) & self.names

    def context(
        self,
        now: datetime | None = None,
        *,
        created_at: datetime | None = None,
        allowance: timedelta = timedelta(seconds=10),
        expires_at: datetime | None = None,
        outcome_known: bool = True,
    ) -> RevokeContext:
        """As the revoker would tell it."""
        now = now or SystemClock().now()
        created_at = created_at or now
        return RevokeContext(
            now=now,
            created_at=created_at,
            issue_deadline=created_at + allowance,
            expires_at=expires_at or created_at + timedelta(minutes=5),
            outcome_known=outcome_known,
            known_upstream=self.known,
        )


def assert_tells_no_secret(error: BaseException, *secrets: str) -> None:
    """Neither its texts, nor what a logger would print of it, nor what hangs on it, holds one of ``secrets``."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        shown = "\n".join([str(each), repr(each), repr(each.args), repr(vars(each)), *traceback.format_exception(each)])
        for secret in secrets:
            assert secret not in shown
        pending += [each.__cause__, each.__context__]
