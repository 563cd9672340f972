"""Which records of the trail are meant."""

from __future__ import annotations

from dataclasses import dataclass

from broker.audit.record import Record


@dataclass(frozen=True, slots=True)
class Wanted:
    """Empty texts ask for nothing. ``kind`` is a type, or a family with its dot (``lease.``)."""

    after: int = 0
    task_id: str = ""
    lease_id: str = ""
    agent: str = ""
    actor: str = ""
    kind: str = ""

    def has(self, record: Record) -> bool:
        """Whether ``record`` is one of them."""
        return (
            record.seq > self.after
            and (not self.task_id or record.task_id == self.task_id)
            and (not self.lease_id or record.lease_id == self.lease_id)
            and (not self.actor or record.actor == self.actor)
            and (not self.agent or self.agent in (record.actor, record.holder, record.data.get("agent")))
            and self._typed(record.type)
        )

    def _typed(self, type_: str) -> bool:
        return not self.kind or type_ == self.kind or (self.kind.endswith(".") and type_.startswith(self.kind))
