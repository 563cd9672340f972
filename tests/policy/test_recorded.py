"""A decision made again is made on what was recorded: all of it, and nothing that was not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.deployfiles.load import policy_schema
from broker.errors import Reason
from broker.identity.agent import AgentPattern, May, Registry, Tier
from broker.identity.pattern import IdPattern
from broker.policy.cedar import PolicySet
from broker.policy.decision import Effect
from broker.policy.facts import Situation
from broker.policy.question import CIRCUMSTANCES
from broker.policy.recorded import Recorded, Unknown, differs, known, made_again
from broker.policy.trial import Outcome, Rules
from broker.scope.model import FromIdentity
from broker.scope.parameters import EnumParameter
from tests.clock import START
from tests.connectors.fake import contract
from tests.issuance.world import ALICE, OWNER, PEOPLE, template

SITUATION = Situation(
    task_type="report",
    approvals=frozenset({"sre", "data"}),
    plan="confirmed",
    delegators=("first", "again"),
    on_behalf_of=OWNER,
    active_grants=frozenset({"read:dev", "orders-read"}),
    active_count=2,
    pending_count=1,
)
ESTABLISHED = {
    "task_type": "report",
    "approvals": ["data", "sre"],
    "plan": "confirmed",
    "delegators": ["first", "again"],
    "on_behalf_of": "https://idp.test#ada",
    "active_grants": ["orders-read", "read:dev"],
    "active_count": 2,
    "pending_count": 1,
}
# Everything that a record may say, as ``issuance/records.py`` writes it.
FACTS: dict[str, Any] = {
    "template": "orders-read",
    "account": "dev",
    "environment": "dev",
    "resource": "orders",
    "parameters": {"table": "lines"},
    "ttl_ms": 61_500,
    "delivery": "proxy",
    "sealed": True,
    "step": "execute",
    "intent": "look",
    "reason": "asked to",
    "ticket": "T-1",
    "prompt_sha256": "a" * 64,
    "tool_call_sha256": "b" * 64,
    "plan_sha256": "c" * 64,
    "situation": ESTABLISHED,
}
# Each holds of FACTS, and of them alone.
SEEN = {
    "account": 'resource.account == "dev"',
    "environment": 'resource.environment == "dev"',
    "resource": 'resource.name == "orders"',
    "parameters": 'resource.parameters.contains("table=lines")',
    "ttl_ms": "context.ttl_seconds == 62",
    "delivery": 'context.delivery == "proxy"',
    "sealed": "context.sealed",
    "step": 'context.step == "execute"',
    "intent": 'context.intent == "look"',
    "reason": "context.has_reason",
    "ticket": 'context.ticket == "T-1"',
    "prompt_sha256": "context.has_prompt",
    "tool_call_sha256": "context.has_tool_call",
    "plan_sha256": "context.has_plan",
    "task_type": 'context.task_type == "report"',
    "approvals": 'context.approvals.containsAll(["sre", "data"])',
    "plan": 'context.plan == "confirmed"',
    "delegators": 'context.delegators.containsAll(["first", "again"])',
    "on_behalf_of": 'context has on_behalf_of && context.on_behalf_of == Person::"https://idp.test#ada"',
    "active_grants": 'context.active_grants.containsAll(["read:dev", "orders-read"])',
    "active_count": "context.active_count == 2",
    "pending_count": "context.pending_count == 1",
}
OTHERWISE: dict[str, Any] = {
    "account": "test",
    "environment": "test",
    "resource": "secret",
    "parameters": {"table": "items"},
    "ttl_ms": 62_001,
    "delivery": "direct",
    "sealed": False,
    "task_type": "",
    "approvals": ["sre"],
    "plan": "",
    "delegators": ["first"],
    "on_behalf_of": "https://idp.test#bea",
    "active_grants": ["read:dev"],
    "active_count": 3,
    "pending_count": 0,
}
TEMPLATE = template(
    accounts=frozenset({"dev", "test"}),
    environments=frozenset({"dev", "test"}),
    parameters={"table": EnumParameter("table", ("lines", "items"))},
)
MAY = May(frozenset({"read"}), TEMPLATE.environments)
REGISTRY = Registry([replace(ALICE, environments=TEMPLATE.environments)])


def rules(condition: str, **changes: Any) -> Rules:
    text = f'@id("p") permit (principal, action, resource) when {{ {condition} }};'
    made = Rules(
        REGISTRY,
        {"orders-read": TEMPLATE},
        PolicySet.parse({"p.cedar": text}, policy_schema()),
        {"fake": contract()},
        people={name: replace(person, may=MAY) for name, person in PEOPLE.items()},
    )
    return replace(made, **changes)


def decision(**facts: Any) -> Recorded:
    """FACTS, changed; None is left out."""
    said = {name: value for name, value in {**FACTS, **facts}.items() if value is not None}
    return Recorded(str(ALICE.spiffe_id), START, Effect.ALLOW, ("p",), said)


def established(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ESTABLISHED, **changes}.items() if value is not None}


@pytest.mark.parametrize("name", SEEN)
def test_what_was_recorded_is_what_is_decided_on(name: str) -> None:
    looking = rules(SEEN[name])
    assert made_again(decision(), looking).allowed
    other = OTHERWISE.get(name, "")
    changed = decision(situation=established(**{name: other})) if name in ESTABLISHED else decision(**{name: other})
    assert made_again(changed, looking).reason is Reason.POLICY_DENIED


def test_all_of_it_together() -> None:
    assert made_again(decision(), rules(" && ".join(SEEN.values()))).allowed


def test_the_hour_is_that_of_the_decision_and_who_asks_the_agent_of_it() -> None:
    looking = rules(f'context.hour == {START.hour} && principal.entry == "alice"')
    assert made_again(decision(), looking).allowed
    assert not made_again(replace(decision(), at=START.replace(hour=(START.hour + 1) % 24)), looking).allowed
    other = replace(decision(), agent="spiffe://test/agent/bob")
    assert made_again(other, looking).reason is Reason.AGENT_NOT_REGISTERED


@pytest.mark.parametrize(
    "name",
    ["template", "account", "environment", "resource", "parameters", "ttl_ms", "delivery", "sealed", "situation"],
)
def test_a_record_without_what_every_decision_needs_is_told_as_unknown(name: str) -> None:
    with pytest.raises(Unknown, match=f"^the record does not say {name}$"):
        made_again(decision(**{name: None}), rules("true"))


@pytest.mark.parametrize("name", ["step", "intent", "reason", "ticket", "prompt_sha256", "tool_call_sha256"])
def test_what_an_agent_did_not_say_was_not_said(name: str) -> None:
    assert made_again(decision(**{name: None}), rules("true")).allowed
    assert not made_again(decision(**{name: None}), rules(SEEN[name])).allowed


@pytest.mark.parametrize("name", sorted({*ESTABLISHED} - {"approvals", "on_behalf_of"}))
def test_what_nobody_established_is_unknown_unless_it_is_known_now(name: str) -> None:
    looking, silent = rules(SEEN[name]), decision(situation=established(**{name: None}))
    with pytest.raises(Unknown, match=f"^the record does not say {name}$"):
        made_again(silent, looking)
    assert made_again(silent, looking, ESTABLISHED).allowed
    # What was established then is not asked of now.
    now = {name: OTHERWISE[name]}
    assert made_again(decision(), looking, now).allowed
    # Where no policy looks at it, nobody needs it.
    assert made_again(silent, rules("true")).allowed


def test_approvals_that_nobody_looked_at_were_not_given() -> None:
    silent = decision(situation=established(approvals=None))
    assert not made_again(silent, rules(SEEN["approvals"])).allowed
    assert made_again(silent, rules("context.approvals.isEmpty()")).allowed


@pytest.mark.parametrize("what", ["context.delegated", "context.delegation_depth == 2"])
def test_delegation_is_told_by_who_delegated(what: str) -> None:
    assert made_again(decision(), rules(what)).allowed
    assert not made_again(decision(situation=established(delegators=[])), rules(what)).allowed


def test_whom_the_task_acts_for_is_recorded_beside_the_situation() -> None:
    beas = 'context has on_behalf_of && context.on_behalf_of == Person::"https://idp.test#bea"'
    silent = decision(situation=established(on_behalf_of=None), on_behalf_of="https://idp.test#bea")
    # A policy looks at it, and the record has it as nobody's circumstance.
    assert made_again(silent, rules(beas), {"on_behalf_of": None}).allowed
    assert made_again(decision(on_behalf_of="https://idp.test#bea"), rules(SEEN["on_behalf_of"])).allowed
    nobody = decision(situation=established(on_behalf_of=None))
    assert not made_again(nobody, rules(beas), {"on_behalf_of": None}).allowed


def test_for_a_person_who_is_gone_or_disabled_nothing_is_done() -> None:
    """As the broker would say it under these people; at the time of the decision, as everything else."""
    for gone in ("https://idp.test#zoe", "https://idp.test#", "https://other.test#ada"):
        again = made_again(decision(situation=established(on_behalf_of=gone)), rules(SEEN["on_behalf_of"]))
        assert again.reason is Reason.ON_BEHALF_OF_NOBODY
    ada = replace(PEOPLE["ada"], may=MAY)
    for changes, reason in (
        ({"disabled": True}, Reason.ON_BEHALF_OF_NOBODY),
        ({"until": START}, Reason.ON_BEHALF_OF_NOBODY),
        ({"until": START + timedelta(seconds=1)}, None),
        ({"may": None}, Reason.ON_BEHALF_OF_EXCEEDED),
    ):
        now = rules(SEEN["on_behalf_of"], people={"ada": replace(ada, **changes)})
        assert made_again(decision(), now).reason is reason, changes


def test_which_tool_was_called_counts_where_there_is_a_list_now() -> None:
    listed = Registry([replace(ALICE, environments=TEMPLATE.environments, tools=frozenset({"psql"}))])
    now = rules("true", registry=listed)
    assert made_again(decision(tool="psql"), now).allowed
    assert made_again(decision(tool="rm"), now).reason is Reason.TOOL_NOT_ALLOWED
    assert made_again(decision(tool="rm"), rules("true")).allowed
    with pytest.raises(Unknown, match=r"^the record does not say which tool was called$"):
        made_again(decision(), now)
    assert made_again(decision(tool_call_sha256=None), now).reason is Reason.TOOL_CALL_MALFORMED


def test_what_was_granted_by_break_glass_is_no_decision_of_policy() -> None:
    with pytest.raises(Unknown, match=r"^it was granted by break-glass"):
        made_again(decision(delivery="people"), rules("true"))


def test_other_people_to_ask_are_another_answer() -> None:
    asked = replace(decision(approvals=["data", "sre"]), effect=Effect.NEEDS_APPROVAL)
    for approvals, other in (
        (("data", "sre"), False),
        (("sre", "data"), False),
        (("sre",), True),
        (("sre", "x"), True),
    ):
        assert differs(asked, Outcome(Effect.NEEDS_APPROVAL, approvals=approvals)) is other
    assert differs(asked, Outcome(Effect.ALLOW))
    assert not differs(decision(approvals=["sre"]), Outcome(Effect.ALLOW))  # held, of an approved one


def test_a_template_that_is_gone_is_no_unknown() -> None:
    assert made_again(decision(), rules("true", templates={})).reason is Reason.TEMPLATE_NOT_FOUND


def test_what_identity_fills_in_is_not_sent_again() -> None:
    jobs = AgentPattern(
        "jobs",
        IdPattern.parse("spiffe://test/ns/{namespace}"),
        OWNER,
        Tier.ADVISORY,
        frozenset(),
        frozenset({"dev"}),
        ALICE.quotas,
    )
    filled = replace(
        TEMPLATE, parameters={}, from_identity={"table": FromIdentity(EnumParameter("table", ("lines",)), "namespace")}
    )
    looking = rules(SEEN["parameters"], registry=Registry([], [jobs]), templates={"orders-read": filled})
    assert made_again(replace(decision(), agent="spiffe://test/ns/lines"), looking).allowed


def test_what_is_kept_of_a_situation_is_what_policies_look_at() -> None:
    assert known(SITUATION, CIRCUMSTANCES) == ESTABLISHED
    assert list(known(SITUATION, CIRCUMSTANCES)) == sorted(ESTABLISHED)
    assert known(SITUATION, ["hour", "step", "delivery"]) == {}
    assert known(SITUATION, ["plan", "hour"]) == {"plan": "confirmed"}
    for name in ("delegated", "delegation_depth", "delegators"):
        assert known(SITUATION, [name]) == {"delegators": ["first", "again"]}
    assert known(Situation(), ["on_behalf_of", "active_count", "delegated"]) == {
        "on_behalf_of": None,
        "active_count": 0,
        "delegators": [],
    }


@pytest.mark.parametrize("effect", Effect)
def test_only_another_effect_is_another_answer(effect: Effect) -> None:
    assert differs(decision(), Outcome(effect)) is (effect is not Effect.ALLOW)
    assert not differs(decision(), Outcome(Effect.ALLOW, policies=("other",)))


def test_grants_of_older_records_have_the_group_of_their_action() -> None:
    """They were written before policies could ask for it."""
    situation = {**ESTABLISHED, "active_grants": ["orders-write", "secrets:test", "read:dev"]}
    looking = rules('context.active_grants.contains("change:test") && !context.active_grants.contains("change:dev")')
    assert made_again(decision(situation=situation), looking).allowed
