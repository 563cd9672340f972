"""Planted bugs that only show where several brokers share a ledger, or where clocks go wrong; see ``bugs.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.clock import KeptClock
from broker.daemon.timekeeping import TimeWatch
from broker.errors import BrokerError
from broker.lease.machine import Event, State
from broker.ports.leases import EndCause
from broker.revocation import revoker
from broker.scope.canonical import canonical_json
from broker.stores import grant_ops, ledger, replica_ops, revoke_ops, subtree_ops
from broker.stores.group_commit import GroupCommit
from broker.stores.moves import move
from broker.stores.times import to_ms
from broker.stores.trail import Trail
from tests.simulation.bugs_of_clocks import OF_CLOCKS

Patch = pytest.MonkeyPatch


def no_fencing(patch: Patch) -> None:
    """Who comes late finishes what others have begun to end."""
    issuing = grant_ops._issuing

    def mine_still(tx: Any, tenant: str, attempt_id: str) -> Any:
        attempt, lease, task = issuing(tx, tenant, attempt_id)
        if attempt.state == State.REVOKING:
            attempt.state, attempt.epoch = State.ISSUING.value, 1
        return attempt, lease, task

    checkpoint = grant_ops.checkpoint

    def noted_still(*arguments: Any) -> None:
        with contextlib.suppress(BrokerError):
            checkpoint(*arguments)

    patch.setattr(grant_ops, "_issuing", mine_still)
    patch.setattr(grant_ops, "checkpoint", noted_still)


def images_survive_others(patch: Patch) -> None:
    """What was remembered of rows is believed although others have written."""

    def look(self: Any) -> None:
        self._transaction.connection = self._writing.connection
        self._trail.resume(self._transaction)

    patch.setattr(GroupCommit, "_look_anew", look)


def head_from_memory(patch: Patch) -> None:
    """The chain goes on from where this one ended it, whoever has written since."""
    patch.setattr(Trail, "resume", lambda self, view: None)


def boot_sweeps_everybodys(patch: Patch) -> None:
    """Whoever starts takes itself for the only one, and gives up what others are issuing."""
    patch.setattr(revoke_ops, "alone", lambda view, writer, now: True)


def inherits_from_the_living(patch: Patch) -> None:
    """Who has not been heard for a moment is dead."""

    def dead(view: Any, writer: str, now: datetime) -> list[str]:
        key = {"writer": writer, "now": to_ms(now), "last": to_ms(now) - 60_000, "after": to_ms(now)}
        return [found for (found,) in view.all("dead_replicas", key)]

    patch.setattr(replica_ops, "dead", dead)


def dead_hands_are_empty(patch: Patch) -> None:
    """What a dead one had in hand is done: nothing was made of it, or it has ended."""

    def let_go(tx: Any, writers: Any, now: datetime) -> int:
        def done(raw: Any) -> bool:
            attempt, lease = revoke_ops.read_pair(raw, tx)
            ended = attempt.state == State.REVOKING
            event, cause = (Event.REVOKE_CONFIRMED, None) if ended else (Event.NEVER_ISSUED, EndCause.NEVER_ISSUED)
            attempt.epoch += 1
            return move(tx, attempt, lease, event, cause, to_ms(now))

        held = tx.all("attempts_held", {"writers": canonical_json(list(writers)).decode(), "limit": revoke_ops.CHUNK})
        return sum(tx.each(done, held))

    patch.setattr(revoke_ops, "let_go", let_go)


def claims_are_shared(patch: Patch) -> None:
    """What is due is taken without a mark that it was."""

    def claim(tx: Any, until_ms: int, now_ms: int, pair: Any) -> bool:
        attempt, lease = pair
        if attempt.trusted and attempt.state != State.REVOKING:
            move(tx, attempt, lease, Event.END, revoke_ops.overdue_cause(attempt, now_ms), now_ms)
        return True

    patch.setattr(revoke_ops, "_claim", claim)


def suspensions_from_memory(patch: Patch) -> None:
    """Each broker knows the suspensions that were made through it."""
    suspend, refuse = ledger.suspension_ops.suspend, grant_ops.refuse_suspended

    def suspend_and_remember(tx: Any, *arguments: Any) -> Any:
        tx.images.knows_suspensions = True
        return suspend(tx, *arguments)

    def refuse_what_is_known(view: Any, *arguments: Any) -> None:
        if getattr(view.images, "knows_suspensions", False):
            refuse(view, *arguments)

    patch.setattr(ledger.suspension_ops, "suspend", suspend_and_remember)
    patch.setattr(grant_ops, "refuse_suspended", refuse_what_is_known)


def parts_outlive_the_whole(patch: Patch) -> None:
    """The end of a lease is not the end of what was handed on of it."""

    def forget(tx: Any) -> None:
        tx.ended = {}

    patch.setattr(subtree_ops, "_end_below", forget)


def time_goes_back(patch: Patch) -> None:
    """The wall clock is believed, whatever the ledger has seen."""

    def wall(self: Any) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=self._wall())

    patch.setattr(KeptClock, "now", wall)


def grants_in_doubt(patch: Patch) -> None:
    """A clock that was set is told of, and nothing comes of that."""
    begin = TimeWatch.__init__

    def and_forget(self: Any, clock: Any, gate: Any, tenant: str) -> None:
        begin(self, clock, gate, tenant)
        gate.keeper = None

    patch.setattr(TimeWatch, "__init__", and_forget)


def over_by_any_clock(patch: Patch) -> None:
    """A credential that only time ends has ended when the clock says so, wherever it was set."""
    patch.setattr(revoker, "certain_outcome", lambda claimed, outcome, certain: outcome)


OF_SEVERAL: dict[str, Callable[[Patch], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        no_fencing,
        images_survive_others,
        head_from_memory,
        boot_sweeps_everybodys,
        claims_are_shared,
        inherits_from_the_living,
        dead_hands_are_empty,
        suspensions_from_memory,
        parts_outlive_the_whole,
        time_goes_back,
        grants_in_doubt,
        over_by_any_clock,
    )
}

# Replicas go by their database's time, so a machine's clock counts only where there is one broker; and so on.
SHOWS_WITH = {
    **dict.fromkeys((*OF_SEVERAL, *OF_CLOCKS), 3),
    "recovery-is-heard-with-the-beat-alone": 3,
    "claims-for-ever": 2,  # one that starts alone takes over whatever an earlier one had
    # Found at the end, when nothing is left to do for half an hour: the fewer wait, the sooner.
    **dict.fromkeys(("failures-are-dropped", "never-due", "nobody-looks", "completion-leaves-leases"), 1),
    **dict.fromkeys(("time-goes-back", "grants-in-doubt", "over-by-any-clock"), 1),
}
