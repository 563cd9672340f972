"""Why a request goes no further: what the connector cannot honour, what policy denies, what the upstream did wrong."""

from __future__ import annotations

from broker.errors import Denied, InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import Contract
from broker.policy.decision import Decision
from broker.scope.model import Scope


def within_contract(scope: Scope, contract: Contract) -> None:
    """Raises :class:`InvalidInput` for a TTL that the connector cannot honour."""
    if scope.ttl < contract.ttl_floor:
        raise InvalidInput(
            Reason.TTL_TOO_SHORT,
            f"a TTL of {scope.ttl.total_seconds():g} s is below what connector {scope.connector} can honour"
            f" ({contract.ttl_floor.total_seconds():g} s).",
            hint=f"Ask for at least {contract.ttl_floor.total_seconds():g} s.",
            metadata={"ttlFloor": f"{contract.ttl_floor.total_seconds():g}s"},
        )
    if scope.ttl > contract.ttl_ceiling:
        raise InvalidInput(
            Reason.TTL_TOO_LONG,
            f"a TTL of {scope.ttl.total_seconds():g} s is above the ceiling of connector {scope.connector}"
            f" ({contract.ttl_ceiling.total_seconds():g} s).",
            hint=f"Ask for at most {contract.ttl_ceiling.total_seconds():g} s, and again within the task.",
            metadata={"ttlCeiling": f"{contract.ttl_ceiling.total_seconds():g}s"},
        )


def denied_by(decision: Decision) -> Denied:
    """What the agent hears of a DENY: the policies that made it, with their reasons."""
    if decision.errors:
        return Denied(
            Reason.POLICY_ERROR,
            "the policies could not be evaluated on this request, which denies it.",
            hint="Operators: the errors stand in the audit record of this refusal.",
            metadata={"errors": "; ".join(decision.errors)[:500], "policyDigest": decision.set_digest},
        )
    because = " ".join(decision.explanations)
    named = ", ".join(decision.policies) if decision.policies else "no policy permits it (default deny)"
    return Denied(
        Reason.POLICY_DENIED,
        f"denied by policy: {named}. {because}".strip(),
        hint="Ask for less, or have an operator change the policy.",
        metadata={"policies": ",".join(decision.policies), "policyDigest": decision.set_digest},
    )


def too_late(*, outcome_known: bool) -> UpstreamFailed:
    """The upstream used up its time. ``outcome_known``: it was not even asked."""
    return UpstreamFailed(
        Reason.UPSTREAM_UNAVAILABLE,
        "the upstream did not answer in time; what it may have issued is being revoked.",
        outcome_known=outcome_known,
        hint="Retry with the same request_id.",
    )
