"""The steps of the schema, and which releases can work with which schema.

Each step is numbered; a ledger has carried out the steps up to its version. A step that only adds (a table, an index, a
column that may be empty) says in its first lines from which schema on a broker can work with it::

    -- readable from: 17

so that brokers of that older release go on while the newer one comes (a rolling upgrade). Without that line nobody can
who does not know the step. The ledger itself says so, since an older release knows nothing of newer files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.errors import NotReady, Reason, Tampered
from broker.stores.database import Connection

_READABLE = re.compile(r"^-- readable from: ([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a ledger has: its version, and the oldest schema whose brokers can work with it."""

    version: int
    readable_from: int


@dataclass(frozen=True, slots=True)
class Step:
    """One migration."""

    number: int
    text: str

    @property
    def readable_from(self) -> int:
        """The oldest schema whose brokers can work with a ledger that has this step."""
        said = _READABLE.search(self.text)
        return self.number if said is None else int(said[1])


def schema_of(connection: Connection) -> Schema:
    """What a ledger has that has a table of it; (0, 0) for one that is empty."""
    row = connection.execute('SELECT version, readable_from FROM schema_version WHERE "only" = 1').fetchone()
    return Schema(0, 0) if row is None else Schema(int(row[0]), int(row[1]))


def missing(found: Schema, steps: Mapping[int, str]) -> list[Step]:
    """What is still to be carried out, in order. Raises Tampered (SCHEMA_VERSION) for a ledger that is too new."""
    known = len(steps)
    refuse_newer(found, known)
    return [Step(number, steps[number]) for number in range(found.version + 1, known + 1)]


def refuse_newer(found: Schema, known: int) -> None:
    """Raises Tampered (SCHEMA_VERSION) for a ledger with which nobody can work who knows schemas up to ``known``."""
    if found.version > known and found.readable_from > known:
        raise Tampered(
            Reason.SCHEMA_VERSION,
            f"the ledger has schema {found.version}, this broker knows schemas up to {known}.",
            hint="Start the newer release that wrote it; a ledger is never downgraded.",
            metadata={"found": str(found.version), "known": str(known)},
        )


def refuse_other(found: Schema, known: int) -> None:
    """Of a ledger that is being written to: the same, and NotReady (STORE_UNAVAILABLE) for one that is older."""
    refuse_newer(found, known)
    if found.version < known:
        raise not_migrated(found, known)


def after(found: Schema, step: Step) -> Schema:
    """What a ledger has once ``step`` was carried out."""
    return Schema(step.number, max(found.readable_from, step.readable_from))


def not_migrated(found: Schema, known: int) -> NotReady:
    """What is told where somebody with more rights must carry out the steps first."""
    return NotReady(
        Reason.STORE_UNAVAILABLE,
        f"the ledger has schema {found.version}, and this broker needs schema {known}.",
        hint="Run broker migrate, as the role that owns the ledger.",
        metadata={"found": str(found.version), "known": str(known)},
    )
