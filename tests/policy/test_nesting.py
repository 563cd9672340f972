"""A policy that would take the engine's stack, and with it the process, or ours, is a problem with its line."""

import pytest

from broker.policy.cedar import PolicyProblems, PolicySet
from broker.policy.nesting import MAX_BRACKETS, MAX_LEVELS, MAX_OPERATORS, too_deep
from tests.policy.world import SCHEMA


def parse(condition: str) -> PolicySet:
    head = '// a line before\n@id("deep") @reason("never read")\nforbid (principal, action, resource)'
    text = f"{head} when {{ {condition} }};"
    return PolicySet.parse({"policies/deep.cedar": text}, SCHEMA)


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 1_000 + "true" + ")" * 1_000,  # ended the process
        "[" * 1_000 + "]" * 1_000 + " == []",
        "{a: " * 1_000 + "1" + "}" * 1_000 + " == {}",
        "if true then " * 10_000 + "true" + " else false" * 10_000,
        "context" + '["a"]' * 20_000,
        "context" + ".a" * 40_000,
        "1" + " + 1" * 40_000 + " > 2",
        # A generated list of accounts: went down our own stack.
        " || ".join(f'resource.account == "a{number}"' for number in range(900)),
        " && ".join(f'resource.account != "a{number}"' for number in range(900)),
    ],
    ids=["brackets", "lists", "records", "ifs", "indices", "attributes", "sum", "or", "and"],
)
def test_what_is_too_deep_is_a_problem_and_not_the_end_of_the_process(condition: str) -> None:
    with pytest.raises(PolicyProblems) as caught:
        parse(condition)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("policies/deep.cedar", 2)
    assert "several policies" in problem.hint


def test_what_people_write_is_not() -> None:
    half = MAX_LEVELS // 2 - 20
    parse(" || ".join(f'resource.account == "a{number}"' for number in range(half)))
    parse("(" * (MAX_BRACKETS - 2) + "true" + ")" * (MAX_BRACKETS - 2))
    # One list may be as long as it likes, and texts and comments may say what they like.
    parse("[" + ", ".join(f'"a.b-{number}"' for number in range(5_000)) + "].contains(resource.account)")
    parse('resource.account == "' + "([{" * 1_000 + '" // ' + "if (" * 3_000 + "\n")


@pytest.mark.parametrize(
    ("count", "told"), [(MAX_OPERATORS, None), (MAX_OPERATORS + 1, "has more than 2000 operators and brackets")]
)
def test_operators_are_counted_to_the_one(count: int, told: str | None) -> None:
    assert too_deep("a" + " + a" * count) == told
