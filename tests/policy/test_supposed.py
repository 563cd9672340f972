"""A trial without a broker: whom it finds, what it supposes, and its outcome to the word."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.errors import Denied, Reason
from broker.identity.agent import Agent, AgentPattern, May, Registry, Tier
from broker.identity.denied import Certificate, Denial, DenyList
from broker.identity.own import canary_agent
from broker.identity.pattern import IdPattern
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import Binding, ContractClass
from broker.policy.decision import Decision, Effect
from broker.policy.facts import Situation
from broker.policy.shadow import ShadowPolicies, ShadowVerdict, Would
from broker.policy.trial import Outcome, Rules, Supposed, Trial, found, shadowed, tried
from broker.scope.model import AccessClass, Sensitivity
from broker.scope.request import AccessRequest
from tests.connectors.fake import contract
from tests.issuance.world import ALICE, BOB, OWNER, PEOPLE, template
from tests.policy.test_errors import VALID, failing
from tests.policy.test_gates import gate
from tests.policy.world import NOW, SCHEMA, policies

JOBS = AgentPattern(
    "jobs",
    IdPattern.parse("spiffe://test/job/{job}"),
    OWNER,
    Tier.ADVISORY,
    frozenset(),
    frozenset({"dev"}),
    ALICE.quotas,
)
CANARY = canary_agent("test")
REGISTRY = Registry([ALICE, BOB], [JOBS], CANARY)
ASKED = AccessRequest("r", "orders-read", "t", "dev", "dev", "orders", timedelta(minutes=5))
WHY = '@id("p") @reason("Because.") permit (principal, action, resource);'
NO = '@id("f") @reason("No.") forbid (principal, action, resource);'


def rules(*texts: str, **changes: Any) -> Rules:
    return replace(Rules(REGISTRY, {"orders-read": template()}, policies(*texts), {"fake": contract()}), **changes)


def permitted(condition: str, **changes: Any) -> Rules:
    return rules(f'@id("p") permit (principal, action, resource) when {{ {condition} }};', **changes)


def trial(agent: str = "alice", supposed: Supposed | None = None, **changes: Any) -> Trial:
    return Trial(agent, replace(ASKED, **changes), NOW, supposed=supposed or Supposed())


@pytest.mark.parametrize(
    ("texts", "outcome"),
    [
        ((WHY,), Outcome(Effect.ALLOW, None, ("p",), ("Because.",))),
        ((WHY, NO), Outcome(Effect.DENY, Reason.POLICY_DENIED, ("f",), ("No.",))),
        ((), Outcome(Effect.DENY, Reason.POLICY_DENIED, (), ("No policy permits this request.",))),
        (
            (WHY, gate("sre"), gate("data")),
            Outcome(
                Effect.NEEDS_APPROVAL,
                None,
                ("data-gate", "sre-gate"),
                ("data decides", "sre decides"),
                approvals=("data", "sre"),
            ),
        ),
    ],
)
def test_the_whole_outcome(texts: tuple[str, ...], outcome: Outcome) -> None:
    assert tried(trial(), rules(*texts)) == outcome
    assert outcome.allowed is (outcome.effect is Effect.ALLOW)


def test_an_error_is_told_with_the_policies_that_hold_beside_it() -> None:
    outcome = tried(trial(), rules(WHY, NO, failing("forbid", VALID["a sum that does not fit"])))
    assert (outcome.effect, outcome.reason, outcome.policies) == (Effect.DENY, Reason.POLICY_ERROR, ("f",))
    assert (outcome.explanations, outcome.approvals) == (("No.",), ())
    assert len(outcome.errors) == 1 and "`fails`" in outcome.errors[0]


def test_what_the_broker_refuses_is_told_with_its_hint() -> None:
    refused = tried(trial(template="none"), rules(WHY, templates={"b": template(), "a": template()}))
    assert refused == Outcome(
        Effect.DENY, Reason.TEMPLATE_NOT_FOUND, explanations=("there is no template 'none'. There is: a, b.",)
    )


@pytest.mark.parametrize(
    ("who", "agent"),
    [
        ("alice", ALICE),
        ("spiffe://test/agent/bob", BOB),
        ("spiffe://test/job/nightly", JOBS.agent(SpiffeId("test", "/job/nightly"), (("job", "nightly"),))),
        (CANARY.principal, CANARY),
        (str(CANARY.spiffe_id), CANARY),
    ],
)
def test_who_is_found(who: str, agent: Agent) -> None:
    assert found(who, REGISTRY) == agent


@pytest.mark.parametrize(
    ("who", "message", "hint"),
    [
        (
            "jobs",
            "'jobs' is the entry of a pattern, and stands for many agents.",
            "Write the SPIFFE ID of one of them.",
        ),
        ("job\N{SNOWMAN}", r"'job\u2603' is no entry.", "An entry is the name of a file of agents/, or a SPIFFE ID."),
    ],
)
def test_who_is_not_found_is_told_why(who: str, message: str, hint: str) -> None:
    with pytest.raises(Denied) as refused:
        found(who, REGISTRY)
    assert (refused.value.reason, refused.value.message, refused.value.hint) == (
        Reason.AGENT_NOT_REGISTERED,
        message,
        hint,
    )
    assert refused.value.metadata == {"agent": ascii(who)}


def test_the_broker_is_found_only_where_it_holds_leases() -> None:
    with pytest.raises(Denied):
        found(CANARY.principal, Registry([ALICE]))


def test_the_deny_list_is_asked_at_the_time_of_the_trial() -> None:
    until = DenyList([Denial(ALICE.spiffe_id, "its key was in a log", OWNER, NOW, NOW + timedelta(hours=1))])
    assert tried(trial(), rules(WHY, denied=until)).reason is Reason.AGENT_DENIED
    assert tried(replace(trial(), now=NOW + timedelta(hours=1)), rules(WHY, denied=until)).allowed
    assert tried(trial("bob"), rules(WHY, denied=until)).allowed
    # A trial comes with no certificate that somebody could have denied.
    certificates = DenyList([Denial(Certificate("test", serial), "x", OWNER, NOW) for serial in (0, 1, 2)])
    assert tried(trial(), rules(WHY, denied=certificates)).allowed


def test_what_shadow_policies_would_is_asked_where_policy_is_reached() -> None:
    shadow = ShadowPolicies.parse({"s": NO}, {"0.cedar": WHY}, SCHEMA)
    assert shadowed(trial(), rules(WHY)) is None
    assert shadowed(trial(), rules(WHY, shadow=shadow)) == ShadowVerdict(Would.WOULD_DENY, ("f",), True)
    assert shadowed(trial(template="none"), rules(WHY, shadow=shadow)) is None


@pytest.mark.parametrize(
    ("supposed", "condition"),
    [
        (Supposed(access=AccessClass.WRITE), 'action == Action::"write" && resource.access == "write"'),
        (Supposed(risk={"promoted": True}), "resource.template_promoted"),
        (
            Supposed(risk={"sensitivity": Sensitivity.PUBLIC}),
            'resource.sensitivity == "public" && resource.reversibility == "irreversible"',
        ),
        (Supposed(agent={"promoted": True}), 'principal.promoted && principal.entry == "alice"'),
        (Supposed(agent={"roles": frozenset({"dba"})}), 'principal.roles.contains("dba")'),
        (Supposed(agent_environments=frozenset({"dev", "lab"})), 'principal.environments.contains("lab")'),
        (Supposed(situation=Situation(task_type="report")), 'context.task_type == "report"'),
        (Supposed({"binding": Binding.KEY}), 'resource.binding == "KEY" && resource has bound_on_revoke_seconds'),
        (
            Supposed({"cls": ContractClass.BY_POLICY}),
            'resource.contract_class == "BY_POLICY" && resource has bound_on_revoke_seconds',
        ),
        (
            Supposed({"cls": ContractClass.EXPIRY_ONLY}),
            'resource.contract_class == "EXPIRY_ONLY" && !(resource has bound_on_revoke_seconds)',
        ),
        (
            Supposed({"cls": ContractClass.EXPIRY_ONLY, "on_revoke": timedelta(seconds=9)}),
            "resource has bound_on_revoke_seconds && resource.bound_on_revoke_seconds == 9"
            ' && resource.contract_class == "EXPIRY_ONLY"',
        ),
    ],
)
def test_what_is_supposed_is_seen_and_nothing_else_changes(supposed: Supposed, condition: str) -> None:
    assert tried(trial(supposed=supposed), permitted(condition)).allowed
    assert not tried(trial(), permitted(condition)).allowed


def test_environments_that_are_supposed_can_be_asked_for() -> None:
    lab = Supposed(template_environments=frozenset({"lab"}))
    assert tried(trial(supposed=lab, environment="lab"), rules(WHY)).allowed
    assert tried(trial(supposed=lab), rules(WHY)).reason is Reason.ENVIRONMENT_NOT_IN_TEMPLATE


def test_whom_it_is_for_is_a_key_of_the_people_and_within_what_they_may() -> None:
    may = May(frozenset({"read"}), frozenset({"dev"}))
    people = {"bea": replace(PEOPLE["bea"], may=may), "cyd": PEOPLE["cyd"]}
    beas = permitted(
        'context has on_behalf_of && context.on_behalf_of == Person::"https://idp.test#bea" && context.hour == 23'
        ' && context.task_type == "x"',
        people=people,
    )
    situation = Situation(task_type="x")
    assert tried(trial(supposed=Supposed(on_behalf_of="bea", situation=situation)), beas).allowed
    assert not tried(trial(supposed=Supposed(situation=situation)), beas).allowed
    nobodys = tried(trial(supposed=Supposed(on_behalf_of="cyd")), beas)
    assert nobodys.reason is Reason.ON_BEHALF_OF_EXCEEDED


def test_which_way_it_comes_and_what_is_said_is_seen() -> None:
    seen = permitted('context.delivery == "direct" && context.ticket == "T" && context.ttl_seconds == 300')
    assert tried(trial(ticket="T"), seen).allowed
    named = permitted('principal.hasTag("job") && principal.getTag("job") == "nightly"')
    assert tried(trial("spiffe://test/job/nightly"), named).allowed


@pytest.mark.parametrize("effect", Effect)
@pytest.mark.parametrize("errors", [(), ("failed",)])
def test_a_decision_allows_only_where_nothing_failed(effect: Effect, errors: tuple[str, ...]) -> None:
    decision = Decision(effect, (), (), errors, "")
    assert decision.allowed is (effect is Effect.ALLOW and not errors)


def test_contract_of_the_grant_is_what_policy_sees() -> None:
    assert tried(trial(), permitted('resource.connector == "fake" && resource.contract_class == "IMMEDIATE"')).allowed
