"""Values to try: they follow from type, policies and use, pass the parameter, and know what they leave out."""

from __future__ import annotations

import ipaddress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.entitlement.examples import MOST, MOST_COMBINATIONS, identities, tries
from broker.entitlement.sample import sample
from broker.identity.pattern import IdPattern, Matching, OneOf
from broker.policy.cedar import PolicySet
from broker.scope.model import AccessClass, ScopeTemplate
from broker.scope.parameters import (
    CidrParameter,
    EnumParameter,
    IntegerParameter,
    Parameter,
    PrefixParameter,
    RegexParameter,
)
from tests.policy.world import PERMIT_ALL, policies

BY_NAME = (
    '@id("n") @reason("a \\"quoted\\" one") forbid (principal, action, resource) when { resource.name == "vault" };'
)
BY_PARAMETER = (
    '@id("p") @reason("x") forbid (principal, action, resource) when { resource.parameters.contains("size=7") };'
)


def template(resource: Parameter, *parameters: Parameter) -> ScopeTemplate:
    return ScopeTemplate(
        name="t",
        description="",
        connector="fake",
        accounts=frozenset({"a"}),
        environments=frozenset({"dev"}),
        resource=resource,
        access=AccessClass.READ,
        actions=("x",),
        max_ttl=timedelta(minutes=5),
        mandatory=frozenset(),
        parameters={each.name: each for each in parameters},
        grant={},
        digest="d" * 64,
    )


def tried(set_: PolicySet, seen: dict[str, list[str]], resource: Parameter, *more: Parameter) -> tuple[list[str], bool]:
    found = tries(template(resource, *more), set_, seen)
    return [str(each) for each in found.values], found.whole


LETTERS = EnumParameter("resource", ("a", "b", "c"))
ANY = RegexParameter("resource", "^[a-z]{1,10}$", 10)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^daily/20[0-9]{2}-(0[1-9]|1[0-2])$", "daily/2000-01"),
        ("^[a-z][a-z0-9-]{0,30}$", "a"),
        ("^(?:eu|us)-[a-z]+-[0-9]$", "eu-a-0"),
        (r"^v\d+\.\d+(-rc)?$", "v0.0"),
        ("^[^/]+$", "a"),
        ("^[-_x]{3}$", "xxx"),
        ("^ab*?c$", "ac"),
        ("^(?i)x$", None),
        ("^[[:alpha:]]$", None),
        (r"^\pL$", None),
        ("^(a{500}){2}$", None),
        ("^(a$", None),
        ("^[a", None),
        ("^a)$", None),
    ],
)
def test_a_pattern_gives_a_text_or_nothing(pattern: str, text: str | None) -> None:
    assert sample(pattern) == text


@given(st.text("^$()[]{}|?*+\\-,:a0.", max_size=30))
def test_no_pattern_breaks_it(pattern: str) -> None:
    found = sample(pattern)
    assert found is None or len(found) <= 512


def test_what_no_policy_looks_at_is_tried_once_and_stands_for_all() -> None:
    assert tried(policies(PERMIT_ALL), {}, LETTERS, IntegerParameter("size", 1, 9)) == (["a size=1"], True)


def test_an_enum_that_policies_look_at_is_tried_in_full() -> None:
    assert tried(policies(BY_NAME), {}, LETTERS) == (["a", "b", "c"], True)


def test_values_that_policies_name_and_agents_asked_for_come_first() -> None:
    assert tried(policies(BY_NAME), {"resource": ["orders", "NOT ONE"]}, ANY) == (["orders", "vault", "a"], False)
    values, whole = tried(policies(BY_PARAMETER), {"size": ["5"]}, LETTERS, IntegerParameter("size", 1, 9))
    assert (values, whole) == (["a size=5", "a size=7", "a size=1", "a size=9"], False)


def test_what_is_left_out_is_known() -> None:
    many = EnumParameter("resource", tuple(f"r{number}" for number in range(40)))
    values, whole = tried(policies(BY_NAME), {}, many)
    assert (len(values), whole) == (16, False)
    enums = [EnumParameter(name, ("x", "y", "z")) for name in ("one", "two", "three")]
    values, whole = tried(policies(BY_NAME, BY_PARAMETER), {}, LETTERS, *enums)  # 3 x 27
    assert (len(values), whole) == (MOST_COMBINATIONS, False)
    values, _ = tried(policies(BY_NAME), {"resource": [f"s{number}" for number in "abcdefg"]}, ANY)
    assert len(values) == MOST


def test_a_type_for_which_no_value_is_known_is_not_tried() -> None:
    unknown = RegexParameter("resource", "^(?i)x$", 5)
    assert tried(policies(PERMIT_ALL), {}, unknown) == ([], False)


@pytest.mark.parametrize(
    "parameter",
    [
        PrefixParameter("resource", "app/"),
        CidrParameter("resource", (ipaddress.ip_network("10.0.0.0/8"),), 24),
        IntegerParameter("resource", -3, 3),
    ],
    ids=lambda parameter: parameter.kind,
)
def test_every_type_has_a_value_of_its_own(parameter: Parameter) -> None:
    values, whole = tried(policies(BY_NAME), {}, parameter)
    assert values and not whole
    assert [parameter.parse(value) for value in values] == values


def test_texts_that_attributes_are_compared_with() -> None:
    more = (
        '@id("m") permit (principal, action, resource) when {'
        ' ["x", "y"].contains(context.intent) && resource.name like "app-*-db" && context.ticket != "" };'
    )
    assert policies(BY_NAME, BY_PARAMETER, more).compared == {
        "name": ("app--db", "vault"),
        "parameters": ("size=7",),
        "intent": ("x", "y"),
    }


def test_identities_of_a_pattern_match_it() -> None:
    where = OneOf(frozenset({"prod", "dev"}))
    pattern = IdPattern.parse("spiffe://x.test/{ns}/job/{id}", {"ns": where, "id": Matching("^[a-z]{2}$", str.isalpha)})
    assert [str(each) for each in identities(pattern)] == ["spiffe://x.test/dev/job/aa", "spiffe://x.test/prod/job/aa"]
    nobody = IdPattern.parse("spiffe://x.test/job/{id}", {"id": Matching("^(?i)x$", lambda _: False)})
    assert identities(nobody) == ()
