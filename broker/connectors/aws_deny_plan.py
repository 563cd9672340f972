"""What to write on a role so that sessions are denied: into which shard, and whether it fits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.connectors.aws_deny import ALL_INLINE, RESERVE, SHARD, Contents, Older, Session, document, rounded, size

# Between our clock and AWS's: SigV4 takes five minutes, and what is denied for longer than needed harms nobody.
CLOCKS = timedelta(minutes=5)
# A Deny on all sessions so far reaches this far ahead, so that a clock behind AWS's spares none; no session is
# made on the role in between.
AHEAD = timedelta(minutes=1)
# How long nobody may have needed another writer's policy before it is deleted: a paused writer may still believe in it.
GRACE = timedelta(hours=1)
# The longest session that STS makes for a broker (role chaining).
LONGEST_SESSION = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Shards:
    """A writer's own policies on one role, as last acknowledged. ``sealed``: their last write got no answer."""

    contents: Mapping[int, Contents] = field(default_factory=dict)
    sealed: frozenset[int] = frozenset()
    following: int = 0  # the next number; none is used twice

    @property
    def size(self) -> int:
        """What IAM counts of them all."""
        return sum(size(document(each)) for each in self.contents.values())

    def with_shard(self, number: int, contents: Contents) -> Shards:
        """With one that was written."""
        return Shards({**self.contents, number: contents}, self.sealed, max(self.following, number + 1))

    def without(self, number: int) -> Shards:
        """Without one that was deleted."""
        left = {shard: each for shard, each in self.contents.items() if shard != number}
        return Shards(left, self.sealed - {number}, self.following)

    def seal(self, number: int, wanted: Contents) -> Shards:
        """A write without an answer: it may land at any time, so it counts, and the name is not written again."""
        grown = self.with_shard(number, wanted)
        return Shards(grown.contents, self.sealed | {number}, grown.following)


def ended(shards: Shards, now: datetime) -> Sequence[int]:
    """The shards of which nothing is needed any more: to be deleted."""
    return [number for number, each in shards.contents.items() if (each.newest or now) <= now]


def shrunk(shards: Shards, now: datetime) -> Mapping[int, Contents]:
    """The shards that can be written shorter, without what has ended."""
    smaller = {number: each.at(now) for number, each in shards.contents.items() if number not in shards.sealed}
    return {number: each for number, each in smaller.items() if each.newest and each != shards.contents[number]}


def placed(shards: Shards, wanted: Sequence[Session], now: datetime, others: int) -> tuple[int, Contents] | None:
    """The shard that takes ``wanted``, and what it then says; None where the role has no room for it.

    ``others``: the size of all inline policies on the role that are not this writer's.
    """
    for number in [*(each for each in sorted(shards.contents) if each not in shards.sealed), shards.following]:
        held = shards.contents.get(number, Contents())
        if held.older is not None:
            continue
        grown = held.at(now).with_sessions(wanted)
        needed = size(document(grown))
        if needed > SHARD and number != shards.following:
            continue
        before = size(document(held)) if number in shards.contents else 0
        if others + shards.size - before + needed + RESERVE <= ALL_INLINE:
            return number, grown
    return None


def older(shards: Shards, session: Session, now: datetime) -> tuple[int, Contents]:
    """The shard with the Deny on all sessions of the role so far, ``session`` among them, and what it then says."""
    before = max(now + AHEAD, session.issued_by).replace(microsecond=0) + timedelta(seconds=1)
    until = rounded(before + LONGEST_SESSION + CLOCKS)
    for number, each in shards.contents.items():
        if each.older is not None and number not in shards.sealed:
            return number, Contents(older=Older(max(before, each.older.before), max(until, each.older.until)))
    return shards.following, Contents(older=Older(before, until))
