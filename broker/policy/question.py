"""The facts of one request in Cedar's words: principal, action, resource and context.

The names and types here are those of ``broker.cedarschema``, and the engine checks them against it
on every call. Claimed texts enter as values of attributes, never as parts of names or of policy.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from datetime import UTC, timedelta
from functools import partial
from typing import Any, NamedTuple

import orjson

from broker.identity.agent import Agent, Person
from broker.lease.credential import Contract
from broker.policy.facts import RequestFacts
from broker.scope.model import Risk

# Policies speak of "the scope asked for", never of one scope by name, so one name is enough.
_SCOPE = {"type": "Scope", "id": "requested"}


class Parties(NamedTuple):
    """Everything of a question that is an entity, and so is kept parsed."""

    agent: Agent
    template: str
    connector: str
    account: str
    environment: str
    name: str
    access: str
    actions: tuple[str, ...]
    parameters: tuple[str, ...]
    contract: Contract
    risk: Risk
    behind: Person | None  # on whose behalf; None, too, where nobody would read it


def parties(facts: RequestFacts, *, with_parameters: bool, with_behind: bool = True) -> Parties:
    """Who asks for what. Values of parameters, and on whose behalf, are left out where nobody would read them."""
    scope = facts.scope
    parameters = scope.parameters if with_parameters else {}
    return Parties(
        agent=facts.agent,
        template=scope.template,
        connector=scope.connector,
        account=scope.account,
        environment=scope.environment,
        name=scope.resource,
        access=scope.access.value,
        actions=scope.actions,
        parameters=tuple(sorted(f"{key}={value}" for key, value in parameters.items())),
        contract=facts.contract,
        risk=scope.risk,
        behind=facts.situation.on_behalf_of if with_behind else None,
    )


def entities(who: Parties, read: Container[str]) -> str:
    """The agent, its owner and the scope, in Cedar's JSON entity format, with those attributes that are ``read``.

    Raises ValueError for what is no Unicode.
    """
    agent, owner, risk = who.agent, who.agent.owner, who.risk
    template = {"type": "Template", "id": who.template}
    # By id: whoever is owner and principal of a task at once is one entity, and as the registry has them.
    known = (who.behind, owner if "owner" in read else None)
    persons = {_id(person): person for person in known if person is not None}
    entity = partial(_entity, read)
    return _json(
        [
            *(
                entity(_person(each), issuer=each.issuer, subject=each.subject, groups=sorted(each.groups))
                for each in persons.values()
            ),
            entity(
                _agent(agent),
                tags=dict(agent.segments),
                entry=agent.principal,
                trust_domain=agent.spiffe_id.trust_domain,
                path=agent.spiffe_id.path,
                owner={"__entity": _person(owner)},
                tier=agent.tier.value,
                roles=sorted(agent.roles),
                environments=sorted(agent.environments),
                promoted=agent.promoted,
                tools=sorted(agent.tools),
            ),
            entity(template),
            entity(
                _SCOPE,
                [template],
                {},
                template=who.template,
                connector=who.connector,
                account=who.account,
                environment=who.environment,
                name=who.name,
                access=who.access,
                actions=list(who.actions),
                parameters=list(who.parameters),
                **_promised(who.contract),
                sensitivity=risk.sensitivity.value,
                blast_radius=risk.blast_radius.value,
                reversibility=risk.reversibility.value,
                change_type=risk.change_type,
                template_promoted=risk.promoted,
            ),
        ]
    )


def _promised(contract: Contract) -> dict[str, object]:
    """How, and how fast, it can be ended. A bound that there is not is left out: no number is honest for it."""
    bounds = {
        "bound_on_expiry_seconds": contract.on_expiry,
        "bound_on_revoke_seconds": contract.on_revoke,
        "bound_on_broker_dead_seconds": contract.on_broker_dead,
        "bound_on_upstream_dead_seconds": contract.on_upstream_dead,
    }
    told = {name: _seconds(bound) for name, bound in bounds.items() if bound is not None}
    return {"contract_class": contract.cls.value, "binding": contract.binding.value, **told}


def _seconds(span: timedelta) -> int:
    """Rounded up."""
    return -(-span // timedelta(seconds=1))


def compared(who: Parties, what: tuple[str, str]) -> str:
    """The one text that ``who`` has of ``what`` (``SINGLE`` in slicing.py), as :func:`entities` tells it."""
    return _SINGLE[what](who)


_SINGLE: Mapping[tuple[str, str], Callable[[Parties], str]] = {
    ("resource", "template"): lambda who: who.template,
    ("resource", "connector"): lambda who: who.connector,
    ("resource", "account"): lambda who: who.account,
    ("resource", "environment"): lambda who: who.environment,
    ("resource", "name"): lambda who: who.name,
    ("resource", "contract_class"): lambda who: who.contract.cls.value,
    ("resource", "binding"): lambda who: who.contract.binding.value,
    ("principal", ""): lambda who: str(who.agent.spiffe_id),
    ("principal", "entry"): lambda who: who.agent.principal,
    ("principal", "trust_domain"): lambda who: who.agent.spiffe_id.trust_domain,
    ("principal", "path"): lambda who: who.agent.spiffe_id.path,
    ("principal", "tier"): lambda who: who.agent.tier.value,
}

# A circumstance as it is told; None is not told at all. Hashable, because it is part of what an answer is kept by.
Told = str | int | bool | tuple[str, ...] | Person | None
Circumstance = Callable[[RequestFacts], Told]

# The context of a question, by name; times are UTC.
CIRCUMSTANCES: Mapping[str, Circumstance] = {
    "ttl_seconds": lambda facts: _seconds(facts.scope.ttl),
    "date": lambda facts: int(facts.now.astimezone(UTC).strftime("%Y%m%d")),
    "hour": lambda facts: facts.now.astimezone(UTC).hour,
    "minute": lambda facts: facts.now.astimezone(UTC).minute,
    "weekday": lambda facts: facts.now.astimezone(UTC).isoweekday(),
    "step": lambda facts: facts.request.step,
    "intent": lambda facts: facts.request.intent,
    "ticket": lambda facts: facts.request.ticket,
    "has_reason": lambda facts: bool(facts.request.reason.strip()),
    "has_prompt": lambda facts: bool(facts.request.prompt.strip()),
    "has_tool_call": lambda facts: bool(facts.request.tool_call.strip()),
    "has_plan": lambda facts: bool(facts.request.plan.strip()),
    "delivery": lambda facts: facts.delivery.value,
    "sealed": lambda facts: bool(facts.request.recipient_public_key),
    "task_type": lambda facts: facts.situation.task_type,
    "approvals": lambda facts: told_set(facts.situation.approvals),
    "plan": lambda facts: facts.situation.plan,
    "delegated": lambda facts: bool(facts.situation.delegators),
    "delegation_depth": lambda facts: len(facts.situation.delegators),
    "delegators": lambda facts: told_set(facts.situation.delegators),
    "on_behalf_of": lambda facts: facts.situation.on_behalf_of,
    "active_grants": lambda facts: told_set(facts.situation.active_grants),
    "active_count": lambda facts: facts.situation.active_count,
    "pending_count": lambda facts: facts.situation.pending_count,
}


def told_set(names: Iterable[str]) -> tuple[str, ...]:
    """A set of names, as it is told."""
    return tuple(sorted(names))


def question(who: Parties, circumstances: Mapping[str, Told]) -> dict[str, Any]:
    """The request, in the form the engine takes. Raises ValueError for what is no Unicode."""
    return {
        "principal": _agent(who.agent),
        "action": {"type": "Action", "id": who.access},
        "resource": _SCOPE,
        # As text: handed a dict, the library copies the question before it writes the same text.
        "context": _json({name: _said(value) for name, value in circumstances.items() if value is not None}),
    }


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:  # a lone surrogate
        raise ValueError(str(error)) from None


def _said(value: Told) -> object:
    return {"__entity": _person(value)} if isinstance(value, Person) else value


def _entity(
    read: Container[str],
    uid: dict[str, str],
    parents: list[dict[str, str]] | None = None,
    tags: dict[str, str] | None = None,
    **attrs: object,
) -> dict[str, object]:
    told = {name: value for name, value in attrs.items() if name in read}
    return {"uid": uid, "attrs": told, "parents": parents or [], "tags": tags or {}}


def _agent(agent: Agent) -> dict[str, str]:
    return {"type": "Agent", "id": str(agent.spiffe_id)}


def _person(person: Person) -> dict[str, str]:
    return {"type": "Person", "id": _id(person)}


def _id(person: Person) -> str:
    return f"{person.issuer}#{person.subject}"
