"""Credentials that only rotation ends: denied whatever a set says, but for a permit that means them."""

from __future__ import annotations

import pytest

from broker.lease.credential import ContractClass
from broker.policy.cedar import PolicyProblems
from broker.policy.decision import Effect
from tests.policy.world import PERMIT_ALL, facts, policies

STATIC = facts(contract={"cls": ContractClass.STATIC, "on_revoke": None})
MEANT = '@id("meant") @permits("STATIC") permit (principal, action, resource) when { resource.name == "orders" };'
FORBID = '@id("no") @reason("No.") forbid (principal, action, resource);'
GATE = (
    '@id("gate") @reason("People decide.") @approval("sre") forbid (principal, action, resource)'
    ' unless { context.approvals.contains("sre") };'
)
FAILS = (
    '@id("fails") @permits("STATIC") permit (principal, action, resource)'
    " when { context.ttl_seconds + 9223372036854775807 > 0 };"
)
HELD = {"approvals": frozenset({"sre"})}


@pytest.mark.parametrize("cls", [each for each in ContractClass if each is not ContractClass.STATIC])
def test_every_other_class_is_permitted_as_ever(cls: ContractClass) -> None:
    assert policies(PERMIT_ALL).decide(facts(contract={"cls": cls})).allowed


def test_a_permit_that_does_not_mean_them_does_not_count() -> None:
    permitting = policies(PERMIT_ALL)
    decided = permitting.decide(STATIC)
    assert (decided.effect, decided.policies, decided.errors) == (Effect.DENY, (), ())
    assert decided.set_digest == permitting.digest
    assert decided.explanations[0].startswith("Only rotation would end this credential (STATIC)")


def test_a_permit_that_means_them_does_and_means_others_too() -> None:
    decided = policies(PERMIT_ALL, MEANT).decide(STATIC)
    assert (decided.effect, decided.policies) == (Effect.ALLOW, ("all", "meant"))
    assert policies(MEANT).decide(facts()).allowed


def test_one_that_means_them_and_does_not_hold_is_none() -> None:
    other = facts(contract={"cls": ContractClass.STATIC}, scope={"resource": "other"})
    assert policies(PERMIT_ALL, MEANT).decide(other).effect is Effect.DENY


def test_a_forbid_stays_stronger_and_an_error_a_deny() -> None:
    assert policies(PERMIT_ALL, MEANT, FORBID).decide(STATIC).policies == ("no",)
    failed = policies(PERMIT_ALL, FAILS).decide(STATIC)
    assert (failed.effect, len(failed.errors)) == (Effect.DENY, 1)


def test_people_are_not_asked_for_what_no_permit_means() -> None:
    assert policies(PERMIT_ALL, GATE).decide(STATIC).effect is Effect.DENY
    held = facts(contract={"cls": ContractClass.STATIC}, situation=HELD)
    assert policies(PERMIT_ALL, GATE).decide(held).effect is Effect.DENY
    assert policies(PERMIT_ALL, MEANT, GATE).decide(STATIC).effect is Effect.NEEDS_APPROVAL
    assert policies(PERMIT_ALL, MEANT, GATE).decide(held).allowed


BY_NAME = 'The one thing that has to be permitted by name is @permits("STATIC").'


@pytest.mark.parametrize(
    ("policy", "said", "hint"),
    [
        ('@id("x") @permits("static") permit (principal, action, resource);', "has @permits('static')", BY_NAME),
        ('@id("x") @permits permit (principal, action, resource);', "has @permits('')", BY_NAME),
        (
            '@id("x") @permits("EXPIRY_ONLY") permit (principal, action, resource);',
            "has @permits('EXPIRY_ONLY')",
            BY_NAME,
        ),
        (
            '@id("x") @permits("STATIC") @reason("No.") forbid (principal, action, resource);',
            "has @permits and forbids",
            "Take @permits away: it is for permits.",
        ),
    ],
)
def test_an_annotation_that_means_nothing_is_a_problem(policy: str, said: str, hint: str) -> None:
    with pytest.raises(PolicyProblems) as caught:
        policies(policy)
    assert [(each.message, each.hint) for each in caught.value.problems] == [(said, hint)]
