"""The ordering of what grants reach: an order, and never a union."""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.scope.containment import Excess, Reach, contains, excesses, reach_of
from broker.scope.model import AccessClass, Scope
from broker.scope.narrowing import Narrowing, Narrowings

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
COMPARED = Narrowings(
    resource=Narrowing.FOLDER,
    parameters={"net": Narrowing.NETWORK, "path": Narrowing.BEGINNING, "size": Narrowing.EXACT},
)
WHOLE = Reach(
    template="orders",
    template_digest="d1",
    connector="db",
    account="dev",
    environment="dev",
    resource="orders",
    access="read",
    actions=frozenset({"select", "show"}),
    parameters={"net": "10.0.0.0/8", "path": "a", "size": "5"},
    ttl=timedelta(minutes=5),
    ends_at=NOON,
    further=1,
)

# Few values of each, so that two of them often touch in some dimensions and not in others.
REACHES = st.builds(
    Reach,
    template=st.just("orders"),
    template_digest=st.sampled_from(["d1", "d2"]),
    connector=st.just("db"),
    account=st.sampled_from(["dev", "prod"]),
    environment=st.just("dev"),
    resource=st.sampled_from(["orders", "orders/eu", "orders/eu/de", "orders-eu"]),
    access=st.sampled_from(["read", "write"]),
    actions=st.frozensets(st.sampled_from(["select", "show", "drop"]), max_size=3),
    parameters=st.fixed_dictionaries(
        {
            "net": st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "11.0.0.0/8", "fd00::/8"]),
            "path": st.sampled_from(["a", "ab", "a/b", "b"]),
        },
        optional={"size": st.sampled_from(["5", "6"])},
    ),
    ttl=st.sampled_from([None, timedelta(minutes=1), timedelta(minutes=5)]),
    ends_at=st.sampled_from([None, NOON, NOON + timedelta(milliseconds=1)]),
    further=st.integers(0, 2),
)


@settings(deadline=None)
@given(REACHES)
def test_reflexive(one: Reach) -> None:
    assert excesses(one, one, COMPARED) == ()


@st.composite
def narrower(draw: st.DrawFn, of: Reach) -> Reach:
    """Something inside ``of``, made dimension by dimension and not with the code under test."""
    down = {
        "10.0.0.0/8": ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"],
        "10.1.0.0/16": ["10.1.0.0/16", "10.1.2.0/24"],
    }
    deeper = draw(st.sampled_from(["", "/eu", "/eu/de"]))
    parameters = dict(of.parameters)
    parameters["net"] = draw(st.sampled_from(down.get(parameters["net"], [parameters["net"]])))
    parameters["path"] += draw(st.sampled_from(["", "b", "/x"]))
    return replace(
        of,
        resource=of.resource + deeper,
        actions=frozenset(draw(st.sets(st.sampled_from(sorted(of.actions)))) if of.actions else ()),
        parameters=parameters,
        ttl=(of.ttl or timedelta(hours=1)) / draw(st.integers(1, 3)),
        ends_at=(of.ends_at or NOON) - timedelta(seconds=draw(st.integers(0, 3))),
        further=draw(st.integers(0, of.further)),
    )


@settings(deadline=None)
@given(st.data(), REACHES)
def test_transitive(data: st.DataObject, outer: Reach) -> None:
    middle = data.draw(narrower(outer))
    inner = data.draw(narrower(middle))
    assert contains(outer, middle, COMPARED)
    assert contains(middle, inner, COMPARED)
    assert contains(outer, inner, COMPARED)


@settings(max_examples=200, deadline=None)
@given(st.data(), REACHES, REACHES)
def test_transitive_on_what_was_not_made_to_fit(data: st.DataObject, one: Reach, other: Reach) -> None:
    third = data.draw(st.one_of(REACHES, narrower(other)))
    if contains(one, other, COMPARED) and contains(other, third, COMPARED):
        assert contains(one, third, COMPARED)


@settings(deadline=None)
@given(st.data(), REACHES)
def test_antisymmetric(data: st.DataObject, one: Reach) -> None:
    other = data.draw(narrower(one))
    if contains(other, one, COMPARED):
        assert other == one


def naively_within(outer: Reach, inner: Reach) -> dict[str, bool]:
    """Each dimension by itself, in the plainest words: what the ordering must agree with."""

    def part(net: str) -> bool:
        wide = ipaddress.ip_network(outer.parameters["net"])
        narrow = ipaddress.ip_network(net)
        return wide.version == narrow.version and narrow.subnet_of(wide)  # type: ignore[arg-type]

    return {
        "template": inner.template_digest == outer.template_digest,
        "account": inner.account == outer.account,
        "resource": inner.resource == outer.resource or inner.resource.startswith(outer.resource + "/"),
        "access": inner.access == outer.access,
        "actions": all(action in outer.actions for action in inner.actions),
        "net": part(inner.parameters["net"]),
        "path": inner.parameters["path"].startswith(outer.parameters["path"]),
        "size": inner.parameters.get("size") == outer.parameters.get("size"),
        "ttl": outer.ttl is None or (inner.ttl is not None and inner.ttl <= outer.ttl),
        "end": outer.ends_at is None or (inner.ends_at is not None and inner.ends_at <= outer.ends_at),
        "further": inner.further <= outer.further,
    }


@settings(max_examples=300, deadline=None)
@given(st.lists(REACHES, min_size=2, max_size=4), st.integers(0, 2 ** len(fields(Reach)) - 1))
@pytest.mark.slow
def test_two_narrow_grants_never_combine_into_a_wider_one(held: list[Reach], mask: int) -> None:
    """Every pair of leases: what takes its dimensions from both is within neither that it exceeds in one of them."""
    for one, other in itertools.permutations(held, 2):
        taken = {
            each.name: getattr(one if mask >> bit & 1 else other, each.name) for bit, each in enumerate(fields(Reach))
        }
        for asked in (Reach(**taken), replace(Reach(**taken), actions=one.actions | other.actions)):
            for outer in held:
                assert contains(outer, asked, COMPARED) == all(naively_within(outer, asked).values())


@pytest.mark.parametrize(
    ("change", "beyond"),
    [
        ({"template": "other"}, Excess("template", "orders", "other")),
        ({"template_digest": "d2"}, Excess("template_digest", "d1", "d2")),
        ({"connector": "db2"}, Excess("connector", "db", "db2")),
        ({"account": "prod"}, Excess("account", "dev", "prod")),
        ({"environment": "prod"}, Excess("environment", "dev", "prod")),
        ({"access": "write"}, Excess("access", "read", "write")),
        ({"resource": "orders-eu"}, Excess("resource", "orders", "orders-eu")),
        ({"resource": "order"}, Excess("resource", "orders", "order")),
        ({"actions": frozenset({"select", "drop"})}, Excess("actions", "select,show", "drop,select")),
        (
            {"parameters": {**WHOLE.parameters, "net": "10.0.0.0/7"}},
            Excess("parameter net", "10.0.0.0/8", "10.0.0.0/7"),
        ),
        ({"parameters": {**WHOLE.parameters, "net": "::/0"}}, Excess("parameter net", "10.0.0.0/8", "::/0")),
        ({"parameters": {**WHOLE.parameters, "net": "nonsense"}}, Excess("parameter net", "10.0.0.0/8", "nonsense")),
        ({"parameters": {**WHOLE.parameters, "size": "4"}}, Excess("parameter size", "5", "4")),
        ({"parameters": {**WHOLE.parameters, "more": "1"}}, Excess("parameter more", "", "1")),
        ({"parameters": {"net": "10.0.0.0/8", "path": "a"}}, Excess("parameter size", "5", "")),
        ({"ttl": timedelta(minutes=6)}, Excess("ttl", "300s", "360s")),
        ({"ttl": None}, Excess("ttl", "300s", "")),
        (
            {"ends_at": NOON + timedelta(milliseconds=1)},
            Excess("end", "2026-01-01T12:00:00+00:00", "2026-01-01T12:00:00.001000+00:00"),
        ),
        ({"ends_at": None}, Excess("end", "2026-01-01T12:00:00+00:00", "")),
        ({"further": 2}, Excess("delegation depth", "1", "2")),
    ],
)
def test_each_dimension_is_told_with_both_values(change: dict[str, object], beyond: Excess) -> None:
    asked = replace(WHOLE, **change)  # type: ignore[arg-type]
    assert excesses(WHOLE, asked, COMPARED) == (beyond,)
    assert not contains(WHOLE, asked, COMPARED)
    assert beyond.dimension in str(beyond)


def test_all_that_exceeds_is_told_at_once() -> None:
    asked = replace(WHOLE, account="prod", resource="all", further=9)
    assert [each.dimension for each in excesses(WHOLE, asked, COMPARED)] == ["account", "resource", "delegation depth"]


def test_every_field_of_a_reach_is_compared() -> None:
    """A dimension that is added later and not compared would be a hole."""
    wider = {
        "actions": frozenset({"x"}),
        "parameters": {},
        "ttl": timedelta(hours=1),
        "ends_at": NOON + timedelta(hours=1),
        "further": 5,
    }
    for each in fields(Reach):
        changed = replace(WHOLE, **{each.name: wider.get(each.name, "something else")})
        assert not contains(WHOLE, changed, COMPARED), each.name


@pytest.mark.parametrize(
    ("excess", "told"),
    [
        (Excess("ttl", "300s", "360s"), "ttl 360s is not within 300s"),
        (Excess("ttl", "300s", ""), "ttl without a bound is not within 300s"),
        (Excess("parameter more", "", "1"), "parameter more 1 is not within nothing"),
    ],
)
def test_an_excess_is_said_in_words(excess: Excess, told: str) -> None:
    assert str(excess) == told


SCOPE = Scope(
    template="orders",
    template_digest="d1",
    connector="db",
    account="dev",
    environment="staging",
    resource="orders/eu",
    access=AccessClass.READ,
    actions=("show", "select"),
    parameters={"net": "10.0.0.0/8", "path": "a", "size": "5"},
    ttl=timedelta(minutes=5),
    grant={"role": "reader"},
)
REACHED = Reach(
    template="orders",
    template_digest="d1",
    connector="db",
    account="dev",
    environment="staging",
    resource="orders/eu",
    access="read",
    actions=frozenset({"select", "show"}),
    parameters=SCOPE.parameters,
)


def test_what_a_scope_reaches_is_bounded_in_time_only_where_that_is_said() -> None:
    assert reach_of(SCOPE) == REACHED
    bounds = {"ttl": timedelta(minutes=1), "ends_at": NOON, "further": 2}
    assert reach_of(SCOPE, **bounds) == replace(REACHED, **bounds)  # type: ignore[arg-type]
    left = {"path": "a"}
    assert reach_of(SCOPE, without=iter(["net", "size", "gone"])) == replace(REACHED, parameters=left)
