"""What daemons had in hand that are gone, for whoever takes it: attempts, and what inventories found.

Belongs here: whose, and that nothing is left out. What becomes of each kind is said with it: ``revoke_ops``,
``orphan_ops``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.stores import orphan_ops, replica_ops, revoke_ops
from broker.stores.transaction import Transaction


def inherit(tx: Transaction, writer: str, now: datetime) -> int:
    """One portion of ReplicaStore.inherit; 0 when nothing is left, and then the dead are forgotten."""
    dead = replica_ops.dead(tx, writer, now)
    taken = let_go(tx, dead, now) if dead else 0
    if not taken:
        for each in dead:
            replica_ops.forget(tx, each)
    return taken


def let_go(tx: Transaction, writers: Sequence[str], now: datetime) -> int:
    """One portion of what ``writers`` have in hand: due at once; 0 when nothing is left."""
    return revoke_ops.let_go(tx, writers, now) or orphan_ops.let_go(tx, writers, now)


def take_over(tx: Transaction, writer: str, now: datetime) -> int:
    """One portion of the claims that died with an earlier process; 0 when nothing is left.

    Else what was being ended when the broker was killed would live on until its claim runs out. While other replicas
    live nothing is taken over here: it may be theirs.
    """
    if not replica_ops.alone(tx, writer, now):
        return 0
    return revoke_ops.take_over(tx, now) or orphan_ops.take_over(tx, now)
