"""What an access report needs of the audit trail: use, the last review, and whether it can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.audit.event import EventType
from broker.audit.record import Record, decode
from broker.audit.verify import StoredRecord
from broker.entitlement.usage import Usage
from broker.errors import Tampered
from broker.identity.agent import Registry
from broker.keys import FileKeyRing
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Where


@dataclass(frozen=True, slots=True)
class Read:
    """What the trail says. ``told``: how it verified."""

    usage: Usage
    last_review: Mapping[str, Any] | None
    told: Mapping[str, Any]


def read_trail(
    database: Where, keys: tuple[str, ...], registry: Registry, since: datetime | None, at_the_latest: datetime
) -> Read:
    """Reads it three times over, in one snapshot and constant memory: its damage, the last review, the use since."""
    with AuditReader(database) as trail:
        try:
            findings = sum(1 for _ in trail.verify(FileKeyRing(keys).find if keys else None))
        except Tampered:  # the file cannot be read to its end
            findings = 1
        head = trail.head()
        last = _last_review(trail)
        begin = since or (at_the_latest if last is None else None)
        usage = Usage(registry, int(begin.timestamp() * 1000) if begin else int(last["at_ms"]) if last else 0)
        for record in _readable(trail):
            if record is None:
                usage.unread += 1
            else:
                usage.take(record)
    told = {
        "records": head.seq if head else 0,
        "head_hash": head.hash.hex() if head else "",
        "macs_checked": bool(keys),
        "findings": findings,
    }
    return Read(usage, last, told)


def _readable(trail: AuditReader) -> Iterator[Record | None]:
    """Every record; None for a row that is none any more, and at the end of what can be read of a damaged file."""
    try:
        yield from (_decoded(row) for row in trail.rows())
    except Tampered:
        yield None


def _decoded(row: StoredRecord) -> Record | None:
    try:
        return decode(row.body)
    except Tampered:
        return None


def _last_review(trail: AuditReader) -> Mapping[str, Any] | None:
    signed = (each for each in _readable(trail) if each and each.type == EventType.ACCESS_REVIEW_SIGNED_OFF)
    last = None
    for each in signed:
        last = each
    if last is None:
        return None
    data: Any = last.data
    told = {name: data.get(name) for name in ("digest", "findings", "deploy_digest", "due_ms", "own_agents")}
    return {**told, "by": last.actor, "at_ms": last.at_ms, "sequence": last.seq}
