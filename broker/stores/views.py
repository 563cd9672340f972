"""What people see of everybody's leases and tasks: each function is one consistent read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from broker.errors import InvalidInput, NotFound, Reason
from broker.ports.leases import Lease
from broker.ports.tasks import Task
from broker.ports.views import Alive, LeaseSearch, TaskSearch
from broker.stores.rows import LeaseRow, Raw, TaskRow, read_lease, read_task, task_of, trust_lease
from broker.stores.view import View
from broker.stores.whole_lease import whole_lease

# Above every rowid: the first page starts here.
_ABOVE_ALL = 2**63 - 1

Row = TypeVar("Row", LeaseRow, TaskRow)


def lease(view: View, tenant: str, lease_id: str) -> Lease:
    """See ViewStore.lease."""
    raw = view.one("lease_by_id", {"tenant": tenant, "lease_id": lease_id})
    if raw is None:
        raise NotFound(
            Reason.LEASE_NOT_FOUND,
            f"there is no lease {lease_id!a}.",
            hint="`broker admin leases` lists everybody's.",
            metadata={"leaseId": lease_id},
        )
    return whole_lease(view, trust_lease(read_lease(raw, view.seal)))


def search_leases(view: View, search: LeaseSearch, after: str, limit: int) -> list[Lease]:
    """See ViewStore.search_leases."""
    narrowed = {
        "tenant": search.tenant,
        "holder": search.holder,
        "task_id": search.task_id,
        "template": search.template,
        "living_only": search.living_only,
    }
    before = _position(view, "lease_position", search.tenant, after)
    rows = _page(view, _lease_query(search), narrowed, before, limit, lambda raw: read_lease(raw, view.seal))
    return [whole_lease(view, row) for row in rows]


def _lease_query(search: LeaseSearch) -> str:
    """By the key that selects the fewest rows."""
    if search.task_id:
        return "search_leases_of_task"
    if search.living_only:
        return "search_leases_living"
    return "search_leases_of_holder" if search.holder else "search_leases"


def search_tasks(view: View, search: TaskSearch, after: str, limit: int) -> list[Task]:
    """See ViewStore.search_tasks."""
    narrowed = {"tenant": search.tenant, "agent": search.agent, "open_only": search.open_only}
    query = "search_tasks_open" if search.open_only else "search_tasks"
    before = _position(view, "task_position", search.tenant, after)
    return [task_of(row) for row in _page(view, query, narrowed, before, limit, lambda raw: read_task(raw, view.seal))]


def alive(view: View, tenant: str) -> dict[str, Alive]:
    """See ViewStore.alive."""
    leases: dict[str, int] = dict(view.all("living_counts", {"tenant": tenant}))
    tasks: dict[str, int] = dict(view.all("open_counts", {"tenant": tenant}))
    return {who: Alive(leases.get(who, 0), tasks.get(who, 0)) for who in leases.keys() | tasks.keys()}


def _position(view: View, query: str, tenant: str, after: str) -> int:
    if not after:
        return _ABOVE_ALL
    found = view.one(query, {"tenant": tenant, "after": after})
    if found is None:
        raise InvalidInput(
            Reason.PAGE_TOKEN_INVALID,
            "page_token is not one that this broker gave.",
            hint="Pass next_page_token of the page before, or leave it out.",
            metadata={"field": "page_token"},
        )
    return int(found[0])


def _page(
    view: View, query: str, narrowed: dict[str, Any], before: int, limit: int, read: Callable[[Raw], Row]
) -> list[Row]:
    """The next rows that hold, as many as there are and at most ``limit``."""
    found: list[Row] = []
    while len(found) < limit:
        wanted = limit - len(found)
        raws = view.all(query, {**narrowed, "before": before, "limit": wanted})
        found += [row for raw in raws if (row := read(raw[1:])).trusted]
        if len(raws) < wanted:
            break
        before = raws[-1][0]
    return found
