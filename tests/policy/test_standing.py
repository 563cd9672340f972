"""How a grant stands under other rules. Alice (role ``reader``) was granted reading of the orders in dev."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.deployfiles.load import policy_schema
from broker.identity.agent import Registry
from broker.policy.cedar import PolicySet
from broker.policy.decision import Effect
from broker.policy.recorded import Recorded
from broker.policy.standing import Held, Standing, Verdict, reviewed
from broker.policy.trial import Rules
from broker.scope.model import AccessClass, OnPolicyChange
from tests.clock import START
from tests.connectors.fake import contract
from tests.issuance.world import ALICE, BOB, POLICY, template

HELD = Held("orders-read", "fake", "read", ("SELECT",))
FACTS: dict[str, Any] = {
    "template": "orders-read",
    "account": "dev",
    "environment": "dev",
    "resource": "orders",
    "parameters": {},
    "ttl_ms": 300_000,
    "delivery": "direct",
    "sealed": False,
    "situation": {},
}
PRESENT = {
    "task_type": "report",
    "active_count": 1,
    "active_grants": [],
    "pending_count": 0,
    "plan": "",
    "delegators": [],
}
NIGHT = '@id("night") @reason("Not at night.") forbid (principal, action, resource) when { context.hour < 23 };'
GATE = (
    '@id("gate") @approval("sre") @reason("People decide.") forbid (principal, action, resource)'
    ' unless { context.approvals.contains("sre") };'
)
TYPES = (
    '@id("types") @reason("No reports.") forbid (principal, action, resource) when { context.task_type == "report" };'
)
FAILS = (
    '@id("fails") @reason("x") forbid (principal, action, resource)'
    " when { context.ttl_seconds + 9223372036854775807 > 0 };"
)


def rules(more: str = "", **changes: Any) -> Rules:
    policies = PolicySet.parse({"test.cedar": POLICY, "more.cedar": more}, policy_schema())
    made = Rules(Registry([ALICE, BOB]), {"orders-read": template()}, policies, {"fake": contract()})
    return replace(made, **changes)


def granted(**facts: Any) -> Recorded:
    said = {name: value for name, value in {**FACTS, **facts}.items() if value is not None}
    return Recorded(str(ALICE.spiffe_id), START, Effect.ALLOW, ("reads",), said)


def of(**changes: Any) -> dict[str, Any]:
    return {"templates": {"orders-read": template(**changes)}}


CASES = [
    ("the same rules", rules(), granted(), Standing.ALLOW, ()),
    ("a forbid that came", rules(NIGHT), granted(), Standing.DENY, ("night",)),
    ("a gate that came", rules(GATE), granted(), Standing.NEEDS_APPROVAL, ("gate",)),
    (
        "a gate whose approval is held",
        rules(GATE),
        granted(situation={"approvals": ["sre"]}),
        Standing.ALLOW,
        ("reads",),
    ),
    ("what nobody looked at then is as it is now", rules(TYPES), granted(), Standing.DENY, ("types",)),
    (
        "what was looked at then is as it was then",
        rules(TYPES),
        granted(situation={"task_type": "x"}),
        Standing.ALLOW,
        ("reads",),
    ),
    ("policies that fail", rules(FAILS), granted(), Standing.DENY, ()),
    ("a template that is gone", rules(templates={}), granted(), Standing.DENY, ()),
    ("an agent that is gone", rules(registry=Registry([BOB])), granted(), Standing.DENY, ()),
    ("an environment that is gone", rules(**of(environments=frozenset({"test"}))), granted(), Standing.DENY, ()),
    ("a TTL that is too long now", rules(**of(max_ttl=timedelta(minutes=1))), granted(), Standing.DENY, ()),
    ("another class of access", rules(**of(access=AccessClass.WRITE)), granted(), Standing.DENY, ()),
    ("less to do", rules(**of(actions=("EXPLAIN",))), granted(), Standing.DENY, ()),
    ("more to do", rules(**of(actions=("EXPLAIN", "SELECT"))), granted(), Standing.ALLOW, ("reads",)),
    (
        "another connector",
        rules(**of(connector="other"), contracts={"other": contract()}),
        granted(),
        Standing.DENY,
        (),
    ),
    ("a connector that does not run", rules(contracts={}), granted(), Standing.UNKNOWN, ()),
    ("nothing recorded", rules(), None, Standing.UNKNOWN, ()),
    ("too little recorded", rules(), granted(delivery=None), Standing.UNKNOWN, ()),
    ("what is no record", rules(), granted(ttl_ms="x"), Standing.UNKNOWN, ()),
    (
        "a tool that is not listed",
        rules(registry=Registry([replace(ALICE, tools=frozenset({"psql"}))])),
        granted(tool="rm"),
        Standing.DENY,
        (),
    ),
    (
        "a tool that is listed",
        rules(registry=Registry([replace(ALICE, tools=frozenset({"psql"}))])),
        granted(tool="psql"),
        Standing.ALLOW,
        ("reads",),
    ),
    (
        "a tool that nobody recorded",
        rules(registry=Registry([replace(ALICE, tools=frozenset({"psql"}))])),
        granted(),
        Standing.DENY,
        (),
    ),
]


@pytest.mark.parametrize(("name", "now", "grant", "standing", "policies"), CASES, ids=[case[0] for case in CASES])
def test_a_grant_under_other_rules(
    name: str, now: Rules, grant: Recorded | None, standing: Standing, policies: tuple[str, ...]
) -> None:
    verdict = reviewed(grant, HELD, PRESENT, now)
    assert (verdict.standing, verdict.stands) == (standing, standing is Standing.ALLOW)
    assert policies in (verdict.policies, ()), verdict
    assert verdict.stands or verdict.why, name


ANY = '@id("any") permit (principal, action, resource);'
LISTED = {"registry": Registry([replace(ALICE, tools=frozenset({"psql"}))])}
TOLD = [
    (rules(), granted(), HELD, Verdict(Standing.ALLOW, policies=("reads",))),
    (rules(NIGHT), granted(), HELD, Verdict(Standing.DENY, "POLICY_DENIED", ("night",), "Not at night.")),
    (
        rules(GATE + GATE.replace("gate", "again").replace("sre", "data").replace("People", "They")),
        granted(),
        HELD,
        Verdict(
            Standing.NEEDS_APPROVAL,
            "",
            ("again", "gate"),
            "the approval data, sre is needed, and not held. They decide. People decide.",
        ),
    ),
    (
        rules(templates={}),
        granted(),
        HELD,
        Verdict(Standing.DENY, "TEMPLATE_NOT_FOUND", (), "there is no template 'orders-read'. There is: ."),
    ),
    (
        rules(ANY, **of(connector="other"), contracts={"other": contract()}),
        granted(),
        HELD,
        Verdict(Standing.DENY, why="template orders-read is of connector other by now"),
    ),
    (
        rules(ANY, **of(access=AccessClass.WRITE)),
        granted(),
        HELD,
        Verdict(Standing.DENY, why="template orders-read gives write access by now"),
    ),
    (
        rules(**of(actions=("SELECT", "SHOW"))),
        granted(),
        replace(HELD, actions=("SHOW", "UPDATE", "EXPLAIN")),
        Verdict(Standing.DENY, why="template orders-read does not give EXPLAIN, UPDATE any more"),
    ),
    (
        rules(**LISTED),
        granted(tool="rm"),
        HELD,
        Verdict(
            Standing.DENY,
            "TOOL_NOT_ALLOWED",
            why="alice may not call the tool rm. WhoAmI (`broker whoami`) lists the tools that are allowed; an operator"
            " adds one in the agent's file.",
        ),
    ),
    (
        rules(**LISTED),
        granted(tool_call_sha256="b" * 64),
        HELD,
        Verdict(Standing.UNKNOWN, why="the record does not say which tool was called"),
    ),
    (
        rules(**LISTED),
        granted(),
        HELD,
        Verdict(
            Standing.DENY,
            "TOOL_CALL_MALFORMED",
            why="tool_call is missing, and this agent's tools are on an allow list."
            " Send the tool call as one JSON object that names its tool once:"
            ' {"tool": "NAME", ...} or {"name": "NAME", ...}.',
        ),
    ),
    (rules(**LISTED), granted(tool="psql"), HELD, Verdict(Standing.ALLOW, policies=("reads",))),
    (rules(), granted(tool="rm"), HELD, Verdict(Standing.ALLOW, policies=("reads",))),
    (rules(), None, HELD, Verdict(Standing.UNKNOWN, why="the audit trail does not say what it was granted on")),
    (rules(), granted(delivery=None), HELD, Verdict(Standing.UNKNOWN, why="the record does not say delivery")),
    (rules(), granted(ttl_ms="x"), HELD, Verdict(Standing.UNKNOWN, why="the decision failed: TypeError")),
]


@pytest.mark.parametrize(("now", "grant", "held", "verdict"), TOLD, ids=[each[3].why for each in TOLD])
@pytest.mark.parametrize("choice", OnPolicyChange)
def test_the_whole_verdict(
    now: Rules, grant: Recorded | None, held: Held, verdict: Verdict, choice: OnPolicyChange
) -> None:
    """What its template wants done is said with every verdict that is not a yes."""
    chosen = {name: replace(each, on_policy_change=choice) for name, each in now.templates.items()}
    expected = replace(verdict, on_policy_change=choice) if chosen and not verdict.stands else verdict
    assert reviewed(grant, held, PRESENT, replace(now, templates=chosen)) == expected


def test_what_failed_in_a_policy_is_told() -> None:
    verdict = reviewed(granted(), HELD, PRESENT, rules(FAILS))
    assert (verdict.standing, verdict.reason, verdict.policies) == (Standing.DENY, "POLICY_ERROR", ())
    assert "`fails`" in verdict.why and verdict.why == verdict.why.strip()


def test_what_its_template_wants_done_is_said_with_every_verdict_that_is_not_a_yes() -> None:
    revoking = of(on_policy_change=OnPolicyChange.REVOKE)
    for more, grant in ((NIGHT, granted()), (GATE, granted()), ("", None), ("", granted(delivery=None))):
        verdict = reviewed(grant, HELD, PRESENT, rules(more, **revoking))
        assert (verdict.stands, verdict.on_policy_change) == (False, OnPolicyChange.REVOKE)


def test_a_template_that_is_gone_had_said_it_when_it_granted() -> None:
    gone = rules(templates={})
    assert reviewed(granted(), HELD, PRESENT, gone).on_policy_change is OnPolicyChange.REPORT
    said = granted(on_policy_change="revoke")
    assert reviewed(said, HELD, PRESENT, gone).on_policy_change is OnPolicyChange.REVOKE
