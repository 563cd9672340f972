"""Operations that end attempts, each inside one write transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from broker.audit.event import BROKER
from broker.errors import Defect, NotFound, Reason, WrongState
from broker.lease.machine import Event, State, can
from broker.ports.leases import EndCause, Selector
from broker.scope.canonical import JsonValue
from broker.stores.moves import move
from broker.stores.rows import (
    ATTEMPT_WIDTH,
    LEASE_WIDTH,
    AttemptRow,
    LeaseRow,
    Raw,
    read_attempt,
    read_optional_lease,
    slices,
)
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

# Rows read at a time: however many leases a task has, memory holds only so many of them.
CHUNK = 256


def read_pair(raw: Raw, tx: View) -> tuple[AttemptRow, LeaseRow | None]:
    """An attempt and its lease from a joined row."""
    attempt, lease = slices(raw, ATTEMPT_WIDTH, LEASE_WIDTH)
    return read_attempt(attempt, tx.seal), read_optional_lease(lease, tx.seal)


def find_attempt(tx: Transaction, tenant: str, attempt_id: str) -> tuple[AttemptRow, LeaseRow | None]:
    """An attempt, trusted or not, and its lease. Raises NotFound (LEASE_NOT_FOUND)."""
    raw = tx.one("attempt_by_id", {"tenant": tenant, "attempt_id": attempt_id})
    if raw is None:
        raise lease_not_found(attempt_id)
    return read_pair(raw, tx)


def lease_not_found(what: str) -> NotFound:
    """One answer for a lease or attempt that is not there and for one that is somebody else's."""
    return NotFound(
        Reason.LEASE_NOT_FOUND,
        f"there is no lease {what} of yours.",
        hint="List your leases (broker leases).",
        metadata={"leaseId": what},
    )


def lease_ended(lease_id: str) -> WrongState:
    """The lease, or the attempt in question, is over or being ended."""
    return WrongState(
        Reason.LEASE_ENDED,
        f"lease {lease_id} has ended or is being ended.",
        hint="Ask again under a fresh request id.",
        metadata={"leaseId": lease_id},
    )


def end_attempt(
    tx: Transaction, tenant: str, attempt_id: str, event: Event, cause: EndCause, now: datetime, detail: str
) -> State:
    """See LeaseStore.end_attempt. Asking again for an end that is under way keeps its retry schedule."""
    if event not in (Event.NEVER_ISSUED, Event.END):
        raise Defect(Reason.INTERNAL, f"end_attempt takes NEVER_ISSUED or END, not {event}.")
    attempt, lease = find_attempt(tx, tenant, attempt_id)
    state = State(attempt.state)
    if not can(state, event) or (state is State.REVOKING and event is Event.END):
        return state
    data: dict[str, JsonValue] = {"detail": detail} if detail else {}
    move(tx, attempt, lease, event, cause, to_ms(now), data=data)
    return State(attempt.state)


def end_leases(
    tx: Transaction,
    selector: Selector,
    cause: EndCause,
    actor: str,
    now: datetime,
    audit: Mapping[str, JsonValue] | None = None,
) -> int:
    """See LeaseStore.end_leases."""
    fields = {
        "lease_id": selector.lease_id,
        "attempt_id": selector.attempt_id,
        "task_id": selector.task_id,
        "holder": selector.holder,
    }
    # The key that selects the fewest rows drives the query; the others narrow it.
    driver = next((name for name, value in fields.items() if value), None)
    if driver is None or not selector.tenant:
        raise Defect(Reason.INTERNAL, "a selector names its tenant and at least one of lease, task, holder, attempt.")
    query = f"unended_by_{driver.removesuffix('_id')}"
    return end_selected(tx, query, {"tenant": selector.tenant, **fields}, cause, actor, to_ms(now), audit)


def end_unregistered(tx: Transaction, tenant: str, holders: frozenset[str], now: datetime) -> int:
    """End what these holders, who have left the registry, still have."""
    return sum(
        end_selected(
            tx,
            "unended_by_holder",
            {"tenant": tenant, "holder": holder},
            EndCause.HOLDER_UNREGISTERED,
            BROKER,
            to_ms(now),
        )
        for holder in sorted(holders)
    )


def end_denied(tx: Transaction, tenant: str, certificates: frozenset[tuple[str, str]], now: datetime) -> int:
    """End what these (holder, svid_serial) still have."""
    return sum(
        end_selected(
            tx,
            "unended_by_certificate",
            {"tenant": tenant, "holder": holder, "svid_serial": serial},
            EndCause.HOLDER_DENIED,
            BROKER,
            to_ms(now),
        )
        for holder, serial in sorted(certificates)
    )


def end_together(tx: Transaction, connector: str, prefix: str, because: str, now: datetime) -> int:
    """See LeaseStore.end_together. Over every tenant: a connector is shared."""
    if not prefix:
        raise Defect(Reason.INTERNAL, "a prefix of upstream names is not empty.")
    following = prefix[:-1] + chr(ord(prefix[-1]) + 1)  # the first text that does not start so
    where = {"connector": connector, "prefix": prefix, "following": following}
    audit: dict[str, JsonValue] = {"because": because}
    return end_selected(tx, "unended_by_upstream", where, EndCause.ENDED_TOGETHER, BROKER, to_ms(now), audit)


def end_on_behalf_of(tx: Transaction, tenant: str, humans: Collection[str], now: datetime) -> int:
    """End what open tasks have that act for these (``tasks.on_behalf_of``)."""
    return sum(
        end_selected(
            tx,
            "unended_by_human",
            {"tenant": tenant, "human": human},
            EndCause.PERSON_DISABLED,
            BROKER,
            to_ms(now),
        )
        for human in sorted(humans)
    )


def end_selected(
    tx: Transaction,
    query: str,
    parameters: dict[str, str],
    cause: EndCause,
    actor: str,
    now_ms: int,
    audit: Mapping[str, JsonValue] | None = None,
) -> int:
    """Move the attempts that ``query`` finds to REVOKING, due now; how many."""

    def end(raw: Raw) -> bool:
        attempt, lease = read_pair(raw, tx)
        return move(tx, attempt, lease, Event.END, cause, now_ms, actor=actor, data=dict(audit or {}))

    ended = 0
    while True:
        rows = tx.all(query, {**parameters, "limit": CHUNK})
        moved = sum(tx.each(end, rows))
        ended += moved
        # What could not be written stays selected, and is ended when its own due time comes.
        if len(rows) < CHUNK or not moved:
            return ended
