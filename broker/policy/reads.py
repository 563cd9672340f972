"""What a policy set can see of a request, so that what it cannot see need not be told.

Telling the engine one fact costs about as much as evaluating one policy, and most sets read few of the
facts there are. Belongs here: finding the attributes that policies name, and the schema without the
circumstances that none of them does. Policies are always *validated* against the whole schema.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from broker.scope.model import AccessClass

_CONTEXT = {"Var": "context"}
_ACTION = "action"
# Stands among the names for ``context`` itself. No attribute of ours has an empty name.
_WHOLE_CONTEXT = ""
_CIRCUMSTANCES = re.compile(r"^type Circumstances = \{\n(.*?)^\};$", re.MULTILINE | re.DOTALL)
_ENTITY = re.compile(r"^entity [^;{]*= \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_ATTRIBUTE = re.compile(r"^ +(\w+)\??: .*\n", re.MULTILINE)


def attributes_read(policies: Mapping[str, Mapping[str, Any]], circumstances: Collection[str]) -> frozenset[str]:
    """Every attribute, of whatever, that one of ``policies`` names (Cedar's JSON policy format).

    A policy that uses ``context`` as a whole, and not for one of its attributes, reads all ``circumstances``.
    """
    read = {name for policy in policies.values() for name in _names(policy["conditions"])}
    return frozenset(read.union(circumstances) if _WHOLE_CONTEXT in read else read)


def reads_by_access(
    policies: Mapping[str, Mapping[str, Any]], circumstances: Collection[str]
) -> Mapping[AccessClass, frozenset[str]]:
    """Which ``circumstances`` the policies look at whose head lets a request of each access class through.

    For whoever has to find a circumstance out first: what only changes are judged by need not be known of a read.
    """
    return {
        access: attributes_read(policies_about(policies, access), circumstances) & frozenset(circumstances)
        for access in AccessClass
    }


def policies_about(policies: Mapping[str, Mapping[str, Any]], access: AccessClass) -> Mapping[str, Mapping[str, Any]]:
    """Of ``policies`` those whose head lets a request of this access class through.

    The others neither hold nor fail: Cedar evaluates no condition of a policy whose head does not match.
    """
    return {name: policy for name, policy in policies.items() if _is_about(policy["action"], access)}


def of_any_action(policies: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]] | None:
    """``policies``, all about one access class, without the actions in their heads, which let it through.

    None where a policy looks at the action all the same, so that the engine has to know which are in which.
    """
    if not all(_is_known(policy["action"]) and _ACTION not in _variables(policy) for policy in policies.values()):
        return None
    return {name: {**policy, "action": {"op": "All"}} for name, policy in policies.items()}


def _is_known(head: Mapping[str, Any]) -> bool:
    return head["op"] == "All" or (head["op"] in ("==", "in") and None not in _named(head))


def _variables(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for operator, operand in operations(node):
            if operator == "Var":
                yield operand
            yield from _variables(operand)
    elif isinstance(node, list):
        for item in node:
            yield from _variables(item)


def _named(head: Mapping[str, Any]) -> list[Any]:
    return list(head.get("entities") or [head.get("entity")])


def _is_about(head: Mapping[str, Any], access: AccessClass) -> bool:
    """Whether the action of a policy's head can be this one. True for a form that is not known here."""
    named = _named(head)
    if head["op"] not in ("==", "in") or None in named:
        return True
    groups = {access.value} | ({"request"} if access is AccessClass.READ else {"request", "change"})
    return any(each["id"] in (groups if head["op"] == "in" else {access.value}) for each in named)


def operations(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The operators in a node of Cedar's JSON policy format, each with what it is applied to.

    The attributes of a record are called what its author likes, ``==`` too: of a record, only their values are told.
    """
    for operator, operand in node.items():
        yield operator, list(operand.values()) if operator == "Record" else operand


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _names(item)
    elif node == _CONTEXT:
        yield _WHOLE_CONTEXT
    elif isinstance(node, dict):
        for operator, operand in operations(node):
            if operator in (".", "has"):
                yield operand["attr"]
                yield from () if operand["left"] == _CONTEXT else _names(operand["left"])
            else:
                yield from _names(operand)


def without_circumstances(schema: str, unread: Collection[str]) -> str:
    """``schema`` (Cedar syntax) less the attributes ``unread`` of Circumstances, which stand one on a line.

    Raises :class:`ValueError` for one that is not there, a defect of the broker.
    """
    block = _CIRCUMSTANCES.search(schema)
    if block is None:
        raise ValueError("the schema does not say what Circumstances are")
    kept = block[1]
    for name in unread:
        kept, found = re.subn(rf"^ +{re.escape(name)}\??: [A-Za-z<>]+,.*\n", "", kept, flags=re.MULTILINE)
        if found != 1:
            raise ValueError(f"the schema has {found} circumstances called {name}")
    return schema[: block.start(1)] + kept + schema[block.end(1) :]


def with_attributes(schema: str, read: Collection[str]) -> str:
    """``schema`` (Cedar syntax) less the attributes of entities, one on a line each, that are not among ``read``."""

    def less(entity: re.Match[str]) -> str:
        kept = _ATTRIBUTE.sub(lambda line: line[0] if line[1] in read else "", entity[1])
        return entity[0].replace(entity[1], kept)

    return _ENTITY.sub(less, schema)
