"""What a task came to, as its agent tells it: what it made, and what it changed (R7).

A claim, and the trail says so; that it is told with the task's end, once, is what the broker vouches for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from broker.scope.canonical import JsonValue, canonical_json


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something that the task made."""

    uri: str
    sha256: str = ""  # of its content, hex
    media_type: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Mutation:
    """Something that the task changed."""

    resource: str
    action: str  # CREATED, UPDATED, DELETED or OTHER
    description: str = ""
    count: int = 0  # how many of them; 0: not told
    lease_id: str = ""  # by which lease


@dataclass(frozen=True, slots=True)
class TaskReport:
    """Both, in the agent's order."""

    artifacts: Sequence[Artifact] = ()
    mutations: Sequence[Mutation] = ()

    def __bool__(self) -> bool:
        return bool(self.artifacts or self.mutations)

    def canonical(self) -> dict[str, JsonValue]:
        """As the trail has it: what is empty is left out."""
        artifacts: list[JsonValue] = [
            _told(uri=each.uri, sha256=each.sha256, media_type=each.media_type, description=each.description)
            for each in self.artifacts
        ]
        mutations: list[JsonValue] = [
            _told(
                resource=each.resource,
                action=each.action,
                description=each.description,
                count=each.count,
                lease_id=each.lease_id,
            )
            for each in self.mutations
        ]
        return {"artifacts": artifacts, "mutations": mutations}

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical form."""
        return hashlib.sha256(canonical_json(self.canonical())).hexdigest()


def _told(**values: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in values.items() if value}
