"""A delegation: a part of a live lease's scope, handed to one other agent on the same task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.errors import Denied, InvalidInput, NotFound, Reason, WrongState
from broker.identity.party import Party
from broker.scope.containment import Reach, excesses
from broker.scope.narrowing import Narrowings


@dataclass(frozen=True, slots=True)
class Delegation:
    """One hand-over as the ledger has it. All of the scope that is not said here is the lease's."""

    tenant: str
    id: str
    task_id: str
    lease_id: str  # what it is a part of
    chain: tuple[Party, ...]  # who held the right before: the first holder at the front, the delegator at the end
    delegate: Party
    resource: str
    parameters: Mapping[str, str]
    further: int  # how often it may be handed on
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    @property
    def delegator(self) -> Party:
        """Who handed it on."""
        return self.chain[-1]


def check_hand_over(
    delegation: Delegation, whole: Reach, part: Reach, compared: Narrowings, allowed_depth: int
) -> None:
    """Refuse a hand-over that is circular, too deep, or beyond the lease: ``part`` of ``whole``.

    ``whole.further`` is how often it may be handed on after this: below zero, it may not be handed on at all.
    """
    for held in delegation.chain:
        if held.is_same_as(delegation.delegate):
            raise InvalidInput(
                Reason.DELEGATION_CIRCULAR,
                f"{delegation.delegate.id} is in the chain of this lease already, by the registry entry"
                f" {held.principal}.",
                hint="Hand it to an agent of another registry entry.",
                metadata={"leaseId": delegation.lease_id, "delegate": delegation.delegate.id},
            )
    if len(delegation.chain) + delegation.further > allowed_depth or whole.further < 0:
        raise Denied(
            Reason.DELEGATION_TOO_DEEP,
            f"lease {delegation.lease_id} may not be handed on this often.",
            hint="Have whoever held it first hand it to that agent; operators bound chains by"
            " max_delegation_depth, of limits and of the template.",
            metadata={"leaseId": delegation.lease_id, "maxDepth": str(allowed_depth)},
        )
    _within(delegation, whole, part, compared)


def check_redemption(
    delegation: Delegation,
    task_id: str,
    delegate: Party,
    whole: Reach,
    asked: Reach,
    compared: Narrowings,
    now: datetime,
) -> None:
    """Refuse what ``delegate`` was not handed, or is not any more. ``whole`` is what the live lease reaches now.

    What is asked must lie within the delegation *and* within the lease, each by itself: they are never laid together.
    """
    if delegation.task_id != task_id or delegation.delegate.id != delegate.id:
        raise delegation_not_found(delegation.id)
    if delegation.revoked_at is not None or now >= delegation.expires_at:
        raise delegation_ended(delegation)
    _within(delegation, handed(delegation, whole), asked, compared)
    _within(delegation, whole, asked, compared)


def handed(delegation: Delegation, whole: Reach) -> Reach:
    """What the delegation reaches, of ``whole``."""
    return Reach(
        template=whole.template,
        template_digest=whole.template_digest,
        connector=whole.connector,
        account=whole.account,
        environment=whole.environment,
        resource=delegation.resource,
        access=whole.access,
        actions=whole.actions,
        parameters=delegation.parameters,
        ends_at=delegation.expires_at,
        further=delegation.further,
    )


def delegation_not_found(delegation_id: str) -> NotFound:
    """One answer for a delegation that is not there and for one that the caller neither gave nor was given."""
    return NotFound(
        Reason.DELEGATION_NOT_FOUND,
        f"there is no delegation {delegation_id!a} of yours.",
        hint="`broker delegations list` shows what you gave and were given on a task.",
        metadata={"delegationId": delegation_id},
    )


def delegation_ended(delegation: Delegation) -> WrongState:
    """It was revoked, its time is over, or the lease that it is a part of has ended."""
    return WrongState(
        Reason.DELEGATION_ENDED,
        f"delegation {delegation.id} is over: revoked, past its time, or the lease that it is a part of has ended.",
        hint="Ask its delegator for another one.",
        metadata={"delegationId": delegation.id, "expireTime": delegation.expires_at.isoformat()},
    )


def _within(delegation: Delegation, outer: Reach, inner: Reach, compared: Narrowings) -> None:
    if beyond := excesses(outer, inner, compared):
        raise Denied(
            Reason.DELEGATION_EXCEEDED,
            f"more than lease {delegation.lease_id} gives to hand on: {'; '.join(map(str, beyond))}.",
            hint="A delegation is never wider and never longer than the lease it is a part of.",
            metadata={
                "leaseId": delegation.lease_id,
                "delegationId": delegation.id,
                "dimensions": ",".join(each.dimension for each in beyond),
            },
        )
