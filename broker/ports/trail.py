"""The audit trail: checkpoints, their witnesses, where it is exported to, and recovery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from broker.errors import NotReady, Reason
from broker.ports.suspensions import Lifting
from broker.suspension.suspension import Lift


@dataclass(frozen=True, slots=True)
class TrailEnd:
    """Where the audit trail stands: what a checkpoint is made of."""

    count: int  # records; the sequence number of the last
    head: bytes  # hash of the last record
    log: bytes  # hash of the first record
    checkpoint_seq: int  # of the record that carries the last checkpoint; 0: there is none
    checkpoint_count: int  # how many records that one is about
    checkpoint_ms: int  # the time in it, or in what a witness had seen before a recovery
    checkpoint_digest: bytes  # of its text


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A signed checkpoint, to be written into the trail."""

    note: str
    count: int
    at_ms: int
    digest: bytes
    previous: bytes  # the digest of the one it follows


@dataclass(frozen=True, slots=True)
class OutgoingCheckpoint:
    """A checkpoint on its way to a witness; ``seq`` is the record that carries it."""

    seq: int
    count: int
    at_ms: int
    note: str


@dataclass(frozen=True, slots=True)
class WitnessLag:
    """What a witness has not been sent: how many records, and how old the first of them is."""

    records: int
    age: timedelta


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a witness has seen and the ledger does not have."""

    witness: str
    why: str
    note: str
    count: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """The ledger was found behind a witness. ``trusted`` False: its row fails its MAC; it counts as open."""

    tenant: str
    id: str
    entered_at: datetime
    evidence: Evidence
    ledger_count: int  # how many records the ledger had then
    first: Lift | None  # the first of the two people who release it
    released: Lift | None
    trusted: bool = True

    @property
    def open(self) -> bool:
        """Whether grants are stopped by it."""
        return self.released is None or not self.trusted


def in_recovery(recovery_id: str) -> NotReady:
    """The refusal of what is asked for meanwhile."""
    return NotReady(
        Reason.RECOVERY_MODE,
        "the broker is in recovery: a witness of its audit trail has seen more than its ledger has.",
        hint="Operators: broker recovery show. Two people release it; revocation goes on.",
        metadata={"recoveryId": recovery_id},
    )


class HighWater(NamedTuple):
    """The highest time that a ledger has seen; None for one that has seen nothing."""

    at: datetime | None
    intact: bool = True  # False: the row that says so was changed by something else, and was not believed


class TrailStore(Protocol):
    """Checkpoints, their outbox, and recovery: in one database with, and by the same rules as, :class:`LeaseStore`."""

    async def trail_end(self, tenant: str) -> TrailEnd | None:
        """None while the trail is empty."""
        ...

    async def add_checkpoint(self, tenant: str, new: NewCheckpoint, now: datetime) -> bool:
        """Write it as a record of the trail, and into the outbox.

        False, and nothing changes, if it does not follow the newest, or if so much has been written since it was
        signed that it would be out of reach.
        """
        ...

    async def checkpoints_since(self, after: int, limit: int) -> Sequence[OutgoingCheckpoint]:
        """Those carried by records above ``after``, in order."""
        ...

    async def witness_position(self, tenant: str, witness: str) -> int:
        """The record that carries the last checkpoint that ``witness`` has been sent; 0 for one that is new."""
        ...

    async def witnessed(self, tenant: str, witness: str, upto: int) -> None:
        """``witness`` durably has the checkpoints up to that of record ``upto``. Never goes back."""
        ...

    async def witness_lag(self, upto: int, now: datetime) -> WitnessLag:
        """What the checkpoint that record ``upto`` carries does not cover; nothing, if that is its own record alone."""
        ...

    async def recovery(self, tenant: str) -> Recovery | None:
        """The one that is open, or else the last one; None if there never was one."""
        ...

    async def enter_recovery(self, tenant: str, recovery_id: str, evidence: Evidence, now: datetime) -> Recovery:
        """Stop granting until two people release it. The one that is open stays as it is.

        Unless this evidence is of later than its own: then both people speak anew.
        """
        ...

    async def burn_open(self, tenant: str, now: datetime) -> int:
        """End every open task, and with it each request, plan, delegation and lease of it; how many tasks."""
        ...

    async def release_recovery(self, lifting: Lifting) -> Recovery:
        """One person's word that grants may begin again; the second one's releases it.

        Raises WrongState (NOT_IN_RECOVERY) and Denied (SECOND_PERSON_REQUIRED).
        """
        ...

    async def high_water(self) -> HighWater:
        """No time that :meth:`keep_time` was told is above it, and none in the trail by more than a second."""
        ...

    async def keep_time(self, now: datetime) -> None:
        """Durably: it has been ``now``. Never goes back."""
        ...


class Witness(Protocol):
    """Somewhere else, where checkpoints are kept and cannot be taken back."""

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        """Durably keep it; one that it has already is fine. Raises OSError, with a reason fit for a log."""
        ...

    async def newest(self, after_ms: int) -> str | None:
        """The newest note it has, if that is of later than ``after_ms``; None also where it cannot be asked.

        Raises OSError where the answer is not known.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class AuditSink(Protocol):
    """Takes what the ledger's transaction already holds, away from this machine's database."""

    async def write(self, records: Sequence[bytes]) -> None:
        """Durably append records, in order. Raises OSError; the pump retries for ever."""
        ...
