"""Accounts of an upstream that are lent, one holder at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol


class AllocationState(StrEnum):
    """What an account of a pool is for, now."""

    READY = "READY"  # enabled upstream, and nobody has anything of it
    LENT = "LENT"  # to one attempt
    RESTING = "RESTING"  # nobody's: what was made with it must be long dead before it is enabled again


@dataclass(frozen=True, slots=True)
class Allocation:
    """One account of an upstream's pool."""

    account: str  # the upstream's own name of it
    tenant: str
    connector: str
    state: AllocationState
    attempt_id: str | None  # that has it, or had it last, if the broker knows
    since: datetime  # when it got into this state
    ends_at: datetime | None  # while lent: the native end of what is made with it, at the latest
    free_at: datetime | None  # while it rests: until when
    over: bool = False  # its attempt is not alive any more, as far as was looked
    trusted: bool = True  # its row passes its MAC; otherwise it is neither lent nor enabled


class Taken(NamedTuple):
    """The account that an attempt was lent."""

    account: str


class TakenUp(NamedTuple):
    """None is ready. ``free_at``: when the first may be enabled again, at the latest; None: nothing is known of any."""

    free_at: datetime | None


class AllocationStore(Protocol):
    """Who has which account of a pool; in one database with, and by the rules of, :class:`LeaseStore`.

    An account is lent to one attempt at a time, whoever asks: the account is the key. What is lent is durable before
    the upstream hears of it, and an attempt that is over is lent nothing any more. An account that there is no row of
    is nobody's and is not lent: nobody knows who had it.
    """

    async def take_account(
        self, tenant: str, connector: str, attempt_id: str, among: Sequence[str], ends_at: datetime, now: datetime
    ) -> Taken | TakenUp:
        """Lend the account of ``among`` that has been ready for longest.

        Raises WrongState (LEASE_ENDED) unless the attempt is ISSUING.
        """
        ...

    async def give_account_back(self, tenant: str, attempt_id: str, account: str, now: datetime) -> None:
        """It is ready again: proven that nothing was made with it. What is not lent to that attempt is left alone."""
        ...

    async def rest_account(
        self, tenant: str, connector: str, attempt_id: str | None, account: str, free_at: datetime, now: datetime
    ) -> None:
        """From now until ``free_at`` it is nobody's. Idempotent, and never for shorter than was said before.

        Raises WrongState (LEASE_ENDED) where it is lent to another attempt, Tampered.
        """
        ...

    async def account_ready(self, tenant: str, account: str, now: datetime) -> None:
        """It was enabled after it had rested. Raises WrongState (LEASE_ENDED) where it had not, Tampered."""
        ...

    async def forget_account(self, tenant: str, account: str, now: datetime) -> None:
        """Drop what is known of one that has rested, and is in no pool any more. Anything else is left alone."""
        ...

    async def account_allocation(self, account: str) -> Allocation | None:
        """What is known of it; None: nothing."""
        ...

    async def attempt_allocation(self, tenant: str, attempt_id: str) -> Allocation | None:
        """The account that it is, or was last, lent; None: none, or that is ready again."""
        ...

    async def allocations(self, tenant: str, connector: str, accounts: Sequence[str]) -> Sequence[Allocation]:
        """All that is known of ``accounts``, whichever connector had them, and of whatever else ``connector`` has."""
        ...
