from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BrokerError, Defect, InvalidInput, Reason
from broker.scope.bind import bind
from broker.scope.blank import blank
from broker.scope.model import AccessClass, Risk, ScopeTemplate
from broker.scope.parameters import EnumParameter, IntegerParameter, PrefixParameter
from broker.scope.request import AccessRequest

TEMPLATE = ScopeTemplate(
    name="reports-read",
    description="Reads reports.",
    connector="aws",
    accounts=frozenset({"111111111111", "222222222222"}),
    environments=frozenset({"dev", "staging"}),
    resource=EnumParameter("resource", ("reports",)),
    access=AccessClass.READ,
    actions=("s3:GetObject",),
    max_ttl=timedelta(minutes=15),
    mandatory=frozenset({"intent", "ticket"}),
    parameters={"prefix": PrefixParameter("prefix", "daily/"), "rows": IntegerParameter("rows", 1, 10)},
    grant={"role_name": "reader"},
    digest="d" * 64,
)
REQUEST = AccessRequest(
    request_id="r1",
    template="reports-read",
    task_id="t1",
    account="111111111111",
    environment="dev",
    resource="reports",
    ttl=timedelta(minutes=5),
    parameters={"rows": "10", "prefix": "daily/2026"},
    intent="look",
    ticket="T-1",
)


def test_a_scope_is_the_template_plus_values_that_passed() -> None:
    scope = bind(TEMPLATE, REQUEST)
    assert (scope.template, scope.template_digest, scope.connector) == ("reports-read", "d" * 64, "aws")
    assert (scope.account, scope.environment, scope.resource) == ("111111111111", "dev", "reports")
    assert (scope.access, scope.actions, scope.grant) == (AccessClass.READ, ("s3:GetObject",), {"role_name": "reader"})
    assert scope.parameters == {"prefix": "daily/2026", "rows": "10"}
    assert scope.ttl == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        ({"account": "333333333333"}, Reason.ACCOUNT_NOT_IN_TEMPLATE, "'333333333333'"),
        ({"account": ""}, Reason.ACCOUNT_NOT_IN_TEMPLATE, "needs the account"),
        ({"environment": "production"}, Reason.ENVIRONMENT_NOT_IN_TEMPLATE, "'production'"),
        ({"environment": "DEV"}, Reason.ENVIRONMENT_NOT_IN_TEMPLATE, "'DEV'"),
        ({"environment": ""}, Reason.ENVIRONMENT_NOT_IN_TEMPLATE, "needs the environment"),
        ({"resource": "reports*"}, Reason.RESOURCE_NOT_IN_TEMPLATE, "'reports*'"),
        ({"resource": ""}, Reason.RESOURCE_NOT_IN_TEMPLATE, "''"),
        ({"intent": ""}, Reason.FIELD_REQUIRED_BY_TEMPLATE, "requires intent."),
        ({"intent": " \t", "ticket": ""}, Reason.FIELD_REQUIRED_BY_TEMPLATE, "requires intent, ticket."),
        ({"intent": "\u200b\u2060"}, Reason.FIELD_REQUIRED_BY_TEMPLATE, "requires intent."),
        *(
            ({name: text}, Reason.FIELD_INVALID, f"{name}: says nothing")
            for name, text in (
                ("plan", "\u200b"),
                ("reason", " "),
                ("step", "\t"),
                ("prompt", "\n"),
                ("tool_call", "\x00"),
            )
        ),
        ({"parameters": {}}, Reason.PARAMETER_MISSING, "'prefix', 'rows'"),
        ({"parameters": {"rows": "1"}}, Reason.PARAMETER_MISSING, "'prefix'"),
        ({"parameters": {"rows": "1", "prefix": "daily/", "Rows": "1"}}, Reason.PARAMETER_UNKNOWN, "'Rows'"),
        ({"parameters": {"rows": "11", "prefix": "daily/"}}, Reason.PARAMETER_INVALID, "rows is out of range: '11'"),
        ({"parameters": {"rows": "1", "prefix": "daily/../x"}}, Reason.PARAMETER_INVALID, "prefix contains a . or .."),
        ({"ttl": timedelta(0)}, Reason.TTL_INVALID, "0 s"),
        ({"ttl": timedelta(seconds=-1)}, Reason.TTL_INVALID, "-1 s"),
        ({"ttl": timedelta(milliseconds=-1500)}, Reason.TTL_INVALID, "-1.5 s"),
        ({"ttl": timedelta.min + timedelta(1)}, Reason.TTL_INVALID, "none"),
        ({"ttl": timedelta.max}, Reason.TTL_TOO_LONG, "allows 900 s"),  # 15 min = 900 s
        ({"ttl": timedelta(minutes=15, microseconds=1)}, Reason.TTL_TOO_LONG, "not 900.000001 s"),
    ],
)
def test_what_is_outside_the_template_is_refused_by_reason(change: dict, reason: Reason, told: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidInput) as caught:
        bind(TEMPLATE, replace(REQUEST, **change))
    assert caught.value.reason is reason
    assert told in caught.value.message
    assert caught.value.hint
    assert caught.value.metadata


def test_the_figures_are_in_the_metadata_too() -> None:
    with pytest.raises(InvalidInput) as caught:
        bind(TEMPLATE, replace(REQUEST, ttl=timedelta(hours=1)))
    assert caught.value.metadata == {"template": "reports-read", "ttlSeconds": "3600", "maxTtlSeconds": "900"}


@pytest.mark.parametrize(
    ("change", "hint", "metadata"),
    [
        (
            {"account": "3"},
            "It covers: 111111111111, 222222222222.",
            {"account": "'3'", "allowed": "111111111111,222222222222"},
        ),
        ({"environment": ""}, "It covers: dev, staging.", {"environment": "''", "allowed": "dev,staging"}),
        ({"resource": "x"}, "It must be one of: reports.", {"resource": "'x'", "expected": "one of: reports"}),
        ({"intent": "", "ticket": ""}, "Say it in the request.", {"fields": "intent,ticket"}),
        (
            {"parameters": {}},
            "prefix must be daily/ followed by letters, digits or . _ / = @ : + -, at most 256 characters."
            " rows must be a whole number from 1 to 10, in plain decimal.",
            {"parameters": "'prefix', 'rows'"},
        ),
        (
            {"parameters": {**REQUEST.parameters, **{f"p{number}": "" for number in range(9)}}},
            "It has: prefix, rows.",
            {"parameters": "'p0', 'p1', 'p2', 'p3', 'p4', 'p5', 'p6', 'p7'"},  # eight are enough to see it
        ),
        (
            {"ttl": timedelta(0)},
            "Ask for more than 0 s and at most 900 s.",
            {"ttlSeconds": "0", "maxTtlSeconds": "900"},
        ),
        (
            {"ttl": timedelta(seconds=900.25)},
            "Ask for 900 s or less, and again when it is over.",
            {"ttlSeconds": "900.25", "maxTtlSeconds": "900"},
        ),
    ],
)
def test_what_would_be_right_is_said_in_words_and_for_programs(
    change: dict[str, Any], hint: str, metadata: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        bind(TEMPLATE, replace(REQUEST, **change))
    assert caught.value.hint == hint
    assert caught.value.metadata == {"template": "reports-read", **metadata}


def test_a_template_without_parameters_has_none() -> None:
    with pytest.raises(InvalidInput) as caught:
        bind(replace(TEMPLATE, parameters={}), REQUEST)
    assert caught.value.hint == "It has: none."


def test_what_is_bound_is_the_templates_and_the_requests_own() -> None:
    risk = Risk(promoted=True, change_type="data")
    asked = replace(REQUEST, subject_public_key="ssh-ed25519 A", wrap=timedelta(seconds=30))
    scope = bind(replace(TEMPLATE, risk=risk, wrapping=True), asked)
    assert (scope.risk, scope.subject_public_key, scope.wrap) == (risk, "ssh-ed25519 A", timedelta(seconds=30))
    assert bind(TEMPLATE, REQUEST).wrap is None
    assert list(scope.parameters) == ["prefix", "rows"]  # in one order, whatever the request's


@pytest.mark.parametrize("wrap", [timedelta(seconds=1), timedelta(minutes=5)])
def test_the_bounds_of_wrapping_belong_to_it(wrap: timedelta) -> None:
    assert bind(replace(TEMPLATE, wrapping=True), replace(REQUEST, wrap=wrap)).wrap == wrap


@pytest.mark.parametrize(
    ("allowed", "wrap", "reason", "metadata"),
    [
        (False, timedelta(seconds=30), Reason.WRAPPING_NOT_ALLOWED, {}),
        (True, timedelta(0), Reason.WRAP_TTL_INVALID, {"wrapSeconds": "0", "ttlSeconds": "300"}),
        (True, timedelta(seconds=0.999999), Reason.WRAP_TTL_INVALID, {"wrapSeconds": "0.999999", "ttlSeconds": "300"}),
        (True, timedelta(seconds=300.5), Reason.WRAP_TTL_INVALID, {"wrapSeconds": "300.5", "ttlSeconds": "300"}),
    ],
)
def test_what_cannot_be_wrapped(allowed: bool, wrap: timedelta, reason: Reason, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        bind(replace(TEMPLATE, wrapping=allowed), replace(REQUEST, wrap=wrap))
    assert caught.value.reason is reason
    assert caught.value.hint
    assert caught.value.metadata == {"template": "reports-read", "field": "wrap", **metadata}


@pytest.mark.parametrize("ttl", [timedelta(microseconds=1), timedelta(minutes=15)])
def test_the_bounds_of_the_ttl_belong_to_it(ttl: timedelta) -> None:
    assert bind(TEMPLATE, replace(REQUEST, ttl=ttl)).ttl == ttl


def test_a_request_for_another_template_is_a_bug() -> None:
    with pytest.raises(Defect) as caught:
        bind(TEMPLATE, replace(REQUEST, template="other"))
    assert caught.value.reason is Reason.INTERNAL


# Sentences we promise users, for any request whatever.

_TEXT = st.text(max_size=12) | st.sampled_from(["", "*", "dev", "reports", "daily/", "daily/*", "111111111111", "10"])
_REQUESTS = st.builds(
    AccessRequest,
    request_id=_TEXT,
    template=st.just("reports-read"),
    task_id=_TEXT,
    account=_TEXT,
    environment=_TEXT,
    resource=_TEXT,
    ttl=st.timedeltas() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(minutes=20)),
    parameters=st.dictionaries(st.sampled_from(["prefix", "rows"]) | _TEXT, _TEXT, max_size=3),
    step=_TEXT,
    intent=_TEXT,
    reason=_TEXT,
    ticket=_TEXT,
    prompt=_TEXT,
    tool_call=_TEXT,
    plan=_TEXT,
)
_NEAR = st.fixed_dictionaries(
    {},
    optional={
        "account": _TEXT,
        "environment": _TEXT,
        "resource": _TEXT,
        "ttl": st.timedeltas(min_value=timedelta(0), max_value=timedelta(minutes=20)),
        "parameters": st.fixed_dictionaries({"prefix": _TEXT | st.just("daily/x"), "rows": _TEXT}),
    },
).map(lambda change: replace(REQUEST, **change))


@settings(deadline=None)
@given(_REQUESTS | _NEAR)
def test_no_request_gets_more_than_the_template(request: AccessRequest) -> None:
    try:
        scope = bind(TEMPLATE, request)
    except BrokerError as error:
        assert isinstance(error, InvalidInput)
        return
    assert scope.account in TEMPLATE.accounts
    assert scope.environment in TEMPLATE.environments
    assert scope.resource == "reports"
    assert timedelta(0) < scope.ttl <= TEMPLATE.max_ttl
    assert scope.parameters.keys() == TEMPLATE.parameters.keys()
    assert scope.parameters["prefix"].startswith("daily/")
    assert 1 <= int(scope.parameters["rows"]) <= 10
    for name in ("template", "connector", "access", "actions", "grant"):
        assert getattr(scope, name) == getattr(bind(TEMPLATE, REQUEST), name)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(
            ("request_id", "task_id", "step", "reason", "prompt", "tool_call", "plan", "plan_id", "delegation_id"),
            _TEXT.filter(lambda text: not text or not blank(text)),
        ),
        optional={
            **{name: st.text(min_size=1).filter(lambda text: not blank(text)) for name in ("intent", "ticket")},
            "recipient_public_key": st.binary(max_size=32),
        },
    )
)
def test_what_an_agent_tells_about_itself_changes_nothing(claims: dict[str, str]) -> None:
    # Every field of a request that is not checked against the template is a claim.
    # The agent's own public key goes along for the connector to check; it grants nothing.
    checked = {"template", "account", "environment", "resource", "ttl", "parameters", "subject_public_key", "wrap"}
    assert {f.name for f in fields(AccessRequest)} - checked == {
        *("request_id", "task_id", "step", "reason", "prompt", "tool_call", "plan", "intent", "ticket"),
        # What is cited is held against the scope that was bound, and only ever refuses.
        *("recipient_public_key", "plan_id", "delegation_id"),
    }
    assert bind(TEMPLATE, replace(REQUEST, **claims)) == bind(TEMPLATE, REQUEST)
