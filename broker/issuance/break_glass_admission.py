"""Whether somebody may break the glass for this: by the template's section, how they have logged in, and policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from broker.breakglass.rules import BreakGlassRule, check_strength, check_ttl, groups_for, unfit
from broker.errors import Defect, Denied, NotFound, Reason
from broker.identity.agent import Agent, Peer, Person
from broker.issuance.break_glass_order import BreakGlassOrder, Proven, request_of
from broker.issuance.caller import Caller, OperatorCaller
from broker.issuance.situation import Situations
from broker.issuance.verdicts import denied_by, within_contract
from broker.policy.decision import Decision, Effect
from broker.policy.facts import NOTHING_KNOWN, RequestFacts, Situation
from broker.ports.connectors import Connector
from broker.ports.deploys import DeploySet
from broker.ports.ledger import Ledger
from broker.scope.bind import bind
from broker.scope.model import Scope, ScopeTemplate
from broker.scope.request import AccessRequest


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was admitted: by whom it is held, what exactly it is, and what policy said."""

    holder: str
    agent: Agent | None
    request: AccessRequest
    scope: Scope
    decision: Decision
    connector: Connector
    situation: Situation
    groups: frozenset[str]
    rule: BreakGlassRule


class Admission:
    """Decides, and changes nothing. ``connectors`` finds one by name."""

    def __init__(self, store: Ledger, connectors: Callable[[str], Connector | None]) -> None:
        self._store = store
        self._connectors = connectors
        self._situations = Situations(store)

    async def admit(self, caller: OperatorCaller, order: BreakGlassOrder, proven: Proven) -> Asked:
        """Raises what binding and the contract refuse, and see :meth:`BreakGlassDesk.use`. Changes nothing."""
        person = person_in_force(caller)
        template = _template(caller.deploy, order.template)
        rule = caller.deploy.break_glass.get(template.name)
        groups = groups_for(rule, template.name, caller.id, person.groups)
        assert rule is not None  # noqa: S101 - groups_for refuses where there is none
        check_ttl(rule, template.name, order.ttl)
        if proven.record is not None:
            token = proven.record.proof.id_token
            check_strength(rule, token.acr, token.amr)
        connector = self._connectors(template.connector)
        if connector is None:
            raise Defect(Reason.INTERNAL, f"template {template.name} names a connector that is not running.")
        agent = await self._agent(caller, order)
        request = request_of(caller, order, agent)
        # The section's own maximum; and what an agent must say about itself, no person can.
        emergency = replace(template, max_ttl=rule.max_ttl, mandatory=frozenset())
        scope = bind(emergency, request, dict(agent.segments) if agent else {})
        within_contract(scope, connector.contract)
        holder = caller.id if agent is None else str(agent.spiffe_id)
        decision, situation = await self._decide(caller, agent, request, scope, connector, groups)
        return Asked(holder, agent, request, scope, decision, connector, situation, groups, rule)

    async def _agent(self, caller: OperatorCaller, order: BreakGlassOrder) -> Agent | None:
        if not order.task_id:
            if order.agent or order.plan:
                name = "agent" if order.agent else "plan"
                raise unfit(name, f"there is no task that the {name} is of", "Name the agent's task too: --task.")
            return None
        named = order.agent or (await self._store.get_task(caller.tenant, order.task_id)).creator
        agent = caller.deploy.registry.named(named, "agent")
        if caller.deploy.denied.denies_lease(named, "", caller.now):
            raise Denied(
                Reason.AGENT_DENIED,
                f"{named} is denied by the operators of this broker; no emergency gives it anything.",
                hint="Break glass for yourself, without --task.",
                metadata={"spiffeId": named},
            )
        return agent

    async def _decide(
        self,
        caller: OperatorCaller,
        agent: Agent | None,
        request: AccessRequest,
        scope: Scope,
        connector: Connector,
        groups: frozenset[str],
    ) -> tuple[Decision, Situation]:
        """What policy says. It speaks of agents: for a person the template's own section is the permission."""
        digest = caller.deploy.policies.digest
        if agent is None:
            told = f"Template {scope.template} pre-authorises {', '.join(sorted(groups))} for emergencies."
            return Decision(Effect.ALLOW, (), (told,), (), digest), NOTHING_KNOWN
        asker = as_agent(caller, agent)
        situation = await self._situations.read(asker, request)
        promised = connector.contract.of_grant(scope.grant)
        facts = RequestFacts(agent, request, scope, promised, caller.now, asker.peer.delivery, situation)
        decision = caller.deploy.policies.decide(facts)
        if decision.errors or decision.effect is Effect.DENY:
            raise denied_by(decision, scope, promised)
        return decision, situation


def person_in_force(caller: OperatorCaller) -> Person:
    """The caller as people.yaml has them now, with the groups that the login confirms, too.

    Raises Denied (OPERATOR_DISABLED).
    """
    for person in caller.deploy.people.values():
        if person.id == caller.id and person.enabled(caller.now):
            return replace(person, groups=person.groups & caller.operator.person.groups)
    raise Denied(
        Reason.OPERATOR_DISABLED,
        f"{caller.id} is not in people.yaml, or disabled there.",
        hint="Who keeps people.yaml says who may operate this broker.",
        metadata={"person": caller.id},
    )


def as_agent(caller: OperatorCaller, agent: Agent) -> Caller:
    """For what policy is asked about the agent. It has proven nothing itself: nothing here reads of its SVID."""
    return Caller(caller.tenant, agent, Peer(agent.spiffe_id, caller.now, caller.now, 0, ""), caller.deploy, caller.now)


def _template(deploy: DeploySet, name: str) -> ScopeTemplate:
    template = deploy.templates.get(name)
    if template is None:
        raise NotFound(
            Reason.TEMPLATE_NOT_FOUND,
            f"there is no template {name!a}.",
            hint="`broker break-glass list` shows what you may break glass on.",
            metadata={"template": name},
        )
    return template
