"""The access boundary of one token: built as data, within Google's limits, judged by the double."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.connectors.gcp_boundary import MOST_RULES, access_boundary
from broker.errors import InvalidInput, Reason
from broker.scope.canonical import JsonValue
from tests.connectors.gcp_double.boundary import allows
from tests.connectors.gcp_double.rules import ROLES
from tests.connectors.support import make_scope

VIEWER = "roles/storage.objectViewer"
BUCKET = "orders-exports"


def rule(**changes: JsonValue) -> dict[str, JsonValue]:
    return {"bucket": [{"text": BUCKET}], "roles": [VIEWER], "below": None, "object": None, **changes}


def built(*rules: JsonValue, **scope: object) -> Mapping[str, Any]:
    made = access_boundary(make_scope({"boundary": list(rules)}, **scope))
    assert made is not None
    read: Mapping[str, Any] = json.loads(made.text)
    return read


def reads(boundary: Mapping[str, Any], name: str, bucket: str = BUCKET) -> bool:
    return allows(boundary, ROLES, "storage.objects.get", bucket, name, "")


def lists(boundary: Mapping[str, Any], prefix: str) -> bool:
    return allows(boundary, ROLES, "storage.objects.list", BUCKET, "", prefix)


def test_no_boundary_is_none() -> None:
    assert access_boundary(make_scope({})) is None
    assert access_boundary(make_scope({"boundary": None})) is None


def test_what_is_sent_is_what_the_documentation_shows() -> None:
    below = [{"parameter": "prefix"}, {"text": "/"}]
    assert built(rule(below=below), parameters={"prefix": "customer-a"}) == {
        "accessBoundary": {
            "accessBoundaryRules": [
                {
                    "availableResource": "//storage.googleapis.com/projects/_/buckets/orders-exports",
                    "availablePermissions": ["inRole:roles/storage.objectViewer"],
                    "availabilityCondition": {
                        "title": "objects below a prefix",
                        "expression": "resource.name.startsWith('projects/_/buckets/orders-exports/objects/customer-a/'"
                        ") || api.getAttribute('storage.googleapis.com/objectListPrefix', '')"
                        ".startsWith('customer-a/')",
                    },
                }
            ]
        }
    }


def test_below_is_what_lies_below_and_nothing_that_only_begins_so() -> None:
    boundary = built(rule(below=[{"parameter": "who"}, {"text": "/"}]), parameters={"who": "acme"})
    assert reads(boundary, "acme/1.csv")
    assert lists(boundary, "acme/")
    assert not reads(boundary, "acme-2/1.csv")
    assert not reads(boundary, "acme")
    assert not lists(boundary, "")
    assert not lists(boundary, "acme")
    assert not reads(boundary, "acme/1.csv", bucket="another")


def test_an_object_is_one_object() -> None:
    boundary = built(rule(object=[{"text": "a/"}, {"resource": True}]), resource="b.csv")
    assert reads(boundary, "a/b.csv")
    assert not reads(boundary, "a/b.csv2")
    assert not reads(boundary, "a/b")
    assert not lists(boundary, "a/")


def test_roles_are_what_is_left() -> None:
    boundary = built(rule())
    assert reads(boundary, "anything")
    assert not allows(boundary, ROLES, "storage.objects.create", BUCKET, "anything", "")


def test_ten_rules_are_taken_and_eleven_are_not() -> None:
    assert len(built(*[rule()] * MOST_RULES)["accessBoundary"]["accessBoundaryRules"]) == MOST_RULES
    with pytest.raises(InvalidInput) as caught:
        built(*[rule()] * 11)
    assert caught.value.reason is Reason.SCOPE_TOO_LARGE
    assert caught.value.metadata["rules"] == "11"
    assert caught.value.metadata["limit"] == "10"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (rule(below=[{"parameter": "prefix"}]), Reason.PARAMETER_INVALID),  # does not end in '/'
        (rule(bucket=[{"parameter": "prefix"}]), Reason.PARAMETER_INVALID),  # 'x/y' is no bucket
        (rule(bucket=[{"text": "ab"}]), Reason.PARAMETER_INVALID),
        (rule(below=[{"text": "it's/"}]), Reason.PARAMETER_INVALID),
        (rule(below=[{"parameter": "unknown"}, {"text": "/"}]), Reason.CONFIG_INVALID),
        (rule(below=[]), Reason.CONFIG_INVALID),
        (rule(below=[{"text": "a/"}], object=[{"text": "b"}]), Reason.CONFIG_INVALID),
        (rule(roles=[]), Reason.CONFIG_INVALID),
        (rule(roles="roles/storage.admin"), Reason.CONFIG_INVALID),
        (rule(roles=["storage.objectViewer"]), Reason.CONFIG_INVALID),
        (rule(roles=[VIEWER + "\n"]), Reason.CONFIG_INVALID),
        (rule(more=1), Reason.CONFIG_INVALID),
        (rule(object=[{"text": "a" * 1025}]), Reason.SCOPE_TOO_LARGE),
        ("text", Reason.CONFIG_INVALID),
        (None, Reason.CONFIG_INVALID),
    ],
)
def test_what_is_malformed_is_refused(broken: JsonValue, reason: Reason) -> None:
    with pytest.raises(InvalidInput) as caught:
        built(broken, parameters={"prefix": "x/y"})
    assert caught.value.reason is reason


@pytest.mark.parametrize("stated", [[], "text", {}, 0])
def test_a_boundary_that_is_no_list_of_rules_is_refused_and_not_left_away(stated: JsonValue) -> None:
    with pytest.raises(InvalidInput):
        access_boundary(make_scope({"boundary": stated}))


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_parameter_holds_nothing_outside_it_is_left(value: str, other: str) -> None:
    """A value is refused, or is a prefix: whatever the boundary leaves begins with it."""
    try:
        boundary = built(rule(below=[{"parameter": "who"}, {"text": "/"}]), parameters={"who": value})
    except InvalidInput:
        return
    assert reads(boundary, f"{value}/{other}x")
    assert reads(boundary, other or "x") == (other or "x").startswith(f"{value}/")
