"""Which policies can have a say in a request, told by the literals they compare with, before any of them is evaluated.

Policy slicing, as Cedar's own documentation calls it. Most policies of a large set are about one account, one
template, one environment. Such a policy is left out of a request about another, which is right only if it would then
neither hold *nor fail*: an error denies here, so a policy that fails must never be left out.

So only what is certain counts. The literal stands in the head, which cannot fail; or it is one part of the
conjunction that is the policy's first ``when``, and every part before it is certain not to fail, too. Cedar evaluates
``&&`` from the left and stops at the first false, and conditions in the order they are written
(https://docs.cedarpolicy.com/policies/syntax-policy.html). A policy in any other form is always evaluated.

A set is cut twice. What very many compare, each with a literal of its own (one rule per account), is cut into a *slice*
for each literal. The rest is sorted by *kind* of request: which of the few literals in it (production, advisory) the
request has. There are few kinds, so that what each is decided by is parsed when one is first seen, and kept.

Belongs here: reading policies in Cedar's JSON format, and cutting a set. Does not belong here: asking the engine.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Policies = Mapping[str, Mapping[str, Any]]

# A slice is asked by a call of its own, which costs about what evaluating so many policies does.
WORTH = 64
# Kinds of request that the rest of a set is kept parsed for, at most; and policies, over all of its kinds.
KINDS = 64
KEPT = 2_048


class Key(NamedTuple):
    """What a policy compares, by (entity, attribute), and with what."""

    what: tuple[str, str]
    literal: str


TEMPLATE_OF_RESOURCE = ("resource", "template")
PRINCIPAL = ("principal", "")
# Attributes that every request has exactly one text of: comparing one with a text is certain not to fail.
SINGLE = frozenset(
    {
        *(("resource", name) for name in ("template", "connector", "account", "environment", "name")),
        *(("resource", name) for name in ("contract_class", "binding", "change_type")),
        *(("resource", name) for name in ("sensitivity", "blast_radius", "reversibility")),
        *(("principal", name) for name in ("entry", "trust_domain", "path", "tier")),
    }
)
# Sets that every request has: looking for a literal in one cannot fail either.
SETS = frozenset(
    {
        *(("resource", name) for name in ("actions", "parameters")),
        *(("principal", name) for name in ("roles", "environments", "tools")),
    }
)


Kind = tuple[str | None, ...]


class Slices(NamedTuple):
    """A set, cut. Of each of ``by``, those of the one literal that a request has are asked; of ``rest``, of its kind.

    ``kinds``: the literals that make a difference to ``rest``, by what they are compared with. ``needs``: those of its
    policies that need one of these, and which.
    """

    rest: Policies
    by: Mapping[tuple[str, str], Mapping[str, Policies]]
    kinds: Mapping[tuple[str, str], frozenset[str]]
    needs: Mapping[str, Key]

    def of_kind(self, kind: Kind) -> Policies:
        """Those of ``rest`` that can have a say in requests of this kind, told in the order of ``kinds``.

        None stands for whatever text no policy is about.
        """
        has = {None, *(Key(what, text) for what, text in zip(self.kinds, kind, strict=True) if text is not None)}
        return {name: policy for name, policy in self.rest.items() if self.needs.get(name) in has}


def cut(policies: Policies, worth: int = WORTH, kinds: int = KINDS) -> Slices:
    """``policies``, cut by what is compared by enough of them that it pays to leave the others out."""
    keys = {name: frozenset(certain_keys(policy)) for name, policy in policies.items()}
    popular = Counter(key.what for found in keys.values() for key in found)
    chosen = {name: max(found, key=lambda key: (popular[key.what], key)) for name, found in keys.items() if found}
    sizes = Counter(key.what for key in chosen.values())
    by: dict[tuple[str, str], dict[str, dict[str, Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    rest: dict[str, Mapping[str, Any]] = {}
    for name, policy in policies.items():
        key = chosen.get(name)
        if key is None or sizes[key.what] < worth:
            rest[name] = policy
        else:
            by[key.what][key.literal][name] = policy
    telling, needs = _telling({name: keys[name] for name in rest}, min(kinds, KEPT // max(1, len(rest))))
    return Slices(rest, {what: dict(found) for what, found in by.items()}, telling, needs)


def _telling(
    keys: Mapping[str, frozenset[Key]], kinds: int
) -> tuple[Mapping[tuple[str, str], frozenset[str]], Mapping[str, Key]]:
    """What tells at most ``kinds`` kinds of request apart, and what each policy needs of it.

    What most policies compare comes first; next, what most of the others do.
    """
    telling: dict[tuple[str, str], frozenset[str]] = {}
    needs: dict[str, Key] = {}
    tried: set[tuple[str, str]] = set()
    while True:
        left = [key for name, found in keys.items() if name not in needs for key in found if key.what not in tried]
        if not left:
            return telling, needs
        popular = Counter(key.what for key in left)
        what = max(popular, key=lambda each: (popular[each], each))
        tried.add(what)
        literals = frozenset(key.literal for key in left if key.what == what)
        if len(literals) < kinds:
            kinds //= len(literals) + 1
            telling[what] = literals
            needs |= {
                name: key for name, found in keys.items() if name not in needs for key in found if key.what == what
            }


def certain_keys(policy: Mapping[str, Any]) -> Iterator[Key]:
    """Comparisons without which ``policy`` (Cedar's JSON format) certainly neither holds nor fails."""
    yield from _of_head(policy["principal"], "Agent", "==", PRINCIPAL)
    yield from _of_head(policy["resource"], "Template", "in", TEMPLATE_OF_RESOURCE)
    conditions = policy["conditions"]
    if conditions and conditions[0]["kind"] == "when":
        for part in _conjuncts(conditions[0]["body"]):
            key = _comparison(part)
            if key is not None:
                yield key
            elif not _cannot_fail(part):
                return


def _of_head(head: Mapping[str, Any], kind: str, operator: str, what: tuple[str, str]) -> Iterator[Key]:
    named = head.get("entity")
    if head["op"] == operator and named is not None and named["type"] == kind:
        yield Key(what, named["id"])


def _conjuncts(body: Any) -> Iterator[Any]:
    """The parts of a conjunction, in the order in which they are evaluated."""
    if isinstance(body, dict) and body.keys() == {"&&"}:
        yield from _conjuncts(body["&&"]["left"])
        yield from _conjuncts(body["&&"]["right"])
    else:
        yield body


def _comparison(part: Any) -> Key | None:
    """The comparison of a single attribute with a text; None for whatever else."""
    if not isinstance(part, dict) or part.keys() != {"=="}:
        return None
    left, right = part["=="]["left"], part["=="]["right"]
    for one, other in ((left, right), (right, left)):
        what, literal = _attribute(one), _text(other)
        if what in SINGLE and literal is not None:
            return Key(what, literal)
    return None


def _cannot_fail(part: Any) -> bool:
    """Whether ``part`` is a look into a set that is always there. The only other form that is known not to fail."""
    if not isinstance(part, dict) or part.keys() != {"contains"}:
        return False
    return _attribute(part["contains"]["left"]) in SETS and _text(part["contains"]["right"]) is not None


def _attribute(node: Any) -> tuple[str, str] | None:
    """(variable, attribute) of ``resource.account`` and the like; None for whatever else."""
    if not isinstance(node, dict) or node.keys() != {"."}:
        return None
    left = node["."]["left"]
    return (left["Var"], node["."]["attr"]) if isinstance(left, dict) and left.keys() == {"Var"} else None


def _text(node: Any) -> str | None:
    value = node.get("Value")
    return value if isinstance(value, str) else None
