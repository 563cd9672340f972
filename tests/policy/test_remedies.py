"""What would have to change for a refused request, to the word: all that helps, in its order, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.identity.agent import Delivery, Registry
from broker.identity.denied import Denial, DenyList
from broker.policy.remedies import remedies
from broker.policy.trial import Rules, Supposed, Trial
from broker.scope.request import AccessRequest
from tests.connectors.fake import contract
from tests.issuance.world import ALICE, BOB, OWNER, agent, template
from tests.policy.test_gates import gate
from tests.policy.world import NOW, PERMIT_ALL, policies

TEMPLATE = template(
    accounts=frozenset({"dev", "b", "c"}), environments=frozenset({"dev", "test", "prod"}), max_ttl=timedelta(hours=2)
)
EVERYWHERE = {"environments": TEMPLATE.environments}
Told = tuple[tuple[str, ...], ...]


def rules(*texts: str) -> Rules:
    agents = (replace(each, **EVERYWHERE) for each in (agent("carol"), ALICE, BOB))
    return Rules(Registry(agents), {"orders-read": TEMPLATE}, policies(*texts), {"fake": contract()})


def permitted(condition: str) -> Rules:
    return rules(f'@id("p") permit (principal, action, resource) when {{ {condition} }};')


def trial(agent: str = "alice", now: datetime = NOW, delivery: Delivery = Delivery.DIRECT, **changes: Any) -> Trial:
    """A request that says nothing but what it must."""
    asked = AccessRequest("r", "orders-read", "t", "dev", "dev", "orders", timedelta(minutes=5))
    return Trial(agent, replace(asked, **changes), now, delivery)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('context.ticket != ""', (("say ticket",),)),
        ('context.intent != ""', (("say intent",),)),
        ('context.step != ""', (("say step",),)),
        ("context.has_reason", (("say reason",),)),
        ("context.has_prompt", (("say prompt",),)),
        ("context.has_tool_call", (("say tool_call",),)),
        ("context.has_plan", (("say plan",),)),
        ("context.sealed", (("have it sealed",),)),
        ('resource.account != "dev"', (("ask for the account b",), ("ask for the account c",))),
        ('resource.environment != "dev"', (("ask for the environment prod",), ("ask for the environment test",))),
        ('principal.entry != "alice"', (("have bob ask",), ("have carol ask",))),
        ("context.ttl_seconds <= 42", (("ask for 42s or less",),)),
        ("context.ttl_seconds <= 299", (("ask for 299s or less",),)),
        ("context.ttl_seconds <= 1", (("ask for 1s or less",),)),
        ("context.ttl_seconds <= 0", ()),
        ("context.hour == 0", (("ask on Friday 2026-12-25 at 00:00 UTC",),)),
        # The hour of now a week later is the last that is tried.
        (
            "context.minute == 0 && context.weekday == 4 && context.hour == 23",
            (("ask on Thursday 2026-12-31 at 23:00 UTC",),),
        ),
        ("context.date == 20270101", ()),
        # Whatever helps by itself is told, in one order.
        (
            'context.has_plan || context.ttl_seconds < 9 || context.hour < 1 || principal.entry == "bob"',
            (
                ("ask for 8s or less",),
                ("say plan",),
                ("ask on Friday 2026-12-25 at 00:00 UTC",),
                ("have bob ask",),
            ),
        ),
        # Two together only where none helps alone.
        ('context.has_plan && context.ticket != ""', (("say ticket", "say plan"),)),
        (
            'context.sealed && resource.environment == "prod" && resource.account == "dev"',
            (("have it sealed", "ask for the environment prod"),),
        ),
        (
            'resource.environment == "prod" && resource.account == "c"',
            (("ask for the environment prod", "ask for the account c"),),
        ),
        ("context.sealed && context.ttl_seconds <= 42", (("have it sealed", "ask for 42s or less"),)),
        (
            'context.has_plan && (context.ttl_seconds <= 42 || context.step != "")',
            (("say step", "say plan"), ("say plan", "ask for 42s or less")),
        ),
        ('context.has_plan && context.sealed && context.ticket != ""', ()),
        ('resource.name == "secret"', ()),
    ],
)
def test_what_helps_a_request_that_says_nothing(condition: str, expected: Told) -> None:
    assert remedies(trial(), permitted(condition)) == expected


@pytest.mark.parametrize(
    ("asked", "condition", "expected"),
    [
        # Nothing but white space is nothing said; what is said, or sealed, or asked directly, already is not told.
        (trial(ticket=" \t"), 'context.ticket != " \\t"', (("say ticket",),)),
        (trial(ticket="x"), 'context.ticket != "x"', ()),
        (trial(recipient_public_key=b"k" * 32), "!context.sealed", ()),
        (trial(delivery=Delivery.PROXY), 'context.delivery == "direct"', (("ask directly, not through a proxy",),)),
        (
            trial(delivery=Delivery.PROXY),
            'context.delivery == "direct" && context.sealed',
            (("ask directly, not through a proxy", "have it sealed"),),
        ),
        # The TTL is tried to the second, rounded up.
        (trial(ttl=timedelta(seconds=42.5)), "context.ttl_seconds <= 42", (("ask for 42s or less",),)),
        (trial(ttl=timedelta(seconds=2)), "context.ttl_seconds <= 1", (("ask for 1s or less",),)),
        (trial(ttl=timedelta(seconds=1)), 'context.ttl_seconds <= 0 || context.step != ""', (("say step",),)),
        # Full hours after now, whatever its minutes are.
        (
            trial(now=NOW.replace(minute=0, second=0)),
            "context.minute == 0 && context.hour == 23 && context.date != 20261224",
            (("ask on Friday 2026-12-25 at 23:00 UTC",),),
        ),
        (
            trial(now=NOW.replace(minute=59, second=59, microsecond=7)),
            "context.minute == 0 && context.hour < 3",
            (("ask on Friday 2026-12-25 at 00:00 UTC",),),
        ),
        # Who asks may be told by id, or be nobody at all.
        (trial("spiffe://test/agent/bob"), 'principal.entry == "alice"', (("have alice ask",),)),
        (trial("mallory"), 'principal.entry != "bob"', (("have alice ask",), ("have carol ask",))),
        # A template that is not there has no values to ask for.
        (trial(template="none"), "true", ()),
    ],
)
def test_what_helps_other_requests(asked: Trial, condition: str, expected: Told) -> None:
    assert remedies(asked, permitted(condition)) == expected


def test_people_are_asked_where_they_are_all_that_is_missing() -> None:
    asked, approved = trial(), "have people give: network, owners"
    both = (PERMIT_ALL, gate("owners"), gate("network"))
    assert remedies(asked, rules(*both)) == ((approved,),)
    # Beside what is held already.
    held = replace(
        asked, supposed=Supposed(situation=replace(asked.supposed.situation, approvals=frozenset({"owners"})))
    )
    assert remedies(held, rules(*both)) == (("have people give: network",),)
    # Another way that helps is told after it.
    calm = gate("owners", when="!context.has_plan")
    assert remedies(asked, rules(PERMIT_ALL, calm)) == (("have people give: owners",), ("say plan",))


def test_a_full_hour_is_tried_at_its_first_moment() -> None:
    midnight = datetime(2026, 12, 25, tzinfo=UTC)
    denied = DenyList([Denial(ALICE.spiffe_id, "x", OWNER, NOW, midnight + timedelta(microseconds=1))])
    asked = trial(now=NOW.replace(second=7, microsecond=9))
    assert remedies(asked, replace(rules(PERMIT_ALL), denied=denied)) == (
        ("ask on Friday 2026-12-25 at 01:00 UTC",),
        ("have bob ask",),
        ("have carol ask",),
    )


def test_a_longer_ttl_is_not_told_as_a_shorter_one() -> None:
    # What is kept wrapped for a second does not fit into half of one; for a second it would be allowed.
    wrapping = replace(rules(PERMIT_ALL), templates={"orders-read": replace(TEMPLATE, wrapping=True)})
    assert remedies(trial(ttl=timedelta(seconds=0.5), wrap=timedelta(seconds=1)), wrapping) == ()


def test_environments_that_are_supposed_are_those_that_can_be_asked_for() -> None:
    supposed = Supposed(template_environments=frozenset({"dev", "lab"}), agent_environments=frozenset({"dev", "lab"}))
    asked = replace(trial(), supposed=supposed)
    assert remedies(asked, permitted('resource.environment != "dev"')) == (("ask for the environment lab",),)
