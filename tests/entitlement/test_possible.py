"""What an agent could get is what the deciding function answers, at its widest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.entitlement.possible import NOT_TRIED, Evaluation, Possible
from broker.identity.agent import May, Person, Registry
from broker.identity.denied import DenyList
from broker.policy.decision import Effect
from broker.policy.trial import Rules
from broker.scope.model import AccessClass, ScopeTemplate
from broker.scope.parameters import EnumParameter, RegexParameter
from tests.connectors.fake import contract
from tests.policy.world import AGENT, OWNER, policies

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)  # a Monday
ID = str(AGENT.spiffe_id)


def template(**changes: Any) -> ScopeTemplate:
    made = ScopeTemplate(
        name="orders",
        description="",
        connector="fake",
        accounts=frozenset({"acct"}),
        environments=frozenset({"dev"}),
        resource=EnumParameter("resource", ("orders", "secret")),
        access=AccessClass.READ,
        actions=("select",),
        max_ttl=timedelta(minutes=5),
        mandatory=frozenset({"intent", "ticket", "plan"}),
        parameters={},
        grant={},
        digest="d" * 64,
    )
    return replace(made, **changes)


def could(*texts: str, people: dict[str, Person] | None = None, **changes: Any) -> Possible:
    one = template(**changes)
    rules = Rules(Registry([AGENT]), {one.name: one}, policies(*texts), {"fake": contract()}, DenyList(), people or {})
    (found,) = Evaluation(rules, NOW, {}).of(ID)
    return found


def permit(condition: str) -> str:
    return f'@id("yes") permit (principal, action, resource) when {{ {condition} }};'


GATE = (
    '@id("gate") @reason("Ask.") @approval("owners") forbid (principal, action, resource)'
    ' when { resource.name == "secret" } unless { context.approvals.contains("owners") };'
)


@pytest.mark.parametrize(
    ("condition", "effect", "under"),
    [
        ("true", Effect.ALLOW, ""),
        ('context.ticket != "" && context.has_plan && context.sealed', Effect.ALLOW, ""),
        ("context.ttl_seconds <= 60", Effect.ALLOW, ""),
        ("context.ttl_seconds < 60", Effect.DENY, ""),
        ('context.plan == "confirmed"', Effect.ALLOW, "as a step of a confirmed plan"),
        ('context.intent == "deploy"', Effect.ALLOW, 'with intent "deploy"'),
        ('context.task_type == "nightly"', Effect.ALLOW, 'with task_type "nightly"'),
        ("context.hour == 3", Effect.ALLOW, "on Tuesday at 03:00Z"),
        (
            'context.plan == "confirmed" && context.weekday == 7',
            Effect.ALLOW,
            "as a step of a confirmed plan, on Sunday at 00:00Z",
        ),
        (
            'context.intent == "deploy" && context.step == "last" && context.hour == 3',
            Effect.ALLOW,
            'with intent "deploy", with step "last", on Tuesday at 03:00Z',
        ),
        ('principal.roles.contains("releaser")', Effect.DENY, ""),
        ("context.active_count > 0", Effect.DENY, ""),
    ],
)
def test_the_widest_answer_counts_and_its_circumstance_is_told(condition: str, effect: Effect, under: str) -> None:
    found = could(permit(condition))
    assert (found.effect, found.condition) == (effect, under)


def test_on_behalf_of_whom() -> None:
    allowed = permit('context has on_behalf_of && context.on_behalf_of.groups.contains("dba")')
    dba = Person(
        "https://id", "eve", "Eve", groups=frozenset({"dba"}), may=May(frozenset({"read"}), frozenset({"dev"}))
    )
    assert could(allowed, people={"dana": OWNER, "eve": dba}).condition == "on behalf of eve"
    assert not could(allowed, people={"eve": replace(dba, disabled=True)}).reachable


def test_of_several_values_the_widest_is_told_with_those_that_have_it() -> None:
    found = could(permit("true"), GATE)
    assert (found.effect, found.examples, found.whole) == (Effect.ALLOW, ("orders",), True)
    only = could(permit("true"), GATE, resource=EnumParameter("resource", ("secret",)))
    assert (only.effect, only.approvals) == (Effect.NEEDS_APPROVAL, ("owners",))


def test_what_cannot_be_tried_is_not_called_denied() -> None:
    found = could(permit("true"), resource=RegexParameter("resource", "^(?i)x$", 5))
    assert (found.reachable, found.reason, found.examples) == (False, NOT_TRIED, ())


def test_a_denied_or_unregistered_agent_can_get_nothing() -> None:
    one = template()
    rules = Rules(Registry([]), {one.name: one}, policies(permit("true")), {"fake": contract()})
    (found,) = Evaluation(rules, NOW, {}).of(ID)
    assert (found.reachable, found.reason) == (False, "AGENT_NOT_REGISTERED")


def test_every_account_and_environment_is_one_line() -> None:
    wide = template(accounts=frozenset({"a", "b"}), environments=frozenset({"dev", "prod"}))
    rules = Rules(
        Registry([AGENT]),
        {wide.name: wide},
        policies(permit('resource.environment == "dev" || resource.account == "b"')),
        {"fake": contract()},
    )
    found = {(each.account, each.environment): each.reachable for each in Evaluation(rules, NOW, {}).of(ID)}
    assert found == {("a", "dev"): True, ("a", "prod"): False, ("b", "dev"): True, ("b", "prod"): True}
