"""Rows of plans, delegations and the origins of leases, by the rules of :mod:`broker.stores.rows`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

import orjson

from broker.delegation.delegation import Delegation
from broker.identity.party import Party
from broker.plan.machine import PlanState
from broker.plan.plan import Plan, action_of
from broker.scope.canonical import canonical_json
from broker.stores.rows import Raw
from broker.stores.seal import RowSeal, tampered
from broker.stores.times import from_ms, optional_at
from broker.stores.transaction import Transaction


@dataclass(slots=True)
class PlanRow:
    """A row of ``plans``."""

    TABLE: ClassVar[str] = "plans"

    tenant: str
    id: str
    task_id: str
    planner: str
    planner_principal: str
    request_id: str
    request_digest: str
    text: str  # concealed
    actions: str
    digest: str
    created_at: int
    deadline: int
    state: str
    validator: str | None
    validator_principal: str | None
    reason: str
    decided_at: int | None


@dataclass(slots=True)
class DelegationRow:
    """A row of ``delegations``."""

    TABLE: ClassVar[str] = "delegations"

    tenant: str
    id: str
    task_id: str
    lease_id: str
    delegator: str
    request_id: str
    request_digest: str
    chain: str
    delegate: str
    delegate_principal: str
    resource: str
    parameters: str
    further: int
    created_at: int
    expires_at: int
    revoked_at: int | None


@dataclass(slots=True)
class OriginRow:
    """A row of ``lease_origins``."""

    TABLE: ClassVar[str] = "lease_origins"

    tenant: str
    lease_id: str
    plan_id: str
    step: str
    delegation_id: str
    parent_lease_id: str
    chain: str
    further: int


R = TypeVar("R", PlanRow, DelegationRow, OriginRow)

_VALUES = {kind: attrgetter(*(each.name for each in fields(kind))) for kind in (PlanRow, DelegationRow, OriginRow)}
_PLAN_FIXED = [each.name for each in fields(PlanRow)].index("state")


def trusted(kind: type[R], raw: Raw, seal: RowSeal) -> R:
    """The row in ``raw``. Raises Tampered (ROW_MAC_MISMATCH): nothing but a grant is ever asked of these tables."""
    values = raw[:-2]
    if not seal.holds(kind.TABLE, values, raw[-2], raw[-1]):
        raise tampered(kind.TABLE, str(values[1]))
    return kind(*values)


def insert(tx: Transaction, statement: str, row: PlanRow | DelegationRow | OriginRow) -> None:
    """Add a sealed row by the query of that name."""
    values: tuple[Any, ...] = _VALUES[type(row)](row)
    tx.connection.execute(tx.sql[statement], (*values, *tx.seal.make(row.TABLE, values)))


def update_decision(tx: Transaction, row: PlanRow) -> bool:
    """Store what may change of a plan; False if it was decided meanwhile."""
    values: tuple[Any, ...] = _VALUES[PlanRow](row)
    sealed = (*values[_PLAN_FIXED:], *tx.seal.make(row.TABLE, values), row.tenant, row.id)
    return tx.connection.execute(tx.sql["decide_plan"], sealed).rowcount == 1


def update_text(tx: Transaction, row: PlanRow) -> None:
    """Store a plan's text, which is only ever erased."""
    values: tuple[Any, ...] = _VALUES[PlanRow](row)
    tx.run("erase_plan_text", (row.text, *tx.seal.make(row.TABLE, values), row.tenant, row.id))


def update_revoked(tx: Transaction, row: DelegationRow) -> bool:
    """Store the end of a delegation; False if it had one."""
    values: tuple[Any, ...] = _VALUES[DelegationRow](row)
    sealed = (row.revoked_at, *tx.seal.make(row.TABLE, values), row.tenant, row.id)
    return tx.connection.execute(tx.sql["revoke_delegation"], sealed).rowcount == 1


def plan_of(row: PlanRow, seal: RowSeal) -> Plan:
    """The port's view of a plan."""
    decided = row.validator is not None and row.validator_principal is not None
    return Plan(
        tenant=row.tenant,
        id=row.id,
        task_id=row.task_id,
        planner=Party(row.planner, row.planner_principal),
        text=seal.reveal(row.text, row.TABLE, row.id),
        actions=tuple(action_of(each) for each in orjson.loads(row.actions)),
        digest=row.digest,
        created_at=from_ms(row.created_at),
        deadline=from_ms(row.deadline),
        state=PlanState(row.state),
        validator=Party(str(row.validator), str(row.validator_principal)) if decided else None,
        reason=row.reason,
        decided_at=optional_at(row.decided_at),
    )


def delegation_of(row: DelegationRow) -> Delegation:
    """The port's view of a delegation."""
    return Delegation(
        tenant=row.tenant,
        id=row.id,
        task_id=row.task_id,
        lease_id=row.lease_id,
        chain=parties(row.chain),
        delegate=Party(row.delegate, row.delegate_principal),
        resource=row.resource,
        parameters=orjson.loads(row.parameters),
        further=row.further,
        created_at=from_ms(row.created_at),
        expires_at=from_ms(row.expires_at),
        revoked_at=optional_at(row.revoked_at),
    )


def parties(chain: str) -> tuple[Party, ...]:
    """The parties in a ``chain`` column."""
    return tuple(Party(*each) for each in orjson.loads(chain))


def written_chain(chain: tuple[Party, ...]) -> str:
    """What :func:`parties` reads."""
    return canonical_json([[each.id, each.principal] for each in chain]).decode()
