"""Many path patterns at once: which of them matches an id, and which two could match the same one.

Two expressions at one place count as able to match one value: nobody here can prove the opposite.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from broker.identity.pattern import (
    MAX_VALUE,
    Anything,
    IdPattern,
    Matching,
    OneOf,
    Restriction,
    Segments,
    Step,
    is_segment,
    split,
)
from broker.identity.spiffe_id import SpiffeId


class PatternIndex:
    """Many patterns, asked at once which of them matches an id.

    A set of patterns is an integer with a bit for each. For every place of a path there is the set
    that accepts each value that is written in some pattern there (literal or listed), and the set
    that may accept any other value. Finding is a look-up and an AND for each segment of the id,
    however many patterns there are. Where no two patterns overlap, one bit is left at most.
    """

    def __init__(self, patterns: Sequence[IdPattern]) -> None:
        self._patterns = tuple(patterns)
        self._places: dict[tuple[str, int], tuple[_Place, ...]] = {}
        alike: dict[tuple[str, int], list[int]] = {}
        for number, pattern in enumerate(self._patterns):
            alike.setdefault((pattern.trust_domain, len(pattern.steps)), []).append(number)
        for key, numbers in alike.items():
            steps = [[(number, self._patterns[number].steps[at]) for number in numbers] for at in range(key[1])]
            self._places[key] = tuple(_Place(each) for each in steps)

    def __len__(self) -> int:
        return len(self._patterns)

    def find(self, spiffe_id: SpiffeId) -> tuple[int, Segments] | None:
        """The number of the pattern that matches, and what it names. None for no pattern, or more than one."""
        parts = split(spiffe_id)
        places = self._places.get((spiffe_id.trust_domain, len(parts)))
        if places is None:
            return None
        left = -1
        for part, place in zip(parts, places, strict=True):
            left &= place.written.get(part, place.others)
        if left == 0 or left & (left - 1):  # not exactly one bit: whoever is claimed twice is nobody
            return None
        number = left.bit_length() - 1
        named = self._patterns[number].match(spiffe_id)
        return None if named is None else (number, named)

    def overlaps(self) -> Iterator[tuple[int, int]]:
        """Every two patterns, by number, that some id could match both."""
        for number, pattern in enumerate(self._patterns):
            places = self._places[pattern.trust_domain, len(pattern.steps)]
            left = -1
            for step, place in zip(pattern.steps, places, strict=True):
                left &= place.common(step)
            left >>= number + 1  # each pair once
            while left:
                lowest = left & -left
                yield number, number + lowest.bit_length()
                left ^= lowest


class _Place:
    """One place of the paths of one length: which patterns accept which value there."""

    __slots__ = ("others", "written")

    def __init__(self, steps: Sequence[tuple[int, Step]]) -> None:
        open_ = [(number, step) for number, step in steps if step.listed is None]
        self.others = _bits(number for number, _ in open_)
        self.written: dict[str, int] = {}
        for number, step in steps:
            for value in step.listed or ():
                self.written[value] = self.written.get(value, 0) | 1 << number
        free = _bits(number for number, step in open_ if isinstance(step.restriction, Anything))
        matching = [(number, step) for number, step in open_ if isinstance(step.restriction, Matching)]
        for value in self.written:
            self.written[value] |= free | _bits(n for n, step in matching if step.restriction.accepts(value))

    def common(self, step: Step) -> int:
        """The patterns that could accept a value which ``step``, one of this place, accepts."""
        accepted = step.listed
        if accepted is None:
            accepted = frozenset(value for value in self.written if step.restriction.accepts(value))
            return self.others | _union(self.written[value] for value in accepted)
        return _union(self.written[value] for value in accepted)


def example(one: IdPattern, other: IdPattern) -> SpiffeId | None:
    """An id that both match, for an explanation; None where none was found, which proves nothing."""
    if one.trust_domain != other.trust_domain or len(one.steps) != len(other.steps):
        return None
    parts = [_shared(a.restriction, b.restriction) for a, b in zip(one.steps, other.steps, strict=True)]
    found = [part for part in parts if part is not None]
    if len(found) != len(parts):
        return None
    return SpiffeId(one.trust_domain, "/" + "/".join(found))


def _bits(numbers: Iterable[int]) -> int:
    return _union(1 << number for number in numbers)


def _union(sets: Iterable[int]) -> int:
    union = 0
    for each in sets:
        union |= each
    return union


def _shared(one: Restriction, other: Restriction) -> str | None:
    tried = chain(_samples(one), _samples(other))
    return next((each for each in tried if is_segment(each) and one.accepts(each) and other.accepts(each)), None)


def _samples(restriction: Restriction) -> Iterator[str]:
    match restriction:
        case OneOf():
            yield from sorted(restriction.values)
        case Matching():
            yield _instance(restriction.expression)
            yield from re.findall(r"[A-Za-z0-9_-]+", restriction.expression)
        case Anything():
            yield "x"


# The first of a class, one of whatever is repeated, the first of alternatives: a guess, checked by who uses it.
_CLASS = re.compile(r"\[([^\]^])[^\]]*\]")
_ESCAPES = {r"\d": "0", r"\w": "a", r"\.": ".", r"\-": "-"}
_TIMES = re.compile(r"(.)\{(\d+)(?:,\d*)?\}")


def _instance(expression: str) -> str:
    text = expression.strip("^$")
    for escape, char in _ESCAPES.items():
        text = text.replace(escape, char)
    text = _CLASS.sub(r"\1", text)
    text = re.sub(r"\(\??:?([^()|]*)[^()]*\)", r"\1", text).partition("|")[0]
    return _TIMES.sub(lambda found: found[1] * min(int(found[2]), MAX_VALUE), re.sub(r"[+*?]", "", text))
