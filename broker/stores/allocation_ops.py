"""Accounts of pools: who has which, each operation inside one write transaction.

The contract is :class:`broker.ports.allocations.AllocationStore`. A row that fails its MAC keeps its account from
everybody.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from broker.errors import Reason, WrongState
from broker.lease.quarantine import QUARANTINE
from broker.ports.allocations import Allocation, AllocationState, Taken, TakenUp
from broker.stores.rows import Raw
from broker.stores.seal import RowSeal, tampered
from broker.stores.times import from_ms, optional_at, optional_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

_TABLE = "account_allocations"
_FIELDS = 8


def take(
    tx: Transaction,
    tenant: str,
    connector: str,
    attempt_id: str,
    among: Sequence[str],
    ends_at: datetime,
    now: datetime,
) -> Taken | TakenUp:
    """See AllocationStore.take_account."""
    if not tx.row("attempt_is_issuing", (tenant, attempt_id))[0]:
        raise WrongState(Reason.LEASE_ENDED, f"attempt {attempt_id} was ended meanwhile.")
    rows = [read(raw, tx.seal) for raw in tx.all("allocations_among", (json.dumps(list(among)),))]
    rows = [each for each in rows if each.trusted and each.tenant == tenant]
    ready = next((each for each in rows if each.state is AllocationState.READY), None)
    if ready is None:
        return TakenUp(min((when for each in rows if (when := _free(each)) is not None), default=None))
    _put(tx, tenant, connector, ready.account, AllocationState.LENT, attempt_id, now, ends_at=ends_at)
    return Taken(ready.account)


def _free(held: Allocation) -> datetime | None:
    """When it may be enabled again by itself: one that is lent rests from the end of its time on, at the latest."""
    return held.free_at if held.ends_at is None else held.ends_at + QUARANTINE


def give_back(tx: Transaction, tenant: str, attempt_id: str, account: str, now: datetime) -> None:
    """See AllocationStore.give_account_back."""
    held = _trusted(tx, account)
    if held is not None and held.state is AllocationState.LENT and held.attempt_id == attempt_id:
        _put(tx, tenant, held.connector, account, AllocationState.READY, None, now)


def rest(
    tx: Transaction,
    tenant: str,
    connector: str,
    attempt_id: str | None,
    account: str,
    free_at: datetime,
    now: datetime,
) -> None:
    """See AllocationStore.rest_account."""
    held = _trusted(tx, account)
    if held is not None and held.state is AllocationState.LENT and held.attempt_id != attempt_id:
        raise WrongState(Reason.LEASE_ENDED, f"account {account} is not lent to {attempt_id or 'nobody'}.")
    if held is not None and held.free_at is not None:
        free_at = max(free_at, held.free_at)
    _put(tx, tenant, connector, account, AllocationState.RESTING, attempt_id, now, free_at=free_at)


def ready(tx: Transaction, tenant: str, account: str, now: datetime) -> None:
    """See AllocationStore.account_ready."""
    held = _trusted(tx, account)
    if held is None or held.state is not AllocationState.RESTING or held.free_at is None or held.free_at > now:
        raise WrongState(Reason.LEASE_ENDED, f"account {account} has not rested for long enough.")
    _put(tx, tenant, held.connector, account, AllocationState.READY, None, now)


def forget(tx: Transaction, tenant: str, account: str, now: datetime) -> None:
    """See AllocationStore.forget_account."""
    tx.run("forget_allocation", (tenant, account, to_ms(now)))


def of_account(view: View, account: str) -> Allocation | None:
    """See AllocationStore.account_allocation."""
    raw = view.one("allocation_of_account", (account,))
    return None if raw is None else read(raw, view.seal)


def of_attempt(view: View, tenant: str, attempt_id: str) -> Allocation | None:
    """See AllocationStore.attempt_allocation."""
    raw = view.one("allocation_of_attempt", (tenant, attempt_id))
    return None if raw is None else read(raw, view.seal)


def of_connector(view: View, tenant: str, connector: str, accounts: Sequence[str]) -> list[Allocation]:
    """See AllocationStore.allocations."""
    rows = view.all("allocations_of_connector", (tenant, connector, json.dumps(list(accounts))))
    return [read(raw[:-1], view.seal, over=not raw[-1]) for raw in rows]


def read(raw: Raw, seal: RowSeal, *, over: bool = False) -> Allocation:
    """A row as a value; ``over``: its attempt is not alive any more."""
    account, tenant, connector, state, attempt_id, since, ends_at, free_at = raw[:_FIELDS]
    return Allocation(
        account=str(account),
        tenant=str(tenant),
        connector=str(connector),
        state=AllocationState(str(state)),
        attempt_id=None if attempt_id is None else str(attempt_id),
        since=from_ms(int(since or 0)),
        ends_at=optional_at(ends_at if isinstance(ends_at, int) else None),
        free_at=optional_at(free_at if isinstance(free_at, int) else None),
        over=over,
        trusted=seal.holds(_TABLE, raw[:_FIELDS], raw[_FIELDS], raw[_FIELDS + 1]),
    )


def _trusted(tx: Transaction, account: str) -> Allocation | None:
    held = of_account(tx, account)
    if held is not None and not held.trusted:
        raise tampered(_TABLE, account)
    return held


def _put(
    tx: Transaction,
    tenant: str,
    connector: str,
    account: str,
    state: AllocationState,
    attempt_id: str | None,
    now: datetime,
    *,
    ends_at: datetime | None = None,
    free_at: datetime | None = None,
) -> None:
    times = (to_ms(now), optional_ms(ends_at), optional_ms(free_at))
    values: Raw = (account, tenant, connector, str(state), attempt_id, *times)
    if tx.run("put_allocation", (*values, *tx.seal.make(_TABLE, values))) != 1:
        raise WrongState(Reason.LEASE_ENDED, f"account {account} is of another tenant.")
