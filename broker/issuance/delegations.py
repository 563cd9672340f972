"""Delegations: handed on by who holds a lease, taken back, listed. Redeeming one is a request for a credential."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from broker.delegation.delegation import Delegation
from broker.errors import InvalidInput, NotFound, Reason
from broker.identity.party import party
from broker.issuance.caller import Caller
from broker.issuance.plans import participating
from broker.issuance.stopped import check_suspended
from broker.ports.clock import Clock, Rng
from broker.ports.leases import Lease
from broker.ports.ledger import Ledger
from broker.ports.pipelines import NewDelegation
from broker.ports.tasks import TaskLimits
from broker.scope.canonical import canonical_json
from broker.scope.model import ScopeTemplate
from broker.scope.narrowing import narrowings

DELEGATION_PREFIX = "delegation-"


@dataclass(frozen=True, slots=True)
class DelegationOrder:
    """What a holder says to hand on a part of a lease. What it leaves out is as the lease has it."""

    request_id: str
    lease_id: str
    delegate: str  # SPIFFE ID
    resource: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    ttl: timedelta | None = None
    further: int = 0

    def digest(self) -> str:
        """SHA-256 (hex) of everything said, for idempotency."""
        ttl = None if self.ttl is None else self.ttl // timedelta(microseconds=1)
        said = [self.request_id, self.lease_id, self.delegate, self.resource, dict(self.parameters), ttl, self.further]
        return hashlib.sha256(canonical_json(said)).hexdigest()


class DelegationDesk:
    """Everything agents do with delegations."""

    def __init__(
        self, store: Ledger, kick: Callable[[str], None], clock: Clock, rng: Rng, *, limits: TaskLimits
    ) -> None:
        self._store = store
        self._kick = kick
        self._clock = clock
        self._rng = rng
        self._limits = limits

    async def delegate(self, caller: Caller, order: DelegationOrder) -> Delegation:
        """Hand on a part of a lease that the caller holds."""
        lease = await self._store.get_lease(caller.tenant, order.lease_id, caller.id)
        await check_suspended(self._store, caller, lease.task_id)
        template = _template(caller, lease)
        if order.ttl is not None and order.ttl <= timedelta(0):
            raise InvalidInput(
                Reason.TTL_INVALID, "a delegation must end after it begins.", hint="Leave ttl out: as the lease does."
            )
        return await self._store.delegate(
            NewDelegation(
                tenant=caller.tenant,
                id=DELEGATION_PREFIX + self._rng.id(),
                request_id=order.request_id,
                request_digest=order.digest(),
                lease_id=order.lease_id,
                delegator=party(caller.agent),
                delegate=party(caller.deploy.registry.named(order.delegate, "delegate")),
                template_digest=template.digest,
                resource=template.resource.parse(order.resource) if order.resource else lease.resource,
                parameters=_parameters(template, lease, order.parameters),
                further=order.further,
                compared=narrowings(template),
                created_at=caller.now,
                expires_at=None if order.ttl is None else caller.now + order.ttl,
                limits=_within_template(self._limits, template),
            )
        )

    async def revoke(self, caller: Caller, delegation_id: str) -> Delegation:
        """Take a delegation back: nothing more is issued by it, and what was is ended. Repeating it is harmless."""
        taken_back = await self._store.revoke_delegation(caller.tenant, delegation_id, caller.id, self._clock.now())
        # Whoever handed it on sees the lease it is a part of, and that names the lane.
        lease = await self._store.get_lease(caller.tenant, taken_back.lease_id, caller.id)
        self._kick(lease.connector)
        return taken_back

    async def of_task(self, caller: Caller, task_id: str) -> Sequence[Delegation]:
        """What the caller gave and was given on a task, oldest first."""
        await participating(self._store, caller, task_id)
        return await self._store.task_delegations(caller.tenant, task_id, caller.id)


def _template(caller: Caller, lease: Lease) -> ScopeTemplate:
    template = caller.deploy.templates.get(lease.template)
    if template is None:
        raise NotFound(
            Reason.TEMPLATE_NOT_FOUND,
            f"there is no template {lease.template!a} any more.",
            hint="What is asked for today can be handed on; ask again by another template.",
            metadata={"template": lease.template},
        )
    return template


def _within_template(limits: TaskLimits, template: ScopeTemplate) -> TaskLimits:
    """A template may allow fewer hand-overs than hold for all, never more."""
    depth = limits.delegation_depth if template.max_delegation_depth is None else template.max_delegation_depth
    return replace(limits, delegation_depth=min(depth, limits.delegation_depth))


def _parameters(template: ScopeTemplate, lease: Lease, narrower: Mapping[str, str]) -> Mapping[str, str]:
    """The lease's, with what is said instead; each has passed its type."""
    if fixed := sorted(narrower.keys() - template.parameters.keys()):
        what = "is taken from the SPIFFE ID" if fixed[0] in template.from_identity else "is not in the template"
        raise InvalidInput(
            Reason.PARAMETER_UNKNOWN,
            f"the parameter {fixed[0]!a} {what} {template.name}, so it cannot be narrowed.",
            hint=f"It has: {', '.join(sorted(template.parameters)) or 'none'}.",
            metadata={"template": template.name, "parameters": ",".join(fixed)},
        )
    parsed = {name: template.parameters[name].parse(value) for name, value in narrower.items()}
    return {**lease.parameters, **parsed}
