"""The end of a lease is the end of what hangs under it: in the same transaction, whatever ended it.

An operation ends what it was asked to end, each with its own cause. What then still lives under any of those is
ended after it, before the commit, generation by generation. So no operation has to know of delegations, and none can
forget them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from broker.lease.machine import Event
from broker.ports.leases import EndCause
from broker.scope.canonical import canonical_json
from broker.stores.end_ops import CHUNK, read_pair
from broker.stores.moves import move
from broker.stores.rows import Raw
from broker.stores.transaction import Transaction

T = TypeVar("T")


def carried_out(tx: Transaction, operation: Callable[[Transaction], T]) -> T:
    """The result of ``operation``, with its consequences."""
    tx.ended.clear()
    value = operation(tx)
    while tx.ended:
        _end_below(tx)
    return value


def _end_below(tx: Transaction) -> None:
    """One generation: the living parts of the leases whose credentials were just ended."""
    generation, tx.ended = tx.ended, {}
    for tenant, now_ms in {(tenant, now_ms) for (tenant, _), now_ms in generation.items()}:
        parents = [lease for (of, lease), at in generation.items() if (of, at) == (tenant, now_ms)]
        asked = {"tenant": tenant, "parents": canonical_json(parents).decode(), "limit": CHUNK}
        while rows := tx.all("unended_below", asked):
            moved = sum(tx.each(partial(_end, tx, now_ms), rows))
            # What could not be written is ended when its own due time comes, never later than its parent's.
            if len(rows) < CHUNK or not moved:
                break


def _end(tx: Transaction, now_ms: int, raw: Raw) -> bool:
    attempt, lease = read_pair(raw, tx)
    return move(tx, attempt, lease, Event.END, EndCause.PARENT_ENDED, now_ms)
