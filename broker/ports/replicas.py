"""Several daemons on one ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

# Whoever has not been heard for so long is taken for dead: what it began is swept, and its jobs go to others.
REPLICA_DEAD_AFTER = timedelta(seconds=10)
# Whoever pauses for longer between two words was away, and does not know meanwhile who else lives.
REPLICA_PAUSE = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What one replica, a daemon of several on one ledger, tells of itself."""

    writer: str  # this run of it, as the trail names it
    tenant: str
    digest: str = ""  # of the deploy set that it has; empty: none yet
    jobs: frozenset[str] = frozenset()  # that it would do, if nobody else does them


class DeployInForce(NamedTuple):
    """The deploy set that came into force last, on whichever replica."""

    digest: str
    place: int  # in the order in which sets came into force
    since: datetime


class Pulse(NamedTuple):
    """What a replica hears when it tells that it lives."""

    others: int  # replicas that live beside it
    jobs: frozenset[str]  # its own, until it has not been heard for a while
    in_force: DeployInForce | None  # None: no set yet
    recovery: str  # the recovery that nobody has released yet, or empty
    timeline: str  # another one after the database failed over; empty where it does not tell
    dead: int = 0  # replicas that are known to be dead, and whose work nobody has taken over yet
    seen: datetime | None = None  # the ledger's high-water mark: what any of them was told of the time
    ahead: int = 0  # of the others, those that have the deploy set in force, where this one has another


class ReplicaStore(Protocol):
    """What daemons on one ledger know of each other. Nothing is granted, and nothing left alive, on the word of it."""

    @property
    def shared(self) -> bool:
        """Whether there may be other daemons at all. False: none of the rest needs to be called."""
        ...

    async def beat(self, said: Heartbeat, now: datetime) -> Pulse:
        """Tell that a replica lives, and keep or take those of its jobs that no other living one has.

        Raises Tampered (ROW_MAC_MISMATCH) if the deploy set in force is not ours.
        """
        ...

    async def put_in_force(self, said: Heartbeat, now: datetime, *, deliberate: bool) -> DeployInForce:
        """Make a replica's deploy set the one in force; the one that is then.

        One that was in force before and was replaced since is taken for an old copy and stays out, unless somebody
        wants it back (``deliberate``), or no other replica lives. Raises Tampered (ROW_MAC_MISMATCH).
        """
        ...

    async def inherit(self, writer: str, now: datetime) -> int:
        """Take over what the dead had in hand; how many attempts and orphans. Each is due at once, its epoch higher.

        Known to be dead is who was not heard for :data:`REPLICA_DEAD_AFTER`, by a ``writer`` that was itself heard all
        the while, without a pause of more than :data:`REPLICA_PAUSE`. One that lives after all changes nothing of what
        was taken from it.
        """
        ...

    async def leave(self, writer: str, now: datetime) -> None:
        """A replica ends: others need not wait until they do not hear of it any more, nor for what it has in hand."""
        ...
