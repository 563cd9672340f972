"""From a request that needs approval to what is filed for people: its terms, its deadlines, who may not decide."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from broker.approval.digest import Terms
from broker.approval.rules import ApprovalRule
from broker.approval.separation import Interest, interests, owners_of, person_id
from broker.errors import Denied, Reason
from broker.issuance.caller import Caller
from broker.policy.decision import Decision
from broker.policy.facts import Situation
from broker.ports.access_requests import Filing
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.scope.request import AccessRequest

ACCESS_REQUEST_PREFIX = "areq-"
# For so long a denied request is not asked for again.
DENIED_COOL_DOWN = timedelta(minutes=15)


def filing_of(
    caller: Caller,
    request: AccessRequest,
    scope: Scope,
    contract_class: str,
    decision: Decision,
    situation: Situation,
    *,
    sponsor: str,
    id_: str,
    cool_down: timedelta,
    audit: Mapping[str, JsonValue],
) -> Filing:
    """What the ledger is asked to file. Raises :class:`Denied` for a gate whose approval nobody has defined."""
    rules = [_rule(caller, name, decision) for name in decision.approvals]
    if not rules:
        raise _undefined("", decision)
    terms = terms_of(caller, request, scope, contract_class, decision.policies, decision.approvals)
    return Filing(
        tenant=caller.tenant,
        id=ACCESS_REQUEST_PREFIX + id_,
        holder=caller.id,
        principal=caller.agent.principal,
        request=request,
        request_digest=request.digest(),
        digest=terms.digest(),
        ask_digest=terms.ask_digest(),
        scope=scope,
        contract_class=contract_class,
        decision=decision,
        interests=_interests(caller, situation, sponsor),
        now=caller.now,
        expires_at=caller.now + min(rule.expires_in for rule in rules),
        redeem_within=min(rule.redeem_within for rule in rules),
        max_pending=caller.agent.quotas.pending_requests,
        denied_since=caller.now - cool_down,
        cool_down=cool_down,
        audit=audit,
    )


def terms_of(
    caller: Caller,
    request: AccessRequest,
    scope: Scope,
    contract_class: str,
    gates: tuple[str, ...],
    approvals: tuple[str, ...],
) -> Terms:
    """What a yes is bound to, under the deploy set of ``caller``."""
    return Terms(
        tenant=caller.tenant,
        holder=caller.id,
        principal=caller.agent.principal,
        request=request,
        scope=scope,
        contract_class=contract_class,
        policy_digest=caller.deploy.policies.digest,
        gates=gates,
        approvals=approvals,
    )


def _interests(caller: Caller, situation: Situation, sponsor: str) -> tuple[Interest, ...]:
    human = situation.on_behalf_of
    return interests(
        owners=[caller.agent.owner],
        sponsor=sponsor,
        on_behalf_of=[] if human is None else [person_id(human)],
        delegators=owners_of(situation.delegators, caller.deploy.registry),
        people=caller.deploy.people,
    )


def _rule(caller: Caller, name: str, decision: Decision) -> ApprovalRule:
    rule = caller.deploy.approvals.get(name)
    if rule is None:
        raise _undefined(name, decision)
    return rule


def _undefined(name: str, decision: Decision) -> Denied:
    return Denied(
        Reason.POLICY_ERROR,
        f"policy asks for the approval {name!a}, which nobody has defined; that denies it.",
        hint="Operators: define it in approvals.yaml.",
        metadata={"approval": name, "policyDigest": decision.set_digest},
    )
