"""Why a request goes no further: what the connector cannot honour, what policy denies, what the upstream did wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from broker.errors import Denied, InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import Contract
from broker.policy.decision import Decision
from broker.ports.connectors import Doubt, Severity
from broker.scope.model import Scope, ScopeTemplate


def within_contract(scope: Scope, contract: Contract) -> None:
    """Raises :class:`InvalidInput` for a TTL, or a wrapping, that the connector cannot honour."""
    if scope.wrap is not None and not contract.wraps:
        raise InvalidInput(
            Reason.WRAPPING_UNSUPPORTED,
            f"connector {scope.connector} cannot wrap what it issues.",
            hint="Ask without wrap; recipient_public_key seals a credential of any connector.",
            metadata={"field": "wrap", **_whose(scope, contract)},
        )
    if scope.ttl < contract.ttl_floor:
        raise InvalidInput(
            Reason.TTL_TOO_SHORT,
            f"a TTL of {scope.ttl.total_seconds():g} s is below what connector {scope.connector} can honour"
            f" ({contract.ttl_floor.total_seconds():g} s).",
            hint=f"Ask for at least {contract.ttl_floor.total_seconds():g} s.",
            metadata={"ttlFloor": f"{contract.ttl_floor.total_seconds():g}s", **_whose(scope, contract)},
        )
    if scope.ttl > contract.ttl_ceiling:
        raise InvalidInput(
            Reason.TTL_TOO_LONG,
            f"a TTL of {scope.ttl.total_seconds():g} s is above the ceiling of connector {scope.connector}"
            f" ({contract.ttl_ceiling.total_seconds():g} s).",
            hint=f"Ask for at most {contract.ttl_ceiling.total_seconds():g} s, and again within the task.",
            metadata={"ttlCeiling": f"{contract.ttl_ceiling.total_seconds():g}s", **_whose(scope, contract)},
        )


def doubts_of_template(template: ScopeTemplate, contract: Contract) -> Iterator[Doubt]:
    """What of ``template`` its connector cannot honour, known before anybody asks."""
    longest, name = template.max_ttl, template.name
    if template.wrapping and not contract.wraps:
        yield Doubt(
            Severity.ERROR,
            f"Template {name} allows wrapping, which connector {template.connector} cannot do: whoever asks is"
            " refused.",
            "Take `wrapping` away.",
        )
    if longest < contract.ttl_floor:
        yield Doubt(
            Severity.ERROR,
            f"Template {name} grants at most {_seconds(longest)}, below what connector {template.connector} can"
            f" honour ({_seconds(contract.ttl_floor)}): it can never grant anything.",
            "Raise max_ttl, or take the template away.",
        )
    elif longest > contract.ttl_ceiling:
        yield Doubt(
            Severity.WARNING,
            f"Template {name} offers {_seconds(longest)}, above the ceiling of connector {template.connector}"
            f" ({_seconds(contract.ttl_ceiling)}): whoever asks for more than that is refused.",
            f"Set max_ttl to {_seconds(contract.ttl_ceiling)} at most.",
        )


def _seconds(value: timedelta) -> str:
    return f"{value.total_seconds():g} s"


def _whose(scope: Scope, contract: Contract) -> dict[str, str]:
    """What a refusal says of the contract it came from."""
    return {"connector": scope.connector, "contractClass": contract.cls.value, "binding": contract.binding.value}


def denied_by(decision: Decision, scope: Scope, contract: Contract) -> Denied:
    """What the agent hears of a DENY: the policies that made it, with their reasons, and the contract they saw."""
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
        metadata={
            "policies": ",".join(decision.policies),
            "policyDigest": decision.set_digest,
            **_whose(scope, contract),
        },
    )


def too_late(*, outcome_known: bool) -> UpstreamFailed:
    """The upstream used up its time. ``outcome_known``: it was not even asked."""
    return UpstreamFailed(
        Reason.UPSTREAM_UNAVAILABLE,
        "the upstream did not answer in time; what it may have issued is being revoked.",
        outcome_known=outcome_known,
        hint="Retry with the same request_id.",
    )
