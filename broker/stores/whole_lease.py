"""A lease with everything that the ledger knows of it in other tables, for whoever reads one."""

from __future__ import annotations

from dataclasses import replace

from broker.ports.leases import Lease
from broker.stores.origins import with_origin
from broker.stores.review_rows import with_review
from broker.stores.rows import LeaseRow, lease_of
from broker.stores.view import View


def whole_lease(view: View, row: LeaseRow) -> Lease:
    """The lease with what it was granted by, who approved it, and why it would not be granted any more."""
    lease = with_review(view, with_origin(view, lease_of(row)))
    approved = view.one("access_request_of_lease", {"tenant": row.tenant, "lease_id": row.id})
    return lease if approved is None else replace(lease, access_request_id=approved[0])
