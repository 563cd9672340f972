"""Path patterns: one registry entry for every workload whose SPIFFE ID has one form.

Belongs here: what such a pattern is, and what of an id it names. Many of them, asked at once, are an index
(``pattern_index.py``). ``spiffe://example.org/ns/{namespace}/job/{job}`` names whole segments of the path and nothing
less: each name stands for exactly one segment of an id that is canonical already (``spiffe_id.py``),
so that no value can hold a slash, a dot segment, a percent sign, a quote or anything outside
``A-Z a-z 0-9 . _ -``. There is no ``*``, no ``**`` and no part of a segment: what matches can be read off.

A name may be restricted to listed values, or to an expression (compiled by whoever reads the file).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.identity.spiffe_id import MAX_BYTES, SpiffeId, is_trust_domain

MAX_STEPS = 32  # segments of the path
MAX_NAMED = 8  # of which these many may be named
MAX_VALUE = 255  # characters of a named segment; a longer one matches nothing
MAX_LISTED = 256  # values one name may be restricted to

_SCHEME = "spiffe://"
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z", re.ASCII)
_DOTS = frozenset({".", ".."})

# Name and value, in the order of the path.
Segments = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    """A name restricted to values that the operator wrote out."""

    values: frozenset[str]

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= MAX_LISTED:
            raise ValueError(f"lists {len(self.values)} values; it must be 1 to {MAX_LISTED}")
        for value in sorted(self.values):
            if not is_segment(value):
                raise ValueError(f"lists {ascii(value)[:100]}, which is no segment of a SPIFFE ID (A-Z a-z 0-9 . _ -)")

    def accepts(self, value: str) -> bool:
        """Whether ``value`` is listed, byte for byte."""
        return value in self.values


@dataclass(frozen=True, slots=True)
class Matching:
    """A name restricted by an expression. ``matches`` says whether it matches a value as a whole."""

    expression: str
    matches: Callable[[str], bool] = field(repr=False, compare=False)

    def accepts(self, value: str) -> bool:
        """Whether the whole of ``value`` matches."""
        return self.matches(value)


@dataclass(frozen=True, slots=True)
class Anything:
    """A name without a restriction."""

    def accepts(self, value: str) -> bool:
        """True: that it is a segment was looked at before."""
        return True


Restriction = OneOf | Matching | Anything


@dataclass(frozen=True, slots=True)
class Step:
    """One segment of the path: a literal one has no name, and a restriction to itself."""

    name: str
    restriction: Restriction

    @property
    def listed(self) -> frozenset[str] | None:
        """Every value it accepts; None where they cannot be listed."""
        return self.restriction.values if isinstance(self.restriction, OneOf) else None


@dataclass(frozen=True, slots=True)
class IdPattern:
    """A trust domain, which is always literal, and the steps of a path."""

    trust_domain: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        told = (f"{{{step.name}}}" if step.name else next(iter(step.listed or "")) for step in self.steps)
        return f"{_SCHEME}{self.trust_domain}/{'/'.join(told)}"

    @classmethod
    def parse(cls, text: str, restrictions: Mapping[str, Restriction] | None = None) -> IdPattern:
        """The pattern written as ``text``. Raises :class:`ValueError`, which says what rule it breaks.

        A restriction of a name that the pattern has not is refused too (:func:`names_of` tells which there are).
        """
        given = dict(restrictions or {})
        domain, path = _parts(text)
        steps = tuple(_step(part, given) for part in path)
        names = [step.name for step in steps if step.name]
        if not names:
            raise ValueError("names no segment: write it as spiffe_id")
        if len(names) == len(steps):
            raise ValueError("has no literal segment, so it would match every path of its length")
        if len(names) > MAX_NAMED:
            raise ValueError(f"names {len(names)} segments; at most {MAX_NAMED} are")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names {', '.join(twice)} twice")
        if unknown := sorted(given.keys() - set(names)):
            raise ValueError(f"has no segment {', '.join(unknown)} to restrict")
        return cls(domain, steps)

    @property
    def names(self) -> tuple[str, ...]:
        """What it names, in the order of the path."""
        return tuple(step.name for step in self.steps if step.name)

    def match(self, spiffe_id: SpiffeId) -> Segments | None:
        """The named segments of ``spiffe_id``; None where it does not match."""
        parts = split(spiffe_id)
        if spiffe_id.trust_domain != self.trust_domain or len(parts) != len(self.steps):
            return None
        for part, step in zip(parts, self.steps, strict=True):
            if not is_segment(part) or not step.restriction.accepts(part):
                return None
        return tuple((step.name, part) for part, step in zip(parts, self.steps, strict=True) if step.name)


def is_segment(text: str) -> bool:
    """Whether ``text`` may be the value of a named segment."""
    return len(text) <= MAX_VALUE and text not in _DOTS and _SEGMENT.match(text) is not None


def is_name(text: str) -> bool:
    """Whether a segment may be named ``text``."""
    return _NAME.match(text) is not None


def names_of(text: str) -> frozenset[str]:
    """The names in a pattern's text, for who wants to complain about one that is not there."""
    return frozenset(re.findall(r"\{([^{}/]*)\}", text))


def split(spiffe_id: SpiffeId) -> list[str]:
    """The segments of the path."""
    return spiffe_id.path[1:].split("/")


def _parts(text: str) -> tuple[str, list[str]]:
    if len(text) > MAX_BYTES or not text.isascii():
        raise ValueError(f"is longer than {MAX_BYTES} characters, or not ASCII")
    if not text.startswith(_SCHEME):
        raise ValueError(f"does not start with {_SCHEME}")
    domain, _, path = text[len(_SCHEME) :].partition("/")
    if "{" in domain or "*" in domain:
        raise ValueError("has a trust domain that is no literal: name one trust domain")
    if not is_trust_domain(domain):
        raise ValueError("has a trust domain with characters other than a-z 0-9 . _ -")
    if not path:
        raise ValueError("has no path")
    steps = path.split("/")
    if len(steps) > MAX_STEPS:
        raise ValueError(f"has {len(steps)} segments; at most {MAX_STEPS} are")
    return domain, steps


def _step(part: str, restrictions: Mapping[str, Restriction]) -> Step:
    if "*" in part or "?" in part:
        raise ValueError(f"has the wildcard {part}: name a whole segment instead, like {{job}}")
    if part.startswith("{") and part.endswith("}"):
        name = part[1:-1]
        if not is_name(name):
            raise ValueError(f"has the name {ascii(name)[:60]}: a-z first, then a-z 0-9 _, at most 32 characters")
        return Step(name, restrictions.get(name, Anything()))
    if "{" in part or "}" in part:
        raise ValueError(f"names a part of the segment {ascii(part)[:60]}: only whole segments are named")
    if not is_segment(part):
        raise ValueError("has an empty, dotted or non-canonical path segment")
    return Step("", OneOf(frozenset({part})))
