"""Typed parameters: what operators allow an agent to fill in, value by value.

Belongs here: one frozen type per kind of value (enum, regex, prefix, integer, CIDR), each with a
pure ``parse`` from the text on the wire to its canonical text, and the one rule that holds for all
of them: no value is ever ambiguous to whatever quotes or matches it later. ``*``, ``?``, ``$``,
``%``, quotes, backslashes, ``..`` segments, control and non-ASCII characters never pass, whatever
the operator's pattern says; the one exception is an enum, whose members the operator wrote out.

Does not belong here: how templates are written in YAML (``broker/deployfiles``), and what a
connector builds from the values (data, never text pasted into text).

Constructors raise :class:`ValueError` where the operator's own specification is wrong; ``parse``
raises :class:`~broker.errors.InvalidInput` (PARAMETER_INVALID) where the agent's value is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import re2

from broker.errors import InvalidInput, Reason

MAX_VALUE = 512  # characters of any value, whatever its type
MAX_INTEGER = 2**63 - 1
MAX_PATTERN = 256  # characters of a regex
_SHOWN = 100
_MATCHES_KEPT = 256

# Wildcards, expansions and quotes of IAM, SQL, shells, URLs, JSON and LDAP, and the backslash.
_HAZARD = re.compile(r"[*?$%'\"`\\]|[^ -~]")
_PREFIX_CHARS = re.compile(r"[A-Za-z0-9._/=@:+-]*\Z", re.ASCII)
_DECIMAL = re.compile(r"(?:0|-?[1-9][0-9]{0,18})\Z", re.ASCII)

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Parameter(Protocol):
    """One named, typed value of a template."""

    @property
    def name(self) -> str:
        """What requests call it."""
        ...

    @property
    def kind(self) -> str:
        """The name of its type, as template files and ListTemplates say it."""
        ...

    @property
    def inert(self) -> bool:
        """Whether every value it lets through is free of wildcards, quotes and expansions."""
        ...

    @property
    def expected(self) -> str:
        """What would be right, in words, to end a sentence with."""
        ...

    def parse(self, text: str) -> str:
        """The canonical text of ``text``. Raises InvalidInput (PARAMETER_INVALID)."""
        ...


@dataclass(frozen=True, slots=True)
class EnumParameter:
    """One of the values that the operator wrote out."""

    kind: ClassVar[str] = "enum"
    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("an enum needs at least one value")
        if len(set(self.values)) != len(self.values):
            raise ValueError("an enum lists a value twice")
        for value in self.values:
            if not value or len(value) > MAX_VALUE or not value.isprintable():
                raise ValueError(f"the enum value {shown(value)} is empty, over {MAX_VALUE} characters or unprintable")

    @property
    def inert(self) -> bool:
        """True unless the operator listed a value with a hazardous character."""
        return all(hazard(value) is None for value in self.values)

    @property
    def expected(self) -> str:
        """The values, as many as fit in a sentence."""
        head = ", ".join(self.values[:8])
        return f"one of: {head}" + (f" and {len(self.values) - 8} more" if len(self.values) > 8 else "")

    def parse(self, text: str) -> str:
        """``text`` itself, if it is listed; byte for byte, nothing is folded."""
        if text not in self.values:
            raise refused(self, text, "is not listed")
        return text


@dataclass(frozen=True, slots=True)
class RegexParameter:
    """Text that matches a pattern from its first to its last character.

    The pattern is RE2 (no backreferences, no lookaround, linear time whatever the value), must be
    written with ``^`` and ``$``, and is matched in full even where alternatives would escape the anchors.
    Source: https://github.com/google/re2/wiki/Syntax
    """

    kind: ClassVar[str] = "regex"
    name: str
    pattern: str
    max_length: int
    _matches: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.max_length <= MAX_VALUE:
            raise ValueError(f"max_length must be between 1 and {MAX_VALUE}, not {self.max_length}")
        compiled = compile_pattern(self.pattern)
        # The same few values come again and again, and a look-up is ten times as fast as the match.
        matches = lru_cache(maxsize=_MATCHES_KEPT)(lambda text: compiled.fullmatch(text) is not None)
        object.__setattr__(self, "_matches", matches)

    @property
    def inert(self) -> bool:
        """Always: hazardous characters are refused beside the pattern."""
        return True

    @property
    def expected(self) -> str:
        """The pattern and the length."""
        return f"at most {self.max_length} ASCII characters that match {self.pattern}"

    def parse(self, text: str) -> str:
        """``text`` itself, if it is short enough, harmless and a full match."""
        if len(text) > self.max_length:
            raise refused(self, text, f"has {len(text)} characters")
        if why := hazard(text):
            raise refused(self, text, why)
        if not self._matches(text):
            raise refused(self, text, "does not match")
        return text


@dataclass(frozen=True, slots=True)
class PrefixParameter:
    """A path-like text below a fixed beginning: letters, digits and ``. _ / = @ : + -``."""

    kind: ClassVar[str] = "prefix"
    name: str
    prefix: str
    max_length: int = 256

    def __post_init__(self) -> None:
        if not self.prefix or hazard(self.prefix) or not _PREFIX_CHARS.match(self.prefix):
            raise ValueError("a prefix is a non-empty text of letters, digits and . _ / = @ : + - without .. segments")
        if not len(self.prefix) <= self.max_length <= MAX_VALUE:
            raise ValueError(f"max_length must be between the prefix's {len(self.prefix)} and {MAX_VALUE}")

    @property
    def inert(self) -> bool:
        """Always: the character set is fixed."""
        return True

    @property
    def expected(self) -> str:
        """The prefix, the character set and the length."""
        return f"{self.prefix} followed by letters, digits or . _ / = @ : + -, at most {self.max_length} characters"

    def parse(self, text: str) -> str:
        """``text`` itself, if it starts with the prefix and stays inside the character set."""
        if len(text) > self.max_length:
            raise refused(self, text, f"has {len(text)} characters")
        if why := hazard(text):
            raise refused(self, text, why)
        if not text.startswith(self.prefix):
            raise refused(self, text, "starts otherwise")
        if not _PREFIX_CHARS.match(text):
            raise refused(self, text, "has a character outside the set")
        return text


@dataclass(frozen=True, slots=True)
class IntegerParameter:
    """A whole number in plain decimal: no plus sign, no leading zero, ASCII digits only."""

    kind: ClassVar[str] = "integer"
    name: str
    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not -MAX_INTEGER <= self.minimum <= self.maximum <= MAX_INTEGER:
            raise ValueError(f"the range is empty or beyond 64 bits: {self.minimum} to {self.maximum}")

    @property
    def inert(self) -> bool:
        """Always: digits and a minus."""
        return True

    @property
    def expected(self) -> str:
        """The range."""
        return f"a whole number from {self.minimum} to {self.maximum}, in plain decimal"

    def parse(self, text: str) -> str:
        """The decimal text. There is one spelling per number, so it comes back as it came."""
        if not _DECIMAL.match(text):
            raise refused(self, text, "is not plain decimal")
        if not self.minimum <= int(text) <= self.maximum:
            raise refused(self, text, "is out of range")
        return text


@dataclass(frozen=True, slots=True)
class CidrParameter:
    """An IP network inside given networks, not larger than ``min_prefix_length`` allows."""

    kind: ClassVar[str] = "cidr"
    name: str
    within: tuple[IpNetwork, ...]
    min_prefix_length: int

    def __post_init__(self) -> None:
        if not self.within:
            raise ValueError("a cidr parameter needs at least one network in within")
        narrowest = max(network.max_prefixlen for network in self.within)
        if not 0 <= self.min_prefix_length <= narrowest:
            raise ValueError(f"min_prefix_length must be between 0 and {narrowest}")

    @property
    def inert(self) -> bool:
        """Always: the canonical text of a network."""
        return True

    @property
    def expected(self) -> str:
        """The networks and the size."""
        networks = ", ".join(str(network) for network in self.within)
        return f"a network like 10.0.0.0/24 inside {networks}, /{self.min_prefix_length} or smaller, no host bits set"

    def parse(self, text: str) -> str:
        """The network in canonical text (RFC 4632, RFC 5952). Host bits set, or no length: refused."""
        network = self._network(text)
        if network.prefixlen < self.min_prefix_length:
            raise refused(self, text, "is too large a network")
        if not any(_contains(outer, network) for outer in self.within):
            raise refused(self, text, "lies outside")
        return str(network)

    def _network(self, text: str) -> IpNetwork:
        if len(text) > MAX_VALUE or hazard(text):
            raise refused(self, text, "is not a network")
        _, slash, length = text.partition("/")
        # ip_network() also takes /255.255.255.0 and a missing length; one spelling is enough. A scope id has a hazard.
        if not slash or not _DECIMAL.match(length):
            raise refused(self, text, "has no prefix length in decimal")
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            raise refused(self, text, "is not a network") from None


def hazard(text: str) -> str | None:
    """Why ``text`` could mean something else to whoever quotes, matches or resolves it; None if it cannot."""
    if not text:
        return "is empty"
    if (found := _HAZARD.search(text)) is not None:
        return f"contains {shown(found[0])}"
    if "." in text and any(segment in (".", "..") for segment in text.split("/")):
        return "contains a . or .. segment"
    return None


def shown(value: str) -> str:
    """``value`` for a message: quoted, ASCII-escaped, cut to 100 characters."""
    return ascii(value) if len(value) <= _SHOWN else ascii(value[:_SHOWN]) + "..."


def refused(parameter: Parameter, value: str, why: str) -> InvalidInput:
    """The error for ``value``."""
    return InvalidInput(
        Reason.PARAMETER_INVALID,
        f"The parameter {parameter.name} {why}: {shown(value)}.",
        hint=f"It must be {parameter.expected}.",
        metadata={"parameter": parameter.name, "value": shown(value), "expected": parameter.expected},
    )


def _contains(outer: IpNetwork, inner: IpNetwork) -> bool:
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


def compile_pattern(pattern: str) -> Any:
    """The RE2 program of an operator's ``pattern``. Raises :class:`ValueError` where it is no anchored RE2."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters, this one {len(pattern)}")
    if not pattern.isascii() or not pattern.isprintable():
        raise ValueError("a pattern is printable ASCII")
    if not (pattern.startswith("^") and pattern.endswith("$")) or pattern.endswith("\\$"):
        raise ValueError(f"the pattern {pattern} is not anchored: write ^...$")
    options = re2.Options()
    options.never_nl = True
    options.log_errors = False
    options.max_mem = 1 << 20  # a repetition like (x{100}){100} is refused at load, not found out later
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"the pattern {pattern} is not RE2: {error.args[0].decode()}") from None
    if compiled.fullmatch("") is not None:
        raise ValueError(f"the pattern {pattern} matches the empty text")
    return compiled
