"""A short text that a pattern should match: so that a rule about such texts can be tried at all.

Understands what operators' patterns are made of (literals, classes, groups, alternatives, repetition), takes the first
alternative and the fewest repetitions, and gives up on the rest. Whether the text really matches is for the
pattern's own engine to say: a sample is a guess, and whoever uses it looks.
"""

from __future__ import annotations

_ANCHORS = "^$"
_ESCAPES = {"d": "0", "w": "a", "s": " ", "b": "", "A": "", "z": ""}
# Tried where a class says only what it is not.
_PLAIN = "a0A-_."
# No sample is longer: what asks for more is no pattern of names.
_LONGEST = 512


def sample(pattern: str) -> str | None:
    """One text; None for a pattern that is not understood."""
    reader = _Reader(pattern)
    try:
        text = reader.alternatives()
    except (ValueError, IndexError, StopIteration):
        return None
    return text if reader.at_end and len(text) <= _LONGEST else None


class _Reader:
    """Reads a pattern once, from its front, and makes the text as it goes."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._pattern)

    def alternatives(self) -> str:
        """Up to a closing bracket or the end: the first one."""
        first = self._sequence()
        while self._peek() == "|":
            self._at += 1
            self._sequence()
        return first

    def _sequence(self) -> str:
        made = ""
        while self._peek() not in ("", "|", ")"):
            atom = self._atom()
            made += atom * self._repeated()
            if len(made) > _LONGEST:
                raise ValueError("too long")
        return made

    def _atom(self) -> str:
        char = self._next()
        if char in _ANCHORS:
            return ""
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape()
        return "a" if char == "." else char

    def _group(self) -> str:
        if self._peek() == "?":
            self._next()
            if self._peek() != ":":
                raise ValueError("a group with a flag")
            self._next()
        made = self.alternatives()
        if self._next() != ")":
            raise ValueError("a group without an end")
        return made

    def _escape(self) -> str:
        char = self._next()
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char.isalnum():
            raise ValueError("an escape with a meaning that is not known here")
        return char

    def _class(self) -> str:
        negated = self._peek() == "^"
        if negated:
            self._next()
        members: list[tuple[str, str]] = []
        while not members or self._peek() != "]":
            low = self._member()
            if self._peek() == "-" and self._pattern[self._at + 1] != "]":
                self._next()
                members.append((low, self._member()))
            else:
                members.append((low, low))
        self._next()
        if not negated:
            # A letter or a digit where there is one: it is no part of any other rule about names.
            return next((low for low, _ in members if low.isalnum()), members[0][0])
        return str(next(char for char in _PLAIN if not any(low <= char <= high for low, high in members)))

    def _member(self) -> str:
        char = self._next()
        if char == "[" and self._peek() == ":":
            raise ValueError("a named class")
        return self._escape() if char == "\\" else char

    def _repeated(self) -> int:
        char = self._peek()
        if char in ("*", "?", "+"):
            self._next()
            count = int(char == "+")
        elif char == "{":
            end = self._pattern.index("}", self._at)
            count = int(self._pattern[self._at + 1 : end].partition(",")[0])
            self._at = end + 1
        else:
            return 1
        if self._peek() == "?":  # lazy
            self._next()
        return count

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._pattern[self._at]
        self._at += 1
        return char
