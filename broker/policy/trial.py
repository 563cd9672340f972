"""What would be decided, if somebody asked: one request tried out against a deploy set, with nothing issued.

The way is the broker's own: registry, deny list, whom it is for, template, tools, ``bind``, ``PolicySet.decide``. So a
policy test says what will happen, and not what a second reading of the policies would. Does not belong here: where
requests come from, and what comes after policy (the connector's TTL bounds, quotas, the state of a task).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from broker.errors import BrokerError, Denied, NotFound, Reason
from broker.identity.agent import Agent, Delivery, Peer, Person, Registry
from broker.identity.behalf import check_within, person_behind
from broker.identity.denied import DenyList
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import Contract, ContractClass
from broker.policy.cedar import PolicySet
from broker.policy.decision import Effect
from broker.policy.facts import NOTHING_KNOWN, RequestFacts, Situation, wanted
from broker.policy.shadow import ShadowPolicies, ShadowVerdict
from broker.policy.tools import check_tool
from broker.scope.bind import bind
from broker.scope.model import AccessClass, ScopeTemplate
from broker.scope.request import AccessRequest

# No certificate has it (RFC 5280 wants a positive one), so no entry of a deny list names it.
_NO_SERIAL = -1
_ENDED_EARLY = (ContractClass.IMMEDIATE, ContractClass.BY_POLICY)


@dataclass(frozen=True, slots=True)
class Rules:
    """What of a deploy set decides. ``contracts`` are by connector: how what it issues can be ended."""

    registry: Registry
    templates: Mapping[str, ScopeTemplate]
    policies: PolicySet
    contracts: Mapping[str, Contract]
    denied: DenyList = field(default_factory=DenyList)
    people: Mapping[str, Person] = field(default_factory=dict)
    shadow: ShadowPolicies | None = None


@dataclass(frozen=True, slots=True)
class Supposed:
    """What is taken to be otherwise than in the set, for rules about what it does not hold yet. Empty: as it is."""

    # Other values for fields of the contract, by name; of a class that only time or rotation ends, with no on_revoke.
    contract: Mapping[str, Any] = field(default_factory=dict)
    template_environments: frozenset[str] = frozenset()
    agent_environments: frozenset[str] = frozenset()
    access: AccessClass | None = None
    # Other values for fields of the template's Risk, and of the agent, by name.
    risk: Mapping[str, Any] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)
    situation: Situation = NOTHING_KNOWN
    on_behalf_of: str = ""  # a key of people.yaml, or issuer#subject
    tool: str = ""  # that the tool call names; where there is one and nothing is said: one that is allowed


@dataclass(frozen=True, slots=True)
class Trial:
    """A request somebody might make at ``now``. ``agent`` is an entry of the registry or a SPIFFE ID."""

    agent: str
    request: AccessRequest
    now: datetime
    delivery: Delivery = Delivery.DIRECT
    supposed: Supposed = Supposed()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the broker would answer. ``reason`` is None unless it is a DENY; ``policies`` are those that decided.

    ``approvals`` are what is missing, of NEEDS_APPROVAL.
    """

    effect: Effect
    reason: Reason | None = None
    policies: tuple[str, ...] = ()
    explanations: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether a credential would be issued, as far as policy goes."""
        return self.effect is Effect.ALLOW


def tried(trial: Trial, rules: Rules) -> Outcome:
    """The outcome of ``trial`` under ``rules``. Whatever the broker refuses is a DENY with its reason."""
    try:
        facts = _facts(trial, rules)
    except BrokerError as refused:
        return Outcome(Effect.DENY, refused.reason, explanations=(f"{refused.message} {refused.hint}".strip(),))
    decision = rules.policies.decide(facts)
    if decision.allowed:
        return Outcome(Effect.ALLOW, None, decision.policies, decision.explanations)
    if decision.effect is Effect.NEEDS_APPROVAL:
        return Outcome(decision.effect, None, decision.policies, decision.explanations, approvals=decision.approvals)
    reason = Reason.POLICY_ERROR if decision.errors else Reason.POLICY_DENIED
    return Outcome(Effect.DENY, reason, decision.policies, decision.explanations, decision.errors)


def shadowed(trial: Trial, rules: Rules) -> ShadowVerdict | None:
    """What shadow policies would make of ``trial``; None where there are none, or policy is not reached."""
    if rules.shadow is None:
        return None
    try:
        facts = _facts(trial, rules)
    except BrokerError:
        return None
    return rules.shadow.verdict(facts, rules.policies.decide(facts))


def found(agent: str, registry: Registry) -> Agent:
    """The agent of this SPIFFE ID, or of this entry. Raises :class:`BrokerError`, too, for the entry of a pattern."""
    if "://" in agent:
        return registry.find(SpiffeId.parse(agent))
    for each in registry if registry.own is None else (*registry, registry.own):
        if each.principal == agent:
            return each
    many = any(entry.principal == agent for entry in registry.patterns)
    raise Denied(
        Reason.AGENT_NOT_REGISTERED,
        f"{agent!a} is the entry of a pattern, and stands for many agents." if many else f"{agent!a} is no entry.",
        hint="Write the SPIFFE ID of one of them."
        if many
        else "An entry is the name of a file of agents/, or a SPIFFE ID.",
        metadata={"agent": ascii(agent)},
    )


def _facts(trial: Trial, rules: Rules) -> RequestFacts:
    agent = found(trial.agent, rules.registry)
    rules.denied.check(Peer(agent.spiffe_id, trial.now, trial.now, _NO_SERIAL, ""), trial.now)
    supposed, situation = trial.supposed, trial.supposed.situation
    if supposed.on_behalf_of:
        situation = replace(situation, on_behalf_of=_human(supposed.on_behalf_of, rules.people, trial.now))
    template = rules.templates.get(trial.request.template)
    if template is None:
        raise NotFound(
            Reason.TEMPLATE_NOT_FOUND,
            f"there is no template {trial.request.template!a}.",
            hint=f"There is: {', '.join(sorted(rules.templates))}.",
        )
    _check_tool(agent, trial.request, supposed.tool)
    if supposed.template_environments:
        template = replace(template, environments=supposed.template_environments)
    if supposed.agent_environments:
        agent = replace(agent, environments=supposed.agent_environments)
    if supposed.access is not None:
        template = replace(template, access=supposed.access)
    template = replace(template, risk=replace(template.risk, **supposed.risk))
    agent = replace(agent, **supposed.agent)
    scope = bind(template, trial.request, dict(agent.segments))
    check_within(situation.on_behalf_of, wanted(scope))
    contract = _promised(rules.contracts[template.connector].of_grant(scope.grant), supposed.contract)
    return RequestFacts(agent, trial.request, scope, contract, trial.now, trial.delivery, situation)


def _human(named: str, people: Mapping[str, Person], now: datetime) -> Person:
    """As the broker looks for them. Raises :class:`Denied` (ON_BEHALF_OF_NOBODY)."""
    person = people.get(named)
    issuer, _, subject = named.partition("#") if person is None else (person.issuer, "", person.subject)
    return person_behind(issuer, subject, people, now)


def _check_tool(agent: Agent, request: AccessRequest, tool: str) -> None:
    """As the broker does: no tool call is none that is allowed."""
    if tool:
        request = replace(request, tool_call=json.dumps({"tool": tool}))
    if tool or not request.tool_call:
        check_tool(agent, request)


def _promised(contract: Contract, supposed: Mapping[str, Any]) -> Contract:
    ends = {} if supposed.get("cls", contract.cls) in _ENDED_EARLY else {"on_revoke": None}
    return replace(contract, **{**ends, **supposed})
