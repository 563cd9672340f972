"""Parameters whose value is a segment of the caller's SPIFFE ID: exactly that, through the same types, or nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.connectors.aws_session_policy import session_policy
from broker.errors import Defect, Denied, InvalidInput, Reason, Unauthenticated
from broker.identity.agent import AgentPattern, Person, Quotas, Registry, Tier
from broker.identity.pattern import IdPattern
from broker.identity.spiffe_id import SpiffeId
from broker.scope.bind import bind
from broker.scope.canonical import JsonValue
from broker.scope.model import AccessClass, FromIdentity, Scope, ScopeTemplate
from broker.scope.parameters import (
    EnumParameter,
    IntegerParameter,
    Parameter,
    PrefixParameter,
    RegexParameter,
    hazard,
    shown,
)
from broker.scope.request import AccessRequest

NAMESPACE = RegexParameter("team", "^[a-z][a-z0-9-]*$", 20)
DEADLINE = datetime(2026, 12, 24, tzinfo=UTC)


def template(source: Parameter = NAMESPACE) -> ScopeTemplate:
    return ScopeTemplate(
        name="own-reports",
        description="Reads the reports of the agent's own team.",
        connector="aws",
        accounts=frozenset({"111111111111"}),
        environments=frozenset({"dev"}),
        resource=EnumParameter("resource", ("reports",)),
        access=AccessClass.READ,
        actions=("s3:GetObject",),
        max_ttl=timedelta(minutes=15),
        mandatory=frozenset(),
        parameters={"rows": IntegerParameter("rows", 1, 10)},
        grant={
            "role_name": "reader",
            "policy": [
                {
                    "actions": ["s3:GetObject"],
                    "resources": [[{"text": "arn:aws:s3:::reports/"}, {"parameter": source.name}, {"text": "/*"}]],
                }
            ],
        },
        digest="d" * 64,
        from_identity={source.name: FromIdentity(source, "namespace")},
    )


REQUEST = AccessRequest(
    request_id="r",
    template="own-reports",
    task_id="t",
    account="111111111111",
    environment="dev",
    resource="reports",
    ttl=timedelta(minutes=5),
    parameters={"rows": "3"},
)
PAYMENTS = {"namespace": "payments", "job": "nightly"}


def test_the_value_is_the_segment_and_nothing_else_of_the_identity() -> None:
    scope = bind(template(), REQUEST, PAYMENTS)
    assert scope.parameters == {"rows": "3", "team": "payments"}
    assert bind(template(), REQUEST, {**PAYMENTS, "job": "other", "rows": "9", "account": "2"}) == scope


@pytest.mark.parametrize("sent", ["payments", "orders", ""])
def test_a_request_that_sends_it_is_refused_even_where_it_is_right(sent: str) -> None:
    asked = replace(REQUEST, parameters={"rows": "3", "team": sent})
    with pytest.raises(InvalidInput) as refused:
        bind(template(), asked, PAYMENTS)
    assert refused.value.reason is Reason.PARAMETER_FROM_IDENTITY
    assert "'team'" in refused.value.message
    assert refused.value.hint.startswith("Leave it out")
    assert refused.value.metadata == {"template": "own-reports", "parameters": "'team'"}


@pytest.mark.parametrize("segments", [{}, {"job": "nightly"}, {"Namespace": "payments"}, {"team": "payments"}])
def test_an_identity_without_the_segment_gets_nothing(segments: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        bind(template(), REQUEST, segments)
    assert refused.value.reason is Reason.SEGMENT_NOT_IN_IDENTITY
    assert refused.value.metadata == {"template": "own-reports", "parameter": "team", "segment": "namespace"}
    assert refused.value.hint


def test_an_agent_with_an_entry_of_its_own_has_no_segments() -> None:
    with pytest.raises(InvalidInput) as refused:
        bind(template(), REQUEST)
    assert refused.value.reason is Reason.SEGMENT_NOT_IN_IDENTITY


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (NAMESPACE, "Payments"),
        (NAMESPACE, "9lives"),
        (NAMESPACE, "a.b"),
        (NAMESPACE, "a" * 21),  # 20 + 1
        (EnumParameter("team", ("orders", "refunds")), "payments"),
        (PrefixParameter("team", "team-"), "payments"),
        (IntegerParameter("team", 1, 10), "11"),
        (IntegerParameter("team", 1, 10), "01"),
        # What cannot be in a segment is refused here as well, whoever made the segments.
        *[
            (RegexParameter("team", "^.+$", 100), bad)
            for bad in ("..", ".", "*", "a'b", "a%2f", "${x}", "é", "a\\b", "")
        ],
    ],
)
def test_a_segment_that_its_type_refuses_is_refused_and_named(source: Parameter, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        bind(template(source), REQUEST, {"namespace": value})
    assert refused.value.reason is Reason.PARAMETER_INVALID
    assert "takes team from the segment namespace of the caller's SPIFFE ID" in refused.value.message
    assert refused.value.hint == f"It must be {source.expected}."
    assert refused.value.metadata == {
        "template": "own-reports",
        "segment": "namespace",
        "parameter": "team",
        "value": shown(value),
        "expected": source.expected,
    }


def test_what_a_request_does_is_complained_about_before_what_the_identity_is() -> None:
    for parameters, reason in [
        ({}, Reason.PARAMETER_MISSING),
        ({"rows": "3", "other": "x"}, Reason.PARAMETER_UNKNOWN),
        ({"rows": "11"}, Reason.PARAMETER_INVALID),
    ]:
        with pytest.raises(InvalidInput) as refused:
            bind(template(), replace(REQUEST, parameters=parameters), {})
        assert refused.value.reason is reason
        assert refused.value.metadata.get("segment") is None


# --------------------------------------------------------------------------- a grant's whole field

ROLES = EnumParameter("team", ("payments", "orders"))


def test_a_field_of_the_grant_that_is_a_parameter_gets_its_value() -> None:
    by_team = replace(template(ROLES), grant={"role": {"parameter": "team"}, "kept": ["as", {"it": "is"}]})
    assert bind(by_team, REQUEST, PAYMENTS).grant == {"role": "payments", "kept": ["as", {"it": "is"}]}
    assert bind(by_team, REQUEST, {"namespace": "orders"}).grant["role"] == "orders"
    assert by_team.grant["role"] == {"parameter": "team"}  # the template is everybody's
    with pytest.raises(InvalidInput):
        bind(by_team, REQUEST, {"namespace": "admin"})


def test_a_parameter_that_requests_fill_in_may_be_one_too() -> None:
    asked = replace(
        template(ROLES), grant={"role": {"parameter": "team"}}, parameters={"team": ROLES}, from_identity={}
    )
    assert bind(asked, replace(REQUEST, parameters={"team": "orders"})).grant == {"role": "orders"}


@pytest.mark.parametrize(
    "field",
    [
        [{"parameter": "team"}],
        {"parameter": "team", "text": "x"},
        {"resource": True},
        {"parameter": 1},
        "{parameter: team}",
    ],
)
def test_what_only_looks_like_a_reference_is_left_to_the_connector(field: JsonValue) -> None:
    assert bind(replace(template(ROLES), grant={"role": field}), REQUEST, PAYMENTS).grant == {"role": field}


def test_a_grant_that_names_no_parameter_is_a_defect() -> None:
    with pytest.raises(Defect, match="names 'teem', no parameter") as caught:
        bind(replace(template(ROLES), grant={"role": {"parameter": "teem"}}), REQUEST, PAYMENTS)
    assert caught.value.reason is Reason.INTERNAL


# --------------------------------------------------------------------------- for any id, and any template

REGISTRY = Registry(
    [],
    [
        AgentPattern(
            principal="jobs",
            pattern=IdPattern.parse("spiffe://example.org/ns/{namespace}/job/{job}"),
            owner=Person("https://id.example.org", "ada", "Ada"),
            tier=Tier.ADVISORY,
            roles=frozenset(),
            environments=frozenset({"dev"}),
            quotas=Quotas(1, 1),
        )
    ],
)
_SOURCES = st.sampled_from(
    [
        NAMESPACE,
        RegexParameter("team", "^.+$", 512),  # the widest an operator can write
        EnumParameter("team", ("payments", "orders", "..", "*")),
        PrefixParameter("team", "p", 64),
        IntegerParameter("team", 0, 10_000),
    ]
)
_SEGMENT = st.one_of(
    st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True),
    st.sampled_from(
        ["payments", "orders", "..", ".", "%2e%2e", "*", "a'--", 'a"b', "a/b", "${aws:username}", "é", "7"]
    ),
    st.text(max_size=8),
)
_IDS = st.one_of(
    st.builds("spiffe://example.org/ns/{}/job/{}".format, _SEGMENT, _SEGMENT),
    st.builds("spiffe://{}/ns/payments/job/x".format, _SEGMENT),
    st.text(max_size=40),
)
# What the template gives to everybody, less the one value.
BASE = bind(template(), REQUEST, PAYMENTS)


def granted(text: str, source: Parameter) -> Scope | None:
    """The scope that whoever presents ``text`` gets, by the way every request goes; None for a refusal."""
    try:
        agent = REGISTRY.find(SpiffeId.parse(text))
        return bind(template(source), REQUEST, dict(agent.segments))
    except (Unauthenticated, Denied, InvalidInput):
        return None


@settings(deadline=None, max_examples=250)
@given(_IDS, _SOURCES)
def test_no_text_of_an_identity_widens_a_scope(text: str, source: Parameter) -> None:
    scope = granted(text, source)
    if scope is None:
        return
    value = scope.parameters["team"]
    # The value is the segment, byte for byte, and plain.
    assert text.startswith(f"spiffe://example.org/ns/{value}/job/")
    assert hazard(value) is None
    assert "/" not in value
    assert source.parse(value) == value
    # Everything else is what the template gives to anybody: the scope differs in that one value, or not at all.
    same_source = replace(scope, parameters=BASE.parameters, grant=BASE.grant)
    assert same_source == BASE
    assert scope.grant == template(source).grant
    assert scope.parameters == {"rows": "3", "team": value}
    # And upstream it is one literal text, at the place the operator chose.
    theirs, base = (json.loads(session_policy(each, DEADLINE)) for each in (scope, BASE))
    assert theirs["Statement"][0].pop("Resource") == [f"arn:aws:s3:::reports/{value}/*"]
    assert base["Statement"][0].pop("Resource") == ["arn:aws:s3:::reports/payments/*"]
    assert theirs == base


@settings(deadline=None, max_examples=150)
@given(_IDS, _IDS, _SOURCES)
def test_two_identities_share_a_scope_only_where_they_share_the_segment(
    one: str, other: str, source: Parameter
) -> None:
    mine, theirs = granted(one, source), granted(other, source)
    if mine is not None and theirs is not None:
        assert (mine == theirs) == (one.split("/")[4] == other.split("/")[4])


def test_the_ways_of_granting_above_are_walked() -> None:
    """The two properties speak of what is granted: so that they say something, something is."""
    for source in (NAMESPACE, RegexParameter("team", "^.+$", 512), EnumParameter("team", ("payments",))):
        scope = granted("spiffe://example.org/ns/payments/job/x", source)
        assert scope is not None
        assert scope.parameters["team"] == "payments"
