"""Texts of a grant that are made of segments: joined as data, each kind of segment checked by who knows what it is for.

A segment is a text that the operator wrote, a parameter's value, or the resource that was asked for. What an upstream
would read as more than itself (a wildcard, a quote) differs from upstream to upstream, so that check is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from broker.errors import InvalidInput
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope


@dataclass(frozen=True, slots=True)
class Segments:
    """How one connector reads them. Each function raises InvalidInput, or makes it."""

    chosen: Callable[[Scope, str, str], str]  # (scope, what it is, value): a value that the agent chose
    written: Callable[[Scope, JsonValue], str]  # a text that the operator wrote
    malformed: Callable[[Scope, str], InvalidInput]  # (scope, what is wrong)

    def joined(self, scope: Scope, stated: JsonValue, where: str) -> str:
        """A literal, a single segment, or a list of segments, as one text."""
        if isinstance(stated, Sequence) and not isinstance(stated, str):
            if not stated:
                raise self.malformed(scope, f"{where} has at least one segment")
            return "".join(self._one(scope, each) for each in stated)
        return self._one(scope, stated)

    def _one(self, scope: Scope, stated: JsonValue) -> str:
        if isinstance(stated, Mapping):
            if stated.keys() == {"parameter"} and isinstance(name := stated["parameter"], str):
                if name not in scope.parameters:
                    raise self.malformed(scope, f"there is no parameter {name!a}")
                return self.chosen(scope, f"parameter {name}", scope.parameters[name])
            if stated.keys() == {"resource"} and stated["resource"] is True:
                return self.chosen(scope, "resource", scope.resource)
            if stated.keys() == {"text"}:
                return self.written(scope, stated["text"])
        return self.written(scope, stated)
