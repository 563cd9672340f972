"""Whose an attempt is, by its id."""

import pytest

from broker.lease.mark import Mark

OURS = Mark("abcd1234")


@pytest.mark.parametrize("text", ["", "abcd123", "abcd12345", "ABCD1234", "abcd-234", "abcd1234\n", "äbcd1234"])
def test_what_is_no_mark(text: str) -> None:
    with pytest.raises(ValueError, match="a mark is 8 lower-case letters and digits, not"):
        Mark(text)


def test_an_attempt_says_whose_it_is() -> None:
    assert OURS.attempt("x7") == "jb-abcd1234-x7"
    assert OURS.owns(OURS.attempt("x7"))
    assert OURS.owns(OURS.attempt("x" * 40))


@pytest.mark.parametrize(
    "attempt_id",
    ["", "jb-abcd1235-x7", "jb-x7", "abcd1234-x7", "jb-abcd1234-", f"jb-abcd1234-{'x' * 41}", "jb-abcd1234-x7\n"],
)
def test_anothers_and_what_names_nobody_is_not_ours(attempt_id: str) -> None:
    assert not OURS.owns(attempt_id)
