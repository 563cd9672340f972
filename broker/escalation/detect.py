"""Counting sightings against rules, in memory that stays small whatever agents do.

Belongs here: sliding windows per (rule, SPIFFE ID), and the evidence of a firing. A window never holds more
sightings than its rule's threshold. Each entry of the registry has room for so many windows of its own, the one
not touched for longest going first: a pattern's thousand workloads push out each other, never another entry's.
Nothing is counted for who is not registered. Not kept over a restart: then counting begins anew.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from broker.escalation.rules import Answer, Mode, Rule, Sighting

MAX_WINDOWS_OF_ENTRY = 1_000
# Of each: what evidence quotes of what agents wrote.
_QUOTED = 10


@dataclass(frozen=True, slots=True)
class Firing:
    """A rule's threshold was reached by one SPIFFE ID. What it quotes, the agent has written."""

    rule: Rule
    spiffe_id: str
    entry: str
    count: int
    first: datetime
    last: datetime
    reasons: Mapping[str, int]
    methods: Sequence[str]
    templates: Sequence[str]
    request_ids: Sequence[str]


@dataclass(slots=True)
class _Window:
    # In the order of their times. Keys: what must differ, or a number where every sighting counts.
    seen: dict[object, Sighting] = field(default_factory=dict)
    number: int = 0
    quiet_until: datetime | None = None


class Detector:
    """Not locked: it belongs to the thread of one event loop."""

    def __init__(self, max_windows_of_entry: int = MAX_WINDOWS_OF_ENTRY) -> None:
        self._max = max_windows_of_entry
        self._entries: dict[str, OrderedDict[tuple[Rule, str], _Window]] = {}

    def __len__(self) -> int:
        """How many windows are open."""
        return sum(len(windows) for windows in self._entries.values())

    def see(self, rules: Iterable[Rule], sighting: Sighting) -> list[Firing]:
        """Count ``sighting``; the rules that fire by it. A rule that fires begins to count anew."""
        fired = []
        for rule in rules:
            if rule.takes(sighting):
                firing = _count(rule, self._window(rule, sighting), sighting)
                if firing is not None:
                    fired.append(firing)
        return fired

    def forget(self, rules: Iterable[Rule], now: datetime) -> None:
        """Close the windows in which nothing counts any more, and those of rules that are no longer in force."""
        in_force = frozenset(rules)
        for entry, windows in list(self._entries.items()):
            for key, window in list(windows.items()):
                _expire(key[0], window, now)
                quiet = window.quiet_until is not None and now < window.quiet_until
                if key[0] not in in_force or not (window.seen or quiet):
                    del windows[key]
            if not windows:
                del self._entries[entry]

    def _window(self, rule: Rule, sighting: Sighting) -> _Window:
        windows = self._entries.setdefault(sighting.entry, OrderedDict())
        key = (rule, sighting.spiffe_id)
        window = windows.setdefault(key, _Window())
        windows.move_to_end(key)
        if len(windows) > self._max:
            windows.popitem(last=False)
        return window


def _count(rule: Rule, window: _Window, sighting: Sighting) -> Firing | None:
    now = sighting.at
    if window.quiet_until is not None and now < window.quiet_until:
        return None
    _expire(rule, window, now)
    key: object = sighting.key(rule.counts)
    if key is None:
        window.number += 1
        key = window.number
    window.seen.pop(key, None)  # what is seen again counts as the latest
    window.seen[key] = sighting
    if len(window.seen) < rule.threshold:
        return None
    firing = _firing(rule, list(window.seen.values()))
    window.seen.clear()
    # One who goes on while nothing is done about it is told once per window, not once per threshold.
    acted = rule.mode is Mode.ENFORCE and rule.answer is not Answer.ALERT
    window.quiet_until = None if acted else now + rule.within
    return firing


def _expire(rule: Rule, window: _Window, now: datetime) -> None:
    for key, sighting in list(window.seen.items()):
        if sighting.at > now - rule.within:
            break
        del window.seen[key]


def _firing(rule: Rule, seen: Sequence[Sighting]) -> Firing:
    return Firing(
        rule=rule,
        spiffe_id=seen[-1].spiffe_id,
        entry=seen[-1].entry,
        count=len(seen),
        first=seen[0].at,
        last=seen[-1].at,
        reasons=dict(Counter(each.reason.value for each in seen)),
        methods=_latest(each.method for each in seen),
        templates=_latest(each.template for each in seen),
        request_ids=_latest(each.request_id for each in seen),
    )


def _latest(texts: Iterable[str]) -> list[str]:
    """The last few different ones, in order."""
    return list(dict.fromkeys(text for text in texts if text))[-_QUOTED:]
