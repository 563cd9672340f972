"""What is narrower than what: the template's own text decides, and what is not understood is compared by equality."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from broker.scope.model import AccessClass, FromIdentity, ScopeTemplate
from broker.scope.narrowing import Narrowing, narrowings
from broker.scope.parameters import CidrParameter, EnumParameter, IntegerParameter, PrefixParameter, RegexParameter

PATH = PrefixParameter("path", "a")
NET = CidrParameter("net", (ipaddress.ip_network("10.0.0.0/8"),), 8)
EXACT, NETWORK, FOLDER, BEGINNING = Narrowing.EXACT, Narrowing.NETWORK, Narrowing.FOLDER, Narrowing.BEGINNING


def template(grant: Mapping[str, Any], **changes: Any) -> ScopeTemplate:
    values: dict[str, Any] = {
        "name": "t",
        "description": "",
        "connector": "c",
        "accounts": frozenset({"dev"}),
        "environments": frozenset({"dev"}),
        "resource": EnumParameter("resource", ("orders",)),
        "access": AccessClass.READ,
        "actions": ("read",),
        "max_ttl": timedelta(minutes=5),
        "mandatory": frozenset(),
        "parameters": {"path": PATH, "net": NET},
        "grant": grant,
        "digest": "d",
    }
    return ScopeTemplate(**{**values, **changes})


def aws(*segments: Any, conditions: Any = None) -> dict[str, Any]:
    return {"policy": [{"resources": [[{"text": "arn:aws:s3:::b/"}, *segments]], "conditions": conditions}]}


P, TEXT = {"parameter": "path"}, lambda text: {"text": text}


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        (aws(P, TEXT("/*")), FOLDER),
        (aws(P, "/*"), FOLDER),
        (aws(P, TEXT("*")), BEGINNING),
        (aws(P, TEXT("*.csv")), BEGINNING),
        (aws(P, TEXT("/x/*")), EXACT),  # another folder than the one above it
        (aws(P, TEXT("-*")), EXACT),
        (aws(P), EXACT),  # one object by its name
        (aws(P, P), EXACT),
        ({**aws(P, TEXT("*")), "more": aws(P, TEXT("/*"))}, FOLDER),  # the strictest of two readings
        ({**aws(P, TEXT("*")), "more": aws(P)}, EXACT),
        ({"role": P}, EXACT),
        (aws(conditions={"StringLike": {"s3:prefix": [[P, TEXT("*")]]}}), BEGINNING),
        (aws(conditions={"StringEquals": {"s3:prefix": [[P, TEXT("*")]]}}), EXACT),  # there * is a star
        (aws(conditions={"StringNotLike": {"s3:prefix": [[P, TEXT("*")]]}}), EXACT),  # longer lets more through
        (aws(conditions={"IpAddress": {"aws:SourceIp": [[P]]}}), EXACT),  # a prefix is no network
        ({}, FOLDER),  # the upstream never sees it
    ],
)
def test_a_prefix_is_what_the_grant_makes_of_it(grant: dict[str, Any], expected: Narrowing) -> None:
    assert narrowings(template(grant)).parameters["path"] is expected


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        (aws(conditions={"IpAddress": {"aws:SourceIp": [[{"parameter": "net"}]]}}), NETWORK),
        (aws(conditions={"IpAddress": {"aws:SourceIp": [[TEXT("1"), {"parameter": "net"}]]}}), EXACT),
        (aws(conditions={"NotIpAddress": {"aws:SourceIp": [[{"parameter": "net"}]]}}), EXACT),
        (aws(conditions={"StringEquals": {"aws:SourceIp": [[{"parameter": "net"}]]}}), EXACT),
        (aws({"parameter": "net"}, TEXT("*")), EXACT),
        ({}, NETWORK),
    ],
)
def test_a_network_is_one_where_the_grant_compares_it_as_one(grant: dict[str, Any], expected: Narrowing) -> None:
    assert narrowings(template(grant)).parameters["net"] is expected


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        (aws({"resource": True}, TEXT("/*")), FOLDER),
        (aws({"resource": True}, TEXT("*")), BEGINNING),
        (aws({"resource": True}), EXACT),
        (aws(P, TEXT("*")), FOLDER),  # another's use is not the resource's
        ({"role": {"resource": True}}, EXACT),
    ],
)
def test_a_resource_is_what_the_grant_makes_of_it(grant: dict[str, Any], expected: Narrowing) -> None:
    assert narrowings(template(grant, resource=PrefixParameter("resource", "a"))).resource is expected


@pytest.mark.parametrize(
    "parameter",
    [EnumParameter("path", ("a",)), RegexParameter("path", "^a.*$", 9), IntegerParameter("path", 1, 9)],
)
def test_other_types_are_equal_or_not(parameter: Any) -> None:
    found = narrowings(template(aws(P, TEXT("*")), parameters={"path": parameter}))
    assert found.parameters == {"path": EXACT}


def test_the_resource_and_what_the_identity_fills_in_are_compared_alike() -> None:
    found = narrowings(
        template(
            aws({"resource": True}, TEXT("/*"), {"parameter": "team"}),
            resource=PrefixParameter("resource", "a"),
            parameters={},
            from_identity={"team": FromIdentity(PrefixParameter("team", "t"), "ns")},
        )
    )
    assert (found.resource, found.parameters) == (FOLDER, {"team": EXACT})


@pytest.mark.parametrize(
    ("how", "outer", "inner", "holds"),
    [
        (FOLDER, "a", "a/b", True),
        (FOLDER, "a", "ab", False),
        (FOLDER, "a/b", "a", False),
        (BEGINNING, "a", "ab", True),
        (BEGINNING, "ab", "a", False),
        (NETWORK, "10.0.0.0/8", "10.255.0.0/16", True),
        (NETWORK, "10.0.0.0/8", "0.0.0.0/0", False),
        (NETWORK, "fd00::/8", "fd12::/16", True),
        (NETWORK, "fd00::/8", "10.0.0.0/8", False),
        (NETWORK, "10.0.0.0/8", "10.0.0.0/8 ", False),
        (EXACT, "a", "a", True),
        (EXACT, "a", "a/b", False),
    ],
)
def test_narrower(how: Narrowing, outer: str, inner: str, holds: bool) -> None:
    assert how.holds(outer, inner) is holds


@pytest.mark.parametrize(
    "segment",
    [
        {"resource": False},
        {"resource": "true"},
        {"resource": 1},
        {"parameter": True},
        {"parameter": "path", "x": 1},
        {},
    ],
)
def test_what_only_looks_like_a_reference_stands_for_nothing(segment: dict[str, Any]) -> None:
    grant = aws({"resource": True}, TEXT("/*"), P, TEXT("/*"), conditions=segment)
    found = narrowings(template(grant, resource=PrefixParameter("resource", "a")))
    assert (found.resource, found.parameters["path"]) == (FOLDER, FOLDER)
