"""Is the ledger behind what its witnesses have seen? Asked at each start and before each checkpoint, of all of them.

A witness that has a checkpoint of later than the ledger's last one has seen a later ledger: this one is an old copy,
or another one. A checkpoint there that no key of ours has signed counts as well: not knowing is no reason to grant.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.audit.believed import read
from broker.ports.trail import Evidence, TrailEnd, Witness


async def behind(
    name: str, witness: Witness, end: TrailEnd | None, keys: Sequence[Ed25519PublicKey]
) -> Evidence | None:
    """What ``witness`` has seen and the ledger does not have; None if nothing. Raises OSError if it cannot be asked."""
    note = await witness.newest(end.checkpoint_ms if end is not None else -1)
    if note is None:
        return None
    shown = read(note, keys)
    if shown.checkpoint is None or shown.doubt:
        return Evidence(name, f"its newest checkpoint is not believed: {shown.doubt}", note, 0, 0)
    said = shown.checkpoint
    if end is not None and said.at_ms <= end.checkpoint_ms:
        return None
    count = end.count if end is not None else 0
    why = f"it has seen {said.count} records, of later than the last checkpoint of the ledger, which has {count}"
    return Evidence(name, why, note, said.count, said.at_ms)
