"""What people look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.ports.leases import Lease
from broker.ports.tasks import Task


@dataclass(frozen=True, slots=True)
class LeaseSearch:
    """Which of everybody's leases; what is empty narrows nothing."""

    tenant: str
    holder: str = ""
    task_id: str = ""
    template: str = ""
    living_only: bool = False


@dataclass(frozen=True, slots=True)
class TaskSearch:
    """Which of everybody's tasks; what is empty narrows nothing."""

    tenant: str
    agent: str = ""  # its creator, or a participant
    open_only: bool = False


@dataclass(frozen=True, slots=True)
class Alive:
    """What one identity has: leases that may be alive, and open tasks that it started."""

    leases: int = 0
    tasks: int = 0

    def plus(self, other: Alive) -> Alive:
        """Both together."""
        return Alive(self.leases + other.leases, self.tasks + other.tasks)


class ViewStore(Protocol):
    """What people see of everybody's; in one database with, and by the rules of, :class:`LeaseStore`.

    Of lists, rows that fail their MAC are left out, so that one damaged row does not hide the others, and pages are
    full all the same. Newest first; ``after`` is the id of the last one of the page before, or empty. Raises
    InvalidInput (PAGE_TOKEN_INVALID) for one that is none.
    """

    async def lease(self, tenant: str, lease_id: str) -> Lease:
        """One lease, whoever holds it. Raises NotFound (LEASE_NOT_FOUND), Tampered."""
        ...

    async def search_leases(self, search: LeaseSearch, after: str, limit: int) -> Sequence[Lease]:
        """A page of leases."""
        ...

    async def search_tasks(self, search: TaskSearch, after: str, limit: int) -> Sequence[Task]:
        """A page of tasks."""
        ...

    async def alive(self, tenant: str) -> Mapping[str, Alive]:
        """By holder, or creator; whoever has nothing is left out. Rows are counted as they are, MAC or not."""
        ...
