"""One hijacked agent cannot fill the log, and nothing it did goes uncounted."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.issuance import refusals
from broker.issuance.refusals import EVERYBODY_ELSE, RefusalBudget
from tests.clock import START

WINDOW = timedelta(minutes=1)


def test_above_the_budget_refusals_are_counted_by_reason() -> None:
    budget = RefusalBudget(per_window=2, window=WINDOW)
    alone = [budget.admit("agent", reason, START)[1] for reason in ("A", "A", "A", "B", "A")]
    assert alone == [True, True, False, False, False]
    assert budget.close_windows(START + WINDOW) == [("agent", {"A": 2, "B": 1})]
    assert budget.admit("agent", "A", START + WINDOW) == ("agent", True)  # a new window, a new budget


def test_a_window_that_folded_nothing_makes_no_event() -> None:
    budget = RefusalBudget(per_window=2, window=WINDOW)
    budget.admit("agent", "A", START)
    assert budget.close_windows(START + WINDOW) == []


def test_a_window_stays_open_until_it_is_over() -> None:
    budget = RefusalBudget(per_window=0, window=WINDOW)
    budget.admit("agent", "A", START)
    assert budget.close_windows(START + WINDOW - timedelta(milliseconds=1)) == []
    assert budget.close_windows(START + WINDOW) == [("agent", {"A": 1})]


def test_inventing_principals_does_not_grow_the_table(monkeypatch: object) -> None:
    budget = RefusalBudget(per_window=1, window=WINDOW)
    for number in range(refusals.MAX_PRINCIPALS):
        budget.admit(f"agent-{number}", "A", START)
    assert [budget.admit(f"late-{n}", "A", START) for n in range(2)] == [
        (EVERYBODY_ELSE, True),
        (EVERYBODY_ELSE, False),
    ]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("AB")), max_size=60), st.integers(0, 5))
def test_written_and_folded_add_up_to_what_happened(happened: list[tuple[str, str]], per_window: int) -> None:
    budget = RefusalBudget(per_window=per_window, window=WINDOW)
    written = sum(budget.admit(who, reason, START)[1] for who, reason in happened)
    folded = sum(sum(counts.values()) for _, counts in budget.close_windows(START, every=True))
    assert written + folded == len(happened)
