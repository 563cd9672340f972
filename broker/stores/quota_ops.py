"""Quotas of living leases, counted inside the intent transaction, so that two requests never share the last place."""

from __future__ import annotations

from datetime import datetime

from broker.errors import Exhausted, Reason
from broker.policy.quotas import Per
from broker.ports.intents import Intent, LiveQuota
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

_QUERIES = {
    Per.AGENT: "quota_by_agent",
    Per.TASK: "quota_by_task",
    Per.TEMPLATE: "quota_by_template",
    Per.CONNECTOR: "quota_by_connector",
}
# How many of what these count are somebody's.
_SPARING = {Per.TEMPLATE: "living_of_template", Per.CONNECTOR: "living_of_connector"}
# Told where what is counted should have ended already and is still being revoked.
_SOON = 1.0


def check(view: View, intent: Intent) -> None:
    """Raises :class:`Exhausted` (QUOTA_LIVE_LEASES) for the first of ``intent.quotas`` that is used up."""
    for quota in intent.quotas:
        count, first_ends = _living(view, intent.tenant, quota)
        if count >= quota.limit:
            raise _used_up(quota, retry_after(first_ends, intent.now))


def retry_after(ends_ms: int | None, now: datetime) -> float:
    """Seconds until something of what was counted ends by itself."""
    return _SOON if ends_ms is None else max((ends_ms - to_ms(now)) / 1000, _SOON)


def index(tx: Transaction, kinds: frozenset[Per]) -> None:
    """See LeaseStore.index_quotas."""
    tx.run("index_living_templates" if Per.TEMPLATE in kinds else "unindex_living_templates", {})


def _living(view: View, tenant: str, quota: LiveQuota) -> tuple[int, int | None]:
    """(how many, when the first of them ends in ms): counted up to the limit."""
    if quota.members is None:
        count, first_ends = _count(view, _QUERIES[quota.per], tenant, quota.subject, quota.limit)
        if count < quota.limit or not quota.uncounted or quota.per not in _SPARING:
            return count, first_ends
        # Whoever is not counted may be among them. Only now that it matters: nearly no request comes this far.
        key = {"tenant": tenant, "subject": quota.subject, "holder": quota.uncounted}
        spared = view.row(_SPARING[quota.per], key)[0]
        count, first_ends = _count(view, _QUERIES[quota.per], tenant, quota.subject, quota.limit + spared)
        return count - spared, first_ends
    total, first = 0, None
    for (holder,) in view.all("living_holders", {"tenant": tenant}):
        if not quota.members(holder):
            continue
        count, ends = _count(view, _QUERIES[Per.AGENT], tenant, holder, quota.limit - total)
        total += count
        first = ends if first is None or (ends is not None and ends < first) else first
        if total >= quota.limit:
            break
    return total, first


def _count(view: View, query: str, tenant: str, subject: str, limit: int) -> tuple[int, int | None]:
    count, first_ends = view.row(query, {"tenant": tenant, "subject": subject, "quota": limit})
    return count, first_ends


def _used_up(quota: LiveQuota, seconds: float) -> Exhausted:
    return Exhausted(
        Reason.QUOTA_LIVE_LEASES,
        f"quota {quota.name}: {quota.per} {quota.shown} already has {quota.limit} living leases.",
        hint=f"The first of them ends in {seconds:.3g} s, unless it is revoked before; an operator sets the quota in"
        " quotas.yaml.",
        metadata={
            "quota": quota.name,
            "per": quota.per,
            "subject": quota.shown,
            "limit": str(quota.limit),
        },
        retry_after=seconds,
    )
