"""Bugs that are planted in the real code, to prove that the simulation sees. Each is one that somebody could make.

Those of several brokers on one ledger, and of clocks, are in ``bugs_of_several.py``; those of a ledger that is put back
in ``bugs_of_restores.py``; those of break-glass in ``bugs_of_glass.py``, those of pipelines in ``bugs_of_plans.py``.

They are patched in from here, by name, in a process of their own: nothing in the broker knows of them, no flag and no
variable arms them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog

from broker.errors import UpstreamFailed
from broker.issuance import counting, filing, issue
from broker.issuance.issue import Issuer
from broker.lease.machine import Event, State
from broker.ports.connectors import Expired, Revoked
from broker.ports.leases import EndCause
from broker.revocation import revoker
from broker.stores import access_redeem, grant_ops, moves, orphan_ops, orphan_reads, suspension_ops, task_ops
from broker.stores.trail import Trail
from broker.upkeep import Upkeep
from tests.simulation import truth
from tests.simulation.bugs_of_clocks import OF_CLOCKS
from tests.simulation.bugs_of_glass import OF_GLASS
from tests.simulation.bugs_of_plans import OF_PLANS
from tests.simulation.bugs_of_restores import OF_RESTORES
from tests.simulation.bugs_of_several import OF_SEVERAL
from tests.simulation.truth import SimulatedConnector

Patch = pytest.MonkeyPatch


def intent_after_issue(patch: Patch) -> None:
    """The upstream is asked, and what was meant is written down afterwards."""

    async def first_issue(
        self: Any, caller: Any, request: Any, held: Any = frozenset(), fund: Any = lambda i: i
    ) -> Any:
        admitted = await self._decide(caller, request, held)
        if not admitted.decision.allowed:
            return admitted
        intent = fund(self._intent(caller, request, admitted))

        async def not_yet(handle: Any, upstream: Any) -> None: ...

        await admitted.connector.issue(intent.handle, intent.scope, intent.expires_at, not_yet)
        return admitted, intent, await self._store.open_intent(intent)

    patch.setattr(Issuer, "_open", first_issue)


def unknown_is_not_issued(patch: Patch) -> None:
    """No answer is taken for a no."""
    patch.setattr(UpstreamFailed, "outcome_known", property(lambda self: True, lambda self, value: None), raising=False)


def broken_off_is_not_issued(patch: Patch) -> None:
    """Whoever is interrupted says that nothing was made."""
    end = Issuer._end

    async def never(self: Any, intent: Any, event: Event, cause: EndCause, detail: str) -> None:
        if cause is EndCause.OUTCOME_UNKNOWN:
            event, cause = Event.NEVER_ISSUED, EndCause.NEVER_ISSUED
        await end(self, intent, event, cause, detail)

    patch.setattr(Issuer, "_end", never)


def late_creates_forgotten(patch: Patch) -> None:
    """One sweep that finds nothing is proof enough."""
    patch.setattr(truth, "no_late_create_after", lambda issued_from, issue_deadline: issued_from)


def not_found_is_gone(patch: Patch) -> None:
    """A failure of the upstream's is taken for the end of the credential."""
    read = revoker._read

    def confirmed(outcome: Any) -> Any:
        return read(Revoked() if isinstance(outcome, truth.NotYet) else outcome)

    patch.setattr(revoker, "_read", confirmed)


def expired_at_once(patch: Patch) -> None:
    """What only time ends is said to have ended when it was asked to."""
    revoke = SimulatedConnector.revoke

    async def hasty(self: Any, handle: Any, context: Any) -> Any:
        outcome = await revoke(self, handle, context)
        return Expired() if isinstance(outcome, truth.NotYet) and not outcome.failed else outcome

    patch.setattr(SimulatedConnector, "revoke", hasty)


def task_not_asked(patch: Patch) -> None:
    """An intent does not look whether its task is still open."""
    patch.setattr(grant_ops, "admit_participant", lambda task, holder, now, expires_at: None)


def completion_in_flight(patch: Patch) -> None:
    """What was being issued becomes usable although its task ended meanwhile."""
    patch.setattr(grant_ops, "is_over", lambda task, now_ms: False)
    patch.setattr(task_ops, "end_selected", lambda *arguments, **named: 0)


def completion_leaves_leases(patch: Patch) -> None:
    """A task ends, and its leases are forgotten, now and by time."""
    patch.setattr(task_ops, "end_selected", lambda *arguments, **named: 0)
    patch.setattr(moves, "due_at", _never_while_active)


def suspension_not_asked(patch: Patch) -> None:
    """The kill switch is looked at before the intent, and not with it."""
    patch.setattr(grant_ops, "refuse_suspended", lambda view, tenant, subject, now: None)


def suspension_spares_what_is_issued(patch: Patch) -> None:
    """The kill switch ends what is active, and not what is about to be."""
    end = suspension_ops._end

    def only_active(tx: Any, row: Any, members: Any, actor: Any, now: Any, state: State, after: Any, most: Any) -> Any:
        if state is State.ISSUING:
            return suspension_ops.Ended(), after
        return end(tx, row, members, actor, now, state, after, most)

    patch.setattr(suspension_ops, "_end", only_active)


def claims_for_ever(patch: Patch) -> None:
    """Who claimed a revocation and died has it still."""
    patch.setattr(revoker, "CLAIM_FOR", revoker.CLAIM_FOR * 100_000)


def failures_are_dropped(patch: Patch) -> None:
    """A revocation that fails is tried again in a year."""
    patch.setattr(revoker.backoff, "delay", lambda failures, fraction, retry_after: revoker.CLAIM_FOR * 1_000_000)


def two_at_once(patch: Patch) -> None:
    """A retry does not wait until the earlier credential is gone."""

    async def no_wait(self: Any, opened: Any, connector: Any) -> None: ...

    patch.setattr(Issuer, "_end_previous", no_wait)


def approval_not_consumed(patch: Patch) -> None:
    """An approved request can be redeemed again, for another lease."""

    def again(view: Any, intent: Any, retried: Any) -> Any:
        row = (
            None
            if intent.redeems is None
            else access_redeem.find(view, intent.tenant, intent.redeems.access_request_id)
        )
        if row is not None and row.state == access_redeem.RequestState.REDEEMED:
            row.state = access_redeem.RequestState.APPROVED.value
            return row
        return access_redeem.redeemable(view, intent, retried)

    patch.setattr(grant_ops, "redeemable", again)
    fund = issue.funded

    def another_lease(filed: Any, caller: Any, held: Any, intent: Any) -> Any:
        return replace(fund(filed, caller, held, intent), lease_id=intent.lease_id)

    patch.setattr(issue, "funded", another_lease)


def never_due(patch: Patch) -> None:
    """What is active is not looked at when it expires."""
    patch.setattr(moves, "due_at", _never_while_active)


def events_lost(patch: Patch) -> None:
    """Some ends are not in the trail."""
    tell = moves.tell

    def forgetful(tx: Any, event: Any, attempt: Any, *more: Any, **named: Any) -> None:
        if not (event == "lease.revoked" and attempt.id.endswith(("a", "b"))):
            tell(tx, event, attempt, *more, **named)

    patch.setattr(moves, "tell", forgetful)


def trail_survives_rollback(patch: Patch) -> None:
    """The chain goes on from records that were rolled back."""
    patch.setattr(Trail, "rolled_back", lambda self: None)


def nobody_looks(patch: Patch) -> None:
    """The tick beats its heart and looks at nothing; what is due waits for somebody to come by."""

    async def idle(self: Any) -> None:
        self._gate.heartbeat = self._clock.now()

    patch.setattr(Upkeep, "tick", idle)


def inventories_without_the_ledger(patch: Patch) -> None:
    """Whatever an upstream lists counts as unknown, and is ended."""
    for module in (orphan_reads, orphan_ops):
        patch.setattr(module, "held", lambda view, tenant, carried: {})


def anybody_is_enough(patch: Patch) -> None:
    """Who asks for access may approve it, too."""
    for module in (filing, counting):
        patch.setattr(module, "interests", lambda **asking: ())


def owners_of_the_chain_may(patch: Patch) -> None:
    """Of what was handed on, the owner of the agent that did so may approve."""
    patch.setattr(filing, "owners_of", lambda delegators, registry: [])


def secrets_in_the_trail(patch: Patch) -> None:
    """Instead of a secret's fingerprint, the secret."""
    patch.setattr(issue, "fingerprints", lambda key_id, key, credential, inside: {"it": credential.password.reveal()})


def secrets_in_the_log(patch: Patch) -> None:
    """Somebody wanted to see what was issued."""
    activate = Issuer._activate

    async def and_tell(self: Any, attempt: Any, issued: Any, *more: Any) -> Any:
        structlog.get_logger("broker.issue").info("issued", password=issued.credential.password.reveal())
        return await activate(self, attempt, issued, *more)

    patch.setattr(Issuer, "_activate", and_tell)


def _never_while_active(state: State, *, issue_deadline: int, confirm_by: Any, expires_at: int, retry_at: Any) -> Any:
    if state is State.ACTIVE:
        return expires_at + 86_400_000
    return _due_at(
        state, issue_deadline=issue_deadline, confirm_by=confirm_by, expires_at=expires_at, retry_at=retry_at
    )


_due_at = moves.due_at

_OF_ONE: dict[str, Callable[[Patch], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        intent_after_issue,
        unknown_is_not_issued,
        broken_off_is_not_issued,
        late_creates_forgotten,
        not_found_is_gone,
        expired_at_once,
        task_not_asked,
        completion_in_flight,
        completion_leaves_leases,
        suspension_not_asked,
        suspension_spares_what_is_issued,
        claims_for_ever,
        failures_are_dropped,
        two_at_once,
        approval_not_consumed,
        never_due,
        events_lost,
        trail_survives_rollback,
        nobody_looks,
        inventories_without_the_ledger,
        anybody_is_enough,
        owners_of_the_chain_may,
        secrets_in_the_trail,
        secrets_in_the_log,
    )
}
BUGS = _OF_ONE | OF_SEVERAL | OF_CLOCKS | OF_RESTORES | OF_GLASS | OF_PLANS
