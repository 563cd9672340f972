"""Names of steps: what people cannot tell apart is not taken in."""

from __future__ import annotations

import pytest

from broker.errors import InvalidInput, Reason
from broker.plan.steps import check_steps


@pytest.mark.parametrize(
    "steps",
    [
        ["count"],
        ["count", "repair"],
        ["1", "2"],
        ["roll back", "roll-back", "rollback"],
        ["pr\u00fcfen", "\u0441\u0447\u0435\u0442", "\u6570"],
    ],
)
def test_names(steps: list[str]) -> None:
    check_steps(steps)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (["s1", "s1"], "is there twice"),
        (["s1", "S1"], "is 's1' in other letters"),
        (["stra\u00dfe", "STRASSE"], "in other letters"),
        (["\uff53\uff11"], "looks like 's1'"),
        (["\u24e2"], "looks like 's'"),
        (["e\u0301tape"], "looks like '\\xe9tape'"),
        (["s1 "], "begins or ends with a blank"),
        ([" s1"], "begins or ends with a blank"),
        ([" "], "says nothing"),
        ([""], "says nothing"),
        *(
            ([f"s{odd}1"], "nobody can see")
            for odd in ("\u200b", "\u00ad", "\u202e", "\t", "\n", "\u00a0", "\x1b", "\x00", "\ue000")
        ),
    ],
)
def test_what_nobody_could_tell_apart(steps: list[str], why: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_steps(steps)
    assert why in refused.value.message
    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.message.isascii() and refused.value.message.isprintable()
