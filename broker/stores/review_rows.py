"""Rows of ``policy_reviews``, by the rules of :mod:`broker.stores.rows`.

No grant rests on such a row. One that fails its MAC counts as none, so that what it says is found out, and told, anew.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, ClassVar

import orjson

from broker.policy.standing import Standing
from broker.ports.leases import Lease, Tightened
from broker.scope.canonical import canonical_json
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A row of ``policy_reviews``."""

    TABLE: ClassVar[str] = "policy_reviews"

    tenant: str
    lease_id: str
    attempt_id: str
    outcome: str
    reason: str
    policies: str
    why: str
    deploy_digest: str
    policy_digest: str
    reviewed_at: int


_values = attrgetter(*(each.name for each in fields(ReviewRow)))


def review_of(view: View, tenant: str, lease_id: str) -> ReviewRow | None:
    """How the lease stood when it was last reviewed; None where it stood, or nobody looked."""
    raw = view.one("review_of_lease", {"tenant": tenant, "lease_id": lease_id})
    if raw is None or not view.seal.holds(ReviewRow.TABLE, raw[:-2], raw[-2], raw[-1]):
        return None
    return ReviewRow(*raw[:-2])


def put_review(tx: Transaction, tenant: str, lease_id: str, attempt_id: str, tightened: Tightened) -> None:
    """Remember it, in place of what was remembered."""
    row = ReviewRow(
        tenant=tenant,
        lease_id=lease_id,
        attempt_id=attempt_id,
        outcome=tightened.outcome.value,
        reason=tightened.reason,
        policies=canonical_json(tightened.policies).decode(),
        why=tightened.why,
        deploy_digest=tightened.deploy_digest,
        policy_digest=tightened.policy_digest,
        reviewed_at=to_ms(tightened.at),
    )
    values: tuple[Any, ...] = _values(row)
    tx.connection.execute(tx.sql["put_review"], (*values, *tx.seal.make(row.TABLE, values)))


def with_review(view: View, lease: Lease) -> Lease:
    """``lease`` with why it would not be granted any more, if so."""
    row = review_of(view, lease.tenant, lease.id)
    return lease if row is None else replace(lease, policy_tightened=tightened_of(row))


def tightened_of(row: ReviewRow) -> Tightened:
    """The port's view of a row."""
    return Tightened(
        outcome=Standing(row.outcome),
        reason=row.reason,
        policies=tuple(orjson.loads(row.policies)),
        why=row.why,
        deploy_digest=row.deploy_digest,
        policy_digest=row.policy_digest,
        at=from_ms(row.reviewed_at),
    )
