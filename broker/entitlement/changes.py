"""What is otherwise than in the report that was signed off last, the gravest first.

Gravest: an agent that could only read and now has a way to change something. Then what became wider, who is new, who
is somebody else's; and last what became narrower. What one of the two reports could not try is no change of the rules,
and is told for what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from broker.entitlement.report import changes_something
from broker.policy.decision import Effect

_Agent = Mapping[str, Any]
_FACTS = ("owner", "tier", "roles", "environments", "promoted", "identity")


class Gravity(IntEnum):
    """In which order changes are told."""

    READER_CHANGES = 1  # could only read, and now can change something
    WIDER = 2  # a way that was not there, or that takes fewer people
    NEW_AGENT = 3
    OTHER_FACTS = 4  # owner, tier, roles, environments, promotion; a way that could not be tried this time
    NARROWER = 5
    GONE_AGENT = 6


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One change, in words."""

    gravity: Gravity
    principal: str
    told: str


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Everything that changed between two reports, the gravest first."""
    old = {each["principal"]: each for each in before["agents"]}
    new = {each["principal"]: each for each in now["agents"]}
    found = [change for name in new.keys() & old.keys() for change in _of_one(old[name], new[name])]
    found += [Change(Gravity.NEW_AGENT, name, _new(new[name])) for name in new.keys() - old.keys()]
    found += [Change(Gravity.GONE_AGENT, name, "is registered no more") for name in old.keys() - new.keys()]
    return sorted(found)


def _new(agent: _Agent) -> str:
    more = " and can change something" if any(map(changes_something, agent["could"])) else ""
    return f"is new{more}: {len(agent['could'])} ways"


def _of_one(old: _Agent, new: _Agent) -> Iterator[Change]:
    name = new["principal"]
    was, is_ = _ways(old), _ways(new)
    only_read = not any(map(changes_something, old["could"]))
    for key in sorted(is_):
        told = _wider(was.get(key), is_[key])
        if told and _untried(old, key):
            told = f"was not tried before, {_takes(is_[key])}"
        if told:
            grave = only_read and changes_something(is_[key])
            yield Change(Gravity.READER_CHANGES if grave else Gravity.WIDER, name, _where(is_[key]) + told)
    for key in sorted(was):
        if key not in is_ and _untried(new, key):
            yield Change(Gravity.OTHER_FACTS, name, f"{_where(was[key])}could not be tried this time")
        elif key not in is_:
            yield Change(Gravity.NARROWER, name, f"{_where(was[key])}no more")
        elif _wider(is_[key], was[key]):
            yield Change(Gravity.NARROWER, name, f"{_where(is_[key])}now takes {_takes(is_[key])}")
    for fact in _FACTS:
        if old[fact] != new[fact]:
            yield Change(Gravity.OTHER_FACTS, name, f"{fact}: {_plain(old[fact])} -> {_plain(new[fact])}")


def _ways(agent: _Agent) -> dict[tuple[str, ...], Mapping[str, Any]]:
    return {_key(each): each for each in agent["could"]}


def _key(way: Mapping[str, Any]) -> tuple[str, ...]:
    # The access class, too: a template that began to write is another way.
    return way["template"], way["account"], way["environment"], way["access"]


def _untried(agent: _Agent, key: tuple[str, ...]) -> bool:
    """Whether nobody knows of this way: no value of its parameters, or no identity of the pattern, could be tried."""
    return not agent["tried_as"] or key in map(_key, agent["not_tried"])


def _wider(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """In which way ``now`` is wider; empty if it is not."""
    if before is None:
        return f"is new, {_takes(now)}"
    if set(before["approvals"]) - set(now["approvals"]) or (before["effect"], now["effect"]) == _OPENED:
        return f"took {_takes(before)}, now {_takes(now)}"
    return ""


_OPENED = (Effect.NEEDS_APPROVAL.value, Effect.ALLOW.value)


def _takes(way: Mapping[str, Any]) -> str:
    return f"the approval {', '.join(way['approvals'])}" if way["approvals"] else "no approval"


def _where(way: Mapping[str, Any]) -> str:
    return f"{way['access']} {way['template']} on {way['account']}, {way['environment']}: "


def _plain(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)
