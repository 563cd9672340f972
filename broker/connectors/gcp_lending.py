"""Lending one service account to one attempt, ending that, and bringing the account back.

The order is what keeps it safe, whatever dies in between. Lent: committed, then asked for a token. Ended: disabled and
seen to be so, then committed as resting. Ready: it has rested, then enabled and seen to be so, then committed. Each
step can be done again, and until the last commit the account is nobody's but the one who has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from broker.connectors.gcp_accounts import Accounts
from broker.connectors.gcp_failures import not_revoked
from broker.connectors.gcp_http import GcpFailure
from broker.connectors.gcp_mint import LONGEST
from broker.connectors.threads import Threads
from broker.errors import BrokerError
from broker.lease.deadlines import no_late_create_after
from broker.lease.quarantine import TICK, free_at, last_token_ends
from broker.ports.allocations import Allocation, AllocationState, AllocationStore, Taken, TakenUp
from broker.ports.clock import Clock
from broker.ports.connectors import (
    Carried,
    Doubt,
    Expired,
    Handle,
    NotYet,
    Refused,
    RevokeContext,
    Revoked,
    RevokeOutcome,
    Severity,
)

# Accounts that one tick brings back, or looks at for the first time: each is a few requests.
PER_TICK = 20


@dataclass(frozen=True, slots=True)
class Lender:
    """Lends one connector's accounts."""

    store: AllocationStore
    tenant: str
    connector: str
    accounts: Accounts
    threads: Threads
    clock: Clock

    async def take(self, attempt: str, among: Sequence[str], ends_at: datetime) -> Taken | TakenUp:
        """An account that is ``attempt``'s alone from now on. Raises WrongState, NotReady."""
        return await self.store.take_account(self.tenant, self.connector, attempt, among, ends_at, self.clock.now())

    async def give_back(self, attempt: str, account: str) -> None:
        """Nothing was made with it. Where that cannot be noted, it is brought back as one whose attempt is over."""
        with suppress(BrokerError):
            await self.store.give_account_back(self.tenant, attempt, account, self.clock.now())

    # ------------------------------------------------------------------ ending

    async def end(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """End what this attempt has, if it has anything."""
        try:
            return await self._end(handle, context)
        except GcpFailure as failure:
            return not_revoked(failure, self.connector)
        except BrokerError as failure:  # the ledger: nothing was committed, so it is tried again
            return NotYet(failure.message)

    async def _end(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        attempt = str(handle.get("attempt", ""))
        account = await self._account_of(handle, attempt)
        if account is None:
            return _nothing_lent(context)
        held = await self.store.account_allocation(account)
        if held is not None and held.trusted and _is_anothers(held, attempt):
            # It has rested, or somebody else has it: what this attempt had of it is long dead.
            return Revoked({"service_account": account, "lent_on": True})
        failure = await self._disabled(account)
        if failure is not None and not self._time_is_over(context):
            return failure
        ends = last_token_ends(
            context.now, _latest(handle, context.expires_at), LONGEST, outcome_known=context.outcome_known
        )
        if held is None or held.trusted:  # a row that fails its MAC keeps the account from everybody as it is
            await self.store.rest_account(
                self.tenant, self.connector, attempt or None, account, free_at(context.now, ends), context.now
            )
        if failure is not None:
            return Expired()
        return Revoked({"service_account": account, "disabled": True})

    async def _account_of(self, handle: Handle, attempt: str) -> str | None:
        account = handle.get("account")
        if isinstance(account, str):
            return account
        lent = await self.store.attempt_allocation(self.tenant, attempt)
        return None if lent is None else lent.account

    async def _disabled(self, account: str) -> NotYet | Refused | None:
        """None: it is disabled, and shows it."""
        try:
            await self.threads.run(partial(self.accounts.disable, account))
        except GcpFailure as failure:
            return not_revoked(failure, self.connector)
        return None

    def _time_is_over(self, context: RevokeContext) -> bool:
        """Whether what may have been made has ended natively, so that waiting for Google to answer proves nothing more.

        Of an unknown outcome only when even the longest token of a late create has.
        """
        if context.outcome_known:
            return context.now >= context.expires_at + TICK
        latest = no_late_create_after(context.created_at, context.issue_deadline)
        return context.now >= max(context.expires_at, latest + LONGEST) + TICK

    # ------------------------------------------------------------------ what is there

    async def carried(self, accounts: Sequence[str]) -> list[Carried]:
        """Every enabled account that is not ready; each is asked after. Raises GcpFailure."""
        known = await self._known(accounts)
        names = sorted({*accounts, *known})
        asked = (self.threads.run(partial(self._is_disabled, account)) for account in names)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        enabled = [name for name, disabled in zip(names, answers, strict=True) if not disabled]
        return [_carried(each, held) for each in enabled if not _is_ready(held := known.get(each))]

    def _is_disabled(self, account: str) -> bool:
        """One that is not there is as good as disabled."""
        try:
            return self.accounts.disabled(account)
        except GcpFailure as failure:
            if failure.not_there:
                return True
            raise

    async def doubts(self, accounts: Sequence[str]) -> list[Doubt]:
        """Where ledger and upstream do not say the same of an account."""
        found = []
        for each in (await self._known(accounts)).values():
            if not each.trusted:
                found.append(_untrusted(each.account))
            elif each.state is not AllocationState.RESTING and each.account in accounts:
                found += await self.threads.run(partial(self._not_enabled, each.account))
        return found

    def _not_enabled(self, account: str) -> list[Doubt]:
        try:
            disabled = self.accounts.disabled(account)
        except GcpFailure:
            return []  # what is wrong with it, the examination of the account says
        what = f"{account} is disabled, although the broker did not disable it."
        remedy = "Enable it, or make the pool smaller; until then whoever is lent it is refused."
        return [Doubt(Severity.ERROR, what, remedy)] if disabled else []

    async def _known(self, accounts: Sequence[str]) -> Mapping[str, Allocation]:
        return {each.account: each for each in await self.store.allocations(self.tenant, self.connector, accounts)}

    # ------------------------------------------------------------------ by time alone

    async def tend(self, accounts: Sequence[str]) -> None:
        """One tick: what has rested becomes ready; what nobody knows, or nobody ended, rests. Raises GcpFailure.

        One account that fails does not hold up the others; the last failure is raised.
        """
        known = await self._known(accounts)
        now = self.clock.now()
        work = [each for each in known.values() if each.trusted and _is_due(each, now)][:PER_TICK]
        unseen = [each for each in accounts if each not in known][: PER_TICK - len(work)]
        failed: GcpFailure | None = None
        for each in work:
            try:
                await self._bring_on(each, each.account in accounts)
            except GcpFailure as failure:
                failed = failure
        for account in unseen:
            try:
                await self._first_seen(account)
            except GcpFailure as failure:
                failed = failure
        if failed is not None:
            raise failed

    async def _bring_on(self, held: Allocation, in_a_pool: bool) -> None:
        if held.state is AllocationState.LENT:  # its attempt is over, and nobody has ended this
            await self._rest(held.account, held.attempt_id, held.ends_at)
        elif not in_a_pool:
            await self.store.forget_account(self.tenant, held.account, self.clock.now())
        elif not await self.threads.run(partial(self.accounts.disabled, held.account)):
            # Somebody enabled it while it rested: what was revoked lives again, and more may have been made.
            await self._rest(held.account, held.attempt_id, None)
        else:
            await self.threads.run(partial(self.accounts.enable, held.account))
            await self.store.account_ready(self.tenant, held.account, self.clock.now())

    async def _first_seen(self, account: str) -> None:
        """Nobody knows who had it before: whatever that may have been ends first."""
        await self._rest(account, None, None)

    async def _rest(self, account: str, attempt: str | None, ends: datetime | None) -> None:
        """``ends``: when what was made with it ends at the latest; None: anything may have been made until now."""
        await self.threads.run(partial(self.accounts.disable, account))
        now = self.clock.now()
        until = free_at(now, ends if ends is not None else now + LONGEST)
        await self.store.rest_account(self.tenant, self.connector, attempt, account, until, now)


def _untrusted(account: str) -> Doubt:
    return Doubt(
        Severity.ERROR,
        f"The ledger's row of {account} fails its MAC: it is neither lent nor enabled any more.",
        "Compare it with the audit trail (broker audit show); take the account out of the pool meanwhile.",
    )


def _is_ready(held: Allocation | None) -> bool:
    return held is not None and held.trusted and held.state is AllocationState.READY


def _is_due(held: Allocation, now: datetime) -> bool:
    if held.state is AllocationState.LENT:
        return held.over
    return held.free_at is not None and held.free_at <= now


def _is_anothers(held: Allocation, attempt: str) -> bool:
    """Whether the account is ready or another attempt's; a resting one is disabled once more, which harms nobody."""
    if held.state is AllocationState.RESTING:
        return False
    return held.state is AllocationState.READY or held.attempt_id != attempt


def _nothing_lent(context: RevokeContext) -> RevokeOutcome:
    wait = no_late_create_after(context.created_at, context.issue_deadline) - context.now
    if not context.outcome_known and wait > timedelta(0):
        return NotYet("it may still be lent an account.", wait, failed=False)
    return Revoked({"service_account": None})


def _latest(handle: Handle, expires_at: datetime) -> datetime:
    """The native end of the token, where Google made it for longer than was asked."""
    noted = handle.get("token_ends")
    return max(expires_at, datetime.fromisoformat(noted)) if isinstance(noted, str) else expires_at


def _carried(account: str, held: Allocation | None) -> Carried:
    if held is not None and held.state is AllocationState.LENT and held.attempt_id is not None:
        handle: Handle = {"attempt": held.attempt_id, "account": account}
        return Carried(f"{account}/{held.attempt_id}", held.attempt_id, held.since, handle)
    # Enabled, and the ledger says that nobody has it: by no name that it could know.
    return Carried(account, None, None, {"attempt": "", "account": account})
