"""Cedar source text, cut into single policies that know their line.

The engine's messages name no line (cedarpy 4.12), and its own policy ids count positions, so a set
is parsed policy by policy. Cutting needs no grammar: outside strings and comments, Cedar ends each
policy with a semicolon and uses semicolons for nothing else.
Source: https://docs.cedarpolicy.com/policies/syntax-grammar.html
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;|[^\s";/]+|.', re.DOTALL)

_TOO_SHORT = "unexpected end of input"
_GRAMMAR = re.compile("unexpected |invalid token")
_NAMED = re.compile(r"`([^`]+)`|^'([^']+)'|: (\S+)$")


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy as written: its text from its first token on, and that token's line (from 1)."""

    file: str
    line: int
    text: str


def statements(file: str, text: str) -> Iterator[Statement]:
    """Every statement of ``text``, an unfinished last one included."""
    start: int | None = None
    line, counted = 1, 0
    for token in _TOKEN.finditer(text):
        word = token.group()
        if start is None and not word.isspace() and not word.startswith("//"):
            start = token.start()
            line, counted = line + text.count("\n", counted, start), start
        if word == ";" and start is not None:
            yield Statement(file, line, text[start : token.end()])
            start = None
    if start is not None:
        yield Statement(file, line, text[start:])


def syntax_line(statement: Statement, message: str, complaint: Callable[[str], str | None]) -> int:
    """The line of a parser's ``message``; ``complaint`` gives the parser's message about a text, or None.

    An LR parser reports the first token that no continuation could make right, and up to that token
    only that the text ends too early: so the line is where it begins to say something else, which is searched for by
    halves, since a list may have thousands of lines. What it finds only when the policy is complete is searched for by
    name.
    """
    if not _GRAMMAR.match(message):
        return named_line(statement, message)
    # At line feeds alone, as editors count and Cedar does: str.splitlines() knows more ends of lines.
    lines = statement.text.split("\n")

    def beyond_repair(count: int) -> bool:
        early = complaint("\n".join([*lines[:count], ""]))
        return early is not None and bool(_GRAMMAR.match(early)) and _TOO_SHORT not in early

    return statement.line + bisect_left(range(1, len(lines)), True, key=beyond_repair)


def named_line(statement: Statement, message: str) -> int:
    """The first line that holds what ``message`` puts in quotes; the statement's own where none does."""
    if match := _NAMED.search(message):
        name = next(group for group in match.groups() if group)
        whole = re.compile(rf"(?<![\w=!<>]){re.escape(name)}(?![\w=])")
        for number, line in enumerate(statement.text.split("\n")):
            if whole.search(line):
                return statement.line + number
    return statement.line
