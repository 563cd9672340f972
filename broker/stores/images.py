"""What the writer itself wrote or proved a moment ago, so that the next operation need not read it back.

A grant is two transactions about the same rows: the second would read three of them from the database, where the first
has just put them, and check a MAC on each that this very thread made. The images are kept where rows are written
(:mod:`broker.stores.transaction`) and nowhere else, so none can be older than its row; values, not row objects, so that
nobody can change one by working on it.

They are believed exactly as long as nobody else writes: whenever another connection has changed the database (see
Writing.begin in :mod:`broker.stores.database`), and whenever something is rolled back, all are forgotten, and the rows
are read again with their MACs. After a start there are none.
"""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")
Raw = tuple[Any, ...]
Key = tuple[str, str]  # tenant, id

# Of each kind; the oldest goes first. What is issued at one moment is far less, and a task's image is used for minutes.
MOST = 4096
# Of the counts: small, and worth keeping for every agent and task that is at work.
MOST_COUNTS = 65_536


class Images:
    """Sealed values by key, as ``rows.py`` lists them, and how many leases there can be. Of one writer's thread."""

    def __init__(self) -> None:
        self.tasks: dict[Key, Raw] = {}
        self.leases: dict[Key, Raw] = {}
        self.attempts: dict[Key, Raw] = {}
        # Leases that were opened on nothing but their own request: no row of lease_origins is theirs.
        self.plain: dict[Key, Raw] = {}
        # Unwrapped keys of tasks whose texts are kept; erasing a task's texts forgets its key here, too.
        self.text_keys: dict[Key, bytes] = {}
        # At least as many as there are: living leases of a holder, leases of a task.
        self.living: dict[Key, int] = {}
        self.of_task: dict[Key, int] = {}
        # Of this batch alone, by holder, request id and tenant: what ``intent_news`` says, asked ahead.
        self.news: dict[tuple[str, str, str], Raw] = {}

    def forget(self) -> None:
        """Everything: the database is asked again."""
        self.news.clear()
        for kept in (self.tasks, self.leases, self.attempts, self.plain, self.text_keys, self.living, self.of_task):
            kept.clear()

    def others_wrote(self) -> None:
        """Everything that others may change: whether a lease has an origin is said once, when it is opened."""
        plain = self.plain
        self.plain = {}
        self.forget()
        self.plain = plain

    def opened(self, tenant: str, holder: str, task_id: str, request_id: str) -> None:
        """One lease more, of a holder and of a task. Where nobody has counted yet, somebody will."""
        self.news.pop((holder, request_id, tenant), None)
        for counts, key in ((self.living, (tenant, holder)), (self.of_task, (tenant, task_id))):
            if key in counts:
                counts[key] += 1


def keep(images: dict[Key, T], key: Key, values: T) -> None:
    """The newest image of a row; where there are too many, the oldest goes."""
    if key not in images and len(images) >= MOST:
        del images[next(iter(images))]
    images[key] = values


def counted(counts: dict[Key, int], key: Key, count: int) -> None:
    """An exact count to go on from."""
    if len(counts) >= MOST_COUNTS:
        counts.clear()
    counts[key] = count
