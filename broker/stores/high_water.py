"""The highest time that a ledger has seen, kept in it: over a restart time does not go back (faults.md F39).

Nearly every durable change has an audit record with its time, so the last record is a mark by itself; beside it there
is a row of its own, under a MAC, which batches refresh when it is a second old (here), and a tick where nothing else
happens (``high_water_ops.py``). Claims, and tries that failed, are in no record, and say when what lives is due: they
are seen here, too.
"""

from __future__ import annotations

from broker.ports.keys import KeyRing
from broker.stores.seal import RowSeal
from broker.stores.view import View

TABLE = "high_water"
# So old may the row be when a batch commits: one row more in one batch a second.
REFRESH_MS = 1_000


class Marking:
    """The writer's part: sees every time that goes into the trail, and refreshes the row with a batch."""

    def __init__(self, keys: KeyRing) -> None:
        self._seal = RowSeal(keys)
        self._seen = 0
        self._written = self._kept = 0

    def saw(self, at_ms: int) -> None:
        """A time that will be durable."""
        if at_ms > self._seen:
            self._seen = at_ms

    def flush(self, view: View) -> None:
        """Into the open transaction, if the row is old."""
        if self._seen - self._kept >= REFRESH_MS:
            self._written = self._seen
            view.connection.execute(view.sql["raise_high_water"], sealed(self._seal, self._seen))

    def committed(self) -> None:
        """The transaction is durable."""
        self._kept = self._written

    def rolled_back(self) -> None:
        """It is as if it had not been."""
        self._written = self._kept


def sealed(seal: RowSeal, at_ms: int, *, forged: bool = False) -> dict[str, object]:
    """The row, as the statement takes it."""
    mac, key_id = seal.make(TABLE, (1, at_ms))
    return {"at_ms": at_ms, "mac": mac, "mac_key_id": key_id, "forged": int(forged)}
