import pytest

from broker.errors import InvalidInput, Reason
from broker.scope.blank import blank, refuse_blank


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u00a0", "\u200b", "\u2060\ufeff", "\x00\x1b", "\u2003 \u200d"])
def test_what_nobody_could_read_says_nothing(text: str) -> None:
    assert blank(text)
    with pytest.raises(InvalidInput, match=r"^purpose: says nothing\.") as refused:
        refuse_blank("purpose", text)
    assert (refused.value.reason, refused.value.metadata["field"]) == (Reason.FIELD_INVALID, "purpose")


@pytest.mark.parametrize("text", ["x", " x ", "-", "\u00e9", "\u6ce8\u6587", "\u200bx"])
def test_whatever_else_says_something(text: str) -> None:
    assert not blank(text)
    refuse_blank("purpose", text)
