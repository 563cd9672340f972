"""An agent's text in front of a person: readable, and unable to do anything."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.approval.inert import inert


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ascii: 1 < 2 & 'quoted'", "plain, ascii: 1 < 2 & 'quoted'"),
        ("Grüße 日本語 🙂", "Grüße 日本語 🙂"),
        ("\x1b[2J", "<U+001B>[2J"),
        ("a\rb", "a<U+000D>b"),
        ("a\x08b\x7f", "a<U+0008>b<U+007F>"),
        ("\x9b31m", "<U+009B>31m"),  # CSI in one character (C1)
        ("safe\u202egnp.exe", "safe<U+202E>gnp.exe"),
        ("zero\u200bwidth\ufeff", "zero<U+200B>width<U+FEFF>"),
        ("\u2066x\u2069", "<U+2066>x<U+2069>"),
        ("a\u2028b\u2029c\x85d", "a<U+2028>b<U+2029>c<U+0085>d"),
        ("\U000e0041", "<U+E0041>"),  # tag characters: text that nobody sees
        ("a\nb\tc", "a<U+000A>b<U+0009>c"),
        ("\ud800", "<U+D800>"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert inert(text) == shown


def test_lines_stay_where_they_are_asked_for() -> None:
    assert inert("a\n\tb\r\n\x0b\x0c", lines=True) == "a\n\tb<U+000D>\n<U+000B><U+000C>"


@given(st.text(), st.booleans())
def test_nothing_active_is_left(text: str, lines: bool) -> None:
    shown = inert(text, lines=lines)
    kinds = {each: unicodedata.category(each) for each in shown}
    active = {each for each, kind in kinds.items() if kind[0] == "C" or kind in ("Zl", "Zp")}
    assert active <= ({"\n", "\t"} if lines else set())
    assert inert(shown, lines=lines) == shown
