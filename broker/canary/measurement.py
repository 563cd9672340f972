"""What one run of a canary came to, as it is kept and told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from broker.canary.canary import Kind
from broker.canary.watch import State, Watch

_MILLISECOND = timedelta(milliseconds=1)


class Outcome(StrEnum):
    """What is known after a run."""

    WITHIN = "WITHIN"  # the upstream refused it within the contract's bound
    ALIVE = "ALIVE"  # it worked after the bound, and nobody has seen it refused yet
    LATE = "LATE"  # it worked after the bound, and was refused in the end
    UNMEASURED = "UNMEASURED"  # nothing can be said of the bound; ``why`` says why


# The contract is not kept: an alarm, until a later run of that kind is WITHIN.
BROKEN = frozenset({Outcome.ALIVE, Outcome.LATE})


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. Nothing of the credential is in it."""

    tenant: str
    id: str
    connector: str
    kind: Kind
    by: str  # whoever asked for it: issuer#subject, or "broker" where it was due
    outcome: Outcome
    began_at: datetime
    told_at: datetime  # when this was known
    bound: timedelta
    lease_id: str = ""  # empty: none was issued
    since: datetime | None = None  # what is counted from
    measured: timedelta | None = None  # from then until it was refused, at most; less than zero: before its deadline
    at_least: timedelta | None = None  # from then it worked for so long, for certain
    confirmed_at: datetime | None = None  # when the ledger has it from the upstream that it is revoked
    looks: int = 0
    why: str = ""

    @property
    def broken(self) -> bool:
        """Whether it shows that the contract is not kept."""
        return self.outcome in BROKEN


def up(time: timedelta | None) -> timedelta | None:
    """An upper bound, in whole milliseconds."""
    return None if time is None else -(-time // _MILLISECOND) * _MILLISECOND


def down(time: timedelta | None) -> timedelta | None:
    """A lower bound, in whole milliseconds."""
    return None if time is None else time // _MILLISECOND * _MILLISECOND


def outcome_of(watch: Watch) -> tuple[Outcome, str]:
    """What the looks prove, and why it is not more."""
    if watch.broken:
        if watch.state is State.DEAD:
            return Outcome.LATE, ""
        return Outcome.ALIVE, ""
    if watch.spoilt and watch.jumped is not None:
        seconds = watch.jumped.total_seconds()
        return Outcome.UNMEASURED, f"the clock was set by {seconds:+g} s meanwhile, and a deadline is no measure then"
    if watch.state is not State.DEAD:
        return Outcome.UNMEASURED, "whether the credential works could not be told any more"
    if not watch.kept:
        return Outcome.UNMEASURED, "around the bound, whether the credential works could not be told"
    return Outcome.WITHIN, ""
