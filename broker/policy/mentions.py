"""What policies call by name that stands outside of them: agents, persons, templates, entries, approvals and so on.

Cedar validates types and never looks whether ``Agent::"spiffe://..."`` is anybody. A permit that names
nobody is a nuisance; a forbid that names nobody, for a letter too many, is an open door. So is one about a
``tier`` that no agent can be of: to Cedar it is a text like any other. Belongs here: finding the names and their
lines, and the words of which there are only so many. Whether the others name something, the rest of the deploy set
knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from broker.identity.agent import Delivery, Tier
from broker.lease.credential import Binding, ContractClass
from broker.policy.reads import operations
from broker.policy.statements import Statement
from broker.scope.model import AccessClass, BlastRadius, Reversibility, Sensitivity

_TAGS = ("hasTag", "getTag")
_COMPARISONS = ("==", "!=", "contains", "containsAll", "containsAny")


class Kind(StrEnum):
    """What is named. The first three are entity types of the schema."""

    AGENT = "Agent"  # by SPIFFE ID
    PERSON = "Person"  # by issuer#subject
    TEMPLATE = "Template"
    ENTRY = "entry"  # of the registry, compared with ``principal.entry``
    APPROVAL = "approval"  # looked for in ``context.approvals``: a rule of approvals.yaml
    GRANT = "grant"  # looked for in ``context.active_grants``: TEMPLATE, ACCESS:ENVIRONMENT or change:ENVIRONMENT
    SEGMENT = "segment"  # of a pattern: ``principal.getTag("namespace")``
    # Words of which there are only those in WORDS.
    TIER = "tier"
    ACCESS = "access class"
    SENSITIVITY = "sensitivity"
    BLAST_RADIUS = "blast radius"
    REVERSIBILITY = "reversibility"
    CONTRACT_CLASS = "contract class"
    BINDING = "binding"
    DELIVERY = "way of delivery"
    PLAN = "state of a plan"
    # Words of which the set's agents and templates know all that there are.
    ENVIRONMENT = "environment"
    ROLE = "role"
    ACCOUNT = "account"
    CONNECTOR = "connector"


WORDS: Mapping[Kind, frozenset[str]] = {
    Kind.TIER: frozenset(Tier),
    Kind.ACCESS: frozenset(AccessClass),
    Kind.SENSITIVITY: frozenset(Sensitivity),
    Kind.BLAST_RADIUS: frozenset(BlastRadius),
    Kind.REVERSIBILITY: frozenset(Reversibility),
    Kind.CONTRACT_CLASS: frozenset(ContractClass),
    Kind.BINDING: frozenset(Binding),
    Kind.DELIVERY: frozenset(Delivery),
    Kind.PLAN: frozenset({"", "registered", "confirmed"}),  # of RequestFacts; "" where there is none
}


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """One name in one policy. ``line`` counts from 1 in ``file``."""

    file: str
    line: int
    policy: str
    kind: Kind
    name: str


def mentions(statement: Statement, policy: str, parsed: Mapping[str, Any]) -> Iterator[Mention]:
    """Everything that the policy called ``policy`` names, each once (``parsed`` is Cedar's JSON policy format)."""
    found = {*_entities(parsed), *_compared(parsed["conditions"])}
    for kind, name in sorted(found):
        yield Mention(statement.file, _line(statement, name), policy, kind, name)


def _entities(node: Any) -> Iterator[tuple[Kind, str]]:
    """Entities by name, in the head or in a condition: both write them as an object of type and id."""
    if isinstance(node, list):
        for item in node:
            yield from _entities(item)
    elif isinstance(node, dict):
        if node.keys() == {"type", "id"} and node["type"] in (Kind.AGENT, Kind.PERSON, Kind.TEMPLATE):
            yield Kind(node["type"]), node["id"]
        for item in node.values():
            yield from _entities(item)


def _compared(node: Any) -> Iterator[tuple[Kind, str]]:
    """Texts that are compared with an attribute that holds such names, or that name a tag."""
    if isinstance(node, list):
        for item in node:
            yield from _compared(item)
    elif isinstance(node, dict):
        for operator, operand in operations(node):
            if operator in _TAGS:
                yield from ((Kind.SEGMENT, text) for text in _texts(operand["right"]))
            elif operator in _COMPARISONS:
                sides = (operand["left"], operand["right"])
                for one, other in (sides, sides[::-1]):
                    if kind := _NAMING.get(_attribute(one)):
                        yield from ((kind, text) for text in _texts(other))
            yield from _compared(operand)


def compared_texts(policies: Iterable[Mapping[str, Any]]) -> Mapping[str, tuple[str, ...]]:
    """By attribute, of whatever: the texts that policies compare it with, or begin a ``like`` with; sorted.

    For whoever tries out what a rule about such a text says.
    """
    found: dict[str, set[str]] = {}
    for policy in policies:
        for attribute, text in _beside(policy["conditions"]):
            found.setdefault(attribute, set()).add(text)
    return {attribute: tuple(sorted(texts)) for attribute, texts in found.items()}


def _beside(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for item in node:
            yield from _beside(item)
    elif isinstance(node, dict):
        for operator, operand in operations(node):
            if operator in _COMPARISONS:
                sides = (operand["left"], operand["right"])
                for one, other in (sides, sides[::-1]):
                    yield from ((name, text) for text in _texts(other) if text and (name := _attribute(one)))
            elif operator == "like" and (name := _attribute(operand["left"])):
                yield name, "".join(part["Literal"] for part in operand["pattern"] if isinstance(part, dict))
            yield from _beside(operand)


# Attributes whose values are such names. Nothing else in the schema is called so.
_NAMING = {
    "entry": Kind.ENTRY,
    "approvals": Kind.APPROVAL,
    "active_grants": Kind.GRANT,
    "tier": Kind.TIER,
    "access": Kind.ACCESS,
    "sensitivity": Kind.SENSITIVITY,
    "blast_radius": Kind.BLAST_RADIUS,
    "reversibility": Kind.REVERSIBILITY,
    "contract_class": Kind.CONTRACT_CLASS,
    "binding": Kind.BINDING,
    "delivery": Kind.DELIVERY,
    "plan": Kind.PLAN,
    "environment": Kind.ENVIRONMENT,
    "environments": Kind.ENVIRONMENT,
    "roles": Kind.ROLE,
    "account": Kind.ACCOUNT,
    "connector": Kind.CONNECTOR,
}


def _attribute(node: Any) -> str:
    """The attribute that ``node`` reads, of whatever; else empty."""
    return str(node["."]["attr"]) if "." in node else ""


def _texts(node: Any) -> Iterator[str]:
    """The text that ``node`` is, or the texts of the set that it is."""
    if isinstance(node, dict) and isinstance(node.get("Value"), str):
        yield node["Value"]
    elif isinstance(node, dict):
        for item in node.get("Set", ()):
            yield from _texts(item)


def _line(statement: Statement, name: str) -> int:
    """The first line that quotes ``name`` outside an annotation; the statement's own where none does."""
    quoted = json.dumps(name, ensure_ascii=False)
    for number, line in enumerate(statement.text.split("\n")):
        if quoted in line and not line.lstrip().startswith("@"):
            return statement.line + number
    return statement.line
