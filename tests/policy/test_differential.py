"""50,000 pairs of a policy set and a request: the engine against a naive evaluator that shares nothing with it.

Policies are small trees, made by chance with a seed. ``written`` renders one as Cedar, ``value`` evaluates it in
Python, by what Cedar's specification says of ``&&``, ``||``, ``if`` and of errors. A set keeps answers in
memory, so each request is asked twice, the second time in another order and as another object. Three rules in
nine are gates, requests hold some of the approvals, and any rule may look at them.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from broker.identity.agent import Delivery, Tier
from broker.identity.spiffe_id import SpiffeId
from broker.policy import engine
from broker.policy.facts import RequestFacts, Situation
from broker.policy.slicing import cut
from broker.scope.model import AccessClass, Risk, Sensitivity
from tests.policy.world import facts, policies

SETS, REQUESTS, SLICES = 250, 200, 5
CUTS = ({"worth": 1}, {}, {"worth": 10**9, "kinds": 1})
# Reading the entities of who asks for what costs most, and is kept: few of them, differing in each slice.
PARTIES = 12
ENVIRONMENTS, ROLES, TEMPLATES = ["dev", "staging", "production"], ["reader", "writer"], ["t1", "t2"]
TEAMS, TTLS, HOURS = ["red", "blue"], [1, 59, 60, 61, 300, 301], [0, 7, 8, 17, 18, 23]
APPROVALS = ["a", "b", "c"]
AGENTS = [f"spiffe://example.org/agent/a{number}" for number in range(8)]
# 60 seconds times this fits into 64 bits, 61 do not.
FACTOR = (2**63 - 1) // 60


class Failure(Exception):
    """Cedar would report an evaluation error."""


# ------------------------------------------------------------------ policies by chance

Tree = tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    effect: str
    principal: str  # an id, or empty for any
    action: str
    template: str
    approval: str  # what opens it, of a gate
    conditions: tuple[tuple[str, Tree], ...]  # ("when" or "unless", tree)


def tree(chance: random.Random, depth: int) -> Tree:
    if depth and chance.random() < 0.55:
        kind = chance.choice(["not", "and", "or", "and", "or", "if"])
        return (kind, *(tree(chance, depth - 1) for _ in range({"not": 1, "if": 3}.get(kind, 2))))
    return chance.choice(
        [
            ("==", "principal.tier", chance.choice(list(Tier)).value),
            ("==", "resource.environment", chance.choice(ENVIRONMENTS)),
            ("==", "resource.sensitivity", chance.choice(list(Sensitivity)).value),
            ("!=", "context.ticket", ""),
            ("!=", "resource.environment", chance.choice(ENVIRONMENTS)),
            ("==", "context.delivery", chance.choice(["direct", "proxy"])),
            ("contains", "principal.roles", chance.choice(ROLES)),
            ("own environment",),
            ("has ticket",),
            (chance.choice(["<", "<=", ">", ">="]), "context.ttl_seconds", chance.choice(TTLS)),
            (chance.choice(["<", "<=", ">", ">="]), "context.hour", chance.choice(HOURS)),
            ("tag", chance.choice(TEAMS)),
            ("change",),
            ("product",),
            ("contains", "context.approvals", chance.choice(APPROVALS)),
        ]
    )


def about(chance: random.Random) -> Tree:
    """As operators write it: a comparison with a name, after something that may fail, or cannot."""
    first = chance.choice([("product",), ("contains", "principal.roles", chance.choice(ROLES)), tree(chance, 1)])
    named = chance.choice(
        [
            ("==", "resource.environment", chance.choice(ENVIRONMENTS)),
            ("==", "resource.sensitivity", chance.choice(list(Sensitivity)).value),
            ("==", "principal.tier", chance.choice(list(Tier)).value),
        ]
    )
    return ("and", first, named)


def rule(chance: random.Random) -> Rule:
    effect = chance.choice(["permit", "permit", "permit", "permit", "permit", "forbid", "gate", "gate", "gate"])
    return Rule(
        "forbid" if effect == "gate" else effect,
        chance.choice(["", "", "", *AGENTS[:2]]),
        chance.choice(["", "", "change", *[each.value for each in AccessClass][:3]]),
        chance.choice(["", "", *TEMPLATES]),
        chance.choice(APPROVALS) if effect == "gate" else "",
        tuple(
            (chance.choice(["when", "when", "unless"]), about(chance) if chance.random() < 0.25 else tree(chance, 3))
            for _ in range(chance.randrange(2 if effect == "gate" else 3))
        ),
    )


def written(node: Tree) -> str:
    """As Cedar."""
    match node:
        case ("not", one):
            return f"!({written(one)})"
        case ("and", one, other):
            return f"({written(one)}) && ({written(other)})"
        case ("or", one, other):
            return f"({written(one)}) || ({written(other)})"
        case ("if", test, one, other):
            return f"(if {written(test)} then {written(one)} else {written(other)})"
        case ("contains", path, text):
            return f'{path}.contains("{text}")'
        case ("own environment",):
            return "principal.environments.contains(resource.environment)"
        case ("has ticket",):
            return "context has ticket"
        case ("tag", team):
            return f'(principal.hasTag("team") && principal.getTag("team") == "{team}")'
        case ("change",):
            return 'action in Action::"change"'
        case ("product",):
            return f"context.ttl_seconds * {FACTOR} > 0"
        case (operator, path, int(number)):
            return f"{path} {operator} {number}"
        case (operator, path, text):
            return f'{path} {operator} "{text}"'
    raise AssertionError(node)


def policy(number: int, each: Rule) -> str:
    """As Cedar; the head in each of the forms that say the same."""
    principal = "principal is Agent" if number % 3 == 0 else "principal"
    if each.principal:
        principal = f'principal == Agent::"{each.principal}"'
    action = "action"
    if each.action:
        named = f'Action::"{each.action}"'
        forms = [f"action in {named}", f"action in [{named}]", f"action == {named}"]
        action = forms[number % (2 if each.action == "change" else 3)]
    resource = "resource is Scope" if number % 2 else "resource"
    if each.template:
        resource += f' in Template::"{each.template}"'
    body = " ".join(f"{kind} {{ {written(condition)} }}" for kind, condition in each.conditions)
    head = f'@id("p{number}") @reason("r{number}")'
    if each.approval:
        head += f' @approval("{each.approval}")'
        body += f' unless {{ context.approvals.contains("{each.approval}") }}'
    return f"{head} {each.effect} ({principal}, {action}, {resource}) {body};"


# ------------------------------------------------------------------ the naive evaluator


def looked_up(path: str, asked: RequestFacts) -> Any:
    return {
        "principal.tier": str(asked.agent.tier),
        "principal.roles": asked.agent.roles,
        "resource.environment": asked.scope.environment,
        "resource.sensitivity": str(asked.scope.risk.sensitivity),
        "context.ticket": asked.request.ticket,
        "context.delivery": str(asked.delivery),
        "context.ttl_seconds": int(asked.scope.ttl.total_seconds()),
        "context.hour": asked.now.hour,
        "context.approvals": asked.situation.approvals,
    }[path]


def value(node: Tree, asked: RequestFacts) -> bool:
    """By Cedar's rules. Raises :class:`Failure` where Cedar has an error."""
    match node:
        case ("not", one):
            return not value(one, asked)
        case ("and", one, other):
            return value(one, asked) and value(other, asked)
        case ("or", one, other):
            return value(one, asked) or value(other, asked)
        case ("if", test, one, other):
            return value(one if value(test, asked) else other, asked)
        case ("contains", path, text):
            return bool(text in looked_up(path, asked))
        case ("own environment",):
            return asked.scope.environment in asked.agent.environments
        case ("has ticket",):
            return True
        case ("tag", team):
            return ("team", team) in asked.agent.segments
        case ("change",):
            return asked.scope.access is not AccessClass.READ
        case ("product",):
            product = int(looked_up("context.ttl_seconds", asked)) * FACTOR
            if product >= 2**63:
                raise Failure
            return product > 0
        case (operator, path, right):
            left = looked_up(path, asked)
            compared = {
                "==": lambda: left == right,
                "!=": lambda: left != right,
                "<": lambda: left < right,
                "<=": lambda: left <= right,
                ">": lambda: left > right,
                ">=": lambda: left >= right,
            }
            return bool(compared[operator]())
    raise AssertionError(node)


def holds(each: Rule, asked: RequestFacts) -> bool:
    if each.principal not in ("", str(asked.agent.spiffe_id)) or each.template not in ("", asked.scope.template):
        return False
    if each.action == "change" and asked.scope.access is AccessClass.READ:
        return False
    if each.action not in ("", "change", asked.scope.access.value):
        return False
    # In the order in which they stand: what is not reached cannot fail.
    for kind, condition in each.conditions:
        if value(condition, asked) is not (kind == "when"):
            return False
    return not each.approval or each.approval not in asked.situation.approvals


def naive(rules: list[Rule], asked: RequestFacts) -> tuple[bool, tuple[str, ...], int]:
    """(allowed, the policies that decide, how many failed). A failure denies."""
    hold: dict[str, list[str]] = {"permit": [], "forbid": []}
    failed = 0
    for number, each in enumerate(rules):
        try:
            if holds(each, asked):
                hold[each.effect].append(f"p{number}")
        except Failure:
            failed += 1
    allowed = bool(hold["permit"]) and not hold["forbid"] and not failed
    decided = hold["forbid"] or ([] if failed else hold["permit"])
    return allowed, tuple(sorted(decided)), failed


@dataclass(frozen=True)
class Answer:
    kind: str
    policies: tuple[str, ...]
    failed: int
    approvals: tuple[str, ...] = ()


def answer(rules: list[Rule], asked: RequestFacts) -> Answer:
    """By what docs/policy.md says of gates."""
    allowed, decided, failed = naive(rules, asked)
    if allowed:
        return Answer("ALLOW", decided, 0)
    final = Answer("DENY", decided, failed)
    if failed or not decided:
        return final
    held, fired = set(asked.situation.approvals), set(decided)
    while True:
        gates = [rules[int(name[1:])].approval for name in decided]
        if not gates or not all(gates) or any(name in held for name in gates):
            return final
        held, fired = held | set(gates), fired | set(decided)
        with_them = replace(asked, situation=replace(asked.situation, approvals=frozenset(held)))
        allowed, decided, failed = naive(rules, with_them)
        if failed:
            return Answer("DENY", final.policies, failed)
        if allowed:
            missing = tuple(sorted(held - asked.situation.approvals))
            return Answer("NEEDS_APPROVAL", tuple(sorted(fired)), 0, missing)


# ------------------------------------------------------------------ requests by chance


def parties(chance: random.Random) -> RequestFacts:
    number = chance.randrange(len(AGENTS))
    return facts(
        agent={
            "spiffe_id": SpiffeId.parse(AGENTS[number]),
            "tier": list(Tier)[number % 3],
            "roles": frozenset(ROLES[: number % 3]),
            "environments": frozenset(ENVIRONMENTS[: 1 + number % 3]),
            "segments": ((), (("team", "red"),), (("team", "blue"),))[number % 3],
            "principal": f"a{number}",
        },
        scope={
            "template": chance.choice(TEMPLATES),
            "environment": chance.choice(ENVIRONMENTS),
            "access": chance.choice(list(AccessClass)),
            "risk": Risk(sensitivity=chance.choice(list(Sensitivity))),
        },
    )


def request(chance: random.Random, who: RequestFacts) -> RequestFacts:
    return replace(
        who,
        scope=replace(who.scope, ttl=timedelta(seconds=chance.choice(TTLS))),
        request=replace(who.request, ticket=chance.choice(["", "T-1"])),
        now=datetime(2026, 3, 2, chance.choice(HOURS), 59, 59, tzinfo=UTC),
        delivery=chance.choice(list(Delivery)),
        situation=Situation(approvals=frozenset(each for each in APPROVALS if chance.random() < 0.2)),
    )


@pytest.mark.parametrize("part", range(SLICES))
@pytest.mark.slow
def test_the_engine_decides_as_the_naive_evaluator_does(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(f"policy {part}")
    whos = [parties(chance) for _ in range(PARTIES)]
    asked = [request(chance, chance.choice(whos)) for _ in range(REQUESTS)]
    seen: Counter[str] = Counter()
    for number in range(SETS // SLICES):
        # Cut as finely as it can be, though it is small; by kind of request alone; and not at all.
        monkeypatch.setattr(engine, "cut", partial(cut, **CUTS[number % len(CUTS)]))
        rules = [rule(chance) for _ in range(chance.randrange(2, 12))]
        decided = policies("\n".join(policy(index, each) for index, each in enumerate(rules)))
        expected = [answer(rules, each) for each in asked]
        for again in (False, True):
            for index in chance.sample(range(REQUESTS), REQUESTS):
                each = asked[index]
                decision = decided.decide(replace(each, agent=replace(each.agent)) if again else each)
                told = Answer(decision.effect, decision.policies, len(decision.errors), decision.approvals)
                assert told == expected[index], (part, number, [policy(*one) for one in enumerate(rules)], each)
                assert decision.allowed is (told.kind == "ALLOW")
                seen["again" if again else "once"] += 1
                seen["failed" if told.failed else f"{told.kind}{' by default' * (not told.policies)}"] += 1
                seen["several"] += len(told.approvals) > 1
    assert seen["once"] == seen["again"] == SETS * REQUESTS // SLICES
    # Chance did make every kind of answer, and often.
    kinds = ("failed", "ALLOW", "DENY", "DENY by default", "NEEDS_APPROVAL")
    assert min(seen[kind] for kind in kinds) > seen["once"] // 20, seen
    assert seen["several"] > 0, seen
