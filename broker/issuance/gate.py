"""May grants be given at all right now? Revocation never asks.

The gate closes while the broker could not keep its promise: it is shutting down, the revoker's
heartbeat is old (faults.md F49), the audit outbox is not draining (F31), its ledger is behind a witness, or was removed
beneath it, its own SVID has ended (F27), its disk is full (F36), its database does not answer (F20), or what time it is
cannot be said (F38, F39). A pure question on figures that others report; it opens by itself when they are good again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from broker.errors import NotReady, Reason
from broker.issuance.among import Among
from broker.ports.trail import in_recovery
from broker.timekeeping import SETTLE_MS, Jump, Timekeeper


class Reserve(Protocol):
    """Disk space kept for revocations."""

    @property
    def held(self) -> bool:
        """False once it was given up: the disk is full."""
        ...


class Answering(Protocol):
    """The ledger's database, which may stop in the middle of a word."""

    @property
    def unanswered(self) -> timedelta:
        """For how long what is being written has waited for it."""
        ...

    @property
    def failing(self) -> tuple[timedelta, str]:
        """For how long it has refused whatever was written, and why."""
        ...


@dataclass(slots=True)
class Gate:
    """What the grant path looks at before each intent. Figures are set by the daemon's ticks."""

    max_heartbeat_age: timedelta
    max_backlog_records: int
    max_backlog_age: timedelta
    heartbeat: datetime | None = None
    ledger_failure: str = ""  # why the ledger could not be looked at, while it cannot
    silent_lanes: tuple[str, ...] = ()  # connectors whose revocation lane did not answer when the heartbeat was taken
    backlog_records: int = 0
    backlog_age: timedelta = timedelta(0)
    own_svid_ends: datetime | None = None
    draining: bool = False
    recovery: str = ""  # the recovery that nobody has released yet
    unread: tuple[str, ...] = ()  # witnesses that the ledger could not be held against since the start
    witness: str = ""  # the one that is furthest behind, and by how much
    witness_records: int = 0
    witness_age: timedelta = timedelta(0)
    reserve: Reserve | None = None  # of disk space, where one is kept
    ledger: Answering | None = None  # once it is open
    displaced: str = ""  # what of the ledger was removed or replaced while it is open
    keeper: Timekeeper | None = None  # of the clock that ``now`` comes from, where it can be doubted
    among: Among = field(default_factory=Among)  # the replicas on one ledger

    def why_closed(self, now: datetime) -> NotReady | None:
        """The reason to refuse grants at ``now``, or None."""
        if self.draining:
            return NotReady(
                Reason.SHUTTING_DOWN,
                "brokerd is shutting down.",
                hint="Retry; another instance or the next start serves.",
            )
        if self.displaced:
            return self._why_displaced()
        # First: a heartbeat that seems old may be of a clock that jumped.
        if self.keeper is not None and self.keeper.doubt is not None:
            return _doubted(self.keeper)
        # Before what follows from it: no tick gets through, either.
        if self.ledger is not None and self.ledger.unanswered > self.max_heartbeat_age:
            return _unanswered(self.ledger.unanswered)
        if self.stalled(now):
            return self._why_stalled()
        if self.reserve is not None and not self.reserve.held:
            return NotReady(
                Reason.LEDGER_FULL,
                "the disk of the ledger is full: what is left of it is kept for revocations.",
                hint="Operators: make room on the disk of the state directory; grants resume by themselves.",
            )
        if self.ledger is not None and self.ledger.failing[0] > self.max_heartbeat_age:
            return _failing(*self.ledger.failing)
        if self.backlog_records > self.max_backlog_records or self.backlog_age > self.max_backlog_age:
            return NotReady(
                Reason.AUDIT_BACKLOG,
                f"{self.backlog_records} audit records wait for the export, the oldest for"
                f" {int(self.backlog_age.total_seconds())} s.",
                hint="Operators: make the audit export writable again; grants resume by themselves.",
                metadata={"records": str(self.backlog_records)},
            )
        if (apart := self._why_witnesses() or self.among.why_closed(now)) is not None:
            return apart
        if self.own_svid_ends is not None and now > self.own_svid_ends:
            return NotReady(
                Reason.OWN_SVID_EXPIRED,
                f"the broker's own SVID ended at {self.own_svid_ends.isoformat()}, so nothing is given out.",
                hint="Operators: see /readyz and the log of brokerd; grants resume when it has a new one.",
                metadata={"notAfter": self.own_svid_ends.isoformat()},
            )
        return None

    @property
    def time_doubted(self) -> bool:
        """Whether the time is not certain: then nothing is deleted for being old, either."""
        return self.keeper is not None and self.keeper.doubt is not None

    def passed_over(self, now: datetime) -> tuple[str, ...]:
        """Why grants are stopped for everybody but break-glass, which goes on; empty where they are not.

        An emergency is when the export hangs and the revoker limps. What it records is durable with its intent, and
        its rate cap bounds how much that can be beyond the outbox's bound: that is its reserve. Its credential has a
        due time, and an end upstream, without the revoker; and over an SVID that has ended people's clients do not
        come. Raises :class:`NotReady` where the broker is going away, when nobody could
        confirm what it delivered; in recovery, when its ledger may have forgotten what others know; where its ledger
        will be gone with it; and on a replica that others have left behind, whose rules are not those in force: they
        are the ones to ask.
        """
        if self.draining:
            self.check(now)
        if self.recovery and (stopped := self._why_witnesses()) is not None:
            raise stopped
        if self.displaced:
            raise self._why_displaced()
        if (behind := self.among.why_closed(now)) is not None:
            raise behind
        closed = self.why_closed(now)
        return () if closed is None else (closed.reason.value,)

    def stalled(self, now: datetime) -> bool:
        """Whether the last heartbeat of the revoker is too old."""
        return self.heartbeat is None or now - self.heartbeat > self.max_heartbeat_age

    def _why_displaced(self) -> NotReady:
        return NotReady(
            Reason.STORE_UNAVAILABLE,
            f"{self.displaced} was removed or replaced beneath brokerd, which has it open: what is committed now goes"
            " with this process, so nothing is granted.",
            hint="Operators: do not stop brokerd before docs/operators.md, at 3 a.m.; revocation goes on.",
            metadata={"cause": "displaced"},
        )

    def _why_stalled(self) -> NotReady:
        if self.ledger_failure:
            since = "the start" if self.heartbeat is None else self.heartbeat.isoformat()
            return NotReady(
                Reason.STORE_UNAVAILABLE,
                f"since {since} the ledger could not be looked at, so nothing is granted: {self.ledger_failure}",
                hint="Operators: the log of brokerd says why; look at the database, or the disk, of the ledger. Grants"
                " and revocation resume by themselves.",
                metadata={"cause": "failing"},
            )
        lanes = ", ".join(self.silent_lanes)
        return NotReady(
            Reason.REVOKER_STALLED,
            f"the revoker has not run lately{lanes and f' (of {lanes})'}, so no new credential is given out.",
            hint="Operators: see /readyz and the log of brokerd; it is started again by itself.",
            metadata={"connectors": lanes} if lanes else None,
        )

    def _why_witnesses(self) -> NotReady | None:
        if self.recovery:
            return in_recovery(self.recovery)
        if self.unread:
            return NotReady(
                Reason.WITNESS_UNREAD,
                f"since the start the ledger could not be held against {', '.join(self.unread)}.",
                hint="Operators: make the witness reachable; grants begin by themselves.",
                metadata={"witnesses": ",".join(self.unread)},
            )
        if self.witness_records > self.max_backlog_records or self.witness_age > self.max_backlog_age:
            return NotReady(
                Reason.WITNESS_BACKLOG,
                f"{self.witness_records} audit records wait for a checkpoint at witness {self.witness}, the oldest for"
                f" {int(self.witness_age.total_seconds())} s.",
                hint="Operators: see the log of brokerd; grants resume by themselves when the witness has it.",
                metadata={"witness": self.witness, "records": str(self.witness_records)},
            )
        return None

    def check(self, now: datetime) -> None:
        """Raises :class:`NotReady` while grants are stopped."""
        closed = self.why_closed(now)
        if closed is not None:
            raise closed


def _unanswered(since: timedelta) -> NotReady:
    return NotReady(
        Reason.STORE_UNAVAILABLE,
        f"the ledger's database has not answered for {int(since.total_seconds())} s, so nothing is granted.",
        hint="Nothing was granted by this call. Operators: look at the database; grants resume by themselves.",
        metadata={"cause": "unanswered"},
    )


def _failing(since: timedelta, why: str) -> NotReady:
    return NotReady(
        Reason.STORE_UNAVAILABLE,
        f"for {int(since.total_seconds())} s nothing could be written to the ledger, so nothing is granted: {why}",
        hint="Operators: look at the disk, or the database, of the ledger; grants and revocation resume by themselves.",
        metadata={"cause": "failing"},
    )


_HOW = {
    Jump.FORWARDS: "jumped {by:g} s forwards",
    Jump.BACKWARDS: "was set back by {by:g} s",
    Jump.BEHIND: "is {by:g} s behind what the ledger has seen",
}


def _doubted(keeper: Timekeeper) -> NotReady:
    assert keeper.doubt is not None  # noqa: S101 - asked before
    how = _HOW[keeper.doubt.why].format(by=keeper.doubt.by_ms / 1000)
    return NotReady(
        Reason.CLOCK_DOUBTED,
        f"the wall clock of the broker's machine {how}, so nothing is granted until it has been right for"
        f" {SETTLE_MS // 1000} s.",
        hint="Operators: set it right (NTP); grants resume by themselves. Revocation goes on: docs/time-and-disk.md.",
        metadata={"why": keeper.doubt.why.value, "byMs": str(keeper.doubt.by_ms)},
    )
