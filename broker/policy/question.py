"""The facts of one request in Cedar's words: principal, action, resource and context.

The names and types here are those of ``broker.cedarschema``, and the engine checks every form that a question can have
against it. Claimed texts enter as values of attributes, never as parts of names or of policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

import orjson

from broker.identity.agent import Agent, Person
from broker.lease.credential import Contract
from broker.policy.facts import RequestFacts
from broker.scope.blank import blank
from broker.scope.model import Risk

_T = TypeVar("_T")
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


def parties(facts: RequestFacts, *, with_parameters: bool, with_behind: bool) -> Parties:
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


Form = tuple[object, ...]


def entities(who: Parties, read: frozenset[str]) -> tuple[str, Form]:
    """The agent, its owner and the scope, in Cedar's JSON entity format, with those attributes that are ``read``.

    And the form of all that: what is equal in form conforms to the schema, or does not, alike. Raises ValueError for
    what is no Unicode.
    """
    agent = who.agent
    template = {"type": "Template", "id": who.template}
    # By id: whoever is owner and principal of a task at once is one entity, and as the registry has them.
    known = (who.behind if "on_behalf_of" in read else None, agent.owner if "owner" in read else None)
    persons = {_id(person): person for person in known if person is not None}
    of_person, of_agent, requested = _chosen(read)
    told = [
        *(_entity(_person(each), _attributes(of_person, each)) for each in persons.values()),
        _entity(_agent(agent), _attributes(of_agent, agent), tags=dict(agent.segments)),
        _entity(template, {}),
        _entity(_SCOPE, _attributes(requested, who), [template]),
    ]
    return _json(told), tuple(_form({**entity["attrs"], **entity["tags"]}) for entity in told)


def telling(what: tuple[str, str]) -> Callable[[Parties], str]:
    """What tells the one text that somebody has of ``what`` (``SINGLE`` in slicing.py), as :func:`entities` does."""
    whose, name = what
    if whose == "resource":
        return cast(Callable[[Parties], str], _REQUESTED[name])
    of_agent = cast(Callable[[Agent], str], _AGENT[name] if name else lambda agent: str(agent.spiffe_id))
    return lambda who: of_agent(who.agent)


def _seconds(span: timedelta) -> int:
    """Rounded up."""
    return -(-span // timedelta(seconds=1))


def _bound(span: timedelta | None) -> int | None:
    """A bound that there is not is left out: no number is honest for it."""
    return None if span is None else _seconds(span)


# The attributes of entities, by name, as the schema has them. None is not told at all.
_PERSON: Mapping[str, Callable[[Person], object]] = {
    "issuer": lambda person: person.issuer,
    "subject": lambda person: person.subject,
    "groups": lambda person: sorted(person.groups),
}
_AGENT: Mapping[str, Callable[[Agent], object]] = {
    "entry": lambda agent: agent.principal,
    "trust_domain": lambda agent: agent.spiffe_id.trust_domain,
    "path": lambda agent: agent.spiffe_id.path,
    "owner": lambda agent: {"__entity": _person(agent.owner)},
    "tier": lambda agent: agent.tier.value,
    "roles": lambda agent: sorted(agent.roles),
    "environments": lambda agent: sorted(agent.environments),
    "promoted": lambda agent: agent.promoted,
    "tools": lambda agent: sorted(agent.tools),
}
_REQUESTED: Mapping[str, Callable[[Parties], object]] = {
    "template": lambda who: who.template,
    "connector": lambda who: who.connector,
    "account": lambda who: who.account,
    "environment": lambda who: who.environment,
    "name": lambda who: who.name,
    "access": lambda who: who.access,
    "actions": lambda who: list(who.actions),
    "parameters": lambda who: list(who.parameters),
    "contract_class": lambda who: who.contract.cls.value,
    "binding": lambda who: who.contract.binding.value,
    "bound_on_expiry_seconds": lambda who: _seconds(who.contract.on_expiry),
    "bound_on_revoke_seconds": lambda who: _bound(who.contract.on_revoke),
    "bound_on_broker_dead_seconds": lambda who: _bound(who.contract.on_broker_dead),
    "bound_on_upstream_dead_seconds": lambda who: _bound(who.contract.on_upstream_dead),
    "sensitivity": lambda who: who.risk.sensitivity.value,
    "blast_radius": lambda who: who.risk.blast_radius.value,
    "reversibility": lambda who: who.risk.reversibility.value,
    "change_type": lambda who: who.risk.change_type,
    "template_promoted": lambda who: who.risk.promoted,
}


_Attributes = tuple[tuple[str, Callable[[_T], object]], ...]


@lru_cache(maxsize=1024)
def _chosen(read: frozenset[str]) -> tuple[_Attributes[Person], _Attributes[Agent], _Attributes[Parties]]:
    """Those attributes that are ``read``: the same for every request of a kind."""
    return (
        tuple(item for item in _PERSON.items() if item[0] in read),
        tuple(item for item in _AGENT.items() if item[0] in read),
        tuple(item for item in _REQUESTED.items() if item[0] in read),
    )


def _attributes(chosen: _Attributes[_T], whose: _T) -> dict[str, object]:
    return {name: value for name, tell in chosen if (value := tell(whose)) is not None}


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
    "has_reason": lambda facts: not blank(facts.request.reason),
    "has_prompt": lambda facts: not blank(facts.request.prompt),
    "has_tool_call": lambda facts: not blank(facts.request.tool_call),
    "has_plan": lambda facts: not blank(facts.request.plan),
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


def form(circumstances: Mapping[str, Told]) -> Form:
    """The form of these in a question, as :func:`entities` tells one."""
    return _form({name: value for name, value in circumstances.items() if value is not None})


def _form(told: Mapping[str, object]) -> Form:
    """Names and types, of what is in lists, too: the schema says nothing of values."""
    return (
        *told,
        *(frozenset(map(type, value)) if isinstance(value, (list, tuple)) else type(value) for value in told.values()),
    )


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:  # a lone surrogate
        raise ValueError(str(error)) from None


def _said(value: Told) -> object:
    return {"__entity": _person(value)} if isinstance(value, Person) else value


def _entity(
    uid: dict[str, str],
    attrs: dict[str, object],
    parents: Sequence[dict[str, str]] = (),
    tags: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {"uid": uid, "attrs": attrs, "parents": parents, "tags": tags or {}}


def _agent(agent: Agent) -> dict[str, str]:
    return {"type": "Agent", "id": str(agent.spiffe_id)}


def _person(person: Person) -> dict[str, str]:
    return {"type": "Person", "id": _id(person)}


def _id(person: Person) -> str:
    return f"{person.issuer}#{person.subject}"
