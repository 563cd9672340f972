"""What agents did get, from the records of the trail: how often, and when last.

Counted by registry entry, so that a thousand workloads of one pattern are one line; an agent that is in the registry
no more is counted by its SPIFFE ID. Takes records one by one and keeps the counts, and of credentials that are being
issued which they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from broker.audit.event import EventType
from broker.audit.record import Record
from broker.errors import BrokerError
from broker.identity.agent import Registry
from broker.identity.spiffe_id import SpiffeId

# Of each parameter so many values that were asked for are remembered, and of each entry so many workloads.
MOST_SEEN = 4
# Whose entry is remembered: it saves a look-up, and no more.
_MOST_KNOWN = 10_000
_OVER = frozenset({EventType.LEASE_VOID, EventType.LEASE_REVOKING, EventType.LEASE_REVOKED, EventType.LEASE_EXPIRED})


class Scope(NamedTuple):
    """What is counted as one thing."""

    template: str
    account: str
    environment: str


@dataclass(slots=True)
class Used:
    """How one thing was used by one entry. ``access`` is what it was then."""

    access: str
    granted: int = 0
    issued: int = 0
    last_ms: int = 0


@dataclass(slots=True)
class Usage:
    """Everything that was used. ``registry`` is today's."""

    registry: Registry
    since_ms: int
    used: dict[str, dict[Scope, Used]] = field(default_factory=lambda: defaultdict(dict))
    workloads: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    unread: int = 0
    _values: dict[str, dict[str, dict[str, None]]] = field(default_factory=lambda: defaultdict(_by_name))
    _issuing: dict[str, Used] = field(default_factory=dict)
    _entries: dict[str, str] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        """Count one record. One that does not say what it is about is counted as unread."""
        if record.at_ms < self.since_ms:
            return
        if record.type == EventType.LEASE_INTENT:
            try:
                self._granted(record)
            except (KeyError, TypeError, AttributeError):
                self.unread += 1
        elif record.type == EventType.LEASE_ISSUED:
            if (used := self._issuing.pop(record.attempt_id, None)) is not None:
                used.issued += 1
        elif record.type in _OVER:
            self._issuing.pop(record.attempt_id, None)

    @property
    def seen(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Values that were asked for, by parameter, by template."""
        return {
            template: {name: tuple(values) for name, values in fields.items()}
            for template, fields in self._values.items()
        }

    def _granted(self, record: Record) -> None:
        data: Any = record.data
        entry = self._entry(record.actor)
        scope = Scope(data["template"], data["account"], data["environment"])
        used = self.used[entry].setdefault(scope, Used(data["access"]))
        used.granted += 1
        used.last_ms = max(used.last_ms, record.at_ms)
        self._issuing[record.attempt_id] = used
        _remember(self.workloads[entry], record.actor)
        for name, value in {"resource": data["resource"], **data["parameters"]}.items():
            _remember(self._values[scope.template][name], value)

    def _entry(self, actor: str) -> str:
        if actor not in self._entries:
            try:
                self._entries[actor] = self.registry.find(SpiffeId.parse(actor)).principal
            except BrokerError:
                self._entries[actor] = actor
            if len(self._entries) > _MOST_KNOWN:
                self._entries.pop(next(iter(self._entries)))
        return self._entries[actor]


def _by_name() -> dict[str, dict[str, None]]:
    return defaultdict(dict)


def _remember(values: dict[str, None], value: str) -> None:
    """The newest few."""
    values.pop(value, None)
    values[value] = None
    if len(values) > MOST_SEEN:
        values.pop(next(iter(values)))
