"""Which lanes of the revoker do not answer: told to look, and not come round since (faults.md F49).

A lane that died is started again by whoever kicks it. This is for one that hangs: its credentials would outlive their
end with nobody noticing, so nothing new is granted while one does. Time is an argument.
"""

from __future__ import annotations

from datetime import datetime


class Liveness:
    """Of all lanes, by connector."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._silent: dict[str, datetime] = {}

    def asked(self, connector: str, now: datetime) -> None:
        """The lane is told to look. If it has not come round since it was told before, it is silent from now on."""
        if connector in self._asked:
            self._silent.setdefault(connector, now)
        self._asked.add(connector)

    def came_round(self, connector: str) -> None:
        """The lane has looked, or is about to rest."""
        self._asked.discard(connector)
        self._silent.pop(connector, None)

    def heartbeat(self, now: datetime) -> datetime:
        """Until when all lanes are known to live: ``now``, where none is silent."""
        return min(self._silent.values(), default=now)

    def silent(self) -> tuple[str, ...]:
        """The lanes that do not answer."""
        return tuple(sorted(self._silent))
