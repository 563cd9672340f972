"""What a holder has alive: read for policy before it decides, and compared when the intent is written.

Between the two another request of the same holder may have committed. If each decided on the other's absence, both
would be granted what neither may have beside the other; so an intent says what its decision was made on, and
its transaction refuses where that has moved.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.errors import NotReady, Reason
from broker.policy.facts import names_of_grant
from broker.ports.intents import Holdings, Intent
from broker.stores.rows import read_lease, trust_lease
from broker.stores.view import View

# No request has it: nothing is left out.
NOBODYS = ""
# Template, access, environment.
Kind = tuple[str, str, str]


def holdings(view: View, tenant: str, holder: str, request_id: str) -> Holdings:
    """See LeaseStore.holdings."""
    rows = view.all("holdings", {"tenant": tenant, "holder": holder, "request_id": request_id})
    leases = [trust_lease(read_lease(raw, view.seal)) for raw in rows]
    return Holdings(_grants((lease.template, lease.access, lease.environment) for lease in leases), len(leases))


def check_unmoved(view: View, intent: Intent) -> None:
    """Raises NotReady (SITUATION_MOVED) where what the intent was decided on has changed. Free where it saw nothing."""
    seen = intent.seen
    if seen is None:
        return
    key = {"tenant": intent.tenant, "holder": intent.holder, "request_id": intent.request.request_id}
    rows = view.all("holdings_figures", key)
    grants, count = _grants(row[:3] for row in rows), sum(row[3] for row in rows)
    if seen.grants in (None, grants) and seen.count in (None, count):
        return
    raise NotReady(
        Reason.SITUATION_MOVED,
        f"the living leases of {intent.holder} changed while policy was deciding on them.",
        hint="Retry with the same request_id.",
    )


def _grants(leases: Iterable[Kind]) -> frozenset[str]:
    return frozenset(name for lease in leases for name in names_of_grant(*lease))
