"""Cedar source text, cut into single policies that know their line.

The engine's messages name no line (cedarpy 4.12), and its own policy ids count positions, so a set
is parsed policy by policy. Cutting needs no grammar: outside strings and comments, Cedar ends each
policy with a semicolon and uses semicolons for nothing else.
Source: https://docs.cedarpolicy.com/policies/syntax-grammar.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;|[^\s";/]+|.', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy as written: its text from its first token on, and that token's line (from 1)."""

    file: str
    line: int
    text: str


def statements(file: str, text: str) -> Iterator[Statement]:
    """Every statement of ``text``, an unfinished last one included."""
    start: int | None = None
    for token in _TOKEN.finditer(text):
        word = token.group()
        if start is None and not word.isspace() and not word.startswith("//"):
            start = token.start()
        if word == ";" and start is not None:
            yield _statement(file, text, start, token.end())
            start = None
    if start is not None:
        yield _statement(file, text, start, len(text))


def error_line(statement: Statement, complaint: Callable[[str], str | None]) -> int:
    """The line of a syntax error, found by feeding the parser ever more lines of the statement.

    An LR parser reports the first token that no continuation could make right; up to that token it
    can only complain that the text ends too early. ``complaint`` gives the parser's message or None.
    """
    lines = statement.text.splitlines(keepends=True)
    for count in range(1, len(lines) + 1):
        message = complaint("".join(lines[:count]))
        if message is None or "unexpected end of input" not in message:
            return statement.line + count - 1
    return statement.line + max(len(lines) - 1, 0)


def _statement(file: str, text: str, start: int, end: int) -> Statement:
    return Statement(file, text.count("\n", 0, start) + 1, text[start:end])
