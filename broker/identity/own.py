"""The broker's own principal: who holds the leases of canaries.

It is an agent to policy and in the ledger, so that a canary's lease takes the same path as everybody's, and it is
nobody at the doors: no workload logs in as it, whoever signed its certificate, and no file of ``agents/`` can claim it.
It has no environments and no roles, so that what is permitted to agents at large is not permitted to it: a policy has
to name it, as ``principal.entry == "broker.canary"``.
"""

from __future__ import annotations

from broker.errors import Denied, Reason
from broker.identity.agent import Agent, Person, Quotas, Tier
from broker.identity.spiffe_id import SpiffeId

# No file of agents/ can be called so: their names have no dots.
CANARY = "broker.canary"
_PATH = "/jit-broker/canary"
# The broker answers for itself. No issuer of people is called so.
_OWNER = Person("urn:jit-broker", "canary", "the broker itself")
# It is bounded by its schedule: one run per connector at a time.
_QUOTAS = Quotas(live_leases=1_000, open_tasks=1_000, pending_requests=1)


def canary_agent(trust_domain: str) -> Agent:
    """The holder of canaries' leases, in the broker's own trust domain."""
    return Agent(
        spiffe_id=SpiffeId(trust_domain, _PATH),
        owner=_OWNER,
        tier=Tier.ADVISORY,
        roles=frozenset(),
        environments=frozenset(),
        quotas=_QUOTAS,
        description="The broker itself, which measures how fast its connectors' credentials end.",
        principal=CANARY,
        promoted=True,
    )


def is_own(spiffe_id: SpiffeId) -> bool:
    """Whether this id is reserved for the broker, in whichever trust domain."""
    return spiffe_id.path == _PATH


def refuse_own(spiffe_id: SpiffeId) -> None:
    """Raises :class:`Denied` (AGENT_NOT_REGISTERED) for somebody who comes as the broker itself."""
    if is_own(spiffe_id):
        raise Denied(
            Reason.AGENT_NOT_REGISTERED,
            f"{spiffe_id} is the broker's own id; no workload has it.",
            hint="Operators: take this id away from the workload that has it.",
            metadata={"spiffeId": str(spiffe_id)},
        )
