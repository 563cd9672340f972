"""What counts as alive, and what as explained."""

import pytest

from tests.mutation.place import TESTS
from tests.mutation.survivors import Tally, explained, function_of, tallies, unexplained


@pytest.mark.parametrize(
    ("mutant", "function"),
    [
        ("broker.lease.root.x_deny__mutmut_3", "broker.lease.root.deny"),
        ("broker.lease.root.x__deny__mutmut_12", "broker.lease.root._deny"),
        ("broker.approval.digest.xǁTermsǁcanonical__mutmut_1", "broker.approval.digest.Terms.canonical"),
    ],
)
def test_a_mutant_is_of_a_function(mutant: str, function: str) -> None:
    assert function_of(mutant) == function


def test_what_is_no_mutant_is_refused() -> None:
    with pytest.raises(ValueError, match="no mutant"):
        function_of("broker.lease.root")


def test_rooms_are_counted_apart_and_a_mutant_that_hangs_is_dead() -> None:
    found = tallies(
        [
            ("broker.lease.root.x_a__mutmut_1", "killed"),
            ("broker.lease.root.x_a__mutmut_2", "timeout"),
            ("broker.lease.root.x_a__mutmut_3", "survived"),
            ("broker.scope.bind.x_b__mutmut_1", "no tests"),
        ]
    )
    assert found == {"lease": Tally(2, {"broker.lease.root.a": 1}), "scope": Tally(0, {"broker.scope.bind.b": 1})}
    assert found["scope"].share == 0
    assert Tally(0, {}).share == 1


def test_a_mutant_that_was_not_run_proves_nothing() -> None:
    with pytest.raises(ValueError, match="not run"):
        tallies([("broker.lease.root.x_a__mutmut_1", "not checked")])


def test_more_than_is_explained_is_told() -> None:
    found = {"lease": Tally(1, {"broker.lease.root.a": 2, "broker.lease.root.b": 1})}
    assert list(unexplained(found, {"broker.lease.root.a": 2})) == ["broker.lease.root.b: 1 live, 0 are explained"]
    assert list(unexplained(found, {"broker.lease.root.a": 1, "broker.lease.root.b": 1})) == [
        "broker.lease.root.a: 2 live, 1 are explained"
    ]


def test_every_explanation_is_of_a_function_of_the_rooms() -> None:
    for function in explained():
        assert function.split(".")[:2] in [["broker", room] for room in TESTS]
