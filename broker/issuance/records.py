"""What the audit trail shall say of a request beyond what its rows say: claims by digest, and what was decided on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from broker.identity.agent import Peer
from broker.issuance.caller import Caller
from broker.policy.facts import RequestFacts, Situation
from broker.policy.recorded import known
from broker.policy.shadow import ShadowVerdict
from broker.scope.canonical import JsonValue
from broker.scope.model import OnPolicyChange, Scope
from broker.scope.request import AccessRequest, Claimed


def shadow_told(shadow: ShadowVerdict | None) -> dict[str, JsonValue]:
    """For the audit trail, where shadow policies would have answered otherwise."""
    return {} if shadow is None or not shadow.changes else {"shadow": shadow.told()}


def tool_told(tool: str) -> dict[str, JsonValue]:
    """The tool that was called, where the agent has an allow list."""
    return {"tool": tool} if tool else {}


def decided_on(caller: Caller, scope: Scope, situation: Situation) -> dict[str, JsonValue]:
    """What policy saw beyond what was asked: with it, the decision can be made again (broker/policy/recorded.py)."""
    looked_at = caller.deploy.policies.reads[scope.access]
    told: dict[str, JsonValue] = {
        "ttl_ms": scope.ttl // timedelta(milliseconds=1),
        "situation": known(situation, looked_at),
    }
    if situation.on_behalf_of is not None:
        told["on_behalf_of"] = situation.on_behalf_of.id
    on_change = caller.deploy.templates[scope.template].on_policy_change
    if on_change is not OnPolicyChange.REPORT:  # said here, too, for when the template is gone
        told["on_policy_change"] = on_change.value
    return told


def what_was_asked(facts: RequestFacts) -> dict[str, JsonValue]:
    """What was asked for and refused, as an intent would record it."""
    scope = facts.scope
    return {
        **told_by_agent(facts.request),
        "template": scope.template,
        "account": scope.account,
        "environment": scope.environment,
        "resource": scope.resource,
        "parameters": dict(scope.parameters),
        "delivery": facts.delivery.value,
        "sealed": bool(facts.request.recipient_public_key),
        "principal": facts.agent.principal,
    }


def delivered(peer: Peer, request: AccessRequest) -> Mapping[str, JsonValue]:
    """Which way the credential goes to its holder, as the broker established it."""
    told: dict[str, JsonValue] = {"delivery": peer.delivery.value, "sealed": bool(request.recipient_public_key)}
    if request.wrap is not None:
        told["wrap_ms"] = request.wrap // timedelta(milliseconds=1)
    if peer.proxy is not None:
        told |= {"proxy": str(peer.proxy.spiffe_id), "token": peer.fingerprint}
    return told


def told_by_agent(request: AccessRequest, claimed: Claimed | None = None) -> Mapping[str, JsonValue]:
    """What the agent claims about its reasons; long texts by digest only (R7).

    ``claimed``: the digests, where somebody has them already.
    """
    claimed = claimed or request.claimed()
    told: dict[str, JsonValue] = {
        "step": request.step,
        "plan_id": request.plan_id,
        "delegation_id": request.delegation_id,
        "intent": request.intent,
        "reason": request.reason,
        "ticket": request.ticket,
        "prompt_sha256": claimed.prompt,
        "tool_call_sha256": claimed.tool_call,
        "plan_sha256": claimed.plan,
    }
    return {key: value for key, value in told.items() if value}
