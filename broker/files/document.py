"""A parsed file that remembers where each key and each value stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column of a value and of its key, all from 1. List items and the root: key and value alike."""

    line: int
    column: int
    key_line: int
    key_column: int


@dataclass(frozen=True, slots=True)
class Document:
    """``data`` is made of dicts with text keys, lists, texts, integers, booleans and None."""

    file: str
    data: object
    places: Mapping[Path, Place] = field(repr=False)

    def line(self, path: Sequence[str | int]) -> int:
        """The line of the key at ``path``, or of the nearest thing around it that exists."""
        return self.places[self.known(path)].key_line

    def value(self, path: Path) -> Any:
        """What stands at ``path``, which must be known."""
        found: Any = self.data
        for part in path:
            found = found[part]
        return found

    def known(self, path: Sequence[str | int]) -> Path:
        """``path`` without the parts that name nothing in this document.

        Validators put their own words between the keys (the tag of a union, say): those are left out.
        """
        found: Path = ()
        for part in path:
            if (*found, part) in self.places:
                found = (*found, part)
        return found


def dotted(path: Sequence[str | int]) -> str:
    """``path`` as problems write it."""
    return ".".join(str(part) for part in path)
