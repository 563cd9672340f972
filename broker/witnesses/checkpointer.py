"""Signing where the trail stands: on a timer and on size, never while a grant waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from broker.audit import checkpoint as checkpoints
from broker.audit.checkpoint import Checkpoint
from broker.ports.trail import NewCheckpoint, TrailEnd, TrailStore
from broker.witnesses.signing import CheckpointKeys

# So often a checkpoint is signed anew if the trail outran it, or another was written. Between two lie milliseconds.
_TRIES = 3


class Checkpointer:
    """Writes a checkpoint when one is due. Two at once are harmless: the ledger takes only what follows the newest.

    ``newest`` says whether no witness has seen more than this end of the trail. Where one has, nothing is signed: what
    is signed now would be of later than what it has seen, and no start could tell any more that the ledger is behind.
    """

    def __init__(
        self,
        store: TrailStore,
        keys: CheckpointKeys,
        *,
        origin: str,
        tenant: str,
        writer: str,
        newest: Callable[[TrailEnd], Awaitable[bool]],
    ) -> None:
        self._store = store
        self._keys = keys
        self._origin = origin
        self._tenant = tenant
        self._writer = writer
        self._newest = newest

    async def if_due(self, now: datetime, every: timedelta, every_records: int) -> bool:
        """One if the last is ``every`` old or ``every_records`` behind, and does not cover all. Whether it was."""
        end = await self._store.trail_end(self._tenant)
        waiting = _uncovered(end)
        if end is None or not waiting:
            return False
        late = end.checkpoint_seq == 0 or checkpoints.milliseconds(now) - end.checkpoint_ms >= every // timedelta(
            milliseconds=1
        )
        return await self.write(now) if late or waiting >= every_records else False

    async def write(self, now: datetime) -> bool:
        """One now, unless the last covers everything."""
        for _ in range(_TRIES):
            end = await self._store.trail_end(self._tenant)
            # The ledger takes it only where its newest checkpoint is still that of this very end.
            if end is None or not _uncovered(end) or not await self._newest(end):
                return False
            if await self._store.add_checkpoint(self._tenant, self._signed(end, now), now):
                return True
        return False

    def _signed(self, end: TrailEnd, now: datetime) -> NewCheckpoint:
        # The newest checkpoint a witness has is told by its time: it goes forward although the clock may go back.
        at_ms = max(checkpoints.milliseconds(now), end.checkpoint_ms + 1)
        said = checkpoints.text(
            Checkpoint(
                origin=self._origin,
                count=end.count,
                head=end.head,
                log=end.log,
                writer=self._writer,
                tenant=self._tenant,
                at_ms=at_ms,
                previous=end.checkpoint_digest,
            )
        )
        note = self._keys.sign(said, self._origin)
        return NewCheckpoint(note, end.count, at_ms, checkpoints.digest(said), end.checkpoint_digest)


def _uncovered(end: TrailEnd | None) -> int:
    """Records that the last checkpoint does not cover, its own record left out."""
    return 0 if end is None else end.count - end.checkpoint_count - (1 if end.checkpoint_seq else 0)
