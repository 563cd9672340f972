"""Cedar against a naive reading of its rules: any permit and no forbid. Simple policies, random facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.identity.agent import Tier
from broker.policy.facts import RequestFacts
from broker.scope.model import AccessClass
from tests.policy.world import facts, policies


@dataclass(frozen=True)
class Rule:
    text: str
    holds: Callable[[RequestFacts], bool]


def tier(value: str) -> Rule:
    return Rule(f'principal.tier == "{value}"', lambda f: f.agent.tier.value == value)


def environment(value: str) -> Rule:
    return Rule(f'resource.environment == "{value}"', lambda f: f.scope.environment == value)


def own_environment() -> Rule:
    return Rule(
        "principal.environments.contains(resource.environment)",
        lambda f: f.scope.environment in f.agent.environments,
    )


def ttl_over(seconds: int) -> Rule:
    return Rule(f"context.ttl_seconds > {seconds}", lambda f: f.scope.ttl.total_seconds() > seconds)


def change() -> Rule:
    return Rule('action in Action::"change"', lambda f: f.scope.access is not AccessClass.READ)


def ticket() -> Rule:
    return Rule('context.ticket != ""', lambda f: f.request.ticket != "")


ATOMS = st.one_of(
    st.sampled_from([t.value for t in Tier]).map(tier),
    st.sampled_from(["dev", "staging", "production"]).map(environment),
    st.just(own_environment()),
    st.sampled_from([30, 60, 90]).map(ttl_over),
    st.just(change()),
    st.just(ticket()),
)


def combined(children: st.SearchStrategy[Rule]) -> st.SearchStrategy[Rule]:
    return st.one_of(
        children.map(lambda a: Rule(f"!({a.text})", lambda f: not a.holds(f))),
        st.tuples(children, children).map(
            lambda p: Rule(f"({p[0].text}) && ({p[1].text})", lambda f: p[0].holds(f) and p[1].holds(f))
        ),
        st.tuples(children, children).map(
            lambda p: Rule(f"({p[0].text}) || ({p[1].text})", lambda f: p[0].holds(f) or p[1].holds(f))
        ),
    )


RULES = st.recursive(ATOMS, combined, max_leaves=4)
SETS = st.lists(st.tuples(st.sampled_from(["permit", "permit", "forbid"]), RULES), max_size=6)
FACTS = st.builds(
    lambda tier, environment, environments, access, seconds, ticket: facts(
        agent={"tier": tier, "environments": environments},
        scope={"environment": environment, "access": access, "ttl": seconds},
        request={"ticket": ticket},
    ),
    st.sampled_from(list(Tier)),
    st.sampled_from(["dev", "staging", "production"]),
    st.frozensets(st.sampled_from(["dev", "staging", "production"])),
    st.sampled_from(list(AccessClass)),
    st.sampled_from([30, 31, 60, 61, 90, 91]).map(lambda s: timedelta(seconds=s)),
    st.sampled_from(["", "T-1"]),
)


@settings(max_examples=150, deadline=None)
@given(SETS, st.lists(FACTS, min_size=1, max_size=5))
def test_cedar_decides_as_its_rules_read(rules: list[tuple[str, Rule]], asked: list[RequestFacts]) -> None:
    written = [
        f'@id("p{number}") @reason("r{number}") {effect} (principal, action, resource) when {{ {rule.text} }};'
        for number, (effect, rule) in enumerate(rules)
    ]
    decided = policies(*written)
    for each in asked:
        permits = tuple(f"p{n}" for n, (effect, rule) in enumerate(rules) if effect == "permit" and rule.holds(each))
        forbids = tuple(f"p{n}" for n, (effect, rule) in enumerate(rules) if effect == "forbid" and rule.holds(each))
        decision = decided.decide(each)
        assert decision.errors == ()
        assert decision.allowed == (bool(permits) and not forbids)
        assert decision.policies == (forbids or permits)
