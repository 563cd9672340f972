"""Which mark is this ledger's own: read from it, or chosen once and kept in it."""

from __future__ import annotations

import secrets

import structlog

from broker.errors import Tampered
from broker.lease.mark import LENGTH, Mark
from broker.ports.clock import Clock
from broker.ports.orphans import OrphanStore

log = structlog.get_logger("broker.revocation")

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


async def own_mark(store: OrphanStore, tenant: str, clock: Clock) -> Mark:
    """The tenant's mark.

    One that fails its MAC is not used: by somebody else's mark the broker would end what is theirs. Then a fresh one
    serves until the next start, under which nothing upstream is ours yet but by what the ledger itself holds.
    """
    candidate = "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH))
    try:
        return Mark(await store.mark(tenant, candidate, clock.now()))
    except Tampered as tampered:
        log.error("the mark of this ledger was changed by something else", error=str(tampered))
        return Mark(candidate)
